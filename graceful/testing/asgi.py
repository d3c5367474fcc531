"""An ASGI app in memory: requests, WebSockets and the lifespan, as a server would call it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .._asgi_types import App, Message, Scope
from .process import Process

__all__ = ["AsgiCall", "AsgiProcess", "WebSocketCall"]

SPEC: Final = {"version": "3.0", "spec_version": "2.3"}

CLIENT: Final = ("192.0.2.7", 50000)
"""Who asks: an address for documentation (RFC 5737)."""


class _Call:
    """One call of the app, and what it has sent."""

    def __init__(self, process: AsgiProcess, scope: Scope, inbox: Sequence[Message]) -> None:
        self.sent: list[Message] = []
        """The messages of the app, in order."""
        self.error: Exception | None = None
        """What the app raised."""
        self.over = False
        """The app has returned."""
        self._process = process
        self._scope = scope
        self._inbox = list(inbox)
        self._come = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """How `events` call it."""
        return f"{self._scope.get('method', 'WS')} {self._scope['path']}"

    async def start(self) -> None:
        """Call the app in a task of its own."""
        self._process.happened(self.name)
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._process.app(self._scope, self._receive, self._send)
        except Exception as error:
            self.error = error
        finally:
            self.over = True
            self._process.happened(self._ended())

    async def wait(self) -> None:
        """Return when the app has."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _receive(self) -> Message:
        while not self._inbox:
            self._come.clear()
            await self._come.wait()
        return self._inbox.pop(0)

    async def put(self, message: Message) -> None:
        """Give the app something to receive."""
        self._inbox.append(message)
        self._come.set()

    async def _send(self, message: Message) -> None:
        await asyncio.sleep(0)
        if message["type"] == "http.response.start":  # as servers do, which read it once
            message = {**message, "headers": list(message.get("headers", ()))}
        self.sent.append(message)

    def _ended(self) -> str:
        raise NotImplementedError


