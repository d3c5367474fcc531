"""hypercorn, in the ways in which it is run."""

from __future__ import annotations

from typing import Any

from .harness import Launcher

__all__ = [
    "HYPERCORN",
    "HYPERCORN_CHILD",
    "HYPERCORN_TRIO",
    "HYPERCORN_UVLOOP",
    "HYPERCORN_WORKERS",
]


def hypercorn(name: str, workers: int, *options: str, **traits: Any) -> Launcher:
    """Return a hypercorn; with `workers` 0 it serves in its own process, else a parent does not."""
    return Launcher(
        name=f"hypercorn-{name}",
        command=("hypercorn", "{app}", "-b", "127.0.0.1:0", "-w", str(workers), *options),
        announces=r"Running on http://127\.0\.0\.1:(\d+)",
        workers=max(1, workers),
        refuses_while_draining=workers < 2,
        own_exit_status=traits.pop("own_exit_status", workers == 0),
        **traits,
    )


HYPERCORN = hypercorn("in-process", 0)
HYPERCORN_CHILD = hypercorn("child", 1)
HYPERCORN_UVLOOP = hypercorn("uvloop", 1, "-k", "uvloop")
HYPERCORN_WORKERS = hypercorn("workers", 2)
HYPERCORN_TRIO = hypercorn("trio", 0, "-k", "trio", own_exit_status=False, asyncio=False)
