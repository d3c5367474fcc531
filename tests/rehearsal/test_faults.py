"""Faults on purpose: one rehearsal with all of them, and what each of them looked like."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator

import pytest

from graceful.rehearsal import Plan, PlanError, Restart, Result, rehearse
from graceful.rehearsal.faults import FAULTS

COMMAND = (sys.executable, "-m", "uvicorn", "examples.starlette_app:app", "--port", "{port}")


@pytest.fixture(scope="module")
def held() -> Generator[Result]:
    """One instance of the example, restarted once for each fault. No load: it is about exits."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "PROPAGATION_DELAY": 1,
            "STREAM_WINDOW": 0.5,
            "GRACE_PERIOD": 9,
        }.items():
            patch.setenv(f"GRACEFUL_{name}", str(value))
        yield rehearse(
            Plan(
                command=COMMAND,
                instances=1,
                rolls=len(FAULTS),
                rate=0,
                faults=list(FAULTS),
                block_path="/slow?seconds=1",
                probe_interval=0.1,
                lag=0.0,
                warmup=0.0,
                settle=0.0,
                tail=0.0,
                kill_after=12,
            )
        )


@pytest.fixture
def restart(held: Result, request: pytest.FixtureRequest) -> Restart:
    """The restart with the fault that the test names."""
    return next(r for r in held.restarts if r.fault == request.param)


def test_each_fault_has_had_its_restart(held: Result) -> None:
    assert [r.fault for r in held.restarts] == list(FAULTS)
    assert not any(r.killed or r.left_behind for r in held.restarts)


@pytest.mark.parametrize(
    ("restart", "status"),
    [
        ("second-sigterm", 0),
        ("sigterm-at-start", 0),
        ("blocked-loop", 0),
        ("endless-handler", 70),
        ("slow-upload", 0),
        ("slow-reader", 0),
        ("kill-9", -9),
        ("full-backlog", 0),
        ("stop-cont", 0),
        ("full-disk", 0),
    ],
    indirect=["restart"],
)
def test_how_the_instance_leaves(restart: Restart, status: int) -> None:
    assert restart.exit_code == status


@pytest.mark.parametrize(
    ("restart", "found"),
    [
        ("sigterm-at-start", "exited "),
        ("endless-handler", "503 Service Unavailable"),
        ("slow-upload", "200 OK"),
        ("kill-9", "the process itself was killed"),
    ],
    indirect=["restart"],
)
def test_what_came_of_it(restart: Restart, found: str) -> None:
    assert found in restart.found


@pytest.mark.parametrize("restart", ["sigterm-at-start"], indirect=True)
def test_a_start_is_struck_at_four_moments(restart: Restart) -> None:
    """Each of four processes has left by itself, by SIGTERM's default or in an orderly way."""
    codes = re.fullmatch(r"it exited (.*), at most [\d.]+ s after it", restart.found)
    assert codes is not None
    assert len(codes[1].split(", ")) == 4
    assert set(codes[1].split(", ")) <= {"0", "-15", "143"}


@pytest.mark.parametrize("restart", ["endless-handler"], indirect=True)
def test_an_endless_handler_lasts_as_long_as_the_drain(restart: Restart) -> None:
    assert restart.exit > 4


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (["no-such-fault"], "fault = 'no-such-fault': there are second-sigterm, "),
        (["blocked-loop"], "fault blocked-loop needs --block-path"),
    ],
)
def test_a_fault_that_can_not_be_done_is_refused(faults: list[str], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        rehearse(Plan(command=COMMAND, faults=faults))
