"""Servers with workers, started by `graceful run`."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from .harness import Launcher
from .launchers import UVICORN

__all__ = ["ON_ALL", "RUN_GRANIAN", "RUN_HYPERCORN", "RUN_UVICORN", "launched", "on"]

_PORT = r"Uvicorn running on http://127\.0\.0\.1:(\d+)"


def launched(server: str, *arguments: str, **traits: Any) -> Launcher:
    """Return two workers of a server whose parent speaks for them."""
    return Launcher(
        name=f"run-{server}",
        command=("graceful.cli", "run", server, *arguments),
        workers=2,
        speakers=1,
        reports_holds=False,
        **traits,
    )


RUN_UVICORN = launched(
    "uvicorn",
    *("{app}", "--port", "0", "--no-access-log", "--workers", "2"),
    announces=_PORT,
    noise=UVICORN.noise,
)

RUN_HYPERCORN = launched(
    "hypercorn",
    *("{app}", "-b", "127.0.0.1:0", "-w", "2"),
    announces=r"Running on http://127\.0\.0\.1:(\d+)",
)

_GRANIAN = launched(
    "granian",
    *("{app}", "--interface", "asgi", "--workers", "2", "--respawn-interval", "0.2"),
    announces=r"Listening at: http://127\.0\.0\.1:(\d+)",
)
RUN_GRANIAN = dataclasses.replace(
    _GRANIAN, command=("tests.servers.run_granian", *_GRANIAN.command[3:])
)


def on(*launchers: Launcher) -> pytest.MarkDecorator:
    """Run a test on each of `launchers`."""
    return pytest.mark.parametrize("launcher", launchers, ids=lambda launcher: launcher.name)


ON_ALL = on(RUN_UVICORN, RUN_HYPERCORN, RUN_GRANIAN)
