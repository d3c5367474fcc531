"""Unix sockets under `graceful run`: one listener, which the parent and all workers hold."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import socket
from pathlib import Path

import pytest

from .contract import APP
from .harness import LIMIT, Launcher, launch, settings, until
from .launchers_run import RUN_HYPERCORN, RUN_UVICORN, launched

QUICK = settings(propagation_delay=2, grace_period=20, linger=0.2, stream_window=0.2)


class UnixClient(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=LIMIT)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(LIMIT)
        self.sock.connect(self._path)

    def status(self, path: str) -> int:
        """Return the status of a GET; the body is read."""
        self.request("GET", path)
        with self.getresponse() as response:
            response.read()
            return response.status


def ask(path: Path, what: str) -> int:
    """Return the status of a GET on a new connection."""
    with contextlib.closing(UnixClient(path)) as client:
        return client.status(what)


def refused(path: Path) -> bool:
    """Whether nobody listens any more."""
    try:
        ask(path, "/livez")
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except (OSError, http.client.HTTPException):
        pass
    return False


def on_socket(launcher: Launcher, path: Path) -> Launcher:
    """Return `launcher`, but on a unix socket."""
    words = {"127.0.0.1:0": f"unix:{path}", "--port": "--uds", "0": str(path)}
    command = tuple(words.get(word, word) for word in launcher.command)
    return dataclasses.replace(launcher, command=command)


def granian(path: Path) -> Launcher:
    """Return granian on a unix socket, which needs no script that finds a port."""
    return launched(
        "granian",
        *("{app}", "--workers", "2", "--interface", "asgi", "--uds", str(path)),
        announces="",
    )


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian"])
def test_a_unix_socket(server: str, tmp_path: Path) -> None:
    """Unready and serving for the delay, what is in flight finishes, then it is refused."""
    path = tmp_path / "web.sock"
    launchers = {"uvicorn": RUN_UVICORN, "hypercorn": RUN_HYPERCORN}
    launcher = on_socket(launchers[server], path) if server in launchers else granian(path)
    with (
        launch(launcher, APP, serving=False, env=QUICK) as running,
        contextlib.closing(UnixClient(path)) as slow,
    ):
        running.log.wait_mark("startup", count=2)
        until(lambda: path.exists() and not refused(path))
        until(lambda: ask(path, "/readyz") == 200)
        slow.request("GET", "/slow")
        running.terminate()
        running.log.wait_mark("hook lame duck", count=2)
        assert {ask(path, "/readyz") for _ in range(6)} == {503}
        assert {ask(path, "/") for _ in range(6)} == {200}
        answer = slow.getresponse()
        assert (answer.status, answer.read()) == (200, b"slow but whole\n")
        assert running.wait() == 0
        assert running.log.report()["clean"] == "True"
        assert refused(path)
