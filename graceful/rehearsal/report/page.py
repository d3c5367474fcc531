"""One self-contained page of HTML: the verdict, its evidence, and the picture. No script, no
network; the template says how it looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..figures import NEVER, comparison, duration, exit_status, seconds
from ..outcomes import Outcome
from ..result import Restart, Result, explain, findings
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
    findings: list[str]
    outcomes: list[str]
    restarts: list[list[str]]


def page(results: Mapping[str, Result]) -> str:
    """Return the page; several results by name stand below each other on one scale of time."""
    length = max(result.seconds for result in results.values())
    sections = [_section(name, result, length) for name, result in results.items()]
    return _templates.get_template("page.html").render(
        sections=sections,
        rows=list(comparison(results)),
        headings=HEADINGS,
        duration=duration,
        tones=range(max(len(section.chart.rows) for section in sections)),
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


def _section(name: str, result: Result, length: float) -> _Section:
    seen = result.outcomes
    return _Section(
        name=name,
        result=result,
        chart=chart(result, length),
        losses=list(explain(result, LOSSES)),
        findings=list(findings(result)),
        outcomes=[outcome for outcome in Outcome if seen.get(outcome)],
        restarts=[list(_restart(restart)) for restart in result.restarts],
    )


def _restart(restart: Restart) -> Iterator[str]:
    ended = restart.streams_told + restart.streams_cut
    yield f"{restart.number} · {restart.instance}"
    yield seconds(restart.readiness_flip, 3, " s")
    yield seconds(restart.refused, 2, " s")
    yield seconds(restart.last_request, 2, " s")
    yield seconds(restart.exit, 2, " s")
    yield seconds(restart.in_rotation, 2, " s")
    yield exit_status(restart.exit_code, killed=restart.killed)
    yield f"{restart.requests_lost:,}"
    yield f"{restart.streams_told} of {ended}" if ended else NEVER
