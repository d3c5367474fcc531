"""The board: what a parent writes is there for workers of all ages."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

import pytest

from graceful.board import CAUSES, SLOTS, Board, Order, Slot


def readable(board: Board) -> list[int]:
    """Return the rungs that wake a worker."""
    return [rung for rung in (1, 2, 3) if select.select([board.rung_fd(rung)], [], [], 0)[0]]


def in_child(work: Callable[[], bool]) -> bool:
    """Whether `work` is true in a process forked for it."""
    pid = os.fork()
    if not pid:
        code = 2
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_new_board_says_nothing() -> None:
    """The instance serves."""
    board = Board()
    assert (board.order, board.retiring, readable(board), list(board.slots())) == (None, "", [], [])


def test_a_worker_that_is_there_is_woken() -> None:
    """Whoever waits for the rung's descriptor wakes, and finds the order already there."""
    board = Board()
    board.climb(Order(1, 12.5, "SIGTERM"))
    assert readable(board) == [1]
    assert board.order == Order(1, 12.5, "SIGTERM")


def test_a_worker_that_is_forked_later_is_woken_at_once() -> None:
    """Nobody reads the pipe empty, however many have been woken by it."""
    board = Board()
    board.climb(Order(2, 1.0, "SIGTERM"))

    def finds() -> bool:
        return readable(board) == [1, 2] and board.order == Order(2, 1.0, "SIGTERM")

    assert [in_child(finds), in_child(finds)] == [True, True]


def test_higher_rungs_keep_the_time_and_cause_of_the_first() -> None:
    """The clock of the grace period starts once."""
    board = Board()
    board.climb(Order(1, 1.0, "SIGTERM"))
    board.climb(Order(3, 9.0, "SIGINT"))
    assert board.order == Order(3, 1.0, "SIGTERM")
    assert readable(board) == [1, 2, 3]


def test_the_ladder_is_climbed_upwards_only() -> None:
    """A rung that is no higher changes nothing."""
    board = Board()
    board.climb(Order(2, 1.0, "SIGTERM"))
    board.climb(Order(1, 5.0, "SIGINT"))
    board.climb(Order(2, 6.0, "SIGINT"))
    assert board.order == Order(2, 1.0, "SIGTERM")
    assert readable(board) == [1, 2]


@pytest.mark.parametrize("cause", CAUSES[1:])
def test_retiring_is_no_order(cause: str) -> None:
    """The port goes on being served, so no worker is woken by it."""
    board = Board()
    board.retires(cause)
    assert (board.retiring, board.order, readable(board)) == (cause, None, [])


def test_the_oldest_retire_first() -> None:
    """Up to an age; a younger one may be told later, and why, and the first reason stays."""
    board = Board()
    assert [board.retiring_at(age) for age in (0, 1)] == ["", ""]
    board.retires_to(2, "SIGHUP")
    board.retires_to(2, "fewer workers")
    assert [board.retiring_at(age) for age in (1, 2, 3)] == ["SIGHUP", "SIGHUP", ""]
    assert (board.order, readable(board)) == (None, [])
    board.retires_to(3, "SIGTTOU")
    assert board.retiring_at(3) == "SIGTTOU"


def test_a_reason_for_all_holds_for_every_age() -> None:
    """After a re-execution."""
    board = Board()
    board.retires("SIGUSR2")
    assert [board.retiring_at(age) for age in (0, 7)] == ["SIGUSR2", "SIGUSR2"]


def test_what_all_workers_would_say_is_said_by_one() -> None:
    """Until the parent has changed what it is about."""
    board = Board()
    assert [in_child(board.first_to_say), board.first_to_say()] == [True, False]
    board.may_say_again()
    assert board.first_to_say()


def test_that_a_worker_has_served_is_known_to_all() -> None:
    """From then on a mistake in the app ends nothing that works."""
    board = Board()
    assert not board.has_served

    def serves() -> bool:
        board.serves()
        return board.has_served

    assert in_child(serves)
    assert board.has_served


def test_the_parent_reads_what_its_workers_have_written() -> None:
    """Each in its slot, from its own process; the last word counts."""
    board = Board()
    numbers = Slot(pid=7, in_flight=3, served=12, last_request_after=0.25, reported=1)

    def write() -> bool:
        board.write(1, Slot(pid=7, in_flight=5))
        board.write(1, numbers)
        return True

    assert in_child(write)
    board.write(2, Slot(pid=8))
    assert list(board.slots()) == [numbers, Slot(pid=8)]


def test_slots_are_used_again() -> None:
    """An arbiter that has replaced thousands of workers still has room."""
    board = Board()
    board.write(3, Slot(pid=1))
    board.write(3 + SLOTS, Slot(pid=2))
    assert list(board.slots()) == [Slot(pid=2)]
    board.write(SLOTS - 1, Slot(pid=3))
    assert list(board.slots()) == [Slot(pid=2), Slot(pid=3)]
