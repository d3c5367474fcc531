"""Asks one instance's readiness path on a fresh connection. Nothing here decides what follows.

Plain asyncio instead of the load's HTTP client: this is done a hundred times a second while an
instance is being watched, and the client's pools must not come between.
"""

from __future__ import annotations

import asyncio
import contextlib
from enum import Enum, auto

__all__ = ["Answer", "probe"]


class Answer(Enum):
    """What a balancer would see."""

    READY = auto()
    UNREADY = auto()
    """An answer that is not a success, such as 503."""
    MISSING = auto()
    """404: the app has no such path."""
    REFUSED = auto()
    SILENT = auto()
    """The connection was made, and nothing came back."""


async def probe(port: int, path: str, timeout: float) -> Answer:
    """Ask the instance on `port`, at most `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            status = await _status(port, path)
    except ConnectionRefusedError:
        return Answer.REFUSED
    except (OSError, TimeoutError, ValueError):
        return Answer.SILENT
    if status == 404:
        return Answer.MISSING
    return Answer.READY if 200 <= status < 400 else Answer.UNREADY


async def _status(port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        line = await reader.readline()
        fields = line.split(None, 2)
        if len(fields) < 2:
            raise ConnectionResetError("no status line")
        return int(fields[1])
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
