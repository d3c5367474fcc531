"""A whole configuration: `gunicorn -c python:graceful.integrations.gunicorn_conf app:application`.

Settings come from `GRACEFUL_*`; nothing else is set.
"""

from graceful.integrations import gunicorn as graceful_gunicorn

graceful_gunicorn.install(globals())
