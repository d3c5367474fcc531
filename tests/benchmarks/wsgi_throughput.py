"""What the WSGI middleware costs: CPU seconds a request of gunicorn's gthread, bare and wrapped.

As in `throughput.py`: asked by turns, and each round starts both anew. The wrapped one has the
whole of graceful, with `install()` in its configuration.

    python -m tests.benchmarks.wsgi_throughput                 # every case, 10 rounds of each
    python -m tests.benchmarks.wsgi_throughput 6 Django
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .throughput import wait_for
from .turns import Loaded, cpu_seconds, main

GTHREAD = ("-k", "gthread", "--threads", "8", "-w", "1", "--no-control-socket")
GRACEFUL = ("-c", "python:graceful.integrations.gunicorn_conf")


@dataclass(frozen=True)
class Case:
    """An app, as it is served."""

    name: str
    bare: str
    wrapped: str


CASES = (
    Case("Flask, 'hello'", "flask", "wrapped_flask"),
    Case("a plain function", "hello", "wrapped_hello"),
    Case("Django, 'hello'", "django(wrapped=False)", "django(wrapped=True)"),
)


@dataclass(frozen=True)
class Server:
    """A gunicorn with one worker."""

    process: subprocess.Popen[bytes]
    url: str

    def cpu_seconds(self) -> float:
        """Return the CPU time that the threads of its worker have had."""
        arbiter = self.process.pid
        worker = Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split()[0]
        return cpu_seconds(Path(f"/proc/{worker}/task").glob("*/schedstat"))


@contextlib.contextmanager
def server(app: str, options: tuple[str, ...]) -> Generator[Server]:
    """Run gunicorn with `app` on CPU 0."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    command = [
        "-m",
        "tests.benchmarks.layout",
        "gunicorn",
        *GTHREAD,
        *options,
        "-b",
        f"127.0.0.1:{port}",
    ]
    process = subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, *command, f"tests.benchmarks.wsgi_apps:{app}"],
        env={**os.environ, "GRACEFUL_PROPAGATION_DELAY": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield Server(process, f"http://127.0.0.1:{port}/")
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def started(case: Case) -> Generator[Sequence[Loaded]]:
    """Run both servers of a case, bare first."""
    with server(case.bare, ()) as bare, server(case.wrapped, GRACEFUL) as wrapped:
        yield bare, wrapped


if __name__ == "__main__":
    both = [(case.name, partial(started, case)) for case in CASES]
    sys.exit(0 if main(both, sys.argv[1:]) else 1)
