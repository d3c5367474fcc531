"""What else lives in a process beside one server. Run: python -m tests.servers.neighbours MODE

Each mode is a program that stops itself by SIGTERM and prints what it saw.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import uvicorn

import graceful
from graceful.asgi import GracefulMiddleware


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answer 200; lifespans are not for it."""
    if scope["type"] != "http":
        raise RuntimeError("HTTP only")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def wrapped(**options: Any) -> GracefulMiddleware:
    """Return the app with settings that make a stop short."""
    return GracefulMiddleware(hello, grace_period=8, propagation_delay=0.3, linger=0.1, **options)


async def serve(*apps: Any, then: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Serve each app by a server of its own on one loop, and run `then` once all have started."""
    servers = [uvicorn.Server(uvicorn.Config(a, port=0, log_level="warning")) for a in apps]
    serving = [asyncio.create_task(server.serve()) for server in servers]
    while not all(server.started for server in servers):  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.01)
    await then()
    await asyncio.gather(*serving)


async def terminate() -> None:
    """SIGTERM, from outside as far as the handlers can tell."""
    os.kill(os.getpid(), signal.SIGTERM)


def two() -> None:
    """Two apps on two servers: one stop ends both."""
    asyncio.run(serve(wrapped(), wrapped(), then=terminate))


def shared() -> None:
    """One app on two servers."""
    app = wrapped()
    asyncio.run(serve(app, app, then=terminate))


def fork() -> None:
    """A child that is terminated must not set its parent's alarm."""

    async def have_a_child() -> None:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        await asyncio.sleep(0.2)
        assert child.pid is not None
        child.terminate()
        await asyncio.sleep(0.5)
        print("alarm", signal.getitimer(signal.ITIMER_REAL)[0], flush=True)
        child.kill()
        child.join()
        await terminate()

    asyncio.run(serve(wrapped(), then=have_a_child))


def duck() -> None:
    """An operator's lame duck is announced, and announced again after a recovery."""

    async def announce() -> None:
        print("deregistered", flush=True)
        told.set()

    async def in_and_out() -> None:
        for _ in range(2):
            told.clear()
            graceful.current().lame_duck()
            await asyncio.wait_for(told.wait(), 10)
            graceful.current().recover()
        await terminate()

    told = asyncio.Event()
    asyncio.run(serve(wrapped(on_lame_duck=announce), then=in_and_out))


def hang() -> None:
    """A clean-up hook that blocks the loop for good."""

    async def never_returns() -> None:
        time.sleep(60)  # noqa: ASYNC251 - that is the hazard

    asyncio.run(serve(wrapped(on_cleanup=never_returns), then=terminate))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ended", flush=True)
