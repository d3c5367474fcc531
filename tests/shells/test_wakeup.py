"""The wake-up: a handler runs though nothing has interrupted the main thread; nothing is left."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Generator
from typing import Any

import pytest

from graceful import wakeup
from graceful.wakeup import Wakeup

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Handled:
    """A handler, as a program has it, with the times at which it ran."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.wakeup = Wakeup(SIGNALS)

    def __call__(self, number: int, frame: object) -> None:
        self.wakeup.noticed()
        self.at.append(time.monotonic())


@pytest.fixture
def handled() -> Generator[Handled]:
    """Handlers in place, with a wake-up that a test installs; afterwards all is as before."""
    handler = Handled()
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    yield handler
    handler.wakeup.close()
    for number, previous in before.items():
        signal.signal(number, previous)
    assert signal.set_wakeup_fd(-1) == -1
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL


def elsewhere(number: int, after: float = 0.2) -> None:
    """Have a thread take a signal `after` seconds: the main thread's call is not interrupted."""

    def take() -> None:
        signal.pthread_kill(threading.get_ident(), number)

    threading.Timer(after, take).start()


def asleep(seconds: float) -> float:
    """Be in a system call for so long; returns when it ended."""
    assert select.select([], [], [], seconds) == ([], [], [])
    return time.monotonic()


def test_without_it_a_signal_waits(handled: Handled) -> None:
    """What it is for: the handler does not run before the main thread's call has ended."""
    elsewhere(signal.SIGTERM)
    woke = asleep(1)
    assert [at > woke - 0.2 for at in handled.at] == [True]


def test_the_main_thread_is_woken(handled: Handled) -> None:
    """The handler runs while the call goes on."""
    handled.wakeup.install()
    elsewhere(signal.SIGTERM)
    woke = asleep(4)
    assert [at < woke - 1 for at in handled.at] == [True]


def test_every_signal_once(handled: Handled) -> None:
    """Each of several is noticed, whoever takes it, and none is made up."""
    handled.wakeup.install()
    for after in (0.1, 0.4, 0.7):
        elsewhere(signal.SIGUSR1, after)
    woke = asleep(3)
    signal.raise_signal(signal.SIGTERM)
    asleep(0.2)
    assert [at < woke for at in handled.at] == [True, True, True, False]


def count_nudges(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return a list that gets one more with every nudge from now on."""
    nudge, nudges = wakeup._nudge, list[None]()

    def counted() -> None:
        nudges.append(None)
        nudge()

    monkeypatch.setattr(wakeup, "_nudge", counted)
    return nudges


def test_a_number_without_a_signal_is_nothing(
    handled: Handled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child between fork and exec writes into our pipe, too."""
    handled.wakeup.install()
    assert handled.wakeup._pipe is not None
    os.write(handled.wakeup._pipe[1], bytes([signal.SIGTERM]))
    nudges = count_nudges(monkeypatch)
    asleep(4)
    assert handled.at == []
    assert len(nudges) == len(wakeup.PAUSES)  # and not for ever
    elsewhere(signal.SIGTERM)  # and the next one is noticed as ever
    woke = asleep(4)
    assert [at < woke - 1 for at in handled.at] == [True]


@pytest.fixture
def theirs() -> Generator[tuple[int, int]]:
    """The wake-up pipe of an event loop."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_an_event_loop_that_was_there_before(handled: Handled, theirs: tuple[int, int]) -> None:
    """Its descriptor stays, and nothing of ours is made."""
    signal.set_wakeup_fd(theirs[1])
    before = os.listdir("/proc/self/fd"), threading.active_count()
    handled.wakeup.install()
    assert (os.listdir("/proc/self/fd"), threading.active_count()) == before
    handled.wakeup.close()
    assert signal.set_wakeup_fd(-1) == theirs[1]


def test_an_event_loop_that_comes_after_us(handled: Handled, theirs: tuple[int, int]) -> None:
    """Its descriptor stays; the number of ours, which it may put back, is never another file's."""
    handled.wakeup.install()
    ours = signal.set_wakeup_fd(theirs[1])
    handled.wakeup.close()
    assert signal.set_wakeup_fd(ours) == theirs[1]
    signal.raise_signal(signal.SIGTERM)
    assert signal.set_wakeup_fd(-1) == ours
    os.close(ours)


def test_nothing_is_left(handled: Handled) -> None:
    """No descriptor, no thread; and it can be begun anew."""
    for _ in range(2):
        before = os.listdir("/proc/self/fd"), threading.active_count()
        handled.wakeup.install()
        assert signal.getsignal(signal.SIGURG) is not signal.SIG_DFL
        handled.wakeup.close()
        assert (os.listdir("/proc/self/fd"), threading.active_count()) == before
        assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL


def test_a_child_after_a_fork_has_none(handled: Handled) -> None:
    """What it is sent is no hint for the parent, and it can have a wake-up of its own."""
    handled.wakeup.install()
    child = os.fork()
    if not child:
        fresh = signal.set_wakeup_fd(-1) == -1 and not handled.wakeup._has_ended
        os._exit(0 if fresh and signal.getsignal(signal.SIGURG) is signal.SIG_DFL else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert handled.wakeup._has_ended is not None


def test_a_handler_of_the_program_for_the_nudge(handled: Handled) -> None:
    """It stays, and is not called: the program would take it for its own."""
    mine: list[int] = []

    def own(number: int, frame: Any) -> None:
        mine.append(number)

    signal.signal(signal.SIGURG, own)
    try:
        handled.wakeup.install()
        elsewhere(signal.SIGTERM)
        asleep(1)
        handled.wakeup.close()
        assert signal.getsignal(signal.SIGURG) is own
    finally:
        signal.signal(signal.SIGURG, signal.SIG_DFL)
    assert (len(handled.at), mine) == (1, [])
