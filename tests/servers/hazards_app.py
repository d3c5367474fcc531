"""Everything that keeps a process from stopping, one route each. Used by the tests of the end."""

from __future__ import annotations

import asyncio
import ctypes
import sys
import time
from contextlib import suppress
from typing import Any

from graceful.asgi import GracefulMiddleware


def hold_the_gil(seconds: int) -> None:
    """Keep the GIL in one C call: what a bad extension does."""
    ctypes.PyDLL(None).usleep(seconds * 1_000_000)  # PyDLL calls without letting go of the GIL


async def swallow() -> None:
    """Never ends, whatever is asked of it."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


async def respond(send: Any, text: str = "ok") -> None:
    """Answer 200."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


async def endless_events(send: Any) -> None:
    """An SSE app that ignores disconnects and send errors."""
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while True:
        with suppress(OSError):
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        await asyncio.sleep(0.05)


async def culprit(scope: Any, receive: Any, send: Any) -> None:
    """The app: the path says what goes wrong."""
    path = scope["path"]
    if path == "/blocked":
        time.sleep(60)  # noqa: ASYNC251 - the hazard itself
    elif path == "/gil":
        await asyncio.to_thread(hold_the_gil, 60)
    elif path == "/swallow":
        await swallow()
    elif path == "/endless":
        await endless_events(send)
    elif path == "/thread":
        await asyncio.to_thread(time.sleep, 60)
    elif path == "/noise":
        sys.stderr.write("x" * 200_000)
        sys.stderr.flush()
    await respond(send)


app = GracefulMiddleware(culprit)
