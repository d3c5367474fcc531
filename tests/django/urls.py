"""Views of every kind that a stop has to deal with."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import path

import graceful

Request = Any
Response = Any

released = threading.Event()
"""Lets the sync views that wait go on."""

entered = threading.Event()
"""A sync view that waits has begun to."""

closed: list[str] = []
"""Streams whose generator has been ended."""


async def quick(request: Request) -> Response:
    """Answers with what is in flight."""
    return HttpResponse(str(len(graceful.current().tracker)).encode())


def quick_sync(request: Request) -> Response:
    """The same in a thread."""
    return HttpResponse(str(len(graceful.current().tracker)).encode())


async def slow(request: Request) -> Response:
    """Takes the seconds that it is asked for."""
    await asyncio.sleep(float(request.GET.get("seconds", "1")))
    return HttpResponse(b"done")


def waits(request: Request) -> Response:
    """Waits in its thread until the test says so."""
    entered.set()
    released.wait(10)
    return HttpResponse(b"done")


meanwhile: list[Callable[[], None]] = []
"""What happens while the view below is at work."""


def eventful(request: Request) -> Response:
    """Answers when something has happened: whole, or as a stream of events."""
    for happens in meanwhile:
        happens()
    if "whole" in request.GET:
        return HttpResponse(b"done")
    return StreamingHttpResponse([b"data: 1\n\n"], content_type="text/event-stream")


async def stubborn(request: Request) -> Response:
    """Outlasts every drain, and answers when it is cancelled."""
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        return HttpResponse(b"all the same")
    return HttpResponse(b"done")


async def fails(request: Request) -> Response:
    """Raises."""
    raise LookupError("on purpose")


def events(numbers: Callable[[], Any]) -> Callable[[Request], Response]:
    """Return a view that streams what `numbers` yields as server-sent events."""

    def view(request: Request) -> Response:
        return StreamingHttpResponse(numbers(), content_type="text/event-stream")

    return view


async def one_and_silence() -> AsyncIterator[str]:
    """One event, and no other for a long time."""
    try:
        yield "data: 1\n\n"
        await asyncio.sleep(1000)
        yield "data: 2\n\n"
    finally:
        closed.append("async")


async def halves() -> AsyncIterator[str]:
    """Events that come in two parts, a second apart."""
    for n in itertools.count(1):
        yield f"data: {n}\n"
        await asyncio.sleep(1)
        yield "\n"
        await asyncio.sleep(1)


async def sore_loser() -> AsyncIterator[str]:
    """One event, and an error when it is ended."""
    yield "data: 1\n\n"
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        raise LookupError("on purpose") from None


async def chatty() -> AsyncIterator[str]:
    """Events as fast as the client takes them."""
    try:
        for n in itertools.count(1):
            yield f"data: {n}\n\n"
    finally:
        closed.append("async")


async def half() -> AsyncIterator[str]:
    """An event that never ends."""
    yield "data: 1\n"
    await asyncio.sleep(1000)


async def breaks() -> AsyncIterator[str]:
    """One event and an error."""
    yield "data: 1\n\n"
    raise LookupError("on purpose")


def endless() -> Iterator[str]:
    """Events without an end, in a sync generator."""
    try:
        for n in itertools.count(1):
            yield f"data: {n}\n\n"
            time.sleep(0.02)
    finally:
        closed.append("sync")


def three() -> Iterator[bytes]:
    """A stream that ends by itself."""
    yield from (b"a", b"b", b"c")


async def rows(request: Request) -> Response:
    """A watch of records, declared."""
    exchange = graceful.current_exchange()
    assert exchange is not None
    exchange.declare_stream(boundary=b"\n", farewell=b'{"moved": true}\n')

    async def lines() -> AsyncIterator[bytes]:
        yield b'{"n": 1}\n'
        await asyncio.sleep(1000)

    return StreamingHttpResponse(lines(), content_type="application/x-ndjson")


def stream(request: Request) -> Response:
    """A stream of no particular kind."""
    return StreamingHttpResponse(three())


def file(request: Request) -> Response:
    """A file."""
    return FileResponse(Path(__file__).open("rb"))


urlpatterns = [
    path("quick", quick),
    path("quick-sync", quick_sync),
    path("slow", slow),
    path("waits", waits),
    path("eventful", eventful),
    path("stubborn", stubborn),
    path("fails", fails),
    path("events", events(one_and_silence)),
    path("halves", events(halves)),
    path("breaks", events(breaks)),
    path("sore-loser", events(sore_loser)),
    path("chatty", events(chatty)),
    path("half", events(half)),
    path("endless", events(endless)),
    path("rows", rows),
    path("stream", stream),
    path("file", file),
]
