"""How soon an instance of gunicorn with an endless stream is gone, for each class of worker.

One stream of events that never ends, one WebSocket where the class has them, and one connection
that is kept alive and idle; then SIGTERM. Measured from the end of the propagation delay to the end
of the arbiter. The bar is the stream window and a second.

    python -m tests.benchmarks.gunicorn_streams
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time

from tests.servers.contract import open_websocket
from tests.servers.harness import Launcher, launch, settings
from tests.servers.launchers import (
    GUNICORN_ASGI,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    GUNICORN_UVICORN,
)
from tests.servers.test_gunicorn_retire import app_of

ROUNDS = 5
DELAY = 1.0
WINDOW = 2.0
BAR = WINDOW + 1.0

CASES = (
    (GUNICORN_SYNC, False),  # a worker of its own for each stream
    (GUNICORN_GTHREAD, False),
    (GUNICORN_GEVENT, False),
    (GUNICORN_ASGI, True),
    (GUNICORN_UVICORN, True),
)


def seconds_until_gone(launcher: Launcher, *, websocket: bool) -> float:
    """Return the seconds from the end of the delay to the end of the arbiter."""
    env = settings(grace_period=60, propagation_delay=DELAY, stream_window=WINDOW)
    with contextlib.ExitStack() as exits:
        server = exits.enter_context(launch(launcher, app_of(launcher), env=env))
        server.log.wait("Booting worker", count=launcher.workers)
        stream = exits.enter_context(contextlib.closing(server.client()))
        stream.ask("GET", "/ticks")
        stream.read_until(b"\n\n")
        if websocket:
            exits.enter_context(open_websocket(server, "/talk/text"))
        idle = exits.enter_context(contextlib.closing(server.client()))
        idle.get("/")
        began = time.monotonic()
        server.terminate()
        assert b"retry:" in stream.reply().body
        server.wait()
        return time.monotonic() - began - DELAY


def main(rounds: int = ROUNDS) -> bool:
    """Print each class; whether the slowest round of each reaches the bar."""
    reached = True
    for launcher, websocket in CASES:
        times = [seconds_until_gone(launcher, websocket=websocket) for _ in range(rounds)]
        reached = reached and max(times) <= BAR
        what = "a stream of events and a WebSocket" if websocket else "a stream of events"
        print(
            f"{launcher.name:>17}: {what}: gone {statistics.median(times):.2f} s after the delay "
            f"(longest {max(times):.2f} s, bar {BAR:g} s)"
        )
    return reached


if __name__ == "__main__":
    sys.exit(0 if main(*map(int, sys.argv[1:])) else 1)
