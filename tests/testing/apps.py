"""Apps that are stopped in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from graceful.asgi import GracefulMiddleware
from graceful.wsgi import GracefulMiddleware as WsgiMiddleware

__all__ = ["asgi_app", "wsgi_app"]


async def slow(request: Request) -> Response:
    """Take as many seconds as the request says."""
    await asyncio.sleep(float(request.query_params["seconds"]))
    return PlainTextResponse("done")


def threaded(request: Request) -> Response:
    """Take real time, in a thread."""
    time.sleep(0.05)
    return PlainTextResponse("done")


async def broken(request: Request) -> Response:
    """Fail."""
    raise ValueError("broken")


async def feed(request: Request) -> Response:
    """Send an event every second, for ever."""

    async def events() -> AsyncGenerator[str]:
        while True:
            yield "data: 1\n\n"
            await asyncio.sleep(1)

    return StreamingResponse(events(), media_type="text/event-stream")


async def talk(websocket: WebSocket) -> None:
    """Answer what is said."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text.upper())


def asgi_app(**settings: Any) -> GracefulMiddleware:
    """Return a wrapped ASGI app."""
    routes = [
        Route("/slow", slow),
        Route("/threaded", threaded),
        Route("/broken", broken),
        Route("/feed", feed),
        WebSocketRoute("/talk", talk),
    ]
    return GracefulMiddleware(Starlette(routes=routes), **settings)


def wsgi_app(**settings: Any) -> WsgiMiddleware:
    """Return a wrapped WSGI app."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        kind = "text/event-stream" if environ["PATH_INFO"] == "/feed" else "text/plain"
        start_response("200 OK", [("Content-Type", kind)])
        yield b"data: 1\n\n"
        while environ["PATH_INFO"] == "/feed":
            yield b"data: 1\n\n"

    return WsgiMiddleware(app, **settings)
