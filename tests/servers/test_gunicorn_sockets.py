"""gunicorn's ways to listen and to load the app: the choreography is the same on each."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import socket
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from .harness import ASKED, LIMIT, Launcher, ServerProcess, launch, reserved_port, settings, until
from .launchers import GUNICORN_ASGI, GUNICORN_GTHREAD, GUNICORN_SYNC, GUNICORN_UVICORN

FLASK = "examples.flask_app:app"
STARLETTE = "examples.starlette_app:app"

QUICK = ASKED | settings(linger=0.2, stream_window=0.2)

PATIENCE = 12.0
"""Seconds below every timeout that could end a worker by force: what is in time has not waited."""


def bound(launcher: Launcher, port: int, option: str) -> Launcher:
    """Return `launcher` with a port of our choice and one more option."""
    bind = [f"127.0.0.1:{port}" if part == "127.0.0.1:0" else part for part in launcher.command]
    return dataclasses.replace(launcher, command=(*bind, option))


@pytest.mark.parametrize("option", ["--preload", "--reuse-port"])
@pytest.mark.parametrize(
    ("launcher", "app"),
    [(GUNICORN_GTHREAD, FLASK), (GUNICORN_ASGI, STARLETTE)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_port(launcher: Launcher, app: str, option: str) -> None:
    """The app loaded before the fork; a socket for each worker."""
    with (
        reserved_port() as port,
        launch(bound(launcher, port, option), app, serving=False, env=QUICK) as server,
    ):
        server.port = port  # with a socket for each worker the arbiter has none to tell of
        server.log.wait_event("serving")
        wait_for_workers(server)
        assert server.get("/readyz").status == 200
        server.terminate()
        server.log.wait_event("lame duck")
        server.await_unready()
        assert server.get("/").status == 200
        assert server.wait(PATIENCE) == 0
        assert server.log.report()["clean"].lower() == "true"


def wait_for_workers(server: ServerProcess) -> None:
    """Each worker listens for itself only once it has booted."""
    give_up = time.monotonic() + LIMIT
    while time.monotonic() < give_up:
        with contextlib.suppress(OSError):
            server.get("/livez")
            return
    raise AssertionError(server.log.text)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=LIMIT)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def ask(path: Path, what: str) -> int:
    """Return the status of a GET over a unix socket."""
    with contextlib.closing(UnixConnection(path)) as client:
        client.request("GET", what)
        return client.getresponse().status


def test_a_unix_socket(tmp_path: Path) -> None:
    """What nginx on the same machine is usually given."""
    path = tmp_path / "web.sock"
    command = tuple(
        f"unix:{path}" if part == "127.0.0.1:0" else part for part in GUNICORN_GTHREAD.command
    )
    launcher = dataclasses.replace(GUNICORN_GTHREAD, command=command)
    with launch(launcher, FLASK, serving=False, env=QUICK) as server:
        server.log.wait_event("serving")
        assert ask(path, "/readyz") == 200
        server.terminate()
        server.log.wait_event("lame duck")
        until(lambda: ask(path, "/readyz") == 503)
        assert server.wait(PATIENCE) == 0
        assert not path.exists()


@contextlib.contextmanager
def activated() -> Generator[tuple[ServerProcess, socket.socket]]:
    """Start gunicorn on a socket that somebody else holds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        rest = [part for part in GUNICORN_GTHREAD.command if part not in ("-b", "127.0.0.1:0")]
        launcher = dataclasses.replace(
            GUNICORN_GTHREAD,
            command=("tests.servers.activate", str(listener.fileno()), *rest),
            inherits=(listener.fileno(),),
        )
        with launch(launcher, FLASK, serving=False, env=settings(propagation_delay=20)) as server:
            server.port = listener.getsockname()[1]
            server.log.wait_event("serving")
            yield server, listener


def test_a_socket_of_systemds() -> None:
    """The listener outlives the instance, so nobody waits for a balancer."""
    with activated() as (server, listener):
        assert server.get("/").status == 200
        server.terminate()
        assert server.wait(PATIENCE) == 0
        assert "lame duck" not in server.log.events("lame duck", "draining")
        with socket.create_connection(listener.getsockname(), LIMIT):
            pass  # it is queued for who is started next


@pytest.mark.parametrize("launcher", [GUNICORN_ASGI, GUNICORN_UVICORN], ids=lambda one: one.name)
def test_a_silent_connection_holds_nobody(launcher: Launcher) -> None:
    """One that never asked for anything, or is kept alive, is no work."""
    with (
        launch(launcher, STARLETTE, env=QUICK) as server,
        contextlib.closing(server.client()),
        contextlib.closing(server.client()) as kept,
    ):
        kept.get("/")
        server.terminate()
        assert server.wait(PATIENCE) == 0
        assert server.log.report()["clean"].lower() == "true"


def test_clients_that_close_late_cost_the_others_nothing() -> None:
    """gthread alone waits 2 s for each, in the thread that serves all of them."""
    with contextlib.ExitStack() as exits:
        more = ("--keep-alive", "30")  # longer than the delay, or gunicorn itself closes them
        server = exits.enter_context(launch(GUNICORN_GTHREAD, FLASK, *more, env=QUICK))
        lazy = [exits.enter_context(contextlib.closing(server.client())) for _ in range(24)]
        for client in lazy:
            client.get("/")
        server.terminate()
        server.log.wait_event("draining")
        for client in lazy:  # each is told to close, and none does
            client.ask("GET", "/")
        replies = [client.reply() for client in lazy]
        assert [(reply.status, reply.closes) for reply in replies] == [(200, True)] * len(lazy)
        assert server.wait(PATIENCE) == 0


def test_nobody_hangs_in_the_queue_of_a_busy_worker() -> None:
    """A sync worker that is busy to the end would hold the port open and accept nobody."""
    with contextlib.ExitStack() as exits:
        server = exits.enter_context(launch(GUNICORN_SYNC, FLASK, env=QUICK))
        busy = exits.enter_context(contextlib.closing(server.client()))
        busy.ask("GET", "/slow?seconds=4")
        server.get("/")
        server.terminate()
        server.log.wait_event("draining")
        while server.log.events("closing") == []:
            try:
                assert server.get("/").status == 200  # served while somebody accepts
            except ConnectionRefusedError:
                break
        else:
            raise AssertionError("the port was open to the end")
        assert busy.reply().body == b"done\n"
        assert server.wait(PATIENCE) == 0
