"""A process is more than one server: other servers, forks, operators and hooks that hang."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .harness import clean_environment


def run(mode: str) -> subprocess.CompletedProcess[str]:
    """Run one program of `neighbours` to its end, by far within the time of a hung one."""
    return subprocess.run(
        [sys.executable, "-m", "tests.servers.neighbours", mode],
        capture_output=True,
        text=True,
        timeout=40,
        env=clean_environment(),
        check=False,
    )


@pytest.mark.parametrize("mode", ["two", "shared"])
def test_one_stop_ends_both_servers_of_a_process(mode: str) -> None:
    """Two apps or one: each lifespan brings its own server, and each is told to leave."""
    ended = run(mode)
    assert (ended.returncode, ended.stdout) == (0, "ended\n")
    assert ended.stderr.count("drain report") == 1


def test_a_forked_child_leaves_the_parent_alone() -> None:
    """SIGTERM to a fork sets no alarm in the parent, which goes on and stops cleanly later."""
    ended = run("fork")
    assert (ended.returncode, ended.stdout) == (0, "alarm 0.0\nended\n")


def test_lame_duck_hooks_run_at_every_flip() -> None:
    """Twice for an operator who recovers in between, and once more for the signal."""
    ended = run("duck")
    assert (ended.returncode, ended.stdout) == (0, "deregistered\n" * 3 + "ended\n")


def test_the_watchdog_names_the_hook_that_hangs() -> None:
    """Nothing is in flight any more, and still the report says who holds the exit, and where."""
    ended = run("hang")
    assert ended.returncode == 70
    assert "on_cleanup hook hang.<locals>.never_returns" in ended.stderr
    assert "time.sleep(60)" in ended.stderr
