"""The app of the contract: every kind of exchange, each of which says on stderr how it ended.

Marks are lines `@ PID TEXT`, written in one piece and past logging, so that their order among
graceful's own lines is the order in which things happened.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import graceful
from graceful._asgi_exchange import AsgiExchange
from graceful.integrations.starlette import GracefulMiddleware, exchange_of
from graceful.loops import current_loop

SSE = "text/event-stream"

ENCODED = gzip.compress(b"data: squeezed\n\n", mtime=0)


def mark(text: str) -> None:
    """Tell the test something, in order."""
    os.write(2, f"@ {os.getpid()} {text}\n".encode())


async def for_ever() -> None:
    """Wait for nothing."""
    await anyio.sleep_forever()


# -- ordinary requests ---------------------------------------------------------------------------


async def home(request: Request) -> Response:
    """A quick request."""
    return PlainTextResponse("hello\n")


async def pid(request: Request) -> Response:
    """Which process answers."""
    return PlainTextResponse(str(os.getpid()))


async def state(request: Request) -> Response:
    """What a handler can learn about the stop."""
    exchange = graceful.current_exchange()
    return JSONResponse(
        {
            "draining": graceful.draining(),
            "bounded": graceful.remaining() != float("inf"),
            "current": exchange is exchange_of(request),
        }
    )


async def slow(request: Request) -> Response:
    """A request that begins to answer only when the drain has begun, with work after it."""
    await graceful.wait_draining()
    await anyio.sleep(0.1)
    return PlainTextResponse("slow but whole\n", background=BackgroundTask(after_slow))


async def after_slow() -> None:
    """Background work of a request."""
    await anyio.sleep(0.1)
    mark("background task done")


async def block(request: Request) -> Response:
    """A request that keeps the event loop from everything else."""
    mark("blocking")
    time.sleep(2)  # noqa: ASYNC251 - the point of it
    mark("blocked no more")
    return PlainTextResponse("at last\n")


async def trickle(request: Request) -> Response:
    """A long answer that is no stream: it must be whole."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"first\n"
        await graceful.wait_draining()
        await anyio.sleep(0.2)
        yield b"last\n"

    return StreamingResponse(parts(), media_type="text/plain")


async def upload(request: Request) -> Response:
    """A request whose body takes its time."""
    return JSONResponse({"bytes": len(await request.body())})


async def stuck(request: Request) -> Response:
    """A request that never answers."""
    await for_ever()
    raise AssertionError


async def stuck_halfway(request: Request) -> Response:
    """A request that never ends its answer."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"half\n"
        await for_ever()

    return StreamingResponse(parts(), media_type="text/plain")


async def background(request: Request) -> Response:
    """Start work outside of requests that keeps the process; `stuck` never lets go."""
    name = request.path_params["name"]

    async def work() -> None:
        async with graceful.hold(name):
            if name == "stuck":
                await for_ever()
            await graceful.wait_draining()
            await anyio.sleep(1)  # longer than a server takes to stop that waits for nothing
            mark(f"{name} done")

    current_loop().spawn(work)
    return PlainTextResponse("started\n")


# -- server-sent events --------------------------------------------------------------------------


async def ticks(request: Request) -> Response:
    """Events, twenty times a second, for ever."""

    async def events() -> AsyncIterator[str]:
        try:
            for n in range(10**6):
                yield f"id: {n}\ndata: {n}\n\n"
                await anyio.sleep(0.05)
        finally:
            mark("ticks ended")

    return StreamingResponse(events(), media_type=SSE, headers={"x-feed": "ticks"})


async def silent(request: Request) -> Response:
    """A stream that has nothing to say."""

    async def events() -> AsyncIterator[str]:
        try:
            await for_ever()
            yield ""
        finally:
            mark("silent ended")

    return StreamingResponse(events(), media_type=SSE)


async def half(request: Request) -> Response:
    """A stream that is in the middle of an event when the drain begins."""

    async def events() -> AsyncIterator[str]:
        try:
            yield "data: one\n"
            await graceful.wait_draining()
            await anyio.sleep(0.3)
            yield "data: two\n\n"
            await for_ever()
        finally:
            mark("half ended")

    return StreamingResponse(events(), media_type=SSE)


async def encoded(request: Request) -> Response:
    """A compressed stream, into which nothing may be written."""

    async def events() -> AsyncIterator[bytes]:
        try:
            yield ENCODED
            await for_ever()
        finally:
            mark("encoded ended")

    return StreamingResponse(events(), media_type=SSE, headers={"content-encoding": "gzip"})


async def library(request: Request) -> Response:
    """sse-starlette's own response."""

    async def events() -> AsyncIterator[dict[str, str]]:
        try:
            yield {"data": "from the library"}
            await for_ever()
        finally:
            mark("library ended")

    return EventSourceResponse(events())


