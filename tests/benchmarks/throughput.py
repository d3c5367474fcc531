"""What the middleware costs: CPU seconds a request of uvicorn, bare and wrapped, asked by turns.

The ratio is of requests per second of CPU. Each round starts both anew, with objects in other
places (`layout.py`). Nobody probes them: a probe would have some 32 requests more timed.

    python -m tests.benchmarks.throughput                 # every case, 10 rounds of each
    python -m tests.benchmarks.throughput 6 FastAPI
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .turns import Loaded, cpu_seconds, main

__all__ = ["wait_for"]


@dataclass(frozen=True)
class Case:
    """An app, as it is served."""

    name: str
    bare: str
    wrapped: str
    path: str
    options: tuple[str, ...] = ()


FASTEST = ("--http", "httptools", "--loop", "uvloop")

AS_INSTALLED = ("--http", "h11", "--loop", "asyncio")

CASES = (
    Case("Starlette, 'hello', plain uvicorn", "bare", "wrapped", "/", AS_INSTALLED),
    Case("'hello', plain uvicorn, outermost", "bare", "outermost", "/", AS_INSTALLED),
    Case("a FastAPI route", "bare_api", "wrapped_api", "/items/7?q=x", FASTEST),
    Case("Starlette, 'hello'", "bare", "wrapped", "/", FASTEST),
    Case(
        "Starlette, 'hello', no access log",
        *("bare", "wrapped", "/", (*FASTEST, "--no-access-log")),
    ),
)


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    url: str

    def cpu_seconds(self) -> float:
        """Return the CPU time that its main thread has had."""
        return cpu_seconds(iter([Path(f"/proc/{self.process.pid}/schedstat")]))


@contextlib.contextmanager
def server(app: str, case: Case) -> Generator[Server]:
    """Run uvicorn with `app` on CPU 0."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    # Not --fd: uvicorn takes that socket for a Unix one and leaves Nagle's algorithm on.
    command = ["-m", "tests.benchmarks.layout", "uvicorn", f"tests.benchmarks.apps:{app}"]
    command += ["--port", str(port), *case.options]
    process = subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, *command],
        env={**os.environ, "GRACEFUL_PROPAGATION_DELAY": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield Server(process, f"http://127.0.0.1:{port}{case.path}")
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int) -> None:
    """Return when something answers on `port`."""
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            if s.recv(1):
                return
        time.sleep(0.05)
    raise SystemExit("the server did not come up")


@contextlib.contextmanager
def started(case: Case) -> Generator[Sequence[Loaded]]:
    """Run both servers of a case, bare first."""
    with server(case.bare, case) as bare, server(case.wrapped, case) as wrapped:
        yield bare, wrapped


if __name__ == "__main__":
    both = [(case.name, partial(started, case)) for case in CASES]
    sys.exit(0 if main(both, sys.argv[1:]) else 1)
