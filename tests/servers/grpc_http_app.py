"""A process that serves gRPC and HTTP. Run: python -m tests.servers.grpc_http_app HOW

HOW is `lifespan` (the gRPC server runs within the app's lifespan), `beside` (two servers gathered)
or `first` (gathered, gRPC first).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from typing import Any, cast

import grpc.aio
import uvicorn
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2_grpc
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from graceful.integrations import grpc as graceful_grpc
from graceful.integrations.starlette import GracefulMiddleware

from .grpc_contract_app import Aio, handlers, hooks, mark, tell_port


async def serve_grpc() -> None:
    """Serve gRPC with the settings of the HTTP app, or the environment."""
    server = grpc.aio.server(interceptors=[graceful_grpc.interceptor()])
    server.add_generic_rpc_handlers((handlers(Aio),))
    health: Any = cast(Any, grpc_health).aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    tell_port(server)
    await graceful_grpc.serve(server, health=health, **hooks(health))
    mark("grpc served")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    """Serve gRPC as long as the app runs."""
    task = asyncio.create_task(serve_grpc())
    yield
    await task


async def slow(request: Request) -> PlainTextResponse:
    """Take a while."""
    mark("http slow")
    await asyncio.sleep(1.5)
    return PlainTextResponse("slow but whole")


def app_of(how: str) -> Starlette:
    """Return the HTTP app."""
    return Starlette(
        routes=[Route("/slow", slow)],
        middleware=[Middleware(GracefulMiddleware)],
        lifespan=lifespan if how == "lifespan" else None,
    )


async def main(how: str) -> None:
    """Serve both."""
    http = uvicorn.Server(uvicorn.Config(app_of(how), port=0))
    jobs = [http.serve()] if how == "lifespan" else [http.serve(), serve_grpc()]
    await asyncio.gather(*(jobs[::-1] if how == "first" else jobs))
    mark("both served")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
