"""A rolling restart behind a balancer, under load: nothing is lost, and the bare app loses some."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator
from typing import Any

import pytest

from graceful.rehearsal import Plan, Result, SilentView, rehearse

DELAY = 2.5
"""Seconds of propagation delay; the balancers below take at most 1 s to notice."""

STREAMS = 10
"""Of each kind; with 100 requests/s on two instances."""

BALANCERS = ("internal", "internal-l4", "haproxy", "nginx", "caddy")


def plan(balancer: str, app: str, **options: Any) -> Plan:
    """Return a rehearsal of two instances, each restarted once."""
    return Plan(
        command=(sys.executable, "-m", "uvicorn", app, "--port", "{port}", "--no-access-log"),
        balancer=balancer,
        rate=100,
        probe_interval=0.25,
        fall=2,
        lag=0.3,
        kill_after=20,
        **options,
    )


def need(balancer: str) -> None:
    """Skip where a balancer is not installed, but fail in CI, which has to install it."""
    if balancer.startswith("internal") or shutil.which(balancer):
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{balancer} is not installed, and CI=true says that it must be")
    pytest.skip(f"{balancer} is not installed")


@pytest.fixture(scope="module", params=BALANCERS)
def restart(request: pytest.FixtureRequest) -> Generator[Result]:
    """One roll of the Starlette example with streams."""
    need(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACEFUL_PROPAGATION_DELAY", str(DELAY))
        patch.setenv("GRACEFUL_STREAM_WINDOW", "2")
        app = "examples.starlette_app:app"
        chosen = plan(request.param, app, websockets=STREAMS, sse=STREAMS)
        yield rehearse(chosen, SilentView())


def test_no_request_is_lost(restart: Result) -> None:
    """Every request of the whole run got its status and its whole body, once."""
    assert restart.total > 500
    assert restart.lost == 0, restart.losses


def test_every_stream_is_told(restart: Result) -> None:
    """None is cut, each comes to another process, and no message is lost."""
    known = 1 if restart.balancer == "caddy" else 2  # it tells nobody where a WebSocket went
    assert restart.streams_ended >= known * STREAMS
    assert restart.streams_cut == 0
    assert restart.streams_moved == restart.streams_ended
    assert restart.messages_lost == 0
    assert restart.stranded == 0


def test_no_stream_is_told_before_the_delay_is_over(restart: Result) -> None:
    """Earlier it would come back to the same process."""
    farewells = [r.first_farewell for r in restart.restarts if r.first_farewell is not None]
    assert len(farewells) == 2
    assert all(first >= DELAY - 0.05 for first in farewells)


def test_the_instances_leave_by_themselves(restart: Result) -> None:
    """Readiness flips, the exit status is 0, and nobody needs SIGKILL."""
    assert [r.exit_code for r in restart.restarts] == [0, 0]
    assert not any(r.killed or r.left_behind for r in restart.restarts)
    assert all(r.readiness_flip is not None for r in restart.restarts)
    assert restart.ok, restart.verdict


# nginx sends a request that was refused to the other instance, whose bare app answers it.
@pytest.mark.parametrize("balancer", [name for name in BALANCERS if name != "nginx"])
def test_the_bare_app_loses_some(balancer: str) -> None:
    """The same run without graceful: it proves that the run can fail."""
    need(balancer)
    bare = plan(balancer, "tests.benchmarks.bare_app:app")
    assert rehearse(bare, SilentView()).lost > 0
