"""Django: `GracefulMiddleware` for MIDDLEWARE, system checks, and `manage.py graceful`.

    INSTALLED_APPS = ["graceful.integrations.django", ...]              # checks and the command
    MIDDLEWARE = ["graceful.integrations.django.GracefulMiddleware", ...]  # first in the list
    GRACEFUL = {"grace_period": 30, "propagation_delay": 5}             # optional

Nothing here decides how a process stops; that is the core's, and what goes over the wire is that
of the ASGI and WSGI shells.
"""

from .middleware import GracefulMiddleware

__all__ = ["GracefulMiddleware"]
