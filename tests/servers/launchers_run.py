"""Servers with workers, started by `graceful run`."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from .harness import Launcher
from .launchers import UVICORN
from .launchers_hypercorn import HYPERCORN

__all__ = [
    "ON_ALL",
    "RUN_GRANIAN",
    "RUN_GRANIAN_WSGI",
    "RUN_HYPERCORN",
    "RUN_HYPERCORN_IN_PROCESS",
    "RUN_HYPERCORN_TRIO",
    "RUN_UVICORN",
    "launched",
    "on",
]

_PORT = r"Uvicorn running on http://127\.0\.0\.1:(\d+)"

PATIENT = ("--timeout-worker-healthcheck", "30")
"""uvicorn's parent gives a new worker 5 s to be ready, or it ends the reload; where many tests run
at once that is not enough."""


def launched(server: str, *arguments: str, kind: str = "", **traits: Any) -> Launcher:
    """Return two workers of a server whose parent speaks for them."""
    return Launcher(
        name=f"run-{server}{kind}",
        command=("graceful.cli", "run", server, *arguments),
        workers=2,
        speakers=1,
        reports_holds=False,
        **traits,
    )


RUN_UVICORN = launched(
    "uvicorn",
    *("{app}", "--port", "0", "--no-access-log", "--workers", "2", *PATIENT),
    announces=_PORT,
    noise=UVICORN.noise,
)

RUN_HYPERCORN = launched(
    "hypercorn",
    *("{app}", "-b", "127.0.0.1:0", "-w", "2"),
    announces=r"Running on http://127\.0\.0\.1:(\d+)",
)

RUN_HYPERCORN_TRIO = launched(
    "hypercorn",
    *("{app}", "-b", "127.0.0.1:0", "-w", "2", "-k", "trio"),
    kind="-trio",
    announces=RUN_HYPERCORN.announces,
    asyncio=False,
)

RUN_HYPERCORN_IN_PROCESS = dataclasses.replace(
    HYPERCORN,
    name="run-hypercorn-in-process",
    command=("graceful.cli", "run", *HYPERCORN.command),
)
"""`-w 0`: no parent, and nothing for `graceful run` to do."""


def granian(kind: str, *options: str) -> Launcher:
    """Return two workers of granian, started by a script that finds a port."""
    launcher = launched(
        "granian",
        *("{app}", "--workers", "2", "--respawn-interval", "0.2", *options),
        kind=kind,
        announces=r"Listening at: http://127\.0\.0\.1:(\d+)",
        resets=2,
    )
    command = ("tests.servers.run_granian", *launcher.command[3:])
    return dataclasses.replace(launcher, command=command)


RUN_GRANIAN = granian("", "--interface", "asgi")

RUN_GRANIAN_WSGI = granian("-wsgi", "--interface", "wsgi", "--blocking-threads", "16")


def on(*launchers: Launcher) -> pytest.MarkDecorator:
    """Run a test on each of `launchers`."""
    return pytest.mark.parametrize("launcher", launchers, ids=lambda launcher: launcher.name)


ON_ALL = on(RUN_UVICORN, RUN_HYPERCORN, RUN_GRANIAN)
