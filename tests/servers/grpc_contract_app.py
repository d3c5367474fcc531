"""The gRPC server that the contract stops. Run: python -m tests.servers.grpc_contract_app KIND

KIND is `aio`, `threads`, `mixed` (handlers that block on `grpc.aio`) or `lacking` (threads, without
grpcio's private names); all serve the same methods, whose messages are bytes. Settings come from
the environment.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import queue
import sys
import threading
import time
import types
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any, cast

import grpc
import grpc.aio
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc

import graceful
from graceful.integrations import grpc as graceful_grpc

SERVICE = "/test.Contract/"


def mark(text: str) -> None:
    """Tell the test something."""
    os.write(2, f"@ {os.getpid()} {text}\n".encode())  # in one piece: threads write, too


def last_words(exchange: Any) -> bytes | None:
    """The farewell message; only streams that ask for it get one."""
    if exchange.method.endswith("/Polite"):
        return b"bye in %d" % exchange.retry_after_ms
    return None


# -- handlers that are coroutines ------------------------------------------------------------------


class Aio:
    """The methods, for `grpc.aio`."""

    @staticmethod
    async def Echo(request: bytes, context: Any) -> bytes:
        exchange = graceful.current_exchange()
        assert exchange is not None
        assert not exchange.is_stream
        return request + (b" draining" if graceful.draining() else b"")

    @staticmethod
    async def Slow(request: bytes, context: Any) -> bytes:
        mark("slow")
        await asyncio.sleep(float(request))
        return b"slow but whole"

    @staticmethod
    async def Stuck(request: bytes, context: Any) -> bytes:
        mark("stuck")
        await asyncio.Event().wait()
        return b""

    @staticmethod
    async def Ticks(request: bytes, context: Any) -> AsyncIterator[bytes]:
        number = 0
        try:
            while True:
                yield b"%d" % number
                number += 1
                await asyncio.sleep(0.05)
        finally:
            mark("ticks over")

    @staticmethod
    async def Silent(request: bytes, context: Any) -> None:
        await context.write(b"hello")
        try:
            await asyncio.Event().wait()
        finally:
            mark("silent over")

    Polite = Silent

    @staticmethod
    async def Finish(request: bytes, context: Any) -> AsyncIterator[bytes]:
        exchange = graceful.current_exchange()
        assert exchange is not None
        exchange.finish()
        yield b"first"
        await graceful.wait_draining()
        assert 0 < graceful.remaining() < 60
        for word in (b"and", b"last"):
            await asyncio.sleep(0.2)
            yield word

    @staticmethod
    async def Chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    @staticmethod
    async def Upload(requests: AsyncIterator[bytes], context: Any) -> bytes:
        total = 0
        async for request in requests:
            total += len(request)
        return b"%d" % total

    @staticmethod
    async def Hold(request: bytes, context: Any) -> bytes:
        async def work() -> None:
            async with graceful.hold("a job"):
                await asyncio.sleep(float(request))
                mark("job done")

        jobs.add(asyncio.ensure_future(work()))
        return b""


jobs: set[asyncio.Future[None]] = set()


# -- handlers that block a thread ------------------------------------------------------------------


class Threads:
    """The same methods, for `grpc.server`."""

    @staticmethod
    def Echo(request: bytes, context: Any) -> bytes:
        exchange = graceful.current_exchange()
        assert exchange is not None
        assert not exchange.is_stream
        return request + (b" draining" if graceful.draining() else b"")

    @staticmethod
    def Slow(request: bytes, context: Any) -> bytes:
        mark("slow")
        time.sleep(float(request))
        return b"slow but whole"

    @staticmethod
    def Stuck(request: bytes, context: Any) -> bytes:
        mark("stuck")
        threading.Event().wait()
        return b""

    @staticmethod
    def Ticks(request: bytes, context: Any) -> Iterator[bytes]:
        number = 0
        try:
            while True:
                assert graceful.current_exchange() is not None
                yield b"%d" % number
                number += 1
                time.sleep(0.05)
        finally:
            mark("ticks over")

    @staticmethod
    def Silent(request: bytes, context: Any) -> Iterator[bytes]:
        """Blocks, and listens for the end of its RPC as gRPC's handlers do."""
        words: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        context.add_callback(lambda: words.put(None))
        yield b"hello"
        while (word := words.get()) is not None:
            yield word
        mark("silent over")

    Polite = Silent

    @staticmethod
    def Finish(request: bytes, context: Any) -> Iterator[bytes]:
        exchange = graceful.current_exchange()
        assert exchange is not None
        exchange.finish()
        yield b"first"
        while not graceful.draining():
            time.sleep(0.02)
        assert 0 < graceful.remaining() < 60
        for word in (b"and", b"last"):
            time.sleep(0.2)
            yield word

    @staticmethod
    def Chat(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests

    @staticmethod
    def Upload(requests: Iterator[bytes], context: Any) -> bytes:
        return b"%d" % sum(map(len, requests))

    @staticmethod
    def Hold(request: bytes, context: Any) -> bytes:
        def work() -> None:
            with graceful.hold("a job"):
                time.sleep(float(request))
                mark("job done")

        threading.Thread(target=work).start()
        return b""


ANY: Any = grpc  # the stubs know no handlers without serializers
UNARY: Any = ANY.unary_unary_rpc_method_handler
STREAM: Any = ANY.unary_stream_rpc_method_handler

MAKERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("Echo", "Slow", "Stuck", "Hold"), UNARY),
    **dict.fromkeys(("Ticks", "Silent", "Polite", "Finish"), STREAM),
    "Chat": ANY.stream_stream_rpc_method_handler,
    "Upload": ANY.stream_unary_rpc_method_handler,
}


