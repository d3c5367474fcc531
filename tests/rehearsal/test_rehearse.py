"""Whole rehearsals, small: real servers, real signals, real losses."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from graceful.rehearsal import Plan, PlanError, RehearsalError, Result, rehearse

from .recording import RecordingView
from .test_instances import STUBBORN

BARE = (
    *(sys.executable, "-m", "uvicorn", "tests.benchmarks.bare_app:app"),
    *("--port", "{port}", "--log-level", "warning", "--timeout-graceful-shutdown", "1"),
)

needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy") is None and os.environ.get("CI") != "true",
    reason="haproxy is not on PATH",
)


def check_sums(result: Result) -> None:
    """The same losses are told in several places; they must agree."""
    assert result.lost == len(result.losses)
    assert sum(restart.requests_lost for restart in result.restarts) == result.lost
    assert all(loss.after_sigterm is not None for loss in result.losses)


@pytest.mark.parametrize(
    "balancer", ["internal", "internal-l4", pytest.param("haproxy", marks=needs_haproxy)]
)
def test_a_control_without_restarts_loses_nothing(balancer: str) -> None:
    """Otherwise the losses of other runs would be the tool's own."""
    view = RecordingView()
    plan = Plan(command=BARE, rolls=0, duration=2, rate=60, websockets=4, sse=4, balancer=balancer)
    result = rehearse(plan, view)
    assert result.ok, result.verdict
    assert result.total >= 120
    assert set(result.requests) == {"quick", "slow", "post"}
    assert result.restarts == []
    assert {stream.ended for stream in result.streams} == {"open at the end"}
    assert {stream.instance for stream in result.streams} == {"i1", "i2"}
    assert all(stream.messages > 1 for stream in result.streams)
    assert view.snapshots[-1].lost == 0
    assert view.entered
    assert view.left


@pytest.mark.parametrize(
    "balancer", ["internal", "internal-l4", pytest.param("haproxy", marks=needs_haproxy)]
)
def test_a_bare_app_that_is_rolled_loses_requests_and_cuts_streams(balancer: str) -> None:
    """The test can fail: this is what a deploy costs without a drain."""
    view = RecordingView()
    plan = Plan(
        command=BARE, rolls=1, rate=80, websockets=4, sse=4, balancer=balancer, lag=0.5, tail=0.3
    )
    result = rehearse(plan, view)
    check_sums(result)
    assert result.lost > 0
    assert not result.ok
    assert [restart.instance for restart in result.restarts] == ["i1", "i2"]
    for restart in result.restarts:
        assert restart.readiness_flip is None, "it has no lame duck"
        assert restart.refused is not None
        assert restart.refused < restart.exit < restart.ready <= restart.in_rotation
        assert not restart.killed
        assert restart.streams_told > 0, "uvicorn closes WebSockets with 1012"
        assert restart.streams_cut > 0, "and cuts server-sent events"
    ended = {stream.ended for stream in result.streams if stream.restart}
    assert ended == {"close 1012", "sse truncated"}
    assert result.stranded == 0
    check_story(view)


def check_story(view: RecordingView) -> None:
    """What people are told, in its order."""
    story = [text for text in view.events if text.startswith("i1")]
    words = ["ready on port", "SIGTERM sent", "refused", "exited", "back in rotation"]
    places = [next(n for n, text in enumerate(story) if word in text) for word in words]
    assert places == sorted(places)


def test_an_instance_that_ignores_sigterm_is_killed_and_that_is_no_success() -> None:
    """Even where no request is lost by it."""
    view = RecordingView()
    plan = Plan(
        command=STUBBORN,
        instances=2,
        rate=20,
        slow_path="",
        post_path="",
        readiness_path="/",
        kill_after=0.3,
        probe_interval=0.1,
        lag=0,
    )
    result = rehearse(plan, view)
    assert not result.ok
    assert [restart.killed for restart in result.restarts] == [True, True]
    assert {restart.exit_code for restart in result.restarts} == {-9}
    assert "2 of 2 instances needed SIGKILL" in result.verdict
    assert any("still there after 0.3 s: SIGKILL" in text for text in view.events)


def test_the_output_of_the_instances_can_be_kept(tmp_path: Path) -> None:
    """One file each, in a folder that is made."""
    logs = tmp_path / "deep" / "logs"
    command = (
        "sh",
        "-c",
        'echo "port $1"; exec "$0" "$2" "$1"',
        STUBBORN[0],
        "{port}",
        STUBBORN[1],
    )
    plan = Plan(
        command=command,
        rolls=0,
        duration=0.1,
        rate=0,
        warmup=0,
        tail=0,
        readiness_path="/",
        logs=logs,
    )
    assert rehearse(plan).ok
    assert sorted(path.name for path in logs.iterdir()) == ["i1.log", "i2.log"]
    assert (logs / "i1.log").read_text().startswith("port ")


def test_an_unknown_balancer_is_refused_by_name() -> None:
    """With those that there are."""
    plan = Plan(command=BARE, balancer="envoy")
    with pytest.raises(PlanError, match="balancer = 'envoy': there are internal, internal-l4"):
        rehearse(plan)


def test_the_time_limit_ends_it() -> None:
    """And everything that was started."""
    plan = Plan(command=STUBBORN, readiness_path="/", rate=0, rolls=0, duration=60, time_limit=1)
    with pytest.raises(RehearsalError, match=r"not over after 1 s \(time_limit\)"):
        rehearse(plan)


def test_a_bare_reload_cuts_streams() -> None:
    """On HUP uvicorn replaces its workers one by one, in place."""
    view = RecordingView()
    command = (*BARE, "--workers", "2")
    plan = Plan(command=command, instances=1, reload_signal="HUP", rate=40, sse=4, tail=0.3)
    result = rehearse(plan, view)
    (reload,) = result.restarts
    assert result.signal == "SIGHUP"
    assert reload.streams_cut == 4
    assert not reload.left_behind
    assert not result.ok
    assert any("has replaced its workers after" in text for text in view.events)


def test_a_reload_that_ends_the_instance_is_no_reload() -> None:
    """A process that does not know the signal dies of it."""
    command = (sys.executable, "-m", "tests.rehearsal.parent", "{port}")
    plan = Plan(command=command, instances=1, reload_signal="USR1", rate=0, start_timeout=20)
    with pytest.raises(RehearsalError, match="was ended by SIGUSR1"):
        rehearse(plan)


def test_a_process_without_workers_can_not_reload() -> None:
    """There would be nothing to see."""
    plan = Plan(command=BARE, instances=1, reload_signal="HUP", rate=0)
    with pytest.raises(RehearsalError, match="has no worker processes that SIGHUP could replace"):
        rehearse(plan)
