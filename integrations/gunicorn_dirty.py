"""gunicorn's pool of dirty workers leaves last: what is served to its end asks them to its end.

gunicorn stops them together with the workers that serve, and systemd signals all processes at once.
Here the pool's own stop begins when no worker is left that could ask for anything; until then a
SIGTERM means nothing to its processes, unless the instance stays and only they were told.

Private names used: `Arbiter.kill_dirty_arbiter`, `reap_dirty_arbiter`, `WORKERS`; in both kinds of
the pool's processes `_signal_handler` and `_loop`. Tested with gunicorn 27.0.1.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from graceful.board import Board
from graceful.core.managed import REASON_WAIT

__all__ = ["DirtyPool", "wait_for_the_parent"]


class DirtyPool:
    """The arbiter's side: holds the pool's SIGTERM back until the workers are gone."""

    def __init__(self, server: Any, board: Board) -> None:
        self._server = server
        self._board = board
        self._kill: Callable[[int], None] = server.kill_dirty_arbiter
        self._reap: Callable[[], None] = server.reap_dirty_arbiter
        self._held = False
        server.kill_dirty_arbiter = self.kill
        server.reap_dirty_arbiter = self.reap

    def kill(self, number: int) -> None:
        """Signal the pool; a stop of the arbiter's begins with this, and with a SIGTERM."""
        self._held = number == signal.SIGTERM and bool(self._server.WORKERS)
        if self._held:
            return
        if number in (signal.SIGTERM, signal.SIGQUIT):
            self._board.pool_goes()
        self._kill(number)

    def reap(self) -> None:
        """Look after the pool; while it stops the arbiter does so ten times a second."""
        if self._held and not self._server.WORKERS:
            self.kill(signal.SIGTERM)
        self._reap()


def wait_for_the_parent(process: Any, board: Board) -> None:
    """In a process of the pool: let a SIGTERM be the arbiter's to explain."""
    act: Callable[[int, FrameType | None], None] = process._signal_handler

    def handle(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGTERM or board.pool_may_go or process._loop is None:
            act(number, frame)
        else:  # whoever signals all processes at once may have come to this one first
            process._loop.call_soon_threadsafe(process._loop.call_later, REASON_WAIT, explained)

    def explained() -> None:
        if board.order is None or board.pool_may_go:
            act(signal.SIGTERM, None)

    process._signal_handler = handle
    if signal.getsignal(signal.SIGTERM) == act:
        signal.signal(signal.SIGTERM, handle)
