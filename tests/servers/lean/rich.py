"""Found instead of rich by each server that the suite starts, as in most deployments: not at all.

structlog imports it wherever it is installed, for prettier tracebacks. That is a quarter of the
start of a small app, and the suite starts a thousand.
"""

raise ImportError("servers of the suite have no rich")
