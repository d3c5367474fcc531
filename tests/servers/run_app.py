"""Apps that `graceful run` is not made for: one that is not wrapped, one that does not start."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from graceful.integrations.starlette import GracefulMiddleware


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
