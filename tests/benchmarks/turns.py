"""Two servers on one CPU that are asked by turns, some hundred requests each: what one costs both.

Only one of them works at a time, with caches of its own making, and whatever slows this machine
down for longer than a turn slows both. The requests come from another CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

__all__ = ["BAR", "Cost", "Loaded", "cpu_seconds", "in_turns", "main", "show"]

BAR: Final = 0.97

ROUNDS: Final = 10
"""How often both servers are started anew, with objects in other places."""

TURNS: Final = 60
REQUESTS: Final = 400
CONNECTIONS: Final = 16
WARM_UP: Final = 5
"""Turns that nobody counts."""

Pair = tuple[float, float]


class Loaded(Protocol):
    """A server that can be loaded and whose CPU time is known."""

    @property
    def url(self) -> str: ...

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has had."""
        ...


@dataclass(frozen=True)
class Cost:
    """CPU seconds a request of both servers in one round, and the ratio of each pair of turns."""

    bare: float
    wrapped: float
    ratios: Sequence[float]


def cpu_seconds(stats: Iterator[os.PathLike[str]]) -> float:
    """Return the CPU time of threads, by their files `schedstat`."""
    total = 0
    for stat in stats:
        with open(stat) as file:
            total += int(file.read().split()[0])
    return total / 1e9


class _Connection(asyncio.Protocol):
    """Asks again as soon as it is answered, until it has asked often enough."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._length = self._missing = self._left = 0
        self._head = b""
        self._done: asyncio.Future[None]
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    async def ask(self, times: int) -> None:
        self._left = times
        self._done = asyncio.get_running_loop().create_future()
        self._next()
        await self._done

    def _next(self) -> None:
        if not self._left:
            self._done.set_result(None)
            return
        self._left -= 1
        self._missing = self._length
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._answered(data)
        except ValueError as error:
            self._done.set_exception(error)
            self._transport.abort()

    def _answered(self, data: bytes) -> None:
        if not self._length:  # its first answer tells how long they all are
            self._head += data
            length = answer_length(self._head)
            if len(self._head) < length:
                return
            self._length, data = length, b""
        self._missing -= len(data)
        if self._missing < 0:
            raise ValueError("its answers differ in length")
        if not self._missing:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server has closed"))


def answer_length(received: bytes) -> int:
    """Return how long the answer is that begins with `received`; more than that if unknown."""
    head, end, _ = received.partition(b"\r\n\r\n")
    if not end:
        return len(received) + 1
    found = re.search(rb"(?i)content-length: *(\d+)", head)
    if b" 200 " not in head.partition(b"\r\n")[0] or not found:
        raise ValueError(f"no 200 with a Content-Length: {head!r}")
    return len(head) + len(end) + int(found[1])


class _Client:
    """All connections to one server."""

    def __init__(self, server: Loaded) -> None:
        self._server = server
        self._connections: list[_Connection] = []

    async def turn(self) -> float:
        """Have the server answer; return its CPU seconds a request."""
        if not self._connections:
            await self._connect()
        before = self._server.cpu_seconds()
        each = REQUESTS // len(self._connections)
        await asyncio.gather(*(one.ask(each) for one in self._connections))
        return (self._server.cpu_seconds() - before) / (each * len(self._connections))

    async def _connect(self) -> None:
        url = urlsplit(self._server.url)
        assert url.hostname
        assert url.port
        target = f"{url.path}?{url.query}" if url.query else url.path
        request = f"GET {target} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode()
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            made = await loop.create_connection(
                lambda: _Connection(request), url.hostname, url.port
            )
            self._connections.append(made[1])


async def in_turns(bare: Loaded, wrapped: Loaded) -> Cost:
    """Load both by turns; which of a pair comes first changes."""
    clients = (_Client(bare), _Client(wrapped))
    pairs: list[Pair] = []
    for number in range(WARM_UP + TURNS):
        order = (0, 1) if number % 2 else (1, 0)
        seconds = {side: await clients[side].turn() for side in order}
        pairs.append((seconds[0], seconds[1]))
    del pairs[:WARM_UP]
    without, with_it = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Cost(without, with_it, [bare / wrapped for bare, wrapped in pairs])


def show(name: str, rounds: Sequence[Cost]) -> float:
    """Print the CPU time a request of both; return the ratio of throughputs."""
    bare = statistics.median(each.bare for each in rounds) * 1e6
    wrapped = statistics.median(each.wrapped for each in rounds) * 1e6
    ratios = [statistics.median(each.ratios) for each in rounds]
    ratio = statistics.median(ratios)
    print(
        f"{name:>34}: {bare:6.1f} µs a request bare, {wrapped:6.1f} with graceful; "
        f"throughput {ratio:.3f} of bare (rounds {min(ratios):.3f}-{max(ratios):.3f})",
        flush=True,
    )
    return ratio


def main(
    cases: Sequence[tuple[str, Callable[[], contextlib.AbstractContextManager[Sequence[Loaded]]]]],
    arguments: Sequence[str],
) -> bool:
    """Print the cases whose names contain the second argument; whether each reaches the bar.

    Args:
        cases: names, and how both servers are started, bare first.
        arguments: how many rounds, and a part of the name.
    """
    rounds, only = int((arguments or [str(ROUNDS)])[0]), "".join(arguments[1:2])
    own = os.sched_getaffinity(0)
    ratios: list[float] = []
    for name, started in cases:
        if only not in name:
            continue
        costs: list[Cost] = []
        for _ in range(rounds):
            with started() as (bare, wrapped):
                os.sched_setaffinity(0, {1})
                costs.append(asyncio.run(in_turns(bare, wrapped)))
                os.sched_setaffinity(0, own)
        ratios.append(show(name, costs))
    if not ratios:
        print(f"no case has {only!r} in its name: {', '.join(name for name, _ in cases)}")
        return False
    return min(ratios) >= BAR
