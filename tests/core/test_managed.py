"""What a worker of a managing parent makes of a SIGTERM."""

from __future__ import annotations

import pytest

from graceful.core.managed import REASON_WAIT, Verdict, verdict


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
