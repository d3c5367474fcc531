"""What people see: tables, plain lines and the live picture."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from graceful.rehearsal import PlainView, Result, SilentView, View
from graceful.rehearsal.live import LiveView
from graceful.rehearsal.table import print_result
from graceful.rehearsal.view import InstanceState, Snapshot

from .findings import CLEAN, LOSSY, RESTART

STATE = InstanceState(
    name="i1", port=8001, phase="lame duck", in_rotation=False, served=1234, lost=2, streams=20
)
SNAPSHOT = Snapshot(
    seconds=10.0,
    instances=[STATE, replace(STATE, name="i2", phase="serving", in_rotation=True)],
    ok=1000,
    lost=2,
    in_flight=7,
    restarts=1,
    restarts_planned=4,
)


def printed(result: Result, width: int = 80) -> str:
    """Print it on paper of `width` columns."""
    paper = io.StringIO()
    print_result(result, Console(file=paper, width=width))
    return paper.getvalue()


def test_the_tables_end_with_the_verdict() -> None:
    """And hold every figure."""
    text = printed(CLEAN)
    assert text.rstrip().splitlines()[-1] == CLEAN.verdict
    for word in ("quick", "1,200", "1.50 s", "1 i1", "0.012", "7.50", "close 1012", "1 of 1"):
        assert word in text


def test_losses_stand_above_the_verdict() -> None:
    """On one line each, however narrow the terminal is."""
    *_, loss, verdict = printed(LOSSY).rstrip().splitlines()
    assert loss.startswith("lost: 2 requests (2 post), i1, reset")
    assert loss.endswith("restart 1")
    assert verdict == LOSSY.verdict


def test_an_outcome_that_never_came_has_no_column() -> None:
    """The table stays narrow."""
    assert "refused" not in printed(LOSSY)
    assert "reset" in printed(LOSSY)


def test_what_never_happened_is_a_dash() -> None:
    """And SIGKILL stands where the exit code would."""
    killed = replace(RESTART, readiness_flip=None, last_request=None, killed=True, exit_code=-9)
    text = printed(replace(CLEAN, restarts=[killed], streams=[]))
    (row,) = (line for line in text.splitlines() if line.startswith("1 i1"))
    assert row.split()[2:5] == ["–", "5.00", "–"]
    assert "SIGKILL" in row
    assert "Farewells" not in text


def test_no_line_is_wider_than_a_terminal() -> None:
    """Tables of 80 columns, or the figures fold."""
    tables = printed(CLEAN, width=200).splitlines()[:-1]
    assert max(len(line.rstrip()) for line in tables) <= 100


def test_plain_lines_have_a_time() -> None:
    """For logs and pipes."""
    paper = io.StringIO()
    with PlainView(paper) as view:
        view.update(SNAPSHOT)
        view.event(1.5, "i1: SIGTERM sent")
    assert paper.getvalue() == "   1.500 s  i1: SIGTERM sent\n"


def test_the_live_picture_shows_instances_counts_and_events() -> None:
    """The second picture knows the rate."""
    paper = io.StringIO()
    console = Console(file=paper, width=100, force_terminal=True, color_system=None)
    with LiveView(console) as view:
        view.event(1.5, "i1: SIGTERM sent")
        view.update(SNAPSHOT)
        view.update(replace(SNAPSHOT, seconds=11.0, ok=1300))
    text = paper.getvalue()
    for word in ("lame duck", "out", "chosen", "1,234", "1,300 ok", "2 lost", "7 in flight"):
        assert word in text
    assert "300 requests/s" in text
    assert "1 of 4 restarts" in text
    assert "1.500 s  i1: SIGTERM sent" in text


def test_a_control_has_no_progress_of_restarts() -> None:
    """Only time passes."""
    paper = io.StringIO()
    console = Console(file=paper, width=100, force_terminal=True, color_system=None)
    with LiveView(console) as view:
        view.update(replace(SNAPSHOT, restarts=0, restarts_planned=0))
    assert "10 s of load, no restarts" in paper.getvalue()


def test_every_view_is_a_view() -> None:
    """The annotation is what checks it; a silent one shows nothing."""
    views: list[View] = [SilentView(), PlainView(io.StringIO()), LiveView(Console(quiet=True))]
    for view in views:
        with view:
            view.event(0.0, "x")
            view.update(SNAPSHOT)
