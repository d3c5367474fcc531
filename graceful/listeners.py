"""Closing listeners of event loops without losing who waits in their accept queue."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Iterable, Sequence
from socket import SHUT_RDWR, socket
from typing import Any, Final

import anyio.lowlevel

__all__ = ["close_when_empty", "shut_down", "until_empty"]

EMPTY_PASSES: Final = 100
"""Turns of the event loop in which the accept queue must have been emptied."""


async def close_when_empty(
    servers: Sequence[Any], is_last: Callable[[], bool] = lambda: False
) -> None:
    """Close the listeners of `servers` (`asyncio.Server`) once nobody waits to be accepted.

    The loop accepts in each turn whatever has queued up, so a turn after which no listener is
    readable has emptied it; the close follows in the same step.

    Args:
        servers: those of this process.
        is_last: whether no other process accepts from these listeners any more, while one may still
            hold them: they are shut down for all then.
    """
    await until_empty(listener.fileno() for server in servers for listener in server.sockets)
    last = is_last()
    for server in servers:
        for listener in server.sockets if last else ():
            shut_down(listener.fileno())
        server.close()


async def until_empty(listeners: Iterable[int]) -> None:
    """Return, in the step that has found it so, when nobody waits to be accepted.

    Args:
        listeners: descriptors of listeners from which tasks of this loop go on accepting.
    """
    poll = select.poll()
    for number in listeners:
        poll.register(number, select.POLLIN)
    for _ in range(EMPTY_PASSES):
        await anyio.lowlevel.checkpoint()
        if not poll.poll(0):
            return


def shut_down(number: int) -> None:
    """Have the listener of descriptor `number` refuse new clients, whoever else holds it."""
    with contextlib.suppress(OSError), socket(fileno=os.dup(number)) as listener:
        listener.shutdown(SHUT_RDWR)
