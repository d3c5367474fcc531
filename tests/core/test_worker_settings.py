"""gunicorn's own settings against the budget."""

from __future__ import annotations

from typing import Any

import pytest

from graceful.core.budget import Settings, SettingsError
from graceful.core.worker_settings import arbiter_timeout, worker_findings


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
        pytest.param({"keepalive": 75}, [], id="idle connections are closed in time"),
        pytest.param(
            {"keepalive": 3.5, "closes_idle": False},
            ["keepalive = 3.5 s: a worker of this class may wait"],
            id="idle connections hold up the end",
        ),
        pytest.param({"keepalive": 3, "closes_idle": False}, [], id="they end with the clean-up"),
        pytest.param({"graceful_timeout": 25}, [], id="as long as the platform waits"),
        pytest.param(
            {"graceful_timeout": 26},
            ["graceful_timeout = 26 s is longer than the 25 s"],
            id="longer than the platform waits",
        ),
        pytest.param(
            {"timeout": 3, "sources": {"timeout": "gunicorn's defaults"}},
            ["timeout = 3 s (from gunicorn's defaults) kills"],
            id="where it comes from",
        ),
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


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        pytest.param(None, 25, id="left alone: what the budget leaves"),
        pytest.param(24, 24, id="just long enough"),
        pytest.param(90, 90, id="long"),
    ],
)
def test_how_long_the_arbiter_waits(given: int | None, chosen: int) -> None:
    """From the end of the delay: 30 - 5 s, of which drain and clean-up are 24."""
    assert arbiter_timeout(Settings(), given) == chosen


def test_an_arbiter_that_would_not_wait() -> None:
    """It would kill what the budget lets finish."""
    with pytest.raises(SettingsError, match="graceful_timeout = 23 s would kill workers"):
        arbiter_timeout(Settings(), 23)
