"""The findings as tables for people. Formats only: every figure comes from the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .figures import NEVER, comparison, duration, exit_status, seconds
from .outcomes import Outcome
from .result import Restart, Result, StreamRecord, explain, findings

__all__ = ["print_comparison", "print_result"]


def print_result(result: Result, console: Console) -> None:
    """Write the tables, the losses, what faults have shown, and at the end the verdict."""
    for title, table in _tables(result):
        _print(console, title, style="bold")
        console.print(table)
    for line in findings(result):
        _print(console, line)
    for line in explain(result):
        _print(console, line, style="red")
    _print(console, result.verdict, style="bold green" if result.ok else "bold red")


def print_comparison(results: Mapping[str, Result], console: Console) -> None:
    """Write what results by name have come to, side by side."""
    table = _table("", *results)
    for what, figures in comparison(results):
        table.add_row(what, *figures)
    _print(console, "\nCompared", style="bold")
    console.print(table)


def _print(console: Console, line: str, style: str = "") -> None:
    """Write a line that is never folded: it is looked for."""
    console.print(Text(line, style=style), soft_wrap=True)


def _tables(result: Result) -> Iterator[tuple[str, Table]]:
    signal = result.signal
    yield f"Requests (sent {duration(result.lateness_p99)} late at p99)", _requests(result)
    if result.restarts:
        what = "Restarts" if signal == "SIGTERM" else "Reloads"
        yield f"{what}, seconds from {signal} to …", _restarts(result)
    if result.streams_ended:
        yield f"Farewells, seconds from {signal} to …", _farewells(result)
    if result.streams:
        yield "Streams", _streams(result)


def _table(*headings: str, left: int = 1) -> Table:
    """Make a table whose first columns, `left` of them, are words."""
    table = Table(pad_edge=False, box=None)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < left else "right")
    return table


def _requests(result: Result) -> Table:
    shown = [outcome for outcome in Outcome if outcome in result.outcomes]
    table = _table("kind", *shown, "p50", "p99", "max")
    for kind, counts in result.requests.items():
        times = result.latency.get(kind, {})
        table.add_row(
            kind,
            *[f"{counts.get(outcome, 0):,}" for outcome in shown],
            *[duration(times[key]) if key in times else NEVER for key in ("p50", "p99", "max")],
        )
    return table


def _restarts(result: Result) -> Table:
    end = "exit" if result.signal == "SIGTERM" else "old ones gone"
    table = _table("", "unready", "refusing", "last request", end, "chosen", "status", "lost")
    for restart in result.restarts:
        table.add_row(*_restart(restart), style="" if _good(restart) else "red")
    return table


def _farewells(result: Result) -> Table:
    table = _table("", "first", "last", "last end", "told", "moved", "in one 100 ms slot", "lost")
    for restart in result.restarts:
        table.add_row(*_farewell(restart), style="red" if restart.streams_cut else "")
    return table


def _restart(restart: Restart) -> Iterator[str]:
    yield f"{restart.number} {restart.instance}"
    yield seconds(restart.readiness_flip, 3)
    yield seconds(restart.refused)
    yield seconds(restart.last_request)
    yield seconds(restart.exit)
    yield seconds(restart.in_rotation)
    yield exit_status(restart.exit_code, killed=restart.killed)
    yield f"{restart.requests_lost:,}"


def _farewell(restart: Restart) -> Iterator[str]:
    ended = restart.streams_told + restart.streams_cut
    yield f"{restart.number} {restart.instance}"
    yield seconds(restart.first_farewell)
    yield seconds(restart.last_farewell)
    yield seconds(restart.last_stream)
    yield f"{restart.streams_told} of {ended}"
    yield f"{restart.streams_moved} of {ended}"
    yield f"{restart.largest_slot_share:.0%}" if restart.streams_told else NEVER
    yield f"{restart.messages_lost:,}"


def _good(restart: Restart) -> bool:
    bad = restart.requests_lost or restart.streams_cut or restart.messages_lost or restart.killed
    return not bad


def _streams(result: Result) -> Table:
    sums = ["restart", "streams", "told", "moved", "retries", "messages", "lost"]
    table = _table("kind", "how they ended", *sums, left=2)
    groups = Counter((s.kind, s.ended, s.restart is not None) for s in result.streams)
    for kind, ended, restarted in sorted(groups, reverse=True):
        streams = [
            s
            for s in result.streams
            if (s.kind, s.ended, s.restart is not None) == (kind, ended, restarted)
        ]
        table.add_row(kind, ended, "yes" if restarted else "no", *_stream_sums(streams))
    return table


def _stream_sums(streams: Sequence[StreamRecord]) -> Iterator[str]:
    yield f"{len(streams):,}"
    yield f"{sum(s.told for s in streams):,}"
    yield f"{sum(s.moved for s in streams):,}"
    yield f"{sum(s.failed_attempts for s in streams):,}"
    yield f"{sum(s.messages for s in streams):,}"
    yield f"{sum(s.messages_lost for s in streams):,}"
