"""Numbers that were jumped over and messages that nobody echoed."""

from __future__ import annotations

import pytest

from graceful.rehearsal.sequences import UNHEARD, Echoes, Numbers


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [([], 0), ([1, 2, 3], 0), ([1, 3], 1), ([3], 2), ([1, 4, 6], 3), ([1, 2, 2, 3], 0)],
)
def test_gaps_are_counted(numbers: list[int], lost: int) -> None:
    """A stream begins with 1; a number that comes again is no gap."""
    follows = Numbers()
    for number in numbers:
        follows.feed(number)
    assert follows.lost == lost


def test_what_was_written_well_before_the_farewell_must_have_been_echoed() -> None:
    """Exactly on the limit counts; what crossed the farewell on the wire does not."""
    echoes = Echoes()
    farewell = 10.0
    for written in (1.0, 2.0, farewell - UNHEARD, farewell - UNHEARD / 2, farewell + 1):
        echoes.next(written)
    echoes.heard(1)
    echoes.heard(99)
    assert echoes.sent == 5
    assert echoes.lost(farewell) == 2


def test_an_app_that_does_not_echo_loses_nothing_of_ours() -> None:
    """It never said that it would."""
    echoes = Echoes()
    for written in (1.0, 2.0):
        echoes.next(written)
    assert echoes.lost(10.0) == 0
