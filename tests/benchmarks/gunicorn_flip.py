"""How soon after SIGTERM to its arbiter the last probe of a gunicorn is told 200, by worker class.

Idle, and under as much load as one client of another CPU can make. What a probe takes anyway, in
the second before the signal, is measured with the same probes: where the machine itself is late,
both are. The bar is 100 ms for the slowest round of each class.

    python -m tests.benchmarks.gunicorn_flip
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass

from tests.servers.harness import Launcher, launch, settings
from tests.servers.launchers import (
    GUNICORN_ASGI,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    GUNICORN_UVICORN,
)
from tests.servers.test_gunicorn_retire import app_of

ROUNDS = 10
BAR = 0.100
BEFORE, AFTER = 0.7, 1.0
"""Seconds of probing to warm up and once more to compare with, and those after the signal."""
PROBERS = 3
PAUSE = 0.005
CONNECTIONS = 8

CLASSES = (GUNICORN_SYNC, GUNICORN_GTHREAD, GUNICORN_GEVENT, GUNICORN_ASGI, GUNICORN_UVICORN)


@dataclass(frozen=True)
class Probe:
    """One question on a connection of its own, and its answer."""

    sent: float
    answered: float
    status: int


def probe(port: int) -> Probe:
    """Ask once; whichever worker accepts first answers."""
    sent = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz", headers={"Connection": "close"})
        status = connection.getresponse().status
    finally:
        connection.close()
    return Probe(sent, time.monotonic(), status)


@contextlib.contextmanager
def probing(port: int) -> Generator[list[Probe]]:
    """Ask all the time, from a few threads."""
    probes: list[Probe] = []
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            probes.append(probe(port))
            over.wait(PAUSE)

    threads = [threading.Thread(target=run) for _ in range(PROBERS)]
    for thread in threads:
        thread.start()
    try:
        yield probes
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def load(url: str) -> Generator[None]:
    """Load the server from CPU 1 as much as it can take."""
    wrk = ["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", "-d60s", url]
    process = subprocess.Popen(wrk, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def one_round(launcher: Launcher, *, loaded: bool) -> tuple[float, float, float]:
    """Return the seconds to the last answer 200, and what probes took before: median and longest.

    Counted to the arrival of the answer, so that what it waits for in queues is in it.
    """
    env = settings(grace_period=60, propagation_delay=20)
    with contextlib.ExitStack() as exits:
        server = exits.enter_context(launch(launcher, app_of(launcher), env=env))
        server.log.wait("Booting worker", count=launcher.workers)
        if loaded:
            exits.enter_context(load(server.url("/")))
        with probing(server.port) as probes:
            time.sleep(BEFORE)
            begun = time.monotonic()  # the first requests of a worker are slow
            time.sleep(BEFORE)
            signalled = time.monotonic()
            server.terminate()
            time.sleep(AFTER)
        assert probes[-1].status == 503, server.log.text
    usual = [each.answered - each.sent for each in probes if begun < each.sent < signalled]
    ready = [each.answered - signalled for each in probes if each.status == 200]
    return max(0.0, *ready), statistics.median(usual), max(usual)


def main(rounds: int = ROUNDS) -> bool:
    """Print each class, idle and loaded; whether the slowest round of each reaches the bar."""
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            raise SystemExit(f"this benchmark needs {tool}: apt-get install wrk util-linux")
    reached = True
    for launcher in CLASSES:
        for loaded in (False, True):
            found = [one_round(launcher, loaded=loaded) for _ in range(rounds)]
            last, usual, longest = zip(*found, strict=True)
            reached = reached and max(last) <= BAR
            print(
                f"{launcher.name:>17} {'loaded' if loaded else 'idle':>6}: last 200 "
                f"{statistics.median(last) * 1e3:5.1f} ms after SIGTERM (longest "
                f"{max(last) * 1e3:5.1f}); a probe before it took "
                f"{statistics.median(usual) * 1e3:5.1f} ms (longest {max(longest) * 1e3:5.1f})",
                flush=True,
            )
    return reached


if __name__ == "__main__":
    sys.exit(0 if main(*map(int, sys.argv[1:])) else 1)
