"""One self-contained page of HTML: the verdict, its evidence, and the picture. No script, no
network; the template says how it looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..outcomes import Outcome
from ..result import Restart, Result, explain
from .chart import Chart, chart

__all__ = ["page"]

LOSSES: Final = 50
"""Losses that are listed."""

_templates = Environment(
    loader=PackageLoader("graceful.rehearsal.report", ""),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class _Section:
    """One rehearsal on the page."""

    name: str
    result: Result
    chart: Chart
    losses: list[str]
    outcomes: list[str]
    restarts: list[list[str]]


def page(results: dict[str, Result]) -> str:
    """Return the page; several results by name stand below each other on one scale of time."""
    seconds = max(result.seconds for result in results.values())
    sections = [_section(name, result, seconds) for name, result in results.items()]
    return _templates.get_template("page.html").render(
        sections=sections, rows=list(_comparison(results)), headings=HEADINGS
    )


HEADINGS: Final = (
    "",
    "unready after",
    "refusing after",
    "last request after",
    "exit after",
    "chosen again after",
    "status",
    "requests lost",
    "streams told",
)


def _section(name: str, result: Result, seconds: float) -> _Section:
    seen = result.outcomes
    return _Section(
        name=name,
        result=result,
        chart=chart(result, seconds),
        losses=list(explain(result, LOSSES)),
        outcomes=[outcome for outcome in Outcome if seen.get(outcome)],
        restarts=[list(_restart(restart)) for restart in result.restarts],
    )


def _restart(restart: Restart) -> Iterator[str]:
    ended = restart.streams_told + restart.streams_cut
    yield f"{restart.number} · {restart.instance}"
    yield _seconds(restart.readiness_flip, 3)
    yield _seconds(restart.refused)
    yield _seconds(restart.last_request)
    yield _seconds(restart.exit)
    yield _seconds(restart.in_rotation)
    yield "SIGKILL" if restart.killed else str(restart.exit_code)
    yield f"{restart.requests_lost:,}"
    yield f"{restart.streams_told} of {ended}" if ended else "–"


def _seconds(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f} s"


def _comparison(results: dict[str, Result]) -> Iterator[tuple[str, list[str]]]:
    """Yield what two runs are compared by, a row each."""
    every = list(results.values())
    yield "requests lost", [f"{r.lost:,} of {r.total:,}" for r in every]
    yield "streams told and moved", [f"{r.streams_moved:,} of {r.streams_ended:,}" for r in every]
    yield "streams cut", [f"{r.streams_cut:,}" for r in every]
    yield "messages lost", [f"{r.messages_lost:,}" for r in every]
    yield "needed SIGKILL", [f"{r.killed} of {len(r.restarts)}" for r in every]
    yield "longest exit", [_seconds(max((s.exit for s in r.restarts), default=None)) for r in every]
