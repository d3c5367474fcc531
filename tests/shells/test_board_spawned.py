"""The board of workers that are started anew: handed on by descriptors, under no name."""

from __future__ import annotations

import multiprocessing
import select

from graceful.board import Board, Order, Slot
from graceful.core.budget import Settings

LIMIT = 30.0


def worker(board: Board, slot: int) -> None:
    """Serve until the instance is told to stop, and say so."""
    board.begins_to_serve(slot, Settings(grace_period=44.0, sources={"grace_period": "a test"}))
    select.select([board.rung_fd(1)], [], [], LIMIT)
    order = board.order
    assert order is not None
    assert order.cause == "SIGTERM"
    board.write(slot, Slot(pid=1, served=float(board.accepts_no_more(slot)), reported=1))


def test_a_spawned_worker_hears_and_tells() -> None:
    """It tells its settings, is woken by a rung, and leaves its numbers; the last one knows it."""
    board = Board(spawns=True)
    for slot in (1, 2):
        board.begins(slot)
    spawn = multiprocessing.get_context("spawn")
    first, second = (spawn.Process(target=worker, args=(board, slot)) for slot in (1, 2))
    first.start()
    second.start()
    while not (board.accepts(1) and board.accepts(2)):
        assert select.select([board.said_fd], [], [], LIMIT)[0]
        board.heard()
    told = board.settings
    assert told is not None
    assert (told.grace_period, told.source("grace_period")) == (44.0, "a test")
    board.climb(Order(1, 1.0, "SIGTERM"))
    first.join(LIMIT)
    second.join(LIMIT)
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert sum(slot.served for slot in board.slots()) >= 1
    assert (board.has_stopped(1), board.has_stopped(2)) == (True, True)


def test_one_worker_is_replaced() -> None:
    """The others, and whoever gets its number later, are not."""
    board = Board(spawns=True)
    board.begins(1)
    board.retires_one(1, "SIGHUP")
    assert (board.retiring_at(1), board.retiring_at(2)) == ("SIGHUP", "")
    board.begins(1)
    assert board.retiring_at(1) == ""


def test_a_port_that_somebody_keeps_is_shut_down_by_nobody() -> None:
    """systemd goes on listening."""
    board = Board(spawns=True)
    board.keeps_port()
    board.climb(Order(1, 1.0, "SIGTERM"))
    assert not board.accepts_no_more(1)


def test_a_worker_that_retires_shuts_nothing_down() -> None:
    """Also the only one: its successor listens on the same socket."""
    assert not Board(spawns=True).accepts_no_more(1)
