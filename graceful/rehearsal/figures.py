"""How figures are written, and what two results are compared by. Pure: text for every view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .result import Result

__all__ = ["NEVER", "comparison", "duration", "exit_status", "seconds"]

NEVER = "–"
"""For what did not happen."""


def seconds(value: float | None, digits: int = 2, unit: str = "") -> str:
    """Write seconds that stand in a column of seconds."""
    return NEVER if value is None else f"{value:.{digits}f}{unit}"


def duration(value: float) -> str:
    """Write seconds with the unit that suits them."""
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def exit_status(code: int, *, killed: bool) -> str:
    """Write how a process has ended."""
    return "SIGKILL" if killed else str(code)


def comparison(results: Mapping[str, Result]) -> Iterator[tuple[str, list[str]]]:
    """Yield what results are compared by: its name, and the figure of each result."""
    every = list(results.values())
    yield "requests lost", [f"{r.lost:,} of {r.total:,}" for r in every]
    yield "messages lost", [f"{r.messages_lost:,}" for r in every]
    yield "streams told and moved", [f"{r.streams_moved:,} of {r.streams_ended:,}" for r in every]
    yield "streams cut", [f"{r.streams_cut:,}" for r in every]
    yield "needed SIGKILL", [f"{r.killed} of {len(r.restarts)}" for r in every]
    yield "longest exit", [seconds(r.longest_exit, 2, " s") for r in every]
    yield "quick requests, p99", [_p99(r) for r in every]


def _p99(result: Result) -> str:
    times = result.latency.get("quick")
    return duration(times["p99"]) if times else NEVER
