"""The listeners of granian's workers, which are Rust's: found by descriptor, counted, replaced.

Linux only, by what /proc tells; elsewhere nothing is found, and the callers do without. Nothing of
granian's is named here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

__all__ = ["LOOK_EVERY", "close_when_empty", "count_alike", "listening_on"]

DESCRIPTORS: Final = Path("/proc/self/fd")

SOCKETS: Final = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}
"""Every TCP socket of the machine, or container; those that listen come first."""

LISTENS: Final = "0A"

LOOPBACK: Final = "127.0.0.1"
"""Where stand-ins listen, at ports that the kernel draws and nobody is told."""

LOOK_EVERY: Final = 0.002
"""Seconds between two looks at an accept queue that another thread empties."""

LOOKS: Final = 250
"""After these somebody still waits: the server has as many connections as it takes."""


def listening_on(host: str, port: int) -> list[int]:
    """Return the descriptors of this process that listen on this TCP address."""
    found: list[int] = []
    for number in _descriptors():
        with contextlib.suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(number).st_mode) and _listens(number, host, port):
                found.append(number)
    return found


def _descriptors() -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from map(int, os.listdir(DESCRIPTORS))


def _listens(number: int, host: str, port: int) -> bool:
    with socket.socket(fileno=os.dup(number)) as copy:
        if copy.family not in SOCKETS or not copy.getsockopt(
            socket.SOL_SOCKET, socket.SO_ACCEPTCONN
        ):
            return False
        name = copy.getsockname()
        return name[1] == port and ip_address(name[0]) == ip_address(host)


def count_alike(number: int) -> int:
    """Return how many sockets, of any process, listen where the one of descriptor `number` does.

    0 where the machine doesn't tell.
    """
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as copy:
        inode = str(os.fstat(number).st_ino)
        listeners = list(_all_listeners(SOCKETS[copy.family]))
        mine = [address for address, owner in listeners if owner == inode]
        return sum(address in mine for address, _ in listeners)
    return 0


def _all_listeners(table: Path) -> Iterator[tuple[str, str]]:
    """Yield the address and the inode of each socket that listens."""
    with table.open() as lines:
        next(lines)
        for line in lines:
            _, address, _, state, *rest = line.split()
            if state != LISTENS:
                return
            yield address, rest[5]


async def close_when_empty(numbers: list[int]) -> bool:
    """Close the listeners of these descriptors once nobody waits to be accepted.

    Their owner goes on holding the descriptors; each stands for another socket from here on, which
    listens where nobody looks for it, and on which its event loop is hardly ever woken.

    Where others listen on the same port (SO_REUSEPORT), the kernel resets a client that it gives to
    this listener between the last look and the close: all that can be made ready before is.

    Returns False when they stay open, because somebody still waits: nobody who waits is sent away.
    """
    poll = select.poll()
    for number in numbers:
        poll.register(number, select.POLLIN)
    with contextlib.ExitStack() as stack:
        stand_ins = [(stack.enter_context(_stand_in()).fileno(), number) for number in numbers]
        for _ in range(LOOKS):
            if not poll.poll(0):
                for stand_in, number in stand_ins:
                    os.dup2(stand_in, number, inheritable=False)
                return True
            await asyncio.sleep(LOOK_EVERY)
    return False


def _stand_in() -> socket.socket:
    """Return another TCP listener: this may come before the owner has looked at its own.

    granian asks its listener for an address in a thread of its own, some time after it has begun to
    listen, and panics when there is none; an `accept` must say 'try again', which only a listener's
    does.
    """
    stand_in = socket.socket()
    stand_in.setblocking(False)
    stand_in.bind((LOOPBACK, 0))
    stand_in.listen(1)
    return stand_in