async def tokens(request: Request) -> Response:
    """A stream that can't be resumed: it must finish."""
    exchange_of(request).finish()

    async def events() -> AsyncIterator[str]:
        yield "data: 0\n\n"
        await graceful.wait_draining()
        for n in range(1, 5):
            await anyio.sleep(0.05)
            yield f"data: {n}\n\n"
        mark("tokens done")

    return StreamingResponse(events(), media_type=SSE)


# -- declared streams ----------------------------------------------------------------------------


async def watch(request: Request) -> Response:
    """Lines of JSON, one of which is half written when the drain begins."""
    exchange = graceful.current_exchange()
    assert exchange is not None
    request.state.graceful.declare_stream(boundary=b"\n", farewell=b'{"bye": true}\n')

    async def lines() -> AsyncIterator[str]:
        try:
            yield '{"n": 1}\n{"n":'
            await graceful.wait_draining()
            await anyio.sleep(0.3)
            yield " 2}\n"
            await for_ever()
        finally:
            mark("watch ended")

    return StreamingResponse(lines(), media_type="application/x-ndjson")


class LongPoll:
    """A declared stream without records: the app is told that the client leaves, and answers."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["graceful"].declare_stream()
        while (await receive())["type"] != "http.disconnect":
            pass
        await Response(status_code=204)(scope, receive, send)


# -- WebSockets ----------------------------------------------------------------------------------


class Talk:
    """A WebSocket that echoes and tells what it saw at the end."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        name = scope["path"].rpartition("/")[2]
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        mark(f"{name} saw {message['type']} {message['code']}")
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except OSError as error:
            mark(f"{name} could not send: {type(error).__name__}")


async def held(websocket: WebSocket) -> None:
    """A WebSocket that a drain waits for: the test lets go of it when it has seen enough."""
    exchange_of(websocket).finish()
    await websocket.accept()
    await websocket.send_text(str(os.getpid()))
    await websocket.receive_text()
    mark("let go")
    await websocket.close()


async def push(websocket: WebSocket) -> None:
    """A WebSocket handler that never receives."""
    await websocket.accept()
    with contextlib.suppress(Exception):
        while True:
            await websocket.send_text("news")
            await anyio.sleep(0.05)


def say_farewell(exchange: AsgiExchange) -> object:
    """Farewell of the middleware: the path says which."""
    match exchange.describe()["path"].rpartition("/")[2]:
        case "text":
            return json.dumps({"type": "reconnect", "after": exchange.retry_after_ms})
        case "bytes":
            return b"reconnect"
        case "raises":
            raise ValueError("no words")
        case "async":
            return say_later()
        case _:
            return None


async def say_later() -> str:
    """An async farewell."""
    await anyio.lowlevel.checkpoint()
    return "later"


async def hang(exchange: AsgiExchange) -> str:
    """A farewell that never comes."""
    await for_ever()
    return ""


FAREWELLS: dict[str, Any] = {"": say_farewell, "hangs": hang, "fixed": "so long"}


# -- the app -------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    """Takes a while to start when asked to."""
    mark("startup")
    await anyio.sleep(float(os.environ.get("STARTUP_SECONDS", "0")))
    yield
    mark("shutdown")


async def on_drain() -> None:
    """An async hook."""
    mark("hook drain")


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", home),
        Route("/pid", pid),
        Route("/state", state),
        Route("/slow", slow),
        Route("/block", block),
        Route("/trickle", trickle),
        Route("/upload", upload, methods=["POST"]),
        Route("/stuck", stuck),
        Route("/stuck-halfway", stuck_halfway),
        Route("/background/{name}", background),
        Route("/ticks", ticks),
        Route("/silent", silent),
        Route("/half", half),
        Route("/encoded", encoded),
        Route("/library", library),
        Route("/tokens", tokens),
        Route("/watch", watch),
        Route("/poll", LongPoll()),
        WebSocketRoute("/held", held),
        WebSocketRoute("/push", push),
        WebSocketRoute("/talk/{farewell}", Talk()),
    ],
)
app.add_middleware(
    GracefulMiddleware,
    farewell=FAREWELLS[os.environ.get("FAREWELL", "")],
    on_lame_duck=lambda: mark("hook lame duck"),
    on_drain=on_drain,
    on_cleanup=[lambda: mark("hook first cleanup"), lambda: mark("hook second cleanup")],
)
