"""A worker's side of the board: woken by the parent's word, or by a signal without one."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Generator

import pytest

from graceful.board import Board, Order
from graceful.core.managed import REASON_WAIT
from graceful.managed import Managed

LIMIT = 10.0


class Life:
    """Keeps what the thread passes on."""

    slot = 2

    def __init__(self) -> None:
        self.told: queue.SimpleQueue[Order | str] = queue.SimpleQueue()

    def climb_with_instance(self, order: Order) -> None:
        self.told.put(order)

    def retire(self, cause: str) -> None:
        self.told.put(cause)

    def next(self) -> Order | str:
        """Wait for the next."""
        return self.told.get(timeout=LIMIT)


class Clock:
    """Time as the test says."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def board() -> Board:
    """A board of this process alone."""
    return Board()


@pytest.fixture
def life() -> Life:
    """Who is told."""
    return Life()


@contextlib.contextmanager
def started(managed: Managed) -> Generator[Managed]:
    """The thread runs for the time of the block."""
    managed.start()
    try:
        yield managed
    finally:
        managed.stop()
        for thread in threading.enumerate():
            if thread.name == "graceful-board":
                thread.join(20)  # other tests of this process count the threads


def test_each_rung_is_passed_on_once(board: Board, life: Life) -> None:
    """As the parent climbs, so does the worker, with the time and cause of the first."""
    with started(Managed(board, life)):
        for rung in (1, 2, 3):
            board.climb(Order(rung, float(rung), "SIGTERM"))
            assert life.next() == Order(rung, 1.0, "SIGTERM")
    assert life.told.empty()


def test_a_worker_forked_during_lame_duck_knows_it_before_it_serves(
    board: Board, life: Life
) -> None:
    """`start` returns with the order passed on: no probe can be answered before."""
    board.climb(Order(2, 1.0, "SIGTERM"))
    with started(Managed(board, life)):
        assert life.told.get_nowait() == Order(2, 1.0, "SIGTERM")


def test_a_probe_does_not_wait_for_the_thread(
    board: Board, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds the order on the board, passes it on, and the thread does not do so again."""
    managed = Managed(board, life)
    board.climb(Order(1, 1.0, "SIGTERM"))
    managed.heed()
    assert life.told.empty()  # it does not serve yet, and will see when it does
    with started(managed):
        assert life.told.get_nowait() == Order(1, 1.0, "SIGTERM")
        with monkeypatch.context() as stalled:
            stalled.setattr(managed, "_follow", lambda: None)
            board.climb(Order(2, 2.0, "SIGTERM"))
            managed.heed()
            assert life.told.get_nowait() == Order(2, 1.0, "SIGTERM")
        managed.heed()
        board.climb(Order(3, 3.0, "SIGTERM"))
        assert life.next() == Order(3, 1.0, "SIGTERM")
    assert life.told.empty()


def test_a_signal_without_a_reason_retires_after_a_second(board: Board, life: Life) -> None:
    """Nobody has written that the instance goes: this worker alone is replaced."""
    clock = Clock()
    with started(Managed(board, life, clock)) as managed:
        managed.on_sigterm(signal.SIGTERM, None)
        with pytest.raises(queue.Empty):
            life.told.get(timeout=0.05)
        clock.now += REASON_WAIT
        managed.on_sigterm(signal.SIGTERM, None)  # the arbiter repeats it
        assert life.next() == "SIGTERM"


def test_a_reason_that_comes_in_time_wins(board: Board, life: Life) -> None:
    """systemd signals all at once: a worker may be first."""
    clock = Clock()
    with started(Managed(board, life, clock)) as managed:
        managed.on_sigterm(signal.SIGTERM, None)
        clock.now += REASON_WAIT / 2
        board.climb(Order(1, clock.now, "SIGTERM"))
        assert life.next() == Order(1, clock.now, "SIGTERM")
        clock.now += REASON_WAIT
        managed.on_sigterm(signal.SIGTERM, None)
    assert life.told.empty()


def test_a_reason_given_beforehand_needs_no_second(board: Board, life: Life) -> None:
    """After a re-execution the old arbiter's workers retire at their signal."""
    board.retires("SIGUSR2")
    with started(Managed(board, life, Clock())) as managed:
        managed.on_sigterm(signal.SIGTERM, None)
        assert life.next() == "SIGUSR2"


def test_a_reason_for_its_age_needs_no_second(board: Board, life: Life) -> None:
    """The arbiter has written down whom it replaces; a younger one goes on waiting."""
    board.retires_to(1, "SIGHUP")
    with started(Managed(board, life, Clock())) as managed:
        managed.on_sigterm(signal.SIGTERM, None)
        with pytest.raises(queue.Empty):
            life.told.get(timeout=0.05)
        board.retires_to(2, "SIGTTOU")
        managed.on_sigterm(signal.SIGTERM, None)
        assert life.next() == "SIGTTOU"


def test_a_retired_worker_still_climbs(board: Board, life: Life) -> None:
    """The instance goes while one of its workers is being replaced."""
    board.retires("SIGUSR2")
    with started(Managed(board, life)) as managed:
        managed.on_sigterm(signal.SIGTERM, None)
        assert life.next() == "SIGUSR2"
        board.climb(Order(3, 1.0, "SIGTERM"))
        assert life.next() == Order(3, 1.0, "SIGTERM")


def test_sse_starlette_finds_what_it_looks_for(board: Board, life: Life) -> None:
    """Behind the handler of SIGTERM, and it never turns true."""
    assert Managed(board, life).on_sigterm.__self__.should_exit is False  # type: ignore[attr-defined]
