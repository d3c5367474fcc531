"""What stream clients record of how their streams end, against a server that ends them so."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from graceful.rehearsal import Plan, RehearsalError
from graceful.rehearsal.client import open_sessions
from graceful.rehearsal.result import StreamRecord
from graceful.rehearsal.streams import StreamClients

from .servers import COMMAND, Handler, abort, fleet, for_ever, one_server, script, serving


async def first_stream(plan: Plan, *handlers: Handler) -> StreamRecord:
    """Let one client connect and reconnect; return what it recorded of its first connection."""
    async with serving(script(*handlers)) as port:
        balancer = one_server(port)
        async with open_sessions(balancer) as sessions:
            clients = StreamClients(fleet(plan, port), balancer, sessions)
            try:
                await clients.start()
                while not clients.so_far():  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
                record = clients.so_far()[0]
                assert await clients.finish() == 0
            finally:
                await clients.close()
            return record


def websocket(*messages: object, end: Any = None, hear: int = 0) -> Handler:
    """Send messages, hear some, and end in a certain way (a code and a reason, or cut)."""

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for message in messages:
            await socket.send_json(message)
        for _ in range(hear):
            await socket.receive()
        if end is None:
            await for_ever()
        elif end == "cut":
            abort(request)
        else:
            code, reason = end
            await socket.close(code=code, message=reason.encode())
        return socket

    return handler


def events(*chunks: bytes, end: str = "") -> Handler:
    """Send bytes and end: cleanly, 'cut', or never ('open')."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if end == "open":
            await for_ever()
        if end == "cut":
            await asyncio.sleep(0.05)  # or the reset overtakes what has been written
            abort(request)
        return response

    return handler


WEBSOCKET_OPEN = websocket({"n": 1})
EVENTS_OPEN = events(b'data: {"n": 1}\n\n', end="open")


@pytest.mark.parametrize(
    ("handler", "ended", "told", "delay"),
    [
        (websocket(end=(1012, '{"retry_after_ms": 40}')), "close 1012", True, 0.04),
        (websocket(end=(1012, "restarting")), "close 1012", True, None),
        (websocket(end=(1001, "")), "close 1001", True, None),
        (websocket(end=(1000, "")), "close 1000", False, None),
        (websocket({"retry_after_ms": 30}, end=(1000, "")), "close 1000", True, 0.03),
        (websocket(end="cut"), "closed without close frame (1006)", False, None),
    ],
)
def test_how_a_websocket_ended(
    handler: Handler, ended: str, told: bool, delay: float | None
) -> None:
    """A close code or a message tells a client to come back; an end without a frame does not."""
    plan = Plan(command=COMMAND, websockets=1)
    record = asyncio.run(first_stream(plan, handler, WEBSOCKET_OPEN))
    assert (record.ended, record.told, record.told_delay) == (ended, told, delay)
    assert record.messages_lost == 0
    assert record.reconnected_to == "i1"
    assert record.moved is False, "the same process"


FAREWELL = b'retry: 20\nevent: reconnect\ndata: {"retry_after_ms": 20}\n\n'


@pytest.mark.parametrize(
    ("handler", "ended", "told", "delay"),
    [
        (events(b"data: x\n\n", FAREWELL), "sse clean end with reconnect event", True, 0.02),
        (events(b"data: x\n\nretry: 10\n\n"), "sse clean end", True, 0.01),
        (events(b"retry: 10\n\ndata: x\n\n"), "sse clean end", False, None),
        (events(b"data: x\n\n"), "sse clean end", False, None),
        (events(b"data: x\n\ndata: y"), "sse ended inside an event", False, None),
        (events(b"data: x\n\n", end="cut"), "sse truncated", False, None),
        (events(FAREWELL, end="cut"), "sse truncated", True, 0.02),
    ],
)
def test_how_server_sent_events_ended(
    handler: Handler, ended: str, told: bool, delay: float | None
) -> None:
    """A `retry:` at the begin of a stream only sets the client up; in its last event it tells."""
    plan = Plan(command=COMMAND, sse=1)
    record = asyncio.run(first_stream(plan, handler, EVENTS_OPEN))
    assert (record.ended, record.told, record.told_delay) == (ended, told, delay)


