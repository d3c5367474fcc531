"""gunicorn's dirty workers: requests that are served to the end can ask them to the end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Generator
from pathlib import Path
from uuid import uuid4

import pytest

from .dirty_app import PLACE, RELEASED
from .harness import Launcher, ServerProcess, launch, settings
from .launchers import GUNICORN_GTHREAD
from .test_gunicorn_retire import ON_ALL, WITH_LOOPS, ask, await_end

QUICK = settings(grace_period=20, propagation_delay=1, stream_window=0.3, linger=3)


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """The file that ends what waits for it; it is not there yet."""
    return tmp_path / "released"


@contextlib.contextmanager
def running(released: Path, launcher: Launcher = GUNICORN_GTHREAD) -> Generator[ServerProcess]:
    """Start gunicorn with one dirty worker, and wait until it answers."""
    app = f"tests.servers.dirty_app:{'asgi' if launcher in WITH_LOOPS else 'wsgi'}"
    name = uuid4().hex  # an arbiter takes a pool of its name for a left-over, and kills it
    pool = ("--dirty-app", PLACE, "--dirty-workers", "1", "--name", name)
    env = {**QUICK, RELEASED: released}
    with launch(launcher, app, "-w", "1", *pool, env=env) as server:
        server.log.wait("Dirty worker [0-9]+ listening")
        assert server.get("/quick").body == b"quick"
        yield server


def pool_of(server: ServerProcess) -> list[int]:
    """Return the dirty arbiter, and the dirty worker that answers."""
    worker = int(server.get("/pid").body)
    status = Path(f"/proc/{worker}/stat").read_text()
    return [int(status.rpartition(") ")[2].split()[1]), worker]


@ON_ALL
@pytest.mark.parametrize("group", [False, True], ids=["parent", "group"])
def test_the_pool_leaves_last(released: Path, launcher: Launcher, *, group: bool) -> None:
    """Its processes are signalled with all others by systemd, and by gunicorn with the workers."""
    with running(released, launcher) as server:
        pool = pool_of(server)
        if group:
            server.signal_group(signal.SIGTERM)
        else:
            server.terminate()
        server.log.wait_event("lame duck")
        assert pool_of(server) == pool
        with contextlib.closing(ask(server, "/wait")) as client:
            server.log.wait_mark("wait begins")
            server.log.wait_event("draining")
            released.touch()
            assert client.reply().body == b"waited"
        assert server.wait() == 0
        assert server.log.report()["clean"] == "True"
        assert f"Dirty arbiter (pid:{pool[0]}) exited\n" in server.log.text, server.log.text
        for pid in pool:
            await_end(pid)


@pytest.mark.parametrize("which", [0, 1], ids=["arbiter", "worker"])
def test_one_of_the_pool_that_is_told_alone_leaves(released: Path, which: int) -> None:
    """It is replaced, as ever."""
    with running(released) as server:
        told = pool_of(server)[which]
        os.kill(told, signal.SIGTERM)
        await_end(told)
        server.terminate()
        assert server.wait() == 0


def test_a_quick_stop(released: Path) -> None:
    """The third rung waits for nobody's work."""
    with running(released) as server, contextlib.closing(server.client()) as waiting:
        pool = pool_of(server)
        waiting.ask("GET", "/wait")
        server.log.wait_mark("wait begins")
        for rung in (1, 2, 3):
            server.terminate()
            server.log.wait_event("told to stop", count=rung)
        server.wait()
        for pid in pool:
            await_end(pid)
