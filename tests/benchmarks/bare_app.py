"""The same routes as the Starlette example, without graceful: what a rehearsal compares with.

Run:  uvicorn tests.benchmarks.bare_app:app
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def home(request: Request) -> Response:
    """A quick request."""
    return PlainTextResponse("hello\n")


async def slow(request: Request) -> Response:
    """A request that takes as long as it is told to."""
    await asyncio.sleep(float(request.query_params.get("seconds", "1")))
    return PlainTextResponse("done\n")


async def echo(request: Request) -> Response:
    """A request that must not run twice."""
    return Response(await request.body(), media_type="application/octet-stream")


async def events(request: Request) -> Response:
    """Server-sent events, numbered, for ever."""

    async def numbers() -> AsyncIterator[str]:
        for n in itertools.count(1):
            yield f"id: {n}\ndata: {json.dumps({'n': n})}\n\n"
            await asyncio.sleep(0.5)

    return StreamingResponse(numbers(), media_type="text/event-stream")


async def talk(websocket: WebSocket) -> None:
    """A WebSocket that pushes numbered messages and echoes what it hears."""
    await websocket.accept()

    async def push() -> None:
        with contextlib.suppress(WebSocketDisconnect):
            for n in itertools.count(1):
                await websocket.send_json({"n": n})
                await asyncio.sleep(0.5)

    pushing = asyncio.create_task(push())
    try:
        async for text in websocket.iter_text():
            await websocket.send_text(text)
    except WebSocketDisconnect:
        pass
    finally:
        pushing.cancel()


async def ready(request: Request) -> Response:
    """Ready as long as the process answers at all: nobody tells it to stop."""
    return PlainTextResponse("ready\n")


app = Starlette(
    routes=[
        Route("/", home),
        Route("/slow", slow),
        Route("/echo", echo, methods=["POST"]),
        Route("/events", events),
        Route("/readyz", ready),
        WebSocketRoute("/ws", talk),
    ]
)
