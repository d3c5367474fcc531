"""gunicorn behind HAProxy: rolling restarts, and reloads by HUP, of each class of worker.

    python -m tests.benchmarks.gunicorn_restarts                     # everything, about 25 minutes
    python -m tests.benchmarks.gunicorn_restarts --rolls 2 gthread gthread-hup

Two instances of two workers each are restarted one after the other under load; a reload is of one
instance. The rate is 60 % of what one instance can serve of the mix, at most 300 requests/s. Each
restart case also runs with the bare app, without graceful's configuration: that the run can fail.
Ends with 1 if a bar was missed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from functools import partial

from graceful.rehearsal import Plan, Result, rehearse

from .rolling_restarts import Case, run, something_lost

RATE = 300.0
SHARE = 0.6
"""Of the capacity of one instance: while the other is being restarted it serves everything."""

DELAY = 3.0


@dataclass(frozen=True)
class Worker:
    """One worker class, and how it is run."""

    name: str
    options: tuple[str, ...]
    asgi: bool = False
    streams: bool = True
    """Whether a worker can serve a stream and something else at the same time."""
    slots: float = float("inf")
    """Requests that one instance can have in hand at once."""

    @property
    def app(self) -> str:
        """The app with the middleware."""
        return "examples.starlette_app:app" if self.asgi else "examples.flask_app:app"

    @property
    def bare(self) -> str:
        """The same app without."""
        return "tests.benchmarks.bare_app:app" if self.asgi else "tests.benchmarks.bare_flask:app"


WORKERS = (
    Worker("sync", ("-k", "sync", "-w", "8"), streams=False, slots=8),
    Worker("gthread", ("-k", "gthread", "-w", "2", "--threads", "32"), slots=64),
    Worker("gevent", ("-k", "gevent", "-w", "2")),
    Worker("asgi", ("-k", "asgi", "-w", "2"), asgi=True),
    Worker("uvicorn", ("-k", "uvicorn_worker.UvicornWorker", "-w", "2"), asgi=True),
)


def command(worker: Worker, *, graceful: bool) -> tuple[str, ...]:
    """Return how one instance is started."""
    common = (sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:{port}", "--log-level", "warning")
    sockets = ("--no-control-socket",)
    if not graceful:
        return (*common, *sockets, *worker.options, "--graceful-timeout", "10", worker.bare)
    config = ("-c", "python:graceful.integrations.gunicorn_conf")
    return (*common, *sockets, *config, *worker.options, worker.app)


def plan(worker: Worker, *, graceful: bool = True) -> Plan:
    """Return the rehearsal of `worker`, with the mix that it can serve."""
    given = Plan(
        command=command(worker, graceful=graceful),
        balancer="haproxy",
        rate=RATE,
        websockets=0,
        sse=4 if worker.streams and graceful else 0,
    )
    if worker.streams:
        return given
    return replace(given, slow_path="", post_path="/echo")


def capacity(worker: Worker) -> float:
    """Return the requests per second of the mix that one instance has served within 0.5 s at p99.

    Doubles the rate until it does not keep up any more, or until the bar's rate is safe.
    """
    rate, good = 50.0, 50.0
    while rate * SHARE < RATE:
        rate *= 2
        load = replace(plan(worker), instances=1, rolls=0, duration=3.0, rate=rate, sse=0)
        result = rehearse(load)
        quick = result.latency.get("quick", {}).get("p99", float("inf"))
        if result.lost or quick > 0.5:
            break
        good = rate
    return good


def nothing_lost(result: Result) -> list[str]:
    """The bar of every graceful run."""
    found = [] if result.lost == 0 else [f"{result.lost} requests lost"]
    if result.streams_cut:
        found.append(f"{result.streams_cut} streams ended without a farewell")
    if result.messages_lost:
        found.append(f"{result.messages_lost} messages lost")
    if result.killed:
        found.append(f"{result.killed} instances needed SIGKILL")
    if result.not_ready:
        found.append(f"{result.not_ready} readiness answers other than 200")
    if result.stayed:
        found.append(f"{result.stayed} reloads left an old worker behind")
    if any(restart.streams_told > restart.streams_moved for restart in result.restarts):
        found.append("a stream that was told did not come to another process")
    return found


def cases(worker: Worker, rate: float, rolls: int, reloads: int) -> list[Case]:
    """Return the cases of one worker class."""
    graceful = replace(plan(worker), rate=rate, rolls=rolls)
    bare = replace(plan(worker, graceful=False), rate=rate, rolls=1)
    found = [
        Case(worker.name, graceful, nothing_lost, delay=DELAY),
        Case(f"{worker.name}-bare", bare, something_lost, delay=DELAY),
    ]
    if worker.streams:
        reload = replace(graceful, instances=1, rolls=reloads, reload_signal="HUP")
        found.append(Case(f"{worker.name}-hup", reload, nothing_lost, delay=DELAY))
    return found


def main() -> int:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rolls", type=int, default=10)
    parser.add_argument("--reloads", type=int, default=20)
    parser.add_argument("cases", nargs="*", help="names such as gthread, gthread-bare, gthread-hup")
    arguments = parser.parse_args()
    passed = [run_worker(worker, arguments) for worker in WORKERS]
    return 0 if all(passed) else 1


def run_worker(worker: Worker, arguments: argparse.Namespace) -> bool:
    """Measure what `worker` can serve and run its cases."""
    chosen = partial(cases, worker, rolls=arguments.rolls, reloads=arguments.reloads)
    wanted = arguments.cases or [case.name for case in chosen(rate=0.0)]
    if not any(case.name in wanted for case in chosen(rate=0.0)):
        return True
    most = capacity(worker)
    rate = min(RATE, SHARE * most)
    print(f"\n{worker.name} {' '.join(worker.options)}: one instance has served {most:g}/s", end="")
    print(f" of {', '.join(plan(worker).kinds)}; the load is {rate:g}/s", flush=True)
    return all([run(case) for case in chosen(rate=rate) if case.name in wanted])  # noqa: C419


if __name__ == "__main__":
    sys.exit(main())
