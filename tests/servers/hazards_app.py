"""Everything that keeps a process from stopping, one route each. Used by the tests of the end."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from graceful.asgi import GracefulMiddleware

LONG = 60


def block_the_loop() -> None:
    """Keep the event loop's thread."""
    time.sleep(LONG)


def hold_the_gil() -> None:
    """Keep the GIL in one C call: what a bad extension does."""
    ctypes.PyDLL(None).usleep(LONG * 1_000_000)  # PyDLL calls without letting go of the GIL


def sleep_in_a_thread() -> None:
    """A sync handler, as frameworks run it."""
    time.sleep(LONG)


def fill_the_log() -> None:
    """Write more to the log than its pipe can take: nobody reads it."""
    os.write(2, b"x" * 1_000_000)


def fill_the_log_and_hold_the_gil() -> None:
    """Everything at once: no Python code runs, and not even C code can write."""
    os.set_blocking(2, False)
    with suppress(BlockingIOError):
        while True:
            os.write(2, b"x" * 512)
    os.set_blocking(2, True)
    hold_the_gil()


async def swallow_cancellation(send: Any) -> None:
    """Never ends, whatever is asked of it."""
    while True:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            continue


async def ignore_disconnects(send: Any) -> None:
    """An endless event stream that takes no notice of errors."""
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while True:
        with suppress(OSError, asyncio.CancelledError):
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


def on_the_loop(hazard: Callable[[], None]) -> Callable[[Any], Awaitable[None]]:
    """Make a hazard of something that blocks."""

    async def run(send: Any) -> None:
        hazard()

    return run


def in_a_thread(hazard: Callable[[], None]) -> Callable[[Any], Awaitable[None]]:
    """Make a hazard of something that blocks a worker thread."""

    async def run(send: Any) -> None:
        await asyncio.to_thread(hazard)

    return run


HAZARDS: dict[str, Callable[[Any], Awaitable[None]]] = {
    "/blocked": on_the_loop(block_the_loop),
    "/gil": in_a_thread(hold_the_gil),
    "/thread": in_a_thread(sleep_in_a_thread),
    "/log": on_the_loop(fill_the_log),
    "/log-and-gil": in_a_thread(fill_the_log_and_hold_the_gil),
    "/swallow": swallow_cancellation,
    "/endless": ignore_disconnects,
}


async def hazardous(scope: Any, receive: Any, send: Any) -> None:
    """The app: the path says what goes wrong."""
    if scope["type"] != "http":
        raise RuntimeError("HTTP only")
    os.write(2, f"@ {os.getpid()} in {scope['path']}\n".encode())
    await HAZARDS[scope["path"]](send)


app = GracefulMiddleware(hazardous)
