"""Closing listeners of event loops without losing who waits in their accept queue."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Iterable, Sequence
from socket import SHUT_RDWR, socket
from typing import Any, Final

import anyio
import anyio.lowlevel

__all__ = ["EMPTY_PASSES", "EMPTY_WITHIN", "close_when_empty", "shut_down", "until_empty"]

HANDED_OVER: Final = 4
"""Turns in which a client that was accepted gets to the server's own code.

asyncio takes one to accept, one to make the transport, one for `connection_made` and one for the
task that a protocol starts there (CPython 3.11 to 3.13, `_accept_connection2`); uvloop takes fewer.
"""

EMPTY_PASSES: Final = 100
"""Turns of the event loop in which the accept queue must have been emptied."""

EMPTY_WITHIN: Final = 1.0
"""Seconds for the same: asyncio accepts as many in a turn as the backlog is long, if they come fast
enough, and the linger of who is connected already would pass meanwhile."""


async def close_when_empty(
    servers: Sequence[Any], is_last: Callable[[], bool] = lambda: False
) -> None:
    """Close the listeners of `servers` (`asyncio.Server`) once nobody waits to be accepted.

    Returns when the connections that were accepted last are known to who serves them.

    Args:
        servers: those of this process.
        is_last: whether no other process accepts from these listeners any more, while one may still
            hold them: they are shut down for all then.
    """
    numbers = [listener.fileno() for server in servers for listener in server.sockets]
    if not await until_empty(numbers):
        for number in numbers:
            asyncio.get_running_loop().remove_reader(number)
        await _hand_over()
    last = is_last()
    for server in servers:
        for listener in server.sockets if last else ():
            shut_down(listener.fileno())
        server.close()
    await _hand_over()


async def until_empty(listeners: Iterable[int]) -> bool:
    """Return, in the step that has found it so, when nobody waits to be accepted.

    The loop accepts in each turn whatever has queued up, so a turn after which no listener is
    readable has emptied it. A client that was accepted just then is not served yet, and asyncio
    drops it when its server is closed meanwhile: it must have been so for a few turns.

    Args:
        listeners: descriptors of listeners from which tasks of this loop go on accepting.

    Returns:
        False when clients came faster than they could be accepted, for `EMPTY_PASSES` turns or
        `EMPTY_WITHIN`, or when nobody can come any more.
    """
    poll = select.poll()
    for number in listeners:
        poll.register(number, select.POLLIN)
    empty, give_up = 0, anyio.current_time() + EMPTY_WITHIN
    for _ in range(EMPTY_PASSES):
        await anyio.lowlevel.checkpoint()
        if anyio.current_time() > give_up:
            return False
        waiting = poll.poll(0)
        if any(event & select.POLLHUP for _, event in waiting):  # shut down by a sibling
            return False
        empty = 0 if waiting else empty + 1
        if empty == HANDED_OVER:
            return True
    return False


async def _hand_over() -> None:
    for _ in range(HANDED_OVER):
        await anyio.lowlevel.checkpoint()


def shut_down(number: int) -> None:
    """Have the listener of descriptor `number` refuse new clients, whoever else holds it."""
    with contextlib.suppress(OSError), socket(fileno=os.dup(number)) as listener:
        listener.shutdown(SHUT_RDWR)
