"""Apps that start in their own way: not wrapped, not at all, one worker long after the other."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import graceful
from graceful.integrations.starlette import GracefulMiddleware

from .contract_app import mark


async def home(request: Request) -> Response:
    """A quick request."""
    return PlainTextResponse("hello\n")


bare = Starlette(routes=[Route("/", home)])


@contextlib.asynccontextmanager
async def broken(app: Starlette) -> AsyncGenerator[None]:
    """A start-up that fails."""
    raise RuntimeError("no database")
    yield


failing = Starlette(lifespan=broken)
failing.add_middleware(GracefulMiddleware)


@contextlib.asynccontextmanager
async def late(app: Starlette) -> AsyncGenerator[None]:
    """The second worker is ready only when the drain of the first one has begun."""
    slot = graceful.current().slot
    mark(f"starting {slot}")
    if slot == 2:
        board = graceful.current().board
        assert board is not None
        while not board.has_stopped(1):  # noqa: ASYNC110 - another process says so
            await anyio.sleep(0.01)
    yield
    mark("shutdown")


second_late = Starlette(lifespan=late, routes=[Route("/", home)])
second_late.add_middleware(GracefulMiddleware)
