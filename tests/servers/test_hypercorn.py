"""The contract on hypercorn, in the ways in which it is run."""

from __future__ import annotations

from .contract import ServerContract
from .launchers_hypercorn import (
    HYPERCORN,
    HYPERCORN_CHILD,
    HYPERCORN_TRIO,
    HYPERCORN_WORKERS,
)


class TestHypercorn(ServerContract):
    """`-w 0`: in its own process, on asyncio."""

    launcher = HYPERCORN


class TestHypercornChild(ServerContract):
    """The default: one worker, and a parent that holds its listener."""

    launcher = HYPERCORN_CHILD


class TestHypercornWorkers(ServerContract):
    """`-w 2`: the parent ends the second worker when the first has ended."""

    launcher = HYPERCORN_WORKERS


class TestHypercornTrio(ServerContract):
    """`-k trio`."""

    launcher = HYPERCORN_TRIO
