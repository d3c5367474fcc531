"""gRPC, `grpc.aio` and the threaded `grpc.server`: RPCs are drained as requests and streams are.

    from graceful.integrations import grpc as graceful_grpc

    server = grpc.aio.server(interceptors=[graceful_grpc.interceptor()])
    health = grpc_health.v1.health.aio.HealthServicer()
    ...
    await graceful_grpc.serve(server, health=health, propagation_delay=5)

and for threads `threaded_interceptor()` and `serve_threaded(server, health=health)`. Put the
interceptor first, so that it sees what the others do.

What a stop does
- The health service says NOT_SERVING first; RPCs of all kinds are served on for the delay.
- Then each stream is told: its RPC ends with UNAVAILABLE and `grpc-retry-pushback-ms`, a delay of
  its own, spread over the stream window. `graceful.current_exchange().finish()` in a handler lets
  its stream finish; one of requests only (an upload) finishes unless it declares otherwise.
- New streams are turned away in the same words; late unary RPCs are served while there is time.
- When the linger is over, `server.stop` with what the budget has left: clients go elsewhere.

A process that serves HTTP as well has one lifecycle, so both stop together.
"""

from __future__ import annotations

try:
    import grpc  # noqa: F401  # pyright: ignore[reportUnusedImport]  # grpcio: imports are absolute
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}: pip install 'graceful-drain[grpc]'", name=error.name
    ) from error

from .aio import interceptor
from .exchange import PUSHBACK, GrpcExchange
from .serving import GrpcServer, detect, serve, serve_threaded
from .threaded import threaded_interceptor

__all__ = [
    "PUSHBACK",
    "GrpcExchange",
    "GrpcServer",
    "detect",
    "interceptor",
    "serve",
    "serve_threaded",
    "threaded_interceptor",
]
