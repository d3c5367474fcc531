"""A stand-in for the WSGI server: it calls the app, asks for each part and closes, step by step.

Everything happens in the test's own thread, so there is no time to wait for; phases are moved by
hand. What needs the driver is in `test_wsgi_drain.py`.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

import graceful.lifecycle
from graceful.core.inflight import Exchange
from graceful.core.phases import Phase
from graceful.core.records import PhaseChanged, Record
from graceful.lifecycle import Lifecycle
from graceful.wsgi import App, GracefulMiddleware

__all__ = ["EVENTS", "FAREWELL", "OK", "Call", "Process", "app_of", "environ_of"]

OK = [("Content-Type", "text/plain"), ("Content-Length", "5")]
EVENTS = [("Content-Type", "text/event-stream; charset=utf-8")]
FAREWELL = b'retry: 500\nevent: reconnect\ndata: {"retry_after_ms":500}\n\n'
"""What a client is told where the draw is in the middle of a stream window of five seconds."""


def environ_of(path: str = "/", **more: Any) -> dict[str, Any]:
    """Return the environ of a request, as a server makes it."""
    environ: dict[str, Any] = {"PATH_INFO": path, "SCRIPT_NAME": ""}
    environ["SERVER_PROTOCOL"] = "HTTP/1.1"
    setup_testing_defaults(environ)
    environ |= {"wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(), "QUERY_STRING": "key=1"}
    environ |= {"REMOTE_ADDR": "10.0.0.7", "REMOTE_PORT": "50000"}
    return environ | more


class Call:
    """One request; `parts` is what the server would have sent of the body."""

    def __init__(self, app: App, path: str = "/", where: Any = (), **more: Any) -> None:
        self.environ = environ_of(path, **more) | dict(where)
        self.begun: list[tuple[str, list[tuple[str, str]]]] = []
        self.parts: list[bytes] = []
        self.written = self.parts.append
        self.body: Iterable[bytes] = app(self.environ, self.start_response)
        self._steps: Iterator[bytes] | None = None

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        """As the specification has it: once, or again with an error and nothing sent."""
        if exc_info and self.parts:
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info or not self.begun, "started twice"
        self.begun.append((status, headers))
        return self.written

    def next(self) -> bytes:
        """Send one part."""
        if self._steps is None:
            self._steps = iter(self.body)
        part = next(self._steps)
        assert self.begun, "a body without a beginning"
        self.parts.append(part)
        return part

    def rest(self) -> bytes:
        """Send all that is left, and return it."""
        before = len(self.parts)
        while True:
            try:
                self.next()
            except StopIteration:
                return b"".join(self.parts[before:])

    def close(self) -> None:
        """Be done with the response, as a server always is."""
        close = getattr(self.body, "close", None)
        if close is not None:
            close()

    def finish(self) -> Call:
        """Serve the rest of it."""
        try:
            self.rest()
        finally:
            self.close()
        return self

    @property
    def status(self) -> str:
        """The status line of the response."""
        return self.begun[-1][0]

    @property
    def text(self) -> bytes:
        """The body so far."""
        return b"".join(self.parts)

    def header(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [v for k, v in self.begun[-1][1] if k.lower() == name]


class Process:
    """A process of its own for one test."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.lot = 0.5
        self.lifecycle = Lifecycle(draw=lambda: self.lot)
        self.records: list[Record] = []
        self.lifecycle.observe(self.records.append)
        self._wrapped: list[GracefulMiddleware] = []
        patch.setattr(graceful.lifecycle, "_process", self.lifecycle)

    def wrap(self, app: App, **settings: Any) -> GracefulMiddleware:
        """Wrap `app`; it leaves at the end of the test."""
        self._wrapped.append(GracefulMiddleware(app, **settings))
        return self._wrapped[-1]

    def drain(self) -> None:
        """Move to DRAINING, and no driver that would do something about it."""
        self.lifecycle.move(lambda now: self.lifecycle.core.shutdown("the test", now))
        assert self.phase is Phase.DRAINING

    def drive(self) -> None:
        """Do by hand what the driver does at the beginning of a drain."""
        for exchange in tuple(self.lifecycle.tracker.live):
            exchange.watch()
        for _, exchange in self.lifecycle.core.farewells():
            exchange.start_farewell(_no_failure)

    @property
    def phase(self) -> Phase:
        """Where the process is in its life."""
        return self.lifecycle.phase

    @property
    def in_flight(self) -> int:
        """How many exchanges are."""
        return len(self.lifecycle.tracker.live)

    @property
    def phases(self) -> list[Phase]:
        """The phases that observers were told of, in order."""
        return [r.new for r in self.records if isinstance(r, PhaseChanged)]

    def end(self) -> None:
        """Leave nothing behind."""
        for middleware in self._wrapped:
            middleware.leave()
        for thread in threading.enumerate():
            if thread.name.startswith("graceful-check"):
                thread.join(20)  # it has answered already
        assert not [t.name for t in threading.enumerate() if t.name.startswith("graceful")]


def _no_failure(exchange: Exchange, error: Exception) -> None:
    raise error


def app_of(
    parts: Iterable[bytes], headers: list[tuple[str, str]] = OK, status: str = "200 OK"
) -> App:
    """Return an app that answers with `parts`, which may be any iterable."""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(status, list(headers))
        return parts

    return app
