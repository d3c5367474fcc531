"""Requests per second of uvicorn with the middleware, as a share of the bare server's.

Two servers, one bare and one wrapped, are loaded in turn by wrk; each pair of runs gives one ratio,
so that a machine whose speed drifts does not decide. Prints the median.

    python -m tests.benchmarks.throughput
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
from collections.abc import Generator

PAIRS = 12
SECONDS = 2
BAR = 0.97


@contextlib.contextmanager
def server(app: str) -> Generator[int]:
    """Run uvicorn with `app` and give its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    # Not --fd: uvicorn takes that socket for a Unix one and leaves Nagle's algorithm on.
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", app, "--port", str(port)),
            *("--no-access-log", "--log-level", "error"),
        ],
        env={**os.environ, "GRACEFUL_PROPAGATION_DELAY": "0"},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield port
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


def load(port: int) -> float:
    """Return the requests per second that wrk got."""
    command = ["wrk", "-t1", "-c16", f"-d{SECONDS}s", f"http://127.0.0.1:{port}/"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", report)
    assert found, report
    assert "Non-2xx" not in report, report
    return float(found[1])


def main() -> float:
    """Print requests per second of both and return the ratio."""
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk: apt-get install wrk")
    module = "tests.benchmarks.apps"
    with server(f"{module}:bare") as bare, server(f"{module}:wrapped") as wrapped:
        for port in (bare, wrapped):
            load(port)  # warm-up
        pairs: list[tuple[float, float]] = []
        for turn in range(PAIRS):
            order = (bare, wrapped) if turn % 2 else (wrapped, bare)
            rates = {port: load(port) for port in order}
            pairs.append((rates[bare], rates[wrapped]))
    ratios = [with_it / without for without, with_it in pairs]
    print(f"    bare: {statistics.median(p[0] for p in pairs):7.0f} requests/s (median run)")
    print(f"graceful: {statistics.median(p[1] for p in pairs):7.0f} requests/s (median run)")
    ratio = statistics.median(ratios)
    print(f"ratio, median of {PAIRS} pairs: {ratio:.3f} ({min(ratios):.3f}-{max(ratios):.3f})")
    return ratio


if __name__ == "__main__":
    sys.exit(0 if main() >= BAR else 1)
