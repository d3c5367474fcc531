"""A small service whose tests say how it stops: see test_stop.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from graceful.asgi import GracefulMiddleware

saved: list[str] = []


async def front(request: Request) -> Response:
    """Answer at once."""
    return JSONResponse({"orders": "open"})


async def order(request: Request) -> Response:
    """Take a while, as a call to a payment service does."""
    await asyncio.sleep(7)
    saved.append("order")
    return JSONResponse({"order": "placed"}, status_code=201)


async def prices(request: Request) -> Response:
    """Tell the price every second, for ever."""

    async def events() -> AsyncGenerator[str]:
        while True:
            yield "data: 42\n\n"
            await asyncio.sleep(1)

    return StreamingResponse(events(), media_type="text/event-stream")


routes = [Route("/", front), Route("/order", order, methods=["POST"]), Route("/prices", prices)]

app = GracefulMiddleware(
    Starlette(routes=routes), on_cleanup=lambda: saved.append("connections closed")
)
