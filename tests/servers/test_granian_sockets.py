"""Listeners that somebody else's code owns: found, counted and replaced by their descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Generator

import pytest

from graceful.integrations import granian_sockets
from graceful.integrations.granian_sockets import close_when_empty, count_alike, listening_on


@contextlib.contextmanager
def listener(port: int = 0) -> Generator[socket.socket]:
    """Return a listener that shares its port, as each worker of granian has one."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen()
        sock.setblocking(False)
        yield sock


def test_a_listener_is_found_by_its_address() -> None:
    """Not connections of its port, nor sockets that do not listen, nor other ports."""
    with listener() as mine, listener(), socket.socket() as bound:
        port = mine.getsockname()[1]
        bound.bind(("127.0.0.1", 0))
        with socket.create_connection(mine.getsockname()) as client, mine.accept()[0]:
            assert client.getpeername()[1] == port
            assert listening_on("127.0.0.1", port) == [mine.fileno()]
            assert listening_on("0.0.0.0", port) == []
            assert listening_on("127.0.0.1", bound.getsockname()[1]) == []


def test_those_that_listen_alike_are_counted() -> None:
    """Whoever owns them; other ports and connections don't count."""
    with listener() as mine, listener():
        port = mine.getsockname()[1]
        assert count_alike(mine.fileno()) == 1
        with listener(port), socket.create_connection(mine.getsockname()):
            assert count_alike(mine.fileno()) == 2
        assert count_alike(mine.fileno()) == 1


def test_nothing_is_known_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is no error."""
    with listener() as mine:
        gone = granian_sockets.DESCRIPTORS / "gone"
        monkeypatch.setattr(granian_sockets, "DESCRIPTORS", gone)
        monkeypatch.setattr(granian_sockets, "SOCKETS", {socket.AF_INET: gone})
        assert listening_on(*mine.getsockname()) == []
        assert count_alike(mine.fileno()) == 0


def test_an_empty_listener_is_closed_under_its_owner() -> None:
    """New clients are refused; who holds the descriptor sees nobody come, and no error."""
    with listener() as mine:
        address, before = mine.getsockname(), os.fstat(mine.fileno()).st_ino
        assert asyncio.run(close_when_empty([mine.fileno()]))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        assert os.fstat(mine.fileno()).st_ino != before
        with pytest.raises(BlockingIOError):
            mine.accept()


def test_a_listener_that_is_closed_early_still_has_an_address() -> None:
    """granian's thread asks for it some time after it has begun to listen, and panics otherwise."""
    with listener() as mine:
        assert asyncio.run(close_when_empty([mine.fileno()]))
        with socket.socket(fileno=os.dup(mine.fileno())) as stand_in:
            assert stand_in.family is socket.AF_INET
            assert stand_in.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            assert stand_in.getsockname()[0] == "127.0.0.1"


def test_who_waits_is_accepted_first() -> None:
    """The listener is closed when its owner has taken in everybody."""

    async def run(mine: socket.socket) -> bool:
        closing = asyncio.create_task(close_when_empty([mine.fileno()]))
        await asyncio.sleep(0.05)
        assert not closing.done()
        mine.accept()[0].close()
        return await closing

    with listener() as mine, socket.create_connection(mine.getsockname()):
        assert asyncio.run(run(mine))


def test_a_listener_whose_owner_takes_nobody_in_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """granian stops to accept when it has as many connections as it takes: nobody is sent away."""
    monkeypatch.setattr(granian_sockets, "LOOKS", 3)
    with listener() as mine, socket.create_connection(mine.getsockname()) as client:
        assert not asyncio.run(close_when_empty([mine.fileno()]))
        with mine.accept()[0] as accepted:
            accepted.send(b"hello")
            assert client.recv(5) == b"hello"
