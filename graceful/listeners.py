"""Closing listeners of asyncio servers without losing who waits in their accept queue."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["close_when_empty"]

EMPTY_PASSES: Final = 100
"""Turns of the event loop in which the accept queue must have been emptied."""


async def close_when_empty(servers: Sequence[Any]) -> None:
    """Close the listeners of `servers` (`asyncio.Server`) once nobody waits to be accepted.

    The loop accepts in each turn whatever has queued up, so a turn after which no listener is
    readable has emptied it; the close follows in the same step.
    """
    poll = select.poll()
    for server in servers:
        for listener in server.sockets:
            poll.register(listener.fileno(), select.POLLIN)
    for _ in range(EMPTY_PASSES):
        await asyncio.sleep(0)
        if not poll.poll(0):
            break
    for server in servers:
        server.close()
