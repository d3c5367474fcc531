"""WebSocket and SSE clients that stay, count, and do as they are told.

A client connects through the balancer, follows the numbers, and after the end of its stream waits
as long as it was told to and connects again, until the rehearsal is over. What one connection went
through is collected in a `_Stream` and kept as a `StreamRecord`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import aiohttp

from .balancers import Balancer, Route
from .client import Fleet, Sessions, Sigterm, WebSocket
from .eventstream import EventReader
from .plan import RehearsalError
from .result import StreamRecord
from .sequences import Echoes, Numbers

__all__ = ["StreamClients"]

RETRY: Final = 0.1
"""Seconds between two attempts to connect."""
UNTOLD: Final = 0.05
"""Seconds until a client reconnects that was told no delay."""
FAREWELL_CODES: Final = (1001, 1012)
"""'Going away' and 'service restart': the WebSocket close codes that mean 'come back'."""
OVER: Final = "open at the end"

ACCEPT_LIMIT: Final = 5.0
"""Seconds until an attempt has failed: a listener that nobody serves any more never answers."""


class NotAccepted(Exception):
    """A stream was turned away."""


@dataclass(kw_only=True)
class _Stream:
    """One connection while it lives; all times are of the fleet's clock."""

    instance: str | None
    life: int
    connected_at: float
    numbers: Numbers = field(default_factory=Numbers)
    echoes: Echoes = field(default_factory=Echoes)
    messages: int = 0
    ended: str = OVER
    ended_at: float = 0.0
    sigterm: Sigterm | None = None
    """Of the process that it was connected to."""
    farewell_at: float | None = None
    told_delay: float | None = None
    reconnected_to: str | None = None
    moved: bool = False
    failed_attempts: int = 0
    previous: _Stream | None = None
    """The connection that its client had before."""

    @property
    def turned_away(self) -> bool:
        """It began after the signal and heard nothing but a farewell: a refusal, as SSE has it.

        EventSource gives up for good on any other status, so that a process that drains answers 200
        and ends at once. A balancer with open connections to it may bring a client back there.
        """
        late = self.sigterm is not None and self.connected_at > self.sigterm.at
        return late and not self.messages and self.farewell_at is not None

    def told(self, now: float, delay: float | None) -> None:
        """The farewell has come; the first one counts, the latest delay holds."""
        self.farewell_at = now if self.farewell_at is None else self.farewell_at
        self.told_delay = self.told_delay if delay is None else delay

    def message(self, data: object) -> None:
        """Follow one message or event."""
        self.messages += 1
        fields = _fields(data)
        if isinstance(number := fields.get("n"), int):
            self.numbers.feed(number)
        if isinstance(echo := fields.get("echo"), int):
            self.echoes.heard(echo)

    def record(self, client: int, kind: str) -> StreamRecord:
        """Make it a finding."""
        heard_until = self.farewell_at or self.ended_at
        unheard = self.echoes.lost(heard_until) if self.ended != OVER else 0
        after = None
        if self.farewell_at is not None and self.sigterm is not None:
            after = self.farewell_at - self.sigterm.at
        return StreamRecord(
            client=client,
            kind=kind,
            instance=self.instance,
            connected_at=self.connected_at,
            ended_at=self.ended_at,
            ended=self.ended,
            restart=self.sigterm.restart if self.sigterm else None,
            told=self.farewell_at is not None,
            told_delay=self.told_delay,
            farewell=after,
            reconnected_to=self.reconnected_to,
            moved=self.moved,
            failed_attempts=self.failed_attempts,
            messages=self.messages,
            messages_lost=self.numbers.lost + unheard,
        )


def _fields(data: object) -> Mapping[str, object]:
    return cast(Mapping[str, object], data) if isinstance(data, dict) else {}


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _retry_after(data: object) -> float | None:
    """Seconds that a farewell tells to wait, None if it does not say."""
    milliseconds = _fields(data).get("retry_after_ms")
    return milliseconds / 1000 if isinstance(milliseconds, int | float) else None


