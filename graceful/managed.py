"""A worker's side of the board: one thread that waits for the parent's word and passes it on.

It decides nothing: `core.managed` says what a signal means, the lifecycle what a rung does.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import Protocol

from .board import Board, Order
from .core.managed import REASON_WAIT, verdict
from .threads import start_daemon

__all__ = ["Managed", "ManagedLife"]


class ManagedLife(Protocol):
    """What the thread asks of the lifecycle."""

    slot: int
    """The age of this worker among those of its parent."""

    def climb_with_instance(self, order: Order) -> None:
        """The whole instance was told to stop: climb to the rung of all."""
        ...

    def retire(self, cause: str) -> None:
        """Only this worker goes: drain without a delay, with readiness as it is."""
        ...


class Managed:
    """Waits for the board in a thread of its own, from `start` to `stop`."""

    should_exit = False
    """sse-starlette looks for this behind the handler of SIGTERM and ends every stream on True."""

    def __init__(
        self, board: Board, life: ManagedLife, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._board = board
        self._life = life
        self._clock = clock
        self._signalled_at: float | None = None
        self._stopped = False
        self._rung = 0
        self._retired = False
        self._wake: tuple[int, int] | None = None
        self._has_ended: Callable[[], bool] | None = None

    def start(self) -> None:
        """Climb at once as far as the instance has; then wait for more in the thread."""
        self._wake = os.pipe()
        os.set_blocking(self._wake[1], False)
        self._follow()
        self._has_ended = start_daemon(self._run, "graceful-board")

    def on_sigterm(self, number: int, frame: object) -> None:
        """This worker was sent a SIGTERM: the handler."""
        if self._signalled_at is None:
            self._signalled_at = self._clock()
        self._wake_up()

    def heed(self) -> None:
        """Climb as far as the instance has, if this worker serves; for threads that can't wait.

        Should the thread do so in the same moment, the lifecycle is told twice and climbs once.
        """
        order = self._board.order
        if order is not None and order.rung > self._rung and self._wake is not None:
            self._rung = order.rung
            self._life.climb_with_instance(order)

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        self._wake_up()
        if self._has_ended is not None:
            self._has_ended()

    def _wake_up(self) -> None:
        if self._wake is not None:
            with contextlib.suppress(OSError):  # full: it is awake already
                os.write(self._wake[1], b"!")

    def _run(self) -> None:
        assert self._wake is not None
        while not self._stopped:
            self._pause(self._wake[0])
            if not self._stopped:
                self._follow()

    def _pause(self, wake: int) -> None:
        # Under gevent this is gevent's, on a hub of this thread's own: what greenlets and this
        # thread lock in turn (the log) is handed on by hubs.
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        if self._rung < 3:
            poll.register(self._board.rung_fd(self._rung + 1), select.POLLIN)
        for fd, _ in poll.poll(self._limit()):
            if fd == wake:
                os.read(wake, 64)

    def _limit(self) -> float | None:
        """Return the milliseconds after which a signal without a reason counts."""
        if self._signalled_at is None or self._rung or self._retired:
            return None
        return max(0.0, self._signalled_at + REASON_WAIT - self._clock()) * 1000 + 1

    def _follow(self) -> None:
        """Do what the board and a signal ask for."""
        order, retiring = self._board.order, self._board.retiring_at(self._life.slot)
        what = verdict(
            rung=order.rung if order else 0,
            retiring=bool(retiring),
            signalled_at=self._signalled_at,
            now=self._clock(),
        )
        if what == "climb":
            self.heed()
        elif what == "retire" and not self._retired:
            self._retired = True
            self._life.retire(retiring or "SIGTERM")
