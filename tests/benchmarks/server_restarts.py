"""Every other server behind HAProxy: rolling restarts with streams, graceful and bare.

    python -m tests.benchmarks.server_restarts                 # everything, about 40 minutes
    python -m tests.benchmarks.server_restarts --rolls 2 granian-2 waitress waitress-bare

Two instances are restarted one after the other at 200 requests/s, ASGI servers with 100 WebSocket
and 100 SSE clients. Each case also runs bare: that the run can fail. Ends with 1 if a bar was
missed. gRPC has its own client and its own benchmark, `grpc_restarts`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace

from graceful.rehearsal import Plan, Result

from .gunicorn_restarts import nothing_lost
from .rolling_restarts import Case, run, something_lost

RATE = 200.0
STREAMS = 100
"""WebSocket clients, and as many SSE clients."""
DELAY = 3.0

ASGI, BARE_ASGI = "examples.starlette_app:app", "tests.benchmarks.bare_app:app"
WSGI, BARE_WSGI = "examples.flask_app:app", "tests.benchmarks.bare_flask:app"


@dataclass(frozen=True)
class Server:
    """One server, and how it is run."""

    name: str
    command: tuple[str, ...]
    """Words after `python -m`; '{app}' stands for the app."""
    bare: tuple[str, ...] = ()
    """The same without graceful, where it is not the same command with the bare app."""
    asgi: bool = True

    def run(self, *, graceful: bool) -> tuple[str, ...]:
        """Return the command line of one instance."""
        apps = (ASGI, BARE_ASGI) if self.asgi else (WSGI, BARE_WSGI)
        words = self.command if graceful or not self.bare else self.bare
        app = apps[0] if graceful else apps[1]
        return (sys.executable, "-m", *(word.replace("{app}", app) for word in words))


HYPERCORN = ("hypercorn", "{app}", "-b", "127.0.0.1:{port}")
GRANIAN = ("granian", "{app}", "--port", "{port}", "--log-level", "warning")
UVICORN = ("uvicorn", "{app}", "--port", "{port}", "--no-access-log", "--workers", "2")
RUN = ("graceful.cli", "run")

SERVERS = (
    Server("hypercorn", HYPERCORN),
    Server("hypercorn-2", (*HYPERCORN, "-w", "2")),
    Server("granian", (*GRANIAN, "--interface", "asgi")),
    Server("granian-2", (*GRANIAN, "--interface", "asgi", "--workers", "2")),
    Server(
        "granian-wsgi",
        (*GRANIAN, "--interface", "wsgi", "--blocking-threads", "32"),
        asgi=False,
    ),
    Server("daphne", ("daphne", "-p", "{port}", "-v", "0", "{app}")),
    Server(
        "waitress",
        ("tests.benchmarks.serve_waitress", "{port}"),
        ("waitress", "--listen=127.0.0.1:{port}", "--threads=32", "{app}"),
        asgi=False,
    ),
    Server("run-uvicorn", (*RUN, *UVICORN), UVICORN),
    Server("run-hypercorn", (*RUN, *HYPERCORN, "-w", "2"), (*HYPERCORN, "-w", "2")),
    Server(
        "run-granian",
        (*RUN, *GRANIAN, "--interface", "asgi", "--workers", "2"),
        (*GRANIAN, "--interface", "asgi", "--workers", "2"),
    ),
)


def told_in_time(result: Result) -> list[str]:
    """The bar of every graceful run: all are told, and nobody before the delay is over."""
    found = nothing_lost(result)
    early = [r for r in result.restarts if r.first_farewell is not None]
    if any((r.first_farewell or 0.0) < DELAY - 0.05 for r in early):
        found.append("a stream was told before the delay was over")
    return found


def cases(server: Server, rolls: int) -> list[Case]:
    """Return the cases of one server."""
    streams = STREAMS if server.asgi else 0
    graceful = Plan(
        command=server.run(graceful=True),
        balancer="haproxy",
        rate=RATE,
        rolls=rolls,
        websockets=streams,
        sse=streams,
    )
    bare = replace(
        graceful,
        command=server.run(graceful=False),
        rolls=1,
        websockets=0,
        sse=0,
        kill_after=15,
    )
    return [
        Case(server.name, graceful, told_in_time, delay=DELAY),
        Case(f"{server.name}-bare", bare, something_lost, delay=DELAY),
    ]


def main() -> int:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rolls", type=int, default=10)
    parser.add_argument("cases", nargs="*", help="names such as granian-2, granian-2-bare")
    arguments = parser.parse_args()
    every = [case for server in SERVERS for case in cases(server, arguments.rolls)]
    wanted = arguments.cases or [case.name for case in every]
    return 0 if all([run(case) for case in every if case.name in wanted]) else 1  # noqa: C419


if __name__ == "__main__":
    sys.exit(main())
