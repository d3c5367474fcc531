"""A worker class that nobody adapts: it follows the board, and ends as its own handler ends it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from .harness import ASKED, Launcher, ServerProcess, launch, settings, until
from .launchers import gunicorn
from .test_gunicorn_ladder import await_flipped, workers_of
from .test_gunicorn_retire import ASGI_APP, WSGI_APP, in_flight, worker_of

SHORT = ASKED | settings(grace_period=20, linger=0.2, stream_window=0.2)
MODULE = "tests.servers.other_workers"

WSGI = gunicorn("other-wsgi", "-k", f"{MODULE}.WsgiWorker")
ASGI = gunicorn("other-asgi", "-k", f"{MODULE}.AsgiWorker")

BOTH = pytest.mark.parametrize(
    ("launcher", "app"), [(WSGI, WSGI_APP), (ASGI, ASGI_APP)], ids=["wsgi", "asgi"]
)


def await_replaced(server: ServerProcess, old: int) -> None:
    """Wait until `old` is gone; no probe says meanwhile that the instance is not ready.

    A connection that the class has accepted and not read when it ends is the class's own affair.
    """

    def gone() -> bool:
        with contextlib.suppress(ConnectionError):
            assert server.get("/readyz").status == 200
        return not alive(old)

    until(gone)
    assert worker_of(server) != old


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@BOTH
def test_the_instance_goes(launcher: Launcher, app: str) -> None:
    """Readiness flips in each worker; what is in flight is finished; the warning comes once."""
    with launch(launcher, app, env=SHORT) as server:
        server.log.wait("Booting worker", count=2)
        assert server.get("/readyz").status == 200
        with in_flight(server, "/slow") as slow:
            server.terminate()
            await_flipped(server)
            assert server.get("/").status == 200
            assert slow.reply().body == b"slow but whole\n"
        assert server.wait() == 0
        assert server.log.report()["clean"].lower() == "true"
        assert server.log.report()["in_flight_at_signal"] == "1"
        assert server.log.text.count("is unknown to graceful") == 1
        assert "Traceback" not in server.log.text


@BOTH
def test_one_worker_goes(launcher: Launcher, app: str) -> None:
    """A reload, and a worker that is signalled alone: the instance stays ready."""
    with launch(launcher, app, "-w", "1", env=SHORT) as server:
        old = worker_of(server)
        server.send_signal(signal.SIGHUP)
        await_replaced(server, old)
        assert f"SIGHUP; only worker {old} goes" in server.log.text
        new = worker_of(server)
        os.kill(new, signal.SIGTERM)
        await_replaced(server, new)
        assert "lame duck" not in server.log.events()
        assert len(workers_of(server)) == 3


def test_a_maximum_of_requests() -> None:
    """The class counts as gunicorn's own do."""
    with launch(WSGI, WSGI_APP, "-w", "1", "--max-requests", "4", env=SHORT) as server:
        old = worker_of(server)
        await_replaced(server, old)
        assert f"max_requests; only worker {old} goes" in server.log.text


def test_its_app_is_left_as_it_is(tmp_path: Path) -> None:
    """Who knows what it does with it? (Tornado's looks of which class it is.)"""
    file = tmp_path / "gunicorn.conf.py"
    file.write_text(
        "import os\n"
        "from graceful.integrations import gunicorn\n"
        "gunicorn.install(globals(), grace_period=20)\n"
        "def worker_exit(server, worker):\n"
        "    os.write(2, f'@ 0 {type(worker.wsgi).__name__}\\n'.encode())\n"
    )
    with launch(WSGI, WSGI_APP, "-w", "1", "-c", str(file), env=SHORT) as server:
        assert server.get("/").status == 200
        server.terminate()
        assert server.wait() == 0
        assert server.log.marks() == ["GracefulMiddleware"]
