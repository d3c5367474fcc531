"""Found instead of Twisted by each server that the suite starts but daphne: as in most deployments.

structlog imports it wherever it is installed, for an adapter that nobody here asks for. That is
another quarter of the start of a small app.
"""

raise ImportError("servers of the suite have no Twisted")
