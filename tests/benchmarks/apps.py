"""One small Starlette app, bare and wrapped, for the throughput benchmark."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from graceful.asgi import GracefulMiddleware


async def hello(request: Request) -> Response:
    """Answer at once: the worst case for whatever stands in front."""
    return PlainTextResponse("hello\n")


bare = Starlette(routes=[Route("/", hello)])
wrapped = GracefulMiddleware(Starlette(routes=[Route("/", hello)]))
