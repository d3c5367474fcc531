"""What the WSGI middleware costs: CPU seconds a request of gunicorn's gthread, bare and wrapped.

As in `throughput.py`: both are loaded at the same time and share one CPU, and each round starts
both anew. The wrapped one has the whole of graceful, with `install()` in its configuration.

    python -m tests.benchmarks.wsgi_throughput                 # every case, 10 rounds of each
    python -m tests.benchmarks.wsgi_throughput 6 Django
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from .throughput import BAR, SECONDS, WARM_UP, load, show, wait_for

ROUNDS = 10
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
        threads = Path(f"/proc/{worker}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


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


def one_round(case: Case, *, bare_first: bool) -> tuple[float, float]:
    """Return the CPU seconds a request of both, bare first.

    Which one is started and loaded first is worth a percent, so rounds take turns.
    """
    sides: list[tuple[str, tuple[str, ...]]] = [(case.bare, ()), (case.wrapped, GRACEFUL)]
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(server(app, options))
            for app, options in (sides if bare_first else sides[::-1])
        ]
        load(servers, WARM_UP)
        seconds = load(servers, SECONDS)
    without, with_it = seconds if bare_first else seconds[::-1]
    return without, with_it


def main(rounds: int = ROUNDS, only: str = "") -> bool:
    """Print the cases whose names contain `only`; whether each reaches the bar."""
    for tool in ("wrk", "taskset"):
        if shutil.which(tool) is None:
            raise SystemExit(f"this benchmark needs {tool}: apt-get install wrk util-linux")
    ratios = [
        show(case.name, [one_round(case, bare_first=n % 2 == 0) for n in range(rounds)])
        for case in CASES
        if only in case.name
    ]
    return min(ratios) >= BAR


if __name__ == "__main__":
    sys.exit(0 if main(int((sys.argv[1:] or [str(ROUNDS)])[0]), "".join(sys.argv[2:3])) else 1)
