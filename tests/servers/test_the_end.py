"""What can't be stopped is ended: before SIGKILL comes, with its name in the report."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass

import pytest

from .harness import Launcher, Log, ServerProcess, launch, settings
from .launchers import UVICORN, UVICORN_WORKERS

GRACE = 7.0


@dataclass(frozen=True)
class Hazard:
    """One way not to stop. `culprit` is None where there is nowhere to write its name to."""

    path: str
    culprit: str | None
    status: int = 70
    launcher: Launcher = UVICORN


HAZARDS = {
    "blocked": Hazard("/blocked", "block_the_loop"),
    "thread": Hazard("/thread", "sleep_in_a_thread"),
    "swallow": Hazard("/swallow", "swallow_cancellation"),
    "endless": Hazard("/endless", "ignore_disconnects"),
    "log": Hazard("/log", None),
    # No Python code can run any more: the alarm ends it.
    "gil": Hazard("/gil", "hold_the_gil", -signal.SIGALRM),
    "log and gil": Hazard("/log-and-gil", None, -signal.SIGALRM),
    # The status is the parent's.
    "worker": Hazard("/blocked", "block_the_loop", 0, UVICORN_WORKERS),
}

REPORTED = ["blocked", "thread", "swallow", "endless"]


@dataclass
class End:
    """How a process with a hazard in it has ended."""

    status: int | None
    """None = the grace period is over and it is still there."""
    log: Log


@pytest.fixture(scope="module")
def ends() -> Generator[dict[str, End]]:
    """One process for each hazard, told to stop while it is in it, all at the same time."""
    with contextlib.ExitStack() as exits:
        servers = {
            name: exits.enter_context(_in_trouble(hazard)) for name, hazard in HAZARDS.items()
        }
        began: dict[str, float] = {}
        for name, server in servers.items():
            server.terminate()
            began[name] = time.monotonic()
        ends: dict[str, End] = {}
        for name, server in servers.items():
            ends[name] = End(None, server.log)
            with contextlib.suppress(subprocess.TimeoutExpired):
                left = began[name] + GRACE - time.monotonic()
                ends[name].status = server.process.wait(max(0, left))
                server.log.finish()
        yield ends


@contextlib.contextmanager
def _in_trouble(hazard: Hazard) -> Generator[ServerProcess]:
    """Start a process and send it into a hazard."""
    env = settings(grace_period=GRACE, propagation_delay=0.3, linger=0.3, stream_window=0.3)
    with (
        launch(hazard.launcher, "tests.servers.hazards_app:app", env=env) as server,
        contextlib.closing(server.client()) as client,
    ):
        server.log.pause_at("in /log")
        client.ask("GET", hazard.path + "?token=secret")
        server.log.wait_mark(f"in {hazard.path}")
        server.await_sleep()
        yield server


@pytest.mark.parametrize("name", HAZARDS)
def test_the_process_is_gone_before_the_grace_period_ends(ends: dict[str, End], name: str) -> None:
    """Without SIGKILL, which nobody has sent here."""
    assert ends[name].status is not None, ends[name].log.text


@pytest.mark.parametrize("name", HAZARDS)
def test_the_exit_status_says_that_something_was_cut(ends: dict[str, End], name: str) -> None:
    """70, or death by the alarm; a parent has a status of its own."""
    assert ends[name].status == HAZARDS[name].status


@pytest.mark.parametrize("name", [name for name, hazard in HAZARDS.items() if hazard.culprit])
def test_the_culprit_is_named(ends: dict[str, End], name: str) -> None:
    """The function that would not end is in the last report, or in the C-level dump of stacks."""
    assert f"in {HAZARDS[name].culprit}" in ends[name].log.text


@pytest.mark.parametrize("name", REPORTED)
def test_the_request_is_named_without_its_query(ends: dict[str, End], name: str) -> None:
    """Method and path; what stands in a query is nobody's business."""
    assert f"GET {HAZARDS[name].path}" in ends[name].log.text
    assert "secret" not in ends[name].log.text


@pytest.mark.parametrize("name", REPORTED)
def test_there_is_one_drain_report(ends: dict[str, End], name: str) -> None:
    """It says that the stop was not clean."""
    assert ends[name].log.events("drain report") == ["drain report"]
    assert ends[name].log.report()["clean"].lower() == "false"