class _Client:
    """What WebSocket and SSE clients have in common; `_follow` is what they do while connected."""

    kind = ""

    def __init__(self, number: int, clients: StreamClients) -> None:
        self.number = number
        self.stream: _Stream | None = None
        """The connection it has now."""
        self.records: list[StreamRecord] = []
        self._all = clients
        self._last: _Stream | None = None

    async def run(self) -> None:
        """Be connected until cancelled."""
        try:
            while True:
                await self._once()
        finally:
            self._keep_last()

    async def _once(self) -> None:
        try:
            route = self._all.balancer.route()
            if route is None:
                raise NotAccepted("no instance is in the rotation")
            await self._connected(route)
        except (aiohttp.ClientError, OSError, TimeoutError, NotAccepted):
            if self._last:
                self._last.failed_attempts += 1
            await asyncio.sleep(RETRY)
        else:
            await asyncio.sleep(self._delay())

    def _delay(self) -> float:
        """Seconds until the client connects again."""
        told = self._last.told_delay if self._last else None
        return UNTOLD if told is None else min(told, self._all.fleet.plan.reconnect_cap)

    async def _connected(self, route: Route) -> None:
        """Connect by `route`, follow the stream to its end. Raises if it is not accepted."""
        raise NotImplementedError

    def _accepted(self, route: Route, headers: Mapping[str, str]) -> _Stream:
        self._all.balancer.answered(route, headers)
        fleet = self._all.fleet
        instance = fleet.get(route.instance)
        life = instance.life if instance else 0
        stream = _Stream(instance=route.instance, life=life, connected_at=fleet.now())
        if self._last:
            self._last.reconnected_to = stream.instance
            self._last.moved = (self._last.instance, self._last.life) != (stream.instance, life)
            stream.previous = self._last
            self._keep_last()
        self.stream = stream
        return stream

    def _ended(self, stream: _Stream, how: str) -> None:
        fleet = self._all.fleet
        stream.ended, stream.ended_at = how, fleet.now()
        stream.sigterm = fleet.sigterm_of(stream.instance, stream.life)
        self._last, self.stream = stream, None
        previous, stream.previous = stream.previous, None
        if previous and stream.turned_away:
            self.records.pop()  # its client has come to nobody yet
            self._last = previous
            self._last.failed_attempts += 1
            self._last.told_delay = stream.told_delay

    def _keep_last(self) -> None:
        """Nothing more will happen to the ended connection."""
        if self._last:
            self.records.append(self._last.record(self.number, self.kind))
        self._last = None

    def close(self) -> None:
        """The rehearsal is over: keep the connection that is still open."""
        if self.stream:
            self.stream.ended_at = self._all.fleet.now()
            self.records.append(self.stream.record(self.number, self.kind))


class _WebSocketClient(_Client):
    kind = "websocket"

    async def _connected(self, route: Route) -> None:
        url = route.origin.replace("http", "ws", 1) + self._all.fleet.plan.websocket_path
        async with (
            asyncio.timeout(ACCEPT_LIMIT) as limit,
            self._all.sessions.fresh.ws_connect(url) as socket,
        ):
            limit.reschedule(None)
            stream = self._accepted(route, cast(WebSocket, socket).headers)
            talking = asyncio.create_task(self._talk(socket, stream))
            how = OVER
            try:
                how = await self._listen(socket, stream)
            finally:
                talking.cancel()
                if how != OVER:
                    self._ended(stream, how)
        await asyncio.gather(talking, return_exceptions=True)

    async def _talk(self, socket: aiohttp.ClientWebSocketResponse, stream: _Stream) -> None:
        fleet = self._all.fleet
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):
            while stream.farewell_at is None and not socket.closed:
                number = stream.echoes.next(fleet.now())
                await socket.send_str(json.dumps({"echo": number}))
                await asyncio.sleep(fleet.plan.message_interval)

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse, stream: _Stream) -> str:
        now = self._all.fleet.now
        while True:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                data = _json(message.data)
                if (delay := _retry_after(data)) is not None:
                    stream.told(now(), delay)
                else:
                    stream.message(data)
            elif message.type is aiohttp.WSMsgType.CLOSE:
                if message.data in FAREWELL_CODES:
                    stream.told(now(), _retry_after(_json(message.extra or "")))
                return f"close {message.data}"
            elif message.type is not aiohttp.WSMsgType.BINARY:
                return "closed without close frame (1006)"


