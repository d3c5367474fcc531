"""What the middleware costs: CPU seconds a request of uvicorn, bare and wrapped.

Both servers are loaded at the same time and share one CPU, so that whatever slows this machine
down slows both; the scheduler alternates them every few milliseconds. The ratio is of requests per
second of CPU. Each round starts both anew, with objects in other places (`layout.py`), and the two
take turns in coming first. The load comes from another CPU.

    python -m tests.benchmarks.throughput                 # every case, 10 rounds of each
    python -m tests.benchmarks.throughput 6 FastAPI
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ROUNDS = 10
SECONDS = 3
WARM_UP = 1
CONNECTIONS = 16
BAR = 0.97


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
    Case("a FastAPI route", "bare_api", "wrapped_api", "/items/7?q=x", FASTEST),
    Case("Starlette, 'hello'", "bare", "wrapped", "/", FASTEST),
    Case(
        "Starlette, 'hello', no access log",
        *("bare", "wrapped", "/", (*FASTEST, "--no-access-log")),
    ),
)


class Loaded(Protocol):
    """A server that can be loaded and whose CPU time is known."""

    @property
    def url(self) -> str: ...

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has had."""
        ...


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    url: str

    def cpu_seconds(self) -> float:
        """Return the CPU time that its main thread has had."""
        text = Path(f"/proc/{self.process.pid}/schedstat").read_text()
        return int(text.split()[0]) / 1e9


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


def load(servers: Sequence[Loaded], seconds: int) -> list[float]:
    """Load all servers at once from CPU 1; return the CPU seconds a request of each."""
    before = [one.cpu_seconds() for one in servers]
    wrk = ["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    running = [
        subprocess.Popen([*wrk, one.url], stdout=subprocess.PIPE, text=True) for one in servers
    ]
    reports = [one.communicate()[0] for one in running]
    after = [one.cpu_seconds() for one in servers]
    assert not any("Non-2xx" in report for report in reports), reports
    return [
        (end - begin) / served(report)
        for begin, end, report in zip(before, after, reports, strict=True)
    ]


def served(report: str) -> int:
    """Return the number of requests in a report of wrk."""
    found = re.search(r"(\d+) requests in", report)
    assert found, report
    return int(found[1])


def one_round(case: Case, *, bare_first: bool) -> tuple[float, float]:
    """Return the CPU seconds a request of both, bare first."""
    apps = [case.bare, case.wrapped] if bare_first else [case.wrapped, case.bare]
    with server(apps[0], case) as one, server(apps[1], case) as other:
        load([one, other], WARM_UP)
        seconds = load([one, other], SECONDS)
    without, with_it = seconds if bare_first else seconds[::-1]
    return without, with_it


def show(name: str, rounds: Sequence[tuple[float, float]]) -> float:
    """Print the CPU time a request of both, bare first; return the ratio of throughputs."""
    bare, wrapped = (statistics.median(side) * 1e6 for side in zip(*rounds, strict=True))
    ratios = [without / with_it for without, with_it in rounds]
    ratio = statistics.median(ratios)
    print(
        f"{name:>34}: {bare:6.1f} µs a request bare, {wrapped:6.1f} with graceful; "
        f"throughput {ratio:.3f} of bare ({min(ratios):.3f}-{max(ratios):.3f})",
        flush=True,
    )
    return ratio


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
