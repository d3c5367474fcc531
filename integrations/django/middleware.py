"""`GracefulMiddleware` for MIDDLEWARE: which side serves a request, and nothing else.

Three kinds of request come by. On the async path, and in a thread when another middleware of the
list is sync only (Django then runs everything outside of that one in the same thread), it is one
of an ASGI server; under a WSGI server it has an environ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.handlers.wsgi import WSGIRequest

from graceful.core.budget import SettingsError
from graceful.core.records import Notice
from graceful.lifecycle import current

from .asgi_side import AsgiSide
from .conf import Configuration, configuration
from .wsgi_side import WsgiSide

__all__ = ["GracefulMiddleware"]

Request = Any
Response = Any


class GracefulMiddleware:
    """Makes the process of this project stop gracefully. First in MIDDLEWARE.

    It answers the probes before hosts, sessions and users are looked at, and counts each request
    until its response is closed. Settings: `GRACEFUL = {...}`; `manage.py graceful` shows the plan.

    A mistake in the settings does not raise here, where it would be the end of gunicorn's arbiter:
    it is logged, and readiness and every request fail with it. With `install` in its configuration
    gunicorn does not start with one. `manage.py check` finds it before.
    """

    sync_capable = True
    async_capable = True

    def __new__(cls, get_response: Callable[[Request], Any]) -> Any:
        """Return what Django is to call: a method, for a call of an object is a detour through C.

        Of a subclass it is the object, which may have other methods that Django looks for.
        """
        made = super().__new__(cls)
        if cls is not GracefulMiddleware:
            return made
        made.__init__(get_response)  # type: ignore[misc]
        return made._asgi.serve if made._async else made.__call__

    def __init__(self, get_response: Callable[[Request], Any]) -> None:
        problem: SettingsError | None = None
        try:
            found = configuration()
        except SettingsError as error:
            found, problem = Configuration(), error
        self._asgi = AsgiSide(found, get_response)
        self._wsgi = WsgiSide(found, get_response)
        for side in (self._asgi, self._wsgi):
            side.error = problem = problem or side.error
        if problem is not None:
            current().problem = problem
            current().say_once(Notice(f"no request is served here: {problem}"))
        self._async = iscoroutinefunction(get_response)  # pyright: ignore[reportDeprecated]
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        """Serve one request."""
        if self._async:
            return self._asgi.serve(request)
        # What most requests are is asked first, and of the class: a look for what a request has not
        # costs as much as all of this.
        if request.__class__ is not WSGIRequest and hasattr(request, "scope"):
            return self._asgi.serve_in_thread(request)
        return self._wsgi.serve(request)
