"""A gRPC server on grpc.aio: orders answered one by one, and a feed that goes on for ever.

Run:  python -m examples.grpc_app 50051

No protoc is needed: messages are JSON. Connections are closed by age, so that clients look up the
servers anew: a client whose balancing is by connection would stay with those it knows.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]  # pyright: ignore

from graceful.integrations import grpc as graceful_grpc

OPTIONS = [
    ("grpc.max_connection_age_ms", 300_000),  # varied by 10 %, so that clients don't come at once
    ("grpc.max_connection_age_grace_ms", 20_000),  # what an RPC on such a connection has left
    ("grpc.so_reuseport", 0),  # a second server on the port is a mistake, not half of the clients
]


async def get_order(request: Any, context: Any) -> Any:
    """Answer one request."""
    await asyncio.sleep(float(request.get("seconds", 0)))
    return {"order": request["order"], "state": "paid"}


async def watch_orders(request: Any, context: Any) -> AsyncIterator[Any]:
    """Tell of changes; a stop tells the client to go on elsewhere, after the delay."""
    number = 0
    while True:
        yield {"order": number, "state": "new"}
        number += 1
        await asyncio.sleep(0.2)


def farewell(exchange: graceful_grpc.GrpcExchange) -> Any:
    """Say it in the feed's own words, too; the status and its pushback follow."""
    return {"reconnect": exchange.retry_after_ms}


def encode(message: Any) -> bytes:
    """Return `message` as JSON."""
    return json.dumps(message).encode()


ORDERS: Any = grpc.method_handlers_generic_handler(  # pyright: ignore[reportUnknownVariableType]
    "shop.Orders",
    {
        "Get": grpc.unary_unary_rpc_method_handler(get_order, json.loads, encode),
        "Watch": grpc.unary_stream_rpc_method_handler(watch_orders, json.loads, encode),
    },
)


async def main(port: int) -> None:
    """Serve until the process is told to stop."""
    interceptors = [graceful_grpc.interceptor(farewell)]
    server = grpc.aio.server(interceptors=interceptors, options=OPTIONS)
    server.add_generic_rpc_handlers((ORDERS,))
    servicer: Any = health.HealthServicer()  # pyright: ignore[reportUnknownVariableType]
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await graceful_grpc.serve(server, health=servicer, services=("", "shop.Orders"))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
