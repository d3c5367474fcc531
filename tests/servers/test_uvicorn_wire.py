"""What is on the wire when uvicorn stops: the accept queue, and clients that misbehave."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct

import pytest

from .contract import APP, goodbye, open_websocket
from .harness import LIMIT, Client, Launcher, launch, settings
from .launchers import UVICORN, UVICORN_H11, UVICORN_WORKERS

QUEUED = 20

ON_BOTH_LOOPS = pytest.mark.parametrize(
    "launcher", [UVICORN, UVICORN_H11], ids=["uvloop", "asyncio"]
)


def vanish(client: Client) -> None:
    """Close a connection with a reset, as a machine does that has lost its network."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize(
    "launcher", [UVICORN, UVICORN_H11, UVICORN_WORKERS], ids=["uvloop", "asyncio", "workers"]
)
def test_the_accept_queue_is_emptied(launcher: Launcher) -> None:
    """Requests that the kernel has queued when the delay is over are answered, every one."""
    env = settings(propagation_delay=0, linger=0.5)
    with launch(launcher, APP, env=env) as server, contextlib.ExitStack() as exits:
        server.signal_group(signal.SIGSTOP)
        clients = [exits.enter_context(contextlib.closing(server.client())) for _ in range(QUEUED)]
        for client in clients:
            client.ask("GET", "/")
        server.signal_group(signal.SIGTERM)
        server.signal_group(signal.SIGCONT)
        assert [client.reply().status for client in clients] == [200] * QUEUED
        assert server.wait() == 0


@ON_BOTH_LOOPS
def test_a_connection_in_the_queue_without_a_request_is_not_waited_for(launcher: Launcher) -> None:
    """A client that connects and says nothing does not keep the process."""
    env = settings(propagation_delay=0.2, linger=0.3, grace_period=60)
    with launch(launcher, APP, env=env) as server, contextlib.closing(server.client()) as client:
        server.terminate()
        assert server.wait(LIMIT / 2) == 0
        assert client.at_end()


@ON_BOTH_LOOPS
def test_clients_that_vanish_do_not_hold_the_drain(launcher: Launcher) -> None:
    """In the middle of a response, of an upload, of a stream, of a WebSocket."""
    env = settings(propagation_delay=1, linger=0.3, stream_window=0.3, grace_period=60)
    with launch(launcher, APP, env=env) as server, contextlib.ExitStack() as exits:
        clients = {path: server.client() for path in ("/trickle", "/slow", "/ticks", "/upload")}
        for path in ("/trickle", "/slow", "/ticks"):
            clients[path].ask("GET", path)
        clients["/upload"].begin_upload("/upload", b"123", length=10)
        clients["/trickle"].read_until(b"first\n")
        clients["/ticks"].read_until(b"\n\n")
        talk = exits.enter_context(open_websocket(server, "/talk/text"))
        stays = exits.enter_context(contextlib.closing(server.client()))
        stays.ask("GET", "/slow")
        server.get("/")
        server.terminate()
        server.log.wait_event("lame duck")
        for client in clients.values():
            vanish(client)
        talk.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        talk.socket.close()
        assert stays.reply().body == b"slow but whole\n"
        assert server.wait(LIMIT / 2) == 0
        assert not server.log.events("cut", "failed")


@ON_BOTH_LOOPS
def test_malformed_requests_in_the_drain(launcher: Launcher) -> None:
    """They are refused as ever, and nobody else notices."""
    env = settings(propagation_delay=0.3, linger=0.5, stream_window=0.3, grace_period=60)
    with (
        launch(launcher, APP, env=env) as server,
        contextlib.closing(server.client()) as garbage,
        contextlib.closing(server.client()) as stays,
        open_websocket(server, "/held") as held,
    ):
        held.recv(LIMIT)
        server.terminate()
        server.log.wait_event("draining")
        garbage.socket.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        assert garbage.socket.recv(12) == b"HTTP/1.1 400"
        reply = stays.get("/")
        assert (reply.status, reply.closes) == (200, True)
        held.send("release")
        assert goodbye(held).code == 1000
        assert server.wait(LIMIT / 2) == 0


@ON_BOTH_LOOPS
def test_half_a_request_head(launcher: Launcher) -> None:
    """A request whose first bytes came before the drain and the rest in the linger is answered."""
    env = settings(propagation_delay=0.3, linger=3)
    with (
        launch(launcher, APP, env=env) as server,
        contextlib.closing(server.client()) as client,
    ):
        client.socket.sendall(b"GET / HTTP/1.1\r\nHo")
        server.get("/")
        server.terminate()
        server.log.wait_event("draining")
        client.socket.sendall(b"st: t\r\n\r\n")
        answer = b""
        while part := client.socket.recv(65536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.endswith(b"hello\n")
        assert server.wait() == 0


def test_two_requests_in_one_segment() -> None:
    """With pipelining the first answer of the drain says close, and the connection is closed."""
    env = settings(propagation_delay=0.3, linger=1, grace_period=60)
    with (
        launch(UVICORN, APP, env=env) as server,
        contextlib.closing(server.client()) as client,
    ):
        server.get("/")
        server.terminate()
        server.log.wait_event("draining")
        client.socket.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n" * 2)
        answers = b""
        while part := client.socket.recv(65536):
            answers += part
        first, *others = answers.split(b"HTTP/1.1 ")[1:]
        assert first.startswith(b"200 OK")
        assert b"connection: close" in first.lower()
        assert all(other.startswith(b"200 OK") for other in others)
        assert server.wait(LIMIT / 2) == 0
