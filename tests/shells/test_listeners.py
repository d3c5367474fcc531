"""Who was accepted before a listener closes is served, on real sockets and both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Generator

import pytest
import uvloop

from graceful import listeners
from graceful.listeners import close_when_empty, shut_down

from ..servers.harness import LIMIT

Main = Callable[[], Awaitable[None]]

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    """Runs a coroutine function on a loop of its own."""

    def run(main: Main) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:

            async def limited() -> None:
                async with asyncio.timeout(LIMIT):
                    await main()

            runner.run(limited())

    return run


class Greeter:
    """A server that greets each client; knows those whom it has met."""

    def __init__(self) -> None:
        self.met = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._greet, "127.0.0.1", 0)
        await asyncio.sleep(0)
        return server

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.met += 1
        writer.write(b"hello")
        writer.close()


def connect(server: asyncio.Server) -> socket.socket:
    """Connect in this very step: the client waits in the accept queue."""
    return socket.create_connection(server.sockets[0].getsockname())


async def greeted(client: socket.socket) -> bool:
    client.setblocking(False)
    with client:
        return await asyncio.get_running_loop().sock_recv(client, 100) == b"hello"


def test_who_waits_is_served_and_known(run: Callable[[Main], None]) -> None:
    """A server that asks at once whether it has connections hears of them."""

    async def main() -> None:
        greeter = Greeter()
        server = await greeter.start()
        clients = [connect(server) for _ in range(3)]
        await close_when_empty([server])
        assert greeter.met == 3
        assert all([await greeted(client) for client in clients])
        assert not server.is_serving()

    run(main)


def test_who_comes_in_any_turn_is_served(run: Callable[[Main], None]) -> None:
    """Until the step in which the listener closes, for a client of each turn."""

    async def main() -> None:
        for turns in range(2 * listeners.HANDED_OVER):
            server = await Greeter().start()
            closing = asyncio.ensure_future(close_when_empty([server]))
            for _ in range(turns):
                await asyncio.sleep(0)
            if not server.is_serving():
                assert turns > listeners.HANDED_OVER
                break
            client = connect(server)
            await closing
            assert await greeted(client), turns

    run(main)


@contextlib.contextmanager
def held(server: asyncio.Server) -> Generator[socket.socket]:
    """The same listener, as a sibling has it."""
    with server.sockets[0].dup() as copy:
        yield copy


@pytest.mark.parametrize(
    ("limit", "value"), [("EMPTY_PASSES", listeners.HANDED_OVER - 1), ("EMPTY_WITHIN", -1.0)]
)
def test_clients_without_end(
    run: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    """A queue that is never empty: who was accepted is served, the rest is left to the siblings."""
    monkeypatch.setattr(listeners, "EMPTY_PASSES", 10**9)
    monkeypatch.setattr(listeners, limit, value)

    async def main() -> None:
        greeter = Greeter()
        server = await greeter.start()
        clients = [connect(server)]
        with held(server) as sibling:
            closing = asyncio.ensure_future(close_when_empty([server]))
            while server.is_serving():
                await asyncio.sleep(0)
                if server.is_serving():
                    clients.append(connect(server))
            await closing
            accepted = greeter.met
            assert 1 <= accepted <= len(clients)
            sibling.setblocking(False)
            for _ in clients[accepted:]:
                sibling.accept()[0].close()
            for client in clients[:accepted]:
                assert await greeted(client)
            for client in clients[accepted:]:
                client.close()

    run(main)


def test_the_last_one_refuses_for_all(run: Callable[[Main], None]) -> None:
    """Although another process holds the listener."""

    async def main() -> None:
        server = await Greeter().start()
        with held(server) as copy:
            await close_when_empty([server], lambda: True)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(copy.getsockname())

    run(main)


def test_a_listener_that_a_sibling_has_shut_down(run: Callable[[Main], None]) -> None:
    """It can't be asked who waits; who was accepted before is served."""
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        server = await Greeter().start()
        client = connect(server)
        closing = asyncio.ensure_future(close_when_empty([server]))
        for _ in range(listeners.HANDED_OVER - 1):
            await asyncio.sleep(0)
        shut_down(server.sockets[0].fileno())
        await closing
        assert await greeted(client)
        assert len(complaints) <= 1

    run(main)


def test_a_listener_that_is_closed_already() -> None:
    """Is nothing to complain about."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.shutdown(socket.SHUT_RDWR)
        shut_down(listener.fileno())
