"""The fixture, in a suite of somebody else's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SUITE = """
def test_nothing_is_lost(graceful_rehearsal, monkeypatch):
    monkeypatch.setenv("GRACEFUL_PROPAGATION_DELAY", "2")
    result = graceful_rehearsal(
        "uvicorn tests.benchmarks.bare_app:app --port {port}", instances=1, rate=20, tail=0.2
    )
    assert result.lost == 0
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process of its own, as a user does."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)


def test_a_loss_fails_the_test_and_shows_the_table(tmp_path: Path) -> None:
    """One bare instance can't but lose requests: the fixture is able to fail."""
    file = tmp_path / "test_deploy.py"
    file.write_text(SUITE)
    done = run(str(file))
    assert done.returncode == 1, done.stdout
    assert "graceful rehearsal" in done.stdout
    assert "requests lost of" in done.stdout


def test_an_async_test_is_told_to_be_a_plain_one(tmp_path: Path) -> None:
    """A rehearsal runs a loop of its own, and a test of `pytest.mark.anyio` has one already."""
    file = tmp_path / "test_deploy.py"
    file.write_text(
        "import pytest\n\n\n@pytest.mark.anyio\nasync def test_it(graceful_rehearsal):\n"
        "    graceful_rehearsal('uvicorn app:app --port {port}')\n"
    )
    done = run(str(file), "-k", "asyncio")
    assert done.returncode == 1, done.stdout
    assert "graceful_rehearsal runs an event loop of its own: use it in a plain" in done.stdout


def test_the_example_project() -> None:
    done = run("examples/pytest_project")
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
