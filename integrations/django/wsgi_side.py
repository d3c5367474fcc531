"""Requests of WSGI servers: the WSGI shell, with Django's request and response for its two ends.

The shell calls an app; that app is the rest of MIDDLEWARE. What the shell then does with headers
and body is done to the response. Nothing is decided here.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Final

from django.core.handlers.wsgi import WSGIHandler

from graceful._wsgi_exchange import WsgiExchange
from graceful.context import exchange_var
from graceful.wsgi import GracefulMiddleware as WsgiMiddleware

from .conf import Configuration
from .responses import end_with, plain_text

__all__ = ["WsgiSide"]

Request = Any
Response = Any
Environ = dict[str, Any]
Headers = list[tuple[str, str]]

get_exchange = exchange_var.get

WIRE: Final = "graceful.django"
"""Where the environ carries a request through the shell."""

WHOLE: Final = [b""]
"""Stands in for the body of a response that goes its own way: one block, or a file."""


class _Wire:
    """One request on its way in, and the response on its way out."""

    __slots__ = ("given", "headers", "request", "response", "status")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.response: Response = None
        self.status = ""
        self.headers: Headers = []
        self.given: Headers | None = None
        """The response's own headers: the shell hands on others where it has something to add."""

    def start(self, status: str, headers: Headers, exc_info: object = None) -> Callable[..., None]:
        """What the shell takes for the server's `start_response`."""
        self.status, self.headers = status, headers
        return _no_write

    def answered(
        self, response: Response, start_response: Callable[..., object]
    ) -> Iterable[bytes]:
        """Tell the shell of the response; return the body that it is to see."""
        self.response = response
        self.given = response.items()  # a view: a list of them would cost as much as all the rest
        start_response(self.status, self.given)
        return response.streaming_content if _is_streamed(response) else WHOLE

    def force_close(self) -> None:
        """What the shell asks of a server that drops the header (gunicorn)."""
        response = getattr(_start_response(), "__self__", None)
        getattr(response, "force_close", _no_write)()

    def carried(self, body: Iterable[bytes], streamed: bool) -> Response:
        """Return the response as the shell wants it."""
        response, self.response = self.response, None  # the exchange holds on to this wire
        if response is None:  # a probe's answer, or a refusal
            return self._own(body)
        if self.headers is not self.given and ("Connection", "close") in self.headers:
            response["Connection"] = "close"
        if streamed:
            response.streaming_content = (part for part in body)
        end_with(response, getattr(body, "close", _no_write))
        return response

    def _own(self, body: Iterable[bytes]) -> Response:
        status = int(self.status.partition(" ")[0])
        return plain_text(status, b"".join(body).decode(), dict(self.headers))


class _Counted(WsgiExchange):
    """A request that has gone the short way: over when its whole response is closed, or dropped."""

    __slots__ = ("_response",)
    _response: Callable[[], Response]
    """Held weakly, for otherwise each response would be a cycle; the exchange is one until then."""

    def ends_with(self, response: Response) -> None:
        """Be over when `response` is closed, or dropped by somebody who does not close it."""
        self._response = weakref.ref(response, self._dropped)
        response.close = self._close_response

    def _close_response(self) -> None:
        response = self._response()
        if response is None:  # a second time, by somebody who has kept this method
            return
        self._response = _no_response
        try:
            response.__class__.close(response)
        finally:
            self.close()

    def _dropped(self, _: object) -> None:
        self._response = _no_response
        self.close()


class WsgiSide(WsgiMiddleware):
    """The WSGI shell, called with Django's requests."""

    def __init__(
        self, configuration: Configuration, get_response: Callable[[Request], Response]
    ) -> None:
        keywords: dict[str, Any] = dict(configuration.keywords)
        super().__init__(self._respond, **configuration.options, **keywords)
        if self.error is None:
            self.settings = configuration.settings()  # says where each value was written
        self._get_response = get_response

    def _name(self) -> str:
        return "Django"

    def serve(self, request: Request) -> Response:
        """Serve one request.

        The short way is the shell's in short, for a process that is SERVING: a whole response needs
        nothing of it but to be counted until it is closed.
        """
        shell, environ = self._shell, request.environ
        if (
            shell is None
            or not shell.tracker.plain
            or get_exchange() is not None
            or environ.get("PATH_INFO") in self._probe_paths
        ):
            return self._serve_any(request)
        exchange = _Counted()
        exchange.begin(shell, environ, _no_write)
        # Asked after the line above: the driver, in its thread, turns the two the other way round.
        if not shell.tracker.plain:
            exchange.withdraw()
            return self._serve_any(request)
        get_response = self._get_response
        try:
            response = get_response(request)
            if response.streaming or not shell.tracker.plain:
                return self._carry(exchange, request, response)
            exchange.ends_with(response)
        except BaseException as error:
            answer = self._serve_failed(exchange, error, request)
            if answer is None:
                raise
            return answer
        return response

    def _carry(self, exchange: WsgiExchange, request: Request, response: Response) -> Response:
        """Have the response to a request that has gone the short way go through its exchange."""
        wire = _Wire(request)
        exchange._start = wire.start
        body = wire.answered(response, exchange.start_response)
        if body is not WHOLE:
            exchange.take(body)
        return wire.carried(exchange, body is not WHOLE)

    def _serve_failed(
        self, exchange: WsgiExchange, error: BaseException, request: Request
    ) -> Response | None:
        """Return the answer to an `error` of the app that is our doing; None = it is its own."""
        wire = _Wire(request)
        exchange._start = wire.start
        answer = self._failed(exchange, error, wire.start)
        return None if answer is None else wire.carried(answer, streamed=False)

    def _serve_any(self, request: Request) -> Response:
        """Serve any request, in any phase: the shell does it."""
        wire = _Wire(request)
        request.environ[WIRE] = wire
        try:
            body = self(request.environ, wire.start)
        finally:
            request.environ.pop(WIRE, None)
        return wire.carried(body, _is_streamed(wire.response))

    def _respond(self, environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
        wire: _Wire = environ.pop(WIRE)
        return wire.answered(self._get_response(wire.request), start_response)


def _is_streamed(response: Response) -> bool:
    """Whether the shell passes on the parts; Django itself reads async ones, servers files."""
    if response is None or not response.streaming or response.is_async:
        return False
    return getattr(response, "file_to_stream", None) is None


def _start_response() -> object:
    """Return the server's: no middleware is told of it, but Django's handler has been called with.

    Looked for only when a connection is to be closed. Tested with Django 5.2.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not WSGIHandler.__call__.__code__:
        frame = frame.f_back
    return frame.f_locals.get("start_response") if frame is not None else None


def _no_response() -> None:
    """In the place of a reference to a response that is over."""


def _no_write(*_: object) -> Any:
    """Django has no use for `write`."""