def handlers(methods: Any) -> Any:
    """Return the handlers of all methods."""
    made = {name: make(getattr(methods, name)) for name, make in MAKERS.items()}
    return ANY.method_handlers_generic_handler(SERVICE.strip("/"), made)


def hooks(health: Any) -> Any:
    """Return hooks that mark when they run; the first also what health says then."""

    async def lame_duck() -> None:
        reply = health.Check(health_pb2.HealthCheckRequest(), None)
        reply = await reply if inspect.isawaitable(reply) else reply
        serving = reply.status == health_pb2.HealthCheckResponse.SERVING
        mark(f"hook lame duck, {'healthy' if serving else 'unhealthy'}")

    return {
        "on_lame_duck": lame_duck,
        "on_drain": lambda: mark("hook drain"),
        "on_cleanup": lambda: mark("hook cleanup"),
    }


def tell_port(server: Any) -> None:
    """Open a port and tell it."""
    port = server.add_insecure_port(f"127.0.0.1:{os.environ.get('PORT', '0')}")
    sys.stderr.write(f"grpc port {port}\n")


async def serve_aio(methods: Any = Aio) -> None:
    """Serve with `grpc.aio`; sync handlers too, as it can."""
    server = grpc.aio.server(
        ThreadPoolExecutor(16), interceptors=[graceful_grpc.interceptor(last_words)]
    )
    server.add_generic_rpc_handlers((handlers(methods),))
    health: Any = cast(Any, grpc_health).aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    tell_port(server)
    await graceful_grpc.serve(server, health=health, **hooks(health))
    mark("served")


def serve_threads() -> None:
    """Serve with threads."""
    interceptors = [graceful_grpc.threaded_interceptor(last_words)]
    server = grpc.server(ThreadPoolExecutor(128), interceptors=interceptors)
    server.add_generic_rpc_handlers((handlers(Threads),))
    health = grpc_health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    tell_port(server)
    graceful_grpc.serve_threaded(server, health=health, **hooks(health))
    mark("served")


def serve(kind: str) -> None:
    """Serve in one of the ways."""
    if kind == "lacking":  # a grpcio in which nobody finds what is private
        real = import_module("grpc._server")
        lacking = types.ModuleType("grpc._server")
        vars(lacking)["create_server"] = vars(real)["create_server"]  # which is how one is made
        sys.modules["grpc._server"] = lacking
    if kind in ("threads", "lacking"):
        serve_threads()
    else:
        asyncio.run(serve_aio(Threads if kind == "mixed" else Aio))


if __name__ == "__main__":
    serve(sys.argv[1])
