"""One HTTP request on ASGI: `Connection: close`, server-sent events, declared streams, cuts.

`send` is on the hot path: an ordinary message is passed on without a coroutine of our own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, Self, cast

import anyio

from ._asgi_exchange import LAST_WORDS, NO_SCOPE, AsgiExchange, Shell, after_end
from ._asgi_types import Message, Receive, Scope, Send
from .context import StreamClosed
from .core.farewell import EventBoundary, can_inject, event_stream, sse_farewell
from .core.inflight import Policy

__all__ = ["HttpExchange", "answer"]

Headers = Sequence[tuple[bytes, bytes]]

ENDS_BODY = ("http.response.body", "http.response.pathsend")

NOTHING: Final[Message] = {}
"""In the place of a message that has not been sent, of an exchange whose messages are looked at."""

_DISCONNECT = {"type": "http.disconnect"}


class HttpExchange(AsgiExchange):
    """One request and its response; a stream as soon as the response says so."""

    __slots__ = ("_first", "_last")  # set by the middleware, as in the base class
    _first: Message | None
    """How the response began; None = nobody looks at its messages yet, and there are none."""
    _last: Message | None
    """What the app has sent last, while nobody looked; None as above."""

    _watched = False
    _complete = False  # the app has sent the last byte itself
    _body_read = False
    _boundary: EventBoundary | None = None  # of a stream that can be ended with a farewell
    _sending = False
    _last_words: bytes | None = None  # of a declared stream; None = an SSE farewell
    _gone = False  # the app is told that the client has left

    @classmethod
    def of_shell(cls, shell: Shell) -> type[Self]:
        """Return the class of the exchanges of `shell`, which costs none of them anything."""
        own = type(cls.__name__, (cls,), {"__slots__": (), "shell": shell})
        return cast("type[Self]", own)

    @classmethod
    def of(cls, shell: Shell, scope: Scope, receive: Receive, send: Send) -> Self:
        exchange = super().of(shell, scope, receive, send)
        exchange._first = exchange._last = None
        return exchange

    def let_go(self) -> None:
        """It is over. What it keeps alive from here on should be small.

        For whatever timer the server has started meanwhile has a copy of the context, which leads
        here, and the rest would lead on to the body and to the connection.
        """
        self._first = self._last = None
        self.scope = NO_SCOPE
        self._receive = self._send = after_end

    # -- for handlers --------------------------------------------------------------------

    def declare_stream(
        self,
        policy: Policy = "reconnect",
        *,
        boundary: bytes | None = None,
        farewell: bytes = b"",
    ) -> None:
        """Declare that this response is a long-lived one (an NDJSON watch, a long poll).

        Args:
            policy: `reconnect`, or `finish` for one that can't be resumed.
            boundary: what ends a record, such as a line feed. With it, a drain ends the body
                cleanly after a whole record; without it the app sees `http.disconnect` and ends
                the response itself.
            farewell: bytes sent last, after a whole record.
        """
        self.watch()
        if self.kind == "http":
            self.kind = "stream"
        self.policy = policy
        if boundary:
            self._boundary = EventBoundary(boundary)
            self._boundary.clean = not self._last  # or if its bytes say so
            self._last_words = farewell
            for message in (self._last, self._first):
                if message:
                    self._note_sent(message)
        if self.shell.core.turns_away(self):
            if self._boundary is None:
                self.shell.loop.soon(self._leave_late)
            elif self.started:
                self.farewell_due = True  # after the record that comes next

    # -- the app's side --------------------------------------------------------------------

    def send(self, message: Message) -> Awaitable[None]:
        send = self._send  # a call of a slot's value, as of a method, is a third dearer
        if self._first is None:
            try:
                if type(message["headers"]) is not list:
                    message = _with_list(message)
            except KeyError:
                pass  # it need not have any
            self._first = message
            return send(message)
        if self._last is None:
            self._last = message
            return send(message)
        return self._send_watched(message)

    def _send_watched(self, message: Message) -> Awaitable[None]:
        if self.ended:
            return self._send_after_end()
        self.watch()  # a body in parts: it may be a stream of events
        kind = message["type"]
        if kind == "http.response.start":
            self._first = message = _with_list(message)
            self._recognise(message)
            return self._send_late_start(message)
        if kind == "http.response.body" and self._boundary is not None:
            return self._send_part(message, self._boundary)
        if kind in ENDS_BODY:
            self._last = message
            self._complete = not message.get("more_body", False)
        return self._send(message)

    def _send_late_start(self, message: Message) -> Awaitable[None]:
        if self._says_close():
            message = {**message, "headers": _with_close(message.get("headers", ()))}
        if self.is_stream and self.shell.core.turns_away(self):
            return self._turn_away(message)
        return self._send(message)

    def _says_close(self) -> bool:
        http_1 = self.scope.get("http_version", "1.1").startswith("1")
        return http_1 and self.shell.core.closes_connection(self.shell.clock())

    # -- what kind of exchange this is: found out when somebody asks ----------------------------

    @property
    def started(self) -> bool:
        """Whether the response has begun."""
        return bool(self._first)

    @property
    def is_stream(self) -> bool:  # changes nothing: threads ask, too
        return self.kind != "http" or self._announces(self._first or NOTHING)

    def watch(self) -> None:
        if self._watched:
            return
        self._watched = True
        sent = (self._first, self._last)
        self._first, self._last = NOTHING, self._last or NOTHING
        for message in sent:
            if message:
                self._note_sent(message)

    def _announces(self, start: Message) -> bool:
        """Whether the response that begins with `start` is a stream of events."""
        return self.scope.get("method") != "HEAD" and event_stream(start.get("headers", ()))

    def _recognise(self, start: Message) -> None:
        """See what the response that begins with `start` is, and whether we may end it."""
        if self._announces(start):
            self.kind = "sse"
            self._boundary = self._boundary or EventBoundary()
        if start.get("trailers") or not can_inject(start.get("headers", ())):
            self._boundary = None

    def _note_sent(self, message: Message) -> None:
        """Take note of a message that was sent before anybody looked."""
        if message["type"] == "http.response.start":
            self._first = message
            self._recognise(message)
        if message["type"] not in ENDS_BODY:
            return
        if self._boundary is not None:
            self._boundary.feed(bytes(message.get("body", b"")))
        self._complete = not message.get("more_body", False)

    async def _turn_away(self, start: Message) -> None:
        """A new stream in DRAINING: status and headers as the app sent them, then the end.

        EventSource gives up for good on anything but 200, so a 503 would strand the client.
        """
        self._sending = True
        try:
            await self._send(start)
        finally:
            self._sending = False
        await self.farewell()

    def _leave_late(self) -> None:
        """A new long poll in DRAINING, declared before its response: it sees its client leave."""
        if self.shell.core.turns_away(self) and not self._complete:
            self.told_now()
            self._disconnect()

    async def _send_part(self, message: Message, boundary: EventBoundary) -> None:
        self._sending = True
        try:
            await self._send(message)
        finally:
            self._sending = False
        if not message.get("more_body", False):
            self._complete = True
            return
        boundary.feed(bytes(message.get("body", b"")))  # some frameworks send memoryviews
        if self.farewell_due and boundary.clean and not self.ended:
            await self._end_stream(boundary)

    async def _send_after_end(self) -> None:
        self._refused_send()
        raise StreamClosed("this response was ended: its client has been told to go elsewhere")

    async def receive(self) -> Message:
        if self._gone:
            self.unwinding = True
            return dict(_DISCONNECT)
        if not self._body_read:
            message = await self._receive()
            self._body_read = not message.get("more_body", False)
            return message
        interrupt = self._receiving = self.shell.loop.interrupt()
        try:
            with interrupt:
                message = await self._receive()
                self.unwinding = self._gone
                return message
        finally:
            if self._receiving is interrupt:
                self._receiving = None
        self.unwinding = True
        return dict(_DISCONNECT)

    # -- the driver's side -------------------------------------------------------------------

    async def farewell(self) -> None:
        """End the stream at this event boundary, or at the next one (`_send_part` sees to it)."""
        self.farewell_due = True
        boundary = self._boundary
        if self.ended or self.told or self._complete:
            return
        if boundary is None or not self.started:
            self.told_now()
            self._disconnect()
        elif boundary.clean and not self._sending:
            await self._end_stream(boundary)

    async def _end_stream(self, boundary: EventBoundary) -> None:
        self._end()
        self.told_now()
        last = self._last_words
        if last is None:
            last = sse_farewell(self.shell.sse_event, self.retry_after_ms)
        await self._send({"type": "http.response.body", "body": last, "more_body": False})
        self._disconnect()

    def _disconnect(self) -> None:
        self._gone = True
        self._interrupt_receive()

    async def cut_short(self) -> None:
        """503 where no response has started, a clean end where one is possible, then the task."""
        with anyio.move_on_after(LAST_WORDS):
            await self._cut_response()
        self._end()
        self._disconnect()
        self._end_app()

    async def _cut_response(self) -> None:
        if self.ended or self._complete:
            return
        if not self.started:
            self._end()
            close = self.close_header()
            await answer(
                self._send, 503, "cut at the drain deadline", {"retry-after": "1", **close}
            )
        elif self._boundary is not None and self._boundary.clean and not self._sending:
            await self._end_stream(self._boundary)

    def close_header(self) -> dict[str, str]:
        """Return what a response of ours says about the connection."""
        http_1 = self.scope.get("http_version", "1.1").startswith("1")
        return {"connection": "close"} if http_1 else {}


def _with_list(start: Message) -> Message:
    """Return `start` with headers that can be read twice: the specification allows an iterator."""
    headers = start.get("headers")
    return start if headers is None else {**start, "headers": list(headers)}


def _with_close(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return `headers` with `Connection: close`, whatever the app said about the connection."""
    kept = [(name, value) for name, value in headers if name.lower() != b"connection"]
    return [*kept, (b"connection", b"close")]


async def answer(send: Send, status: int, text: str, headers: Mapping[str, str]) -> None:
    """Send a whole plain-text response."""
    body = text.encode()
    given = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    fixed = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": fixed + given})
    await send({"type": "http.response.body", "body": body})
