"""The findings as tables for people. Formats only: every figure comes from the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .outcomes import Outcome
from .result import Restart, Result, StreamRecord, explain

__all__ = ["print_result"]


def print_result(result: Result, console: Console) -> None:
    """Write the tables, the first losses, and at the end the verdict."""
    console.print(Group(*_tables(result)))
    for line in explain(result):
        console.print(Text(line, style="red"), soft_wrap=True)
    style = "bold green" if result.ok else "bold red"
    console.print(Text(result.verdict, style=style), soft_wrap=True)


def _tables(result: Result) -> Iterator[Table]:
    yield _requests(result)
    if result.restarts:
        yield _restarts(result)
    if result.streams_ended:
        yield _farewells(result)
    if result.streams:
        yield _streams(result)


def _requests(result: Result) -> Table:
    table = _table(f"Requests (sent {_ms(result.lateness_p99)} late at p99)")
    shown = [outcome for outcome in Outcome if outcome in result.outcomes]
    for heading in ["kind", *shown, "p50", "p99", "max"]:
        table.add_column(heading, justify="left" if heading == "kind" else "right")
    for kind, counts in result.requests.items():
        times = result.latency.get(kind, {})
        table.add_row(
            kind,
            *[f"{counts.get(outcome, 0):,}" for outcome in shown],
            *[_ms(times[key]) if key in times else "-" for key in ("p50", "p99", "max")],
        )
    return table


def _restarts(result: Result) -> Table:
    name, restarts = result.signal, result.restarts
    what, end = ("Restarts", "exit") if name == "SIGTERM" else ("Reloads", "old ones gone")
    table = _table(f"{what}, seconds from {name} to …")
    for heading in ["", "unready", "refusing", "last request", end, "chosen", "status", "lost"]:
        table.add_column(heading, justify="right")
    for restart in restarts:
        table.add_row(*_restart(restart), style="" if _good(restart) else "red")
    return table


def _farewells(result: Result) -> Table:
    table = _table(f"Farewells, seconds from {result.signal} to …")
    headings = ["", "first", "last", "last end", "told", "moved", "in one 100 ms slot", "lost"]
    for heading in headings:
        table.add_column(heading, justify="right")
    for restart in result.restarts:
        table.add_row(*_farewell(restart), style="red" if restart.streams_cut else "")
    return table


def _restart(restart: Restart) -> Iterator[str]:
    yield f"{restart.number} {restart.instance}"
    yield _seconds(restart.readiness_flip, 3)
    yield _seconds(restart.refused)
    yield _seconds(restart.last_request)
    yield _seconds(restart.exit)
    yield _seconds(restart.in_rotation)
    yield "SIGKILL" if restart.killed else str(restart.exit_code)
    yield f"{restart.requests_lost:,}"


def _farewell(restart: Restart) -> Iterator[str]:
    ended = restart.streams_told + restart.streams_cut
    yield f"{restart.number} {restart.instance}"
    yield _seconds(restart.first_farewell)
    yield _seconds(restart.last_farewell)
    yield _seconds(restart.last_stream)
    yield f"{restart.streams_told} of {ended}"
    yield f"{restart.streams_moved} of {ended}"
    yield f"{restart.largest_slot_share:.0%}" if restart.streams_told else "-"
    yield f"{restart.messages_lost:,}"


def _good(restart: Restart) -> bool:
    bad = restart.requests_lost or restart.streams_cut or restart.messages_lost or restart.killed
    return not bad


def _streams(result: Result) -> Table:
    table = _table("Streams")
    for heading in ["kind", "how they ended"]:
        table.add_column(heading)
    for heading in ["restart", "streams", "told", "moved", "retries", "messages", "lost"]:
        table.add_column(heading, justify="right")
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


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", pad_edge=False, box=None)


def _seconds(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