class AsgiCall(_Call):
    """One request."""

    @property
    def status(self) -> int | None:
        """The status of the response, None while it has not begun."""
        return self._start["status"] if self._start else None

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the response, names in lower case; of several the last."""
        pairs = self._start.get("headers", ()) if self._start else ()
        return {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in pairs}

    @property
    def body(self) -> bytes:
        """The body so far."""
        parts = [m for m in self.sent if m["type"] == "http.response.body"]
        return b"".join(bytes(part.get("body", b"")) for part in parts)

    @property
    def complete(self) -> bool:
        """Whether the response has been sent to its end."""
        parts = [m for m in self.sent if m["type"] == "http.response.body"]
        return bool(parts) and not parts[-1].get("more_body", False)

    @property
    def _start(self) -> Message | None:
        return next((m for m in self.sent if m["type"] == "http.response.start"), None)

    def _ended(self) -> str:
        return f"{self.name} {self.status if self.complete else 'cut'}"


class WebSocketCall(_Call):
    """One WebSocket."""

    @property
    def accepted(self) -> bool:
        """Whether the app has accepted it."""
        return any(m["type"] == "websocket.accept" for m in self.sent)

    @property
    def messages(self) -> list[str | bytes]:
        """What the client has been sent."""
        sent = [m for m in self.sent if m["type"] == "websocket.send"]
        return [m["text"] if m.get("text") is not None else m["bytes"] for m in sent]

    @property
    def close_code(self) -> int | None:
        """The code by which it was closed, None while it is open."""
        return next(
            (m.get("code", 1000) for m in self.sent if m["type"] == "websocket.close"), None
        )

    @property
    def close_reason(self) -> str:
        """The reason that the client was given."""
        return next((m.get("reason", "") for m in self.sent if m["type"] == "websocket.close"), "")

    def send_text(self, text: str) -> None:
        """Send a message to the app."""
        self._process.run_step(self.put({"type": "websocket.receive", "text": text}))

    def close(self, code: int = 1000) -> None:
        """Close it, as the client."""
        self._process.run_step(self.put({"type": "websocket.disconnect", "code": code}))

    async def _send(self, message: Message) -> None:
        await super()._send(message)
        if message["type"] == "websocket.close":  # servers tell the app what it has done
            await self.put({"type": "websocket.disconnect", "code": message.get("code", 1000)})

    def _ended(self) -> str:
        denied = [m for m in self.sent if m["type"] == "websocket.http.response.start"]
        how = denied[0]["status"] if denied else self.close_code or "closed by the client"
        return f"{self.name} {how}"


class AsgiProcess(Process):
    """A process that serves an ASGI app, outermost in it a `GracefulMiddleware`.

    Args:
        app: the app.
        seed: of the random numbers of the stop.
    """

    def __init__(self, app: App, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.app = app
        self._state: dict[str, Any] = {}
        self._lifespan: _Lifespan | None = None
        self._calls: list[_Call] = []

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        http_version: str = "1.1",
    ) -> AsgiCall:
        """Begin a request; what can happen without time passing has happened on return."""
        scope = self._scope("http", path, headers, http_version) | {"method": method}
        inbox = [{"type": "http.request", "body": body, "more_body": False}]
        call = AsgiCall(self, scope, inbox)
        self._begin_call(call)
        return call

    def websocket(self, path: str, *, headers: Mapping[str, str] | None = None) -> WebSocketCall:
        """Open a WebSocket; what can happen without time passing has happened on return."""
        scope = self._scope("websocket", path, headers, "1.1")
        scope |= {"subprotocols": [], "extensions": {"websocket.http.response": {}}}
        call = WebSocketCall(self, scope, [{"type": "websocket.connect"}])
        self._begin_call(call)
        return call

    def run_step(self, step: Any) -> None:
        """Await `step`, and let everything run that can without time passing."""

        async def run() -> None:
            await step
            await self._settle()

        self._run(run())

    def _begin_call(self, call: _Call) -> None:
        self._calls.append(call)
        self.run_step(call.start())

    def _scope(
        self, kind: str, path: str, headers: Mapping[str, str] | None, http_version: str
    ) -> dict[str, Any]:
        given = {"host": "test", **(headers or {})}
        path, _, query = path.partition("?")
        return {
            "type": kind,
            "asgi": SPEC,
            "http_version": http_version,
            "scheme": "http" if kind == "http" else "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in given.items()],
            "client": CLIENT,
            "server": ("test", 80),
            "state": dict(self._state),
        }

    # -- lifespan ------------------------------------------------------------------------------

    async def _start_app(self) -> None:
        self.happened("lifespan.startup")
        self._lifespan = _Lifespan(self.app, self._state)
        await self._lifespan.ask("lifespan.startup")

    async def _stop_app(self) -> None:
        for call in self._calls:
            if self._lifecycle.core.cause is not None:
                await call.wait()
        self.happened("lifespan.shutdown")
        assert self._lifespan is not None
        await self._lifespan.ask("lifespan.shutdown")
        for call in self._calls:
            await call.wait()


class _Lifespan:
    """The lifespan protocol, from the server's side. An app without lifespan support is served."""

    def __init__(self, app: App, state: dict[str, Any]) -> None:
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        scope: Scope = {"type": "lifespan", "asgi": SPEC, "state": state}
        self._task = asyncio.ensure_future(app(scope, self._inbox.get, self._outbox.put))

    async def ask(self, what: str) -> None:
        """Ask the app to start or to shut down, and return when it has.

        Raises:
            RuntimeError: the app says that it can't.
        """
        await self._inbox.put({"type": what})
        answer = asyncio.ensure_future(self._outbox.get())
        await asyncio.wait([answer, self._task], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            self._task.result()  # raises what has gone wrong
        elif answer.result()["type"].endswith(".failed"):
            raise RuntimeError(f"{what} failed: {answer.result().get('message', '')}")
