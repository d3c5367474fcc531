"""A drain in a process that gevent has patched, before or after the import of the library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 60.0


@pytest.mark.parametrize("patched", ["early", "late"])
def test_a_drain_under_gevent(patched: str) -> None:
    """Farewells are spread, the deadline is kept, the hub is not blocked, hooks and checks run."""
    command = [sys.executable, "-W", "error", "-m", "tests.shells.gevent_drain", patched]
    root = Path(__file__).parents[2]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, check=False, cwd=root
    )
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr
    seen = json.loads(run.stdout)
    assert seen["ready"] == "200 OK"
    assert seen["unready"] == "503 Service Unavailable"
    assert seen["hook"] is True
    assert seen["spread"] >= 0.1  # four streams in a window of 0.4 s: gaps of 0.05 s at least
    assert 1.1 <= seen["cut_after"] < 3
    assert seen["cut"] == "GET /silent"
    assert "in wait_for_news" in seen["stack"]
    assert seen["longest_stall"] < 0.5
    assert seen["served"] == 100
    assert seen["left"] == []
    assert seen["phase"] == "stopped"
