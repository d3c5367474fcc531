"""What can't be stopped is ended: before SIGKILL comes, with its name in the report."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass

import pytest

from .harness import Log, ServerProcess, launch, settings
from .launchers import UVICORN

GRACE = 7.0

CULPRITS = {
    "/blocked": "block_the_loop",
    "/gil": "hold_the_gil",
    "/thread": "sleep_in_a_thread",
    "/swallow": "swallow_cancellation",
    "/endless": "ignore_disconnects",
    "/log": None,  # there is nowhere to write its name to
    "/log-and-gil": None,
}


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
        servers = {path: exits.enter_context(_in_trouble(path)) for path in CULPRITS}
        began: dict[str, float] = {}
        for path, server in servers.items():
            server.terminate()
            began[path] = time.monotonic()
        ends: dict[str, End] = {}
        for path, server in servers.items():
            ends[path] = End(None, server.log)
            with contextlib.suppress(subprocess.TimeoutExpired):
                left = began[path] + GRACE - time.monotonic()
                ends[path].status = server.process.wait(max(0, left))
                server.log.finish()
        yield ends


@contextlib.contextmanager
def _in_trouble(path: str) -> Generator[ServerProcess]:
    """Start a process and send it into a hazard."""
    env = settings(grace_period=GRACE, propagation_delay=0.3, linger=0.3, stream_window=0.3)
    with (
        launch(UVICORN, "tests.servers.hazards_app:app", env=env) as server,
        contextlib.closing(server.client()) as client,
    ):
        server.log.pause_at("in /log")
        client.ask("GET", path + "?token=secret")
        server.log.wait_mark(f"in {path}")
        server.await_sleep()
        yield server


@pytest.mark.parametrize("path", CULPRITS)
def test_the_process_is_gone_before_the_grace_period_ends(ends: dict[str, End], path: str) -> None:
    """Without SIGKILL, which nobody has sent here."""
    assert ends[path].status is not None, ends[path].log.text


@pytest.mark.parametrize("path", CULPRITS)
def test_the_exit_status_says_that_something_was_cut(ends: dict[str, End], path: str) -> None:
    """70, or death by the alarm where no Python code could run any more."""
    assert ends[path].status == (-signal.SIGALRM if path.endswith("gil") else 70)


@pytest.mark.parametrize("path", [path for path, name in CULPRITS.items() if name])
def test_the_culprit_is_named(ends: dict[str, End], path: str) -> None:
    """The function that would not end is in the last report, or in the C-level dump of stacks."""
    assert f"in {CULPRITS[path]}" in ends[path].log.text


@pytest.mark.parametrize("path", ["/blocked", "/thread", "/swallow", "/endless"])
def test_the_request_is_named_without_its_query(ends: dict[str, End], path: str) -> None:
    """Method and path; what stands in a query is nobody's business."""
    assert f"GET {path}" in ends[path].log.text
    assert "secret" not in ends[path].log.text


@pytest.mark.parametrize("path", ["/blocked", "/thread", "/swallow", "/endless"])
def test_there_is_one_drain_report(ends: dict[str, End], path: str) -> None:
    """It says that the stop was not clean."""
    assert ends[path].log.events("drain report") == ["drain report"]
    assert ends[path].log.report()["clean"].lower() == "false"
