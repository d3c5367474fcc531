"""Rolling restarts under load: what is lost with the middleware, and by the bare app.

    python -m tests.benchmarks.rolling_restarts                 # everything, about 25 minutes
    python -m tests.benchmarks.rolling_restarts --rolls 3 haproxy streams

Each case is one rehearsal of `examples.starlette_app` under uvicorn; the same case with the bare
app shows that the run can fail. Ends with 1 if a bar was missed.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from graceful.rehearsal import Plan, Result, rehearse

RATE = 300.0
FLIP = 0.05
"""Seconds in which readiness must have flipped."""

DELAY = 3.0
"""Seconds of propagation delay: probes 2 x 0.5 s and a lag of 1 s need at most 2."""

EXAMPLE = "examples.starlette_app:app"
BARE = "tests.benchmarks.bare_app:app"


def command(app: str, *options: str) -> tuple[str, ...]:
    """Return how one instance is started."""
    quiet = ("--no-access-log", "--log-level", "warning")
    return (sys.executable, "-m", "uvicorn", app, "--port", "{port}", *quiet, *options)


@dataclass(frozen=True)
class Case:
    """One rehearsal and its bar."""

    name: str
    plan: Plan
    judge: Callable[[Result], list[str]]
    delay: float = DELAY


def nothing_lost(result: Result) -> list[str]:
    """The bar of every graceful run."""
    found = [] if result.lost == 0 else [f"{result.lost} requests lost"]
    if result.total < 20_000:
        found.append(f"only {result.total} requests")
    flips = [r.readiness_flip for r in result.restarts if r.readiness_flip is not None]
    if len(flips) < len(result.restarts):
        found.append("readiness did not flip")
    return found


def something_lost(result: Result) -> list[str]:
    """The bar of every bare run: it proves that the run can fail."""
    return [] if result.lost else ["the bare app lost nothing: the run proves nothing"]


def streams_moved(result: Result, delay: float) -> list[str]:
    """Everybody told, nobody before the delay, no herd, nothing lost."""
    found: list[str] = []
    if result.streams_cut:
        found.append(f"{result.streams_cut} streams ended without a farewell")
    if result.messages_lost:
        found.append(f"{result.messages_lost} messages lost")
    if result.streams_moved != result.streams_ended:
        found.append(f"{result.streams_moved} of {result.streams_ended} came to another process")
    for restart in result.restarts:
        if restart.first_farewell is not None and restart.first_farewell < delay:
            found.append(f"a farewell after {restart.first_farewell:.3f} s")
        if restart.largest_slot_share > 0.10:
            found.append(f"{restart.largest_slot_share:.1%} of the farewells in one slot")
    return found


def cases(rolls: int) -> list[Case]:
    """Return every case, in the order in which it is run."""
    found: list[Case] = []
    for name in ("haproxy", "internal", "internal-l4"):
        new = partial(Plan, balancer=name, rate=RATE, lag=1.0, rtt=0.02)
        found.append(Case(name, new(command=command(EXAMPLE), rolls=rolls), nothing_lost))
        found.append(Case(f"{name}-bare", new(command=command(BARE), rolls=2), something_lost))
    crowd = Plan(
        command=command(EXAMPLE),
        balancer="internal",
        rate=50.0,
        rolls=2,
        websockets=200,
        sse=200,
    )
    found.append(Case("streams", crowd, partial(streams_moved, delay=5.0), delay=5.0))
    return found


def spread(values: list[float]) -> str:
    """Return median and maximum in milliseconds."""
    if not values:
        return "-"
    return f"{statistics.median(values) * 1e3:.0f} ms median, {max(values) * 1e3:.0f} ms at most"


def exits(result: Result) -> list[float]:
    """Return the seconds from the end of the last work, or of the linger, to the exit."""
    linger = result_delay() + 1.0
    return [
        r.exit - max(r.last_request or 0.0, r.last_stream or 0.0, linger) for r in result.restarts
    ]


def result_delay() -> float:
    """The propagation delay in force for the instances."""
    return float(os.environ["GRACEFUL_PROPAGATION_DELAY"])


def flips_in(logs: Path) -> list[float]:
    """Return the seconds from signal to flip that the instances have logged."""
    text = "".join(log.read_text("utf-8", "replace") for log in logs.rglob("*") if log.is_file())
    return [float(seconds) for seconds in re.findall(r"flipped_in=([\d.]+)", text)]


def run(case: Case) -> bool:
    """Hold one rehearsal and print what it found; False when a bar was missed."""
    os.environ["GRACEFUL_PROPAGATION_DELAY"] = str(case.delay)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as logs:
        result = rehearse(replace(case.plan, logs=Path(logs)))
        flips = flips_in(Path(logs))
    missed = case.judge(result)
    restarts = len(result.restarts)
    print(f"\n{case.name}: {result.verdict}")
    print(
        f"  {restarts} restarts in {time.monotonic() - began:.0f} s, at {case.plan.rate:g}/s;",
        end="",
    )
    print(f" lost per restart {result.lost / max(1, restarts):.1f}; client late by", end="")
    print(f" {result.lateness_p99 * 1e3:.1f} ms (p99)")
    if "bare" not in case.name:
        seen = [r.readiness_flip for r in result.restarts if r.readiness_flip is not None]
        print(f"  readiness flipped {spread(flips)} after the signal reached the process;")
        print(f"    a probe every 10 ms saw it after {spread(seen)}")
        if flips and max(flips) > FLIP:
            missed.append(f"a flip took {max(flips) * 1e3:.0f} ms")
        print(f"  exit after the end of work or linger: {spread(exits(result))}")
        print(f"  exit codes {sorted({r.exit_code for r in result.restarts})}")
        for restart in result.restarts:
            if restart.streams_told:
                print(
                    f"  {restart.streams_told} streams told from {restart.first_farewell:.2f} s to "
                    f"{restart.last_farewell:.2f} s, at most {restart.largest_slot_share:.1%} in "
                    f"100 ms; {restart.streams_moved} moved"
                )
    for text in missed:
        print(f"  BAR MISSED: {text}")
    sys.stdout.flush()
    return not missed


def main() -> int:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rolls", type=int, default=20)
    parser.add_argument("cases", nargs="*")
    arguments = parser.parse_args()
    chosen = [c for c in cases(arguments.rolls) if not arguments.cases or c.name in arguments.cases]
    passed = [run(case) for case in chosen]  # all of them, also after one that missed its bar
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
