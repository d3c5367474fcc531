"""A WSGI app in memory: requests whose bodies are taken part by part, as a server would."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from wsgiref.util import setup_testing_defaults

from ..core.budget import Settings
from ..loops import AsyncioLoop
from ..members import Member
from ..wsgi import App
from .process import Process

__all__ = ["WsgiCall", "WsgiProcess"]


class _HostLoop(AsyncioLoop):
    """The loop of the process, which stands still between the steps of a test and still lives."""

    def is_alive(self) -> bool:
        return not self._loop.is_closed()


class WsgiCall:
    """One request, in flight until `finish` or `close`."""

    def __init__(self, process: WsgiProcess, environ: dict[str, Any]) -> None:
        self.body = b""
        """What has been taken of the body."""
        self.over = False
        """The response has been closed."""
        self._process = process
        self._environ = environ
        self._begun: tuple[str, list[tuple[str, str]]] | None = None
        self._parts: Iterator[bytes] | None = None
        process.happened(self.name)
        self._response: Iterable[bytes] = process.app(environ, self._start_response)

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        self._begun = (status, headers)
        return self._write

    def _write(self, part: bytes) -> None:
        self.body += part

    @property
    def name(self) -> str:
        """How `events` call it."""
        return f"{self._environ['REQUEST_METHOD']} {self._environ['PATH_INFO']}"

    @property
    def status(self) -> int | None:
        """The status of the response, None while it has not begun."""
        return int(self._begun[0].split()[0]) if self._begun else None

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the response, names in lower case; of several the last."""
        return {k.lower(): v for k, v in self._begun[1]} if self._begun else {}

    def next(self) -> bytes:
        """Take one part of the body; empty when there is none left."""
        if self._parts is None:
            self._parts = iter(self._response)
        part = next(self._parts, b"")
        self.body += part
        return part

    def finish(self) -> WsgiCall:
        """Take the rest of the body, and close the response."""
        try:
            while self.next():
                pass
        finally:
            self.close()
        return self

    def close(self) -> None:
        """Be done with the response: the request is in flight no more."""
        if self.over:
            return
        self.over = True
        close = getattr(self._response, "close", None)
        if close is not None:
            close()
        self._process.happened(f"{self.name} {self.status}")


class WsgiProcess(Process):
    """A process that serves a WSGI app, outermost in it a `GracefulMiddleware`.

    The app runs in the thread of the test, one part after the other, while time stands still.

    Args:
        app: the app.
        seed: of the random numbers of the stop.
    """

    def __init__(self, app: App, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.app = app
        self._member: Member | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> WsgiCall:
        """Begin a request: call the app. `WsgiCall.finish` takes the answer."""
        path, _, query = path.partition("?")
        environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query}
        environ |= {"REQUEST_METHOD": method, "SERVER_PROTOCOL": "HTTP/1.1", "SCRIPT_NAME": ""}
        setup_testing_defaults(environ)
        environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        environ["REMOTE_ADDR"] = "192.0.2.7"  # for documentation (RFC 5737)
        for name, value in (headers or {}).items():
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        return WsgiCall(self, environ)

    async def _start_app(self) -> None:
        settings: Settings = getattr(self.app, "settings", None) or Settings()
        loop = _HostLoop(asyncio.get_running_loop())
        self._member = Member("graceful.testing", settings, loop, lifespan=True)
        self._lifecycle.join(self._member)
        self._lifecycle.started()

    async def _stop_app(self) -> None:
        assert self._member is not None
        await self._lifecycle.before_shutdown(self._member)
        leave = getattr(self.app, "leave", None)
        if leave is not None:
            leave()
