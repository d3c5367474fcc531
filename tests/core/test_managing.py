"""What a managing parent makes of a signal, and of time."""

from __future__ import annotations

import pytest

from graceful.core.budget import Settings, Timeline
from graceful.core.managing import next_rung, stop_is_due


@pytest.mark.parametrize(
    ("rung", "waits", "following"),
    [
        pytest.param(0, True, 1, id="the first: lame duck"),
        pytest.param(0, False, 2, id="the first, and nobody has to notice"),
        pytest.param(1, True, 2, id="the second skips the delay"),
        pytest.param(1, False, 2, id="and no more than that"),
        pytest.param(2, True, 3, id="the third cuts"),
        pytest.param(3, True, 3, id="there is no fourth"),
    ],
)
def test_the_next_rung(rung: int, waits: bool, following: int) -> None:
    """One after the other; who has nobody to wait for begins with the second."""
    assert next_rung(rung, waits=waits) == following


@pytest.mark.parametrize(
    ("now", "due"), [(104.9, False), (105.0, True), (200.0, True)], ids=["before", "at", "after"]
)
def test_the_servers_own_stop_begins_when_the_delay_is_over(now: float, due: bool) -> None:
    """Not a moment earlier, for the listener would be closed while balancers still choose it."""
    assert stop_is_due(Timeline.start(Settings(), 100.0), now) is due


def test_a_delay_that_is_skipped_is_over() -> None:
    """By the second rung."""
    assert stop_is_due(Timeline.start(Settings(), 100.0).hurried(101.0), 101.0)


def test_nobody_stops_what_has_not_been_told() -> None:
    """As long as there is no timeline."""
    assert not stop_is_due(None, 1e9)
