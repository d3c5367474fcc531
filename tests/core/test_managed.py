"""What a worker of a managing parent makes of a SIGTERM."""

from __future__ import annotations

from typing import Any

import pytest

from graceful.core.budget import Settings
from graceful.core.managed import REASON_WAIT, Verdict, verdict, worker_findings


@pytest.mark.parametrize(
    ("rung", "retiring", "signalled_at", "what"),
    [
        pytest.param(0, False, None, "wait", id="nothing has happened"),
        pytest.param(1, False, None, "climb", id="the parent was told, the worker was not"),
        pytest.param(1, False, 99.9, "climb", id="both were told"),
        pytest.param(3, True, 90.0, "climb", id="the instance goes, whatever was said before"),
        pytest.param(0, False, 100.0, "wait", id="just signalled, no reason yet"),
        pytest.param(0, False, 100.01 - REASON_WAIT, "wait", id="a reason may still come"),
        pytest.param(0, False, 100.0 - REASON_WAIT, "retire", id="no reason has come"),
        pytest.param(0, True, 100.0, "retire", id="the parent said beforehand: it retires"),
        pytest.param(0, True, None, "wait", id="it retires only when it is told to"),
    ],
)
def test_the_board_has_the_reason(
    rung: int, retiring: bool, signalled_at: float | None, what: Verdict
) -> None:
    """A worker's own signal says only that there is something to be read."""
    assert verdict(rung=rung, retiring=retiring, signalled_at=signalled_at, now=100.0) == what


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        pytest.param({}, [], id="gunicorn's defaults"),
        pytest.param({"timeout": 20.9}, ["timeout = 20.9 s kills"], id="killed while it drains"),
        pytest.param({"timeout": 21}, [], id="just long enough"),
        pytest.param({"timeout": 0}, [], id="no timeout"),
        pytest.param({"timeout": 3, "blocks_heartbeat": False}, [], id="it beats while it serves"),
        pytest.param({"max_requests": 50}, ["max_requests_jitter = 5"], id="all at once"),
        pytest.param({"max_requests": 5}, ["max_requests_jitter = 1"], id="all at once, small"),
        pytest.param({"max_requests": 50, "max_requests_jitter": 1}, [], id="one by one"),
        pytest.param({"max_requests": 50, "workers": 1}, [], id="there is only one"),
        pytest.param({"threads": 8}, [], id="a pool, and room for many idle connections"),
        pytest.param(
            {"threads": 8, "worker_connections": 8},
            ["worker_connections = 8 with 8 threads: "],
            id="full as soon as all threads are busy",
        ),
        pytest.param({"worker_connections": 8}, [], id="no pool"),
        pytest.param({"timeout": 3, "max_requests": 9}, ["timeout", "max_requests"], id="both"),
    ],
)
def test_what_of_gunicorns_own_settings_works_against_the_budget(
    changed: dict[str, Any], told: list[str]
) -> None:
    """Warnings: nothing more is cut than without us."""
    usual: dict[str, Any] = {
        "blocks_heartbeat": True,
        "workers": 2,
        "timeout": 30,
        "max_requests": 0,
        "max_requests_jitter": 0,
        "threads": 0,
        "worker_connections": 1000,
    }
    said = list(worker_findings(Settings(), **(usual | changed)))
    assert len(said) == len(told)
    assert all(part in text for part, text in zip(told, said, strict=True))