def test_messages_that_were_jumped_over_are_lost() -> None:
    """On both kinds of stream."""
    plan = Plan(command=COMMAND, websockets=1)
    handler = websocket({"n": 1}, {"n": 4}, end=(1012, ""))
    assert asyncio.run(first_stream(plan, handler, WEBSOCKET_OPEN)).messages_lost == 2
    plan = Plan(command=COMMAND, sse=1)
    handler = events(b'data: {"n": 1}\n\n', b'data: {"n": 3}\n\n', FAREWELL)
    assert asyncio.run(first_stream(plan, handler, EVENTS_OPEN)).messages_lost == 1


def test_messages_of_ours_that_were_never_echoed_are_lost() -> None:
    """By a server that echoes: it hears five more, and those well before the farewell count."""
    plan = Plan(command=COMMAND, websockets=1, message_interval=0.06)
    silent = websocket({"echo": 0}, end=(1012, ""), hear=5)
    record = asyncio.run(first_stream(plan, silent, WEBSOCKET_OPEN))
    assert 1 <= record.messages_lost < 5


def test_an_echo_is_an_acknowledgement() -> None:
    """Whatever else the app sends."""
    plan = Plan(command=COMMAND, websockets=1, message_interval=10)
    handler = websocket({"echo": 1}, "text", [1], {"n": 1}, end=(1012, ""))
    assert asyncio.run(first_stream(plan, handler, WEBSOCKET_OPEN)).messages_lost == 0


async def busy(request: web.Request) -> web.StreamResponse:
    """Turn the stream away."""
    return web.Response(status=503)


@pytest.mark.parametrize("kind", ["websockets", "sse"])
def test_attempts_that_are_turned_away_are_repeated_and_counted(kind: str) -> None:
    """By the stream that ended, for it is why they were made."""
    plan = Plan(command=COMMAND, **{kind: 1})  # type: ignore[arg-type]
    open_, ends = (
        (WEBSOCKET_OPEN, websocket(end=(1012, "")))
        if kind == "websockets"
        else (EVENTS_OPEN, events(FAREWELL))
    )
    record = asyncio.run(first_stream(plan, ends, busy, busy, open_))
    assert record.failed_attempts == 2


@pytest.mark.parametrize(
    ("late", "ended", "attempts"),
    [(FAREWELL, 1, 1), (b'data: {"n": 2}\n\n' + FAREWELL, 2, 0)],
    ids=["nothing but a farewell", "a message before it"],
)
def test_a_refusal_that_looks_like_a_stream_is_none(late: bytes, ended: int, attempts: int) -> None:
    """A process that drains answers 200, a farewell and the end: one more failed attempt."""
    plan = Plan(command=COMMAND, sse=1)

    async def records() -> list[StreamRecord]:
        first, last = events(b'data: {"n": 1}\n\n', FAREWELL), asyncio.Event()

        async def signalled(request: web.Request) -> web.StreamResponse:
            response = await first(request)
            places.sigterm(places.instances[0])
            return response

        async def steady(request: web.Request) -> web.StreamResponse:
            last.set()
            return await EVENTS_OPEN(request)

        async with serving(script(signalled, events(late), steady)) as port:
            balancer = one_server(port)
            places = fleet(plan, port)
            async with open_sessions(balancer) as sessions:
                clients = StreamClients(places, balancer, sessions)
                await clients.start()
                await last.wait()
                assert await clients.finish() == 0
        return clients.so_far()

    found = asyncio.run(records())
    assert [each.told for each in found] == [True] * ended + [False]  # the last one was open
    assert found[0].failed_attempts == attempts


def test_a_client_waits_as_long_as_it_was_told_up_to_the_cap() -> None:
    """The next connection begins after the delay, not before."""
    plan = Plan(command=COMMAND, websockets=1, reconnect_cap=0.2)

    async def gap() -> float:
        loop = asyncio.get_running_loop()
        began: list[float] = []

        async def told(request: web.Request) -> web.StreamResponse:
            answer = websocket(end=(1012, json.dumps({"retry_after_ms": 60_000})))
            response = await answer(request)
            began.append(loop.time())
            return response

        async def back(request: web.Request) -> web.StreamResponse:
            began.append(loop.time())
            return await WEBSOCKET_OPEN(request)

        await first_stream(plan, told, back)
        return began[1] - began[0]

    assert 0.15 < asyncio.run(gap()) < 10


def test_clients_that_can_not_connect_end_the_rehearsal() -> None:
    """Before anything is counted, with the paths."""
    plan = Plan(command=COMMAND, websockets=1, sse=1, start_timeout=0.3)
    with pytest.raises(RehearsalError, match="2 of 2 stream clients could not connect to /ws"):
        asyncio.run(first_stream(plan, busy))
