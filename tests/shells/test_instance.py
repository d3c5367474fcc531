"""The report of an instance: the parent's, with what its workers have left on the board."""

from __future__ import annotations

from graceful.board import Slot
from graceful.core.budget import Settings
from graceful.core.lifecycle import Cause, LifecycleCore
from graceful.core.records import DrainReport
from graceful.instance import summed


def parents_own() -> DrainReport:
    """Return the report of a parent, which has served nothing itself."""
    core = LifecycleCore(Settings(), lambda: 0.5)
    core.started(0.0)
    core.climb_to(1, Cause("SIGTERM", signal=True), 10.0)
    return core.report(16.0)


def test_the_numbers_of_all_workers_are_added_up() -> None:
    """And of times the longest counts."""
    report = summed(
        parents_own(),
        [
            Slot(pid=7, in_flight=2, served=5, told=1, p50=0.1, p99=0.4, reported=1),
            Slot(pid=8, in_flight=1, served=4, last_request_after=1.5, p50=0.2, reported=1),
        ],
    )
    assert (report.in_flight_at_signal, report.served, report.told) == (3, 9, 1)
    assert (report.last_request_after, report.p50, report.p99) == (1.5, 0.2, 0.4)
    assert (report.clean, report.cut, report.warnings) == (True, (), ())


def test_without_workers_nothing_is_known() -> None:
    """Nobody has lived long enough to write anything."""
    report = summed(parents_own(), [])
    assert (report.served, report.p50, report.last_request_after, report.clean) == (
        *(0, None, None),
        True,
    )


def test_who_has_cut_something_is_named_and_so_is_who_was_killed() -> None:
    """One line for each request; of a killed worker only what it had at the signal is known."""
    report = summed(
        parents_own(),
        [
            Slot(pid=7, cut=2, reported=1),
            Slot(pid=8, in_flight=3),
            Slot(pid=9, in_flight=3, reported=1),
            Slot(pid=10),
        ],
    )
    assert not report.clean
    assert [straggler.name for straggler in report.cut] == [
        "7: cut, see above",
        "7: cut, see above",
        "8: killed with up to 3 in flight",
    ]


def test_a_delay_that_was_too_short_is_said_once() -> None:
    """By whichever worker had the last request."""
    slots = [
        Slot(pid=7, last_request_after=4.9, too_short=1, reported=1),
        Slot(pid=8, last_request_after=0.1, reported=1),
    ]
    (text,) = summed(parents_own(), slots).warnings
    assert text.startswith("last request 4.9 s after readiness flipped; propagation_delay is 5 s")
