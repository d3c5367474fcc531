"""Workers that gunicorn's arbiter, or somebody else, ends by force."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Generator

import pytest

from .harness import LIMIT, Client, Launcher, ServerProcess
from .launchers import (
    GUNICORN_ASGI,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    GUNICORN_UVICORN,
)
from .test_gunicorn_ladder import LONG, SHORT, running, workers_of
from .test_gunicorn_retire import await_end, in_flight, on

TIMEOUT = "3"
"""gunicorn's, in whole seconds; its ASGI worker gives a sign of life once a second."""


@on(GUNICORN_SYNC, GUNICORN_GEVENT, GUNICORN_ASGI, GUNICORN_UVICORN)
def test_a_worker_that_hangs_says_where(launcher: Launcher) -> None:
    """The arbiter aborts it; its siblings stay ready, and the instance's report is about others.

    gthread serves in a pool: no request can silence the thread that gives its signs of life.
    """
    with (
        running(launcher, SHORT, "--timeout", TIMEOUT) as server,
        in_flight(server, "/wedged") as wedged,
    ):
        victim = server.log.wait_mark("wedged begins").pid
        await_gone_while_ready(server, victim)
        with contextlib.suppress(ConnectionError):  # or gunicorn still answers for it
            assert wedged.reply().status == 500
        server.log.wait(f"{victim}: no sign of life for timeout = 3 s; its main thread")
        text = server.log.text
        assert "in wedged" in text
        assert "GET /wedged" in text
        assert "lame duck" not in server.log.events()
        server.log.wait("Booting worker", count=3)
        server.terminate()
        assert server.wait() == 0
        report = server.log.report()
        assert (report["clean"].lower(), report["in_flight_at_signal"]) == ("true", "0")


def await_gone_while_ready(server: ServerProcess, pid: int) -> None:
    """Wait until a process is gone; whoever asks meanwhile and is answered is told 200."""
    give_up = time.monotonic() + LIMIT
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < give_up:
            os.kill(pid, 0)
            with contextlib.suppress(OSError):  # it is in the queue of who hangs
                assert quick_answer(server, "/readyz") == 200
        raise AssertionError(f"{pid} is still there:\n{server.log.text}")


def quick_answer(server: ServerProcess, path: str) -> int:
    """Return the status, or end with an error soon: who hangs may have accepted."""
    with contextlib.closing(server.client(timeout=0.5)) as client:
        return client.get(path).status


@on(GUNICORN_SYNC, GUNICORN_ASGI)
def test_a_worker_that_hangs_in_lame_duck_makes_the_stop_unclean(launcher: Launcher) -> None:
    """Its request is lost while the instance is told to go: the report says so."""
    with (
        running(launcher, LONG, "--timeout", TIMEOUT) as server,
        in_flight(server, "/wedged"),
    ):
        victim = server.log.wait_mark("wedged begins").pid
        server.terminate()
        server.log.wait_event("lame duck")
        await_end(victim)
        assert "in wedged" in server.log.text
        server.log.wait("Booting worker", count=3)
        server.terminate()
        assert server.wait() == 0
        assert server.log.report()["clean"].lower() == "false"


@contextlib.contextmanager
def pinned(server: ServerProcess, pids: list[int]) -> Generator[dict[int, Client]]:
    """Connections that are kept alive, one to each of the workers."""
    found: dict[int, Client] = {}
    with contextlib.ExitStack() as exits:
        give_up = time.monotonic() + LIMIT
        while set(found) != set(pids):
            assert time.monotonic() < give_up, found
            client = exits.enter_context(contextlib.closing(server.client()))
            found.setdefault(int(client.get("/pid").body), client)
        yield found


@on(GUNICORN_GTHREAD, GUNICORN_GEVENT, GUNICORN_ASGI, GUNICORN_UVICORN)
def test_one_of_several_workers_is_killed_while_all_drain(launcher: Launcher) -> None:
    """The others finish what they have, nobody starts another one, and the report names it."""
    with contextlib.ExitStack() as exits:
        server = exits.enter_context(running(launcher, SHORT, "--keep-alive", "30"))
        victim, other = workers_of(server)
        clients = exits.enter_context(pinned(server, [victim, other]))
        clients[victim].ask("GET", "/stuck")
        server.log.wait_mark("stuck begins")
        clients[other].begin_upload("/upload", b"abc", length=6)
        server.log.wait_mark("upload begins")
        server.terminate()
        server.log.wait_event("draining")
        os.kill(victim, signal.SIGKILL)
        await_end(victim)
        clients[other].upload(b"def")
        reply = clients[other].reply()
        assert (reply.status, reply.body) == (200, b'{"bytes":6}')
        assert server.wait() == 0
        assert len(workers_of(server)) == 2
        assert f"{victim}: killed with up to" in server.log.text
        report = server.log.report()
        assert (report["clean"].lower(), report["in_flight_at_signal"]) == ("false", "2")


@pytest.mark.parametrize("launcher", [GUNICORN_SYNC], ids=lambda one: one.name)
def test_a_busy_worker_that_is_killed_while_its_sibling_serves(launcher: Launcher) -> None:
    """As above for the class without connections that are kept."""
    with running(launcher, SHORT) as server, in_flight(server, "/stuck"):
        victim = server.log.wait_mark("stuck begins").pid
        with contextlib.closing(server.client()) as client:
            client.begin_upload("/upload", b"abc", length=6)
            server.log.wait_mark("upload begins")
            server.terminate()
            server.log.wait_event("draining")
            os.kill(victim, signal.SIGKILL)
            await_end(victim)
            client.upload(b"def")
            assert client.reply().body == b'{"bytes":6}'
        assert server.wait() == 0
        assert len(workers_of(server)) == 2
        assert f"{victim}: killed with up to 1 in flight" in server.log.text
        assert server.log.report()["clean"].lower() == "false"
