"""One WebSocket on ASGI: farewell message, close 1012 with a retry delay, denial of new ones."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

import anyio

from ._asgi_exchange import LAST_WORDS, AsgiExchange
from ._asgi_types import Message
from .context import StreamClosed
from .core.farewell import SERVICE_RESTART, close_reason
from .core.inflight import Kind
from .core.records import Fault
from .driver import call

__all__ = ["WebSocketExchange", "turn_away"]

FAREWELL_LIMIT: Final = 1.0
"""Seconds that a farewell callable of the user's may take."""


class WebSocketExchange(AsgiExchange):
    """One WebSocket, from the handshake to the return of the app's call."""

    kind: Kind = "websocket"
    _accepted = False
    _closed = False  # by the app or the client
    _close_sent: anyio.Event | None = None  # where the app must be kept waiting for it

    # -- the app's side --------------------------------------------------------------------

    async def receive(self) -> Message:
        if self._receiving is not None:  # a second concurrent receive: the server's business
            return await self._receive()
        interrupt = self._receiving = self.shell.loop.interrupt()
        message: Message = {"type": "websocket.disconnect", "code": 1006}
        try:
            if self._close_sent is None:
                with interrupt:
                    message = await self._receive()
            if self._close_sent is not None:
                await self._close_sent.wait()
        finally:
            self._receiving = None
        if message["type"] == "websocket.disconnect":
            self._closed = True
            if self.ended:
                self.unwinding = True
                message = {**message, "code": SERVICE_RESTART, "reason": self._reason()}
        return message

    def send(self, message: Message) -> Awaitable[None]:
        if self.ended:
            return self._send_after_end()
        kind = message["type"]
        if kind == "websocket.accept":
            self._accepted = True
        elif kind == "websocket.close" or kind == "websocket.http.response.start":
            self._closed = True
        return self._send(message)

    async def _send_after_end(self) -> None:
        if self._close_sent is not None:
            await self._close_sent.wait()
        self._refused_send()
        raise StreamClosed("this WebSocket was closed: its client has been told to reconnect")

    # -- the driver's side -------------------------------------------------------------------

    async def farewell(self) -> None:
        if self.ended or self._closed:
            return
        if not self._accepted:
            self._end()
            self.told_now()
            await _deny(self)
            return
        message = await self._farewell_message()
        if self.ended or self._closed:  # while the user's callable ran
            return
        if message is not None:
            await self._send(message)
        self._end()
        self.told_now()
        await self._close()

    async def _close(self) -> None:
        code = self.shell.traits.close_code(SERVICE_RESTART)
        close = {"type": "websocket.close", "code": code, "reason": self._reason()}
        if self.shell.traits.closes_while_receiving:
            await self._send(close)
            return
        self._close_sent = anyio.Event()
        self._interrupt_receive()
        try:
            await self._send(close)
        finally:
            self._close_sent.set()

    def _reason(self) -> str:
        return close_reason(self.retry_after_ms)

    async def _farewell_message(self) -> Message | None:
        words: object = self.shell.farewell
        if callable(words):
            words = await self._ask(words)
        if isinstance(words, str):
            return {"type": "websocket.send", "text": words}
        if isinstance(words, bytes):
            return {"type": "websocket.send", "bytes": words}
        if words is not None:
            self._fault(f"it returned {words!r}, which is neither text nor bytes nor None")
        return None

    async def _ask(self, words: object) -> object:
        """Call the user's farewell; without an answer the close frame alone has to do."""
        assert callable(words)
        try:
            with anyio.fail_after(FAREWELL_LIMIT):
                return await call(words, self)
        except TimeoutError:
            self._fault(f"took longer than {FAREWELL_LIMIT:g} s")
        except Exception as error:
            self._fault(f"{type(error).__name__}: {error}")
        return None

    def _fault(self, error: str) -> None:
        core = self.shell.core
        if not core.tally.farewells_failed:  # once: a broken callable fails for every client
            self.shell.publish(Fault("farewell", error))
        core.tally.farewells_failed += 1

    async def cut_short(self) -> None:
        with anyio.move_on_after(LAST_WORDS):
            if not self.ended and not self._closed:
                self._end()
                await (self._close() if self._accepted else _deny(self))
        self._interrupt_receive()
        super()._end_app()

    def _end_app(self) -> None:
        """A pending receive that returns a disconnect is a gentler end than a cancelled task."""
        if self._receiving is not None and self.ended and not self.cut:
            self._interrupt_receive()
        else:
            super()._end_app()


async def turn_away(exchange: WebSocketExchange) -> None:
    """Refuse a handshake: 503 where the server can answer it so, 403 where it can't."""
    await exchange._receive()  # websocket.connect
    await _deny(exchange)


async def _deny(exchange: WebSocketExchange) -> None:
    if "websocket.http.response" not in (exchange.scope.get("extensions") or {}):
        await exchange._send({"type": "websocket.close", "code": 1013, "reason": ""})
        return
    retry_after = str(max(1, round(exchange.retry_after_ms / 1000))).encode()
    body = b"draining"
    headers = [
        (b"retry-after", retry_after),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    start = {"type": "websocket.http.response.start", "status": 503, "headers": headers}
    await exchange._send(start)
    await exchange._send({"type": "websocket.http.response.body", "body": body})
