"""What a life takes from its process is given back, by the thread that can."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

from graceful.core.budget import Settings
from graceful.guard import Guard
from graceful.signals import HANDLED


def guard() -> Guard:
    """Return one that has nothing to report."""
    return Guard(lambda: None, str)


def theirs(number: int, frame: FrameType | None) -> None:
    """The handler that was there before."""


def test_signals_are_taken_and_given_back() -> None:
    """The handler from before is known meanwhile."""
    before = signal.signal(signal.SIGTERM, theirs)
    arrived = threading.Event()
    try:
        one = guard()
        one.take_signals(
            (signal.SIGTERM,), lambda number, at: arrived.set(), time.monotonic, Settings()
        )
        assert one.takes_signals
        assert one.previous is theirs
        signal.raise_signal(signal.SIGTERM)
        assert arrived.wait(10)
        one.disarm()
        one.give_back()
        assert signal.getsignal(signal.SIGTERM) is theirs
        assert not one.takes_signals
        assert one.previous is None
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_gives_nothing_back() -> None:
    """Python lets only the main thread set a handler: it can do so later."""
    before = signal.getsignal(signal.SIGTERM)
    one = guard()
    one.take_signals((signal.SIGTERM,), lambda number, at: None, time.monotonic, Settings())
    thread = threading.Thread(target=one.give_back)
    thread.start()
    thread.join()
    assert one.takes_signals
    one.give_back()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_parent_is_followed_once() -> None:
    """A second app of the same worker replaces no handler of ours with itself."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    one = guard()
    one.follow_parent(HANDLED, theirs)
    one.follow_parent(HANDLED, lambda number, frame: None)
    assert {signal.getsignal(number) for number in HANDLED} == {theirs}
    one.give_back()
    assert {number: signal.getsignal(number) for number in HANDLED} == before


def test_without_signals_there_is_nothing_to_hold() -> None:
    """An app that is only tested takes nothing."""
    one = guard()
    one.arm(None, 1.0)
    one.disarm()
    one.stand_down(clean=True, limit=1.0)
    one.give_back()
    assert one.held() == 0.0