class _EventClient(_Client):
    kind = "sse"

    async def _connected(self, route: Route) -> None:
        url = route.origin + self._all.fleet.plan.sse_path
        accept = {"accept": "text/event-stream"}
        async with (
            asyncio.timeout(ACCEPT_LIMIT) as limit,
            self._all.sessions.fresh.get(url, headers=accept) as response,
        ):
            limit.reschedule(None)
            if response.status != 200 or response.content_type != "text/event-stream":
                raise NotAccepted(f"status {response.status}, {response.content_type}")
            stream = self._accepted(route, response.headers)
            self._ended(stream, await self._listen(response, stream))

    async def _listen(self, response: aiohttp.ClientResponse, stream: _Stream) -> str:
        reader = EventReader()
        named = self._all.fleet.plan.sse_event
        retry, reconnect = None, False
        try:
            async for chunk in response.content.iter_any():
                for event in reader.feed(chunk):
                    retry = event.retry_ms
                    if event.name == named:
                        reconnect = True
                        stream.told(self._all.fleet.now(), _retry_after(_json(event.data)))
                    else:
                        stream.message(_json(event.data))
                    if reconnect and retry is not None:
                        stream.told(self._all.fleet.now(), retry / 1000)
        except (aiohttp.ClientError, OSError):
            return "sse truncated"
        if retry is not None and not reconnect:  # `retry:` in the last event says it as well
            stream.told(self._all.fleet.now(), retry / 1000)
        if not reader.at_boundary:
            return "sse ended inside an event"
        return "sse clean end with reconnect event" if reconnect else "sse clean end"


class StreamClients:
    """All the stream clients of a rehearsal."""

    def __init__(self, fleet: Fleet, balancer: Balancer, sessions: Sessions) -> None:
        self.fleet = fleet
        self.balancer = balancer
        self.sessions = sessions
        makers: list[Callable[[int, StreamClients], _Client]] = [
            *[_WebSocketClient] * fleet.plan.websockets,
            *[_EventClient] * fleet.plan.sse,
        ]
        self._clients = [make(number, self) for number, make in enumerate(makers)]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect them all.

        Raises:
            RehearsalError: some could not connect.
        """
        self._tasks = [asyncio.create_task(client.run()) for client in self._clients]
        await self._until_connected(self.fleet.plan.start_timeout)
        if self.stranded:
            raise RehearsalError(
                f"{self.stranded} of {len(self._clients)} stream clients could not connect to "
                f"{self.fleet.plan.websocket_path} or {self.fleet.plan.sse_path}; give other "
                "paths, or --websockets 0 and --sse 0"
            )

    async def _until_connected(self, seconds: float) -> None:
        limit = self.fleet.now() + seconds
        while self.stranded and self.fleet.now() < limit:
            await asyncio.wait(self._tasks, timeout=RETRY, return_when=asyncio.FIRST_EXCEPTION)
            for task in self._tasks:
                if task.done():
                    task.result()  # a client never ends by itself: this raises its error

    @property
    def stranded(self) -> int:
        """Clients without a connection."""
        return sum(client.stream is None for client in self._clients)

    def on(self, instance: str) -> int:
        """Streams that `instance` holds."""
        return sum(c.stream is not None and c.stream.instance == instance for c in self._clients)

    def so_far(self) -> list[StreamRecord]:
        """The connections that have ended and whose clients have reconnected."""
        return [record for client in self._clients for record in client.records]

    async def finish(self) -> int:
        """Let late ones reconnect, close all; returns how many clients were stranded."""
        await self._until_connected(self.fleet.plan.reconnect_cap + 3)
        stranded = self.stranded
        for client in self._clients:
            client.close()
        await self.close()
        return stranded

    async def close(self) -> None:
        """End all clients."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
