"""What a managing parent tells its workers, and they it: one `Board`, shared by a fork.

Words of memory mapped before the fork, and a pipe for each rung of the ladder. A parent writes why
and when the instance was told to stop and then makes the rung's pipe readable; nobody ever reads
from it, so it wakes every worker, and one that is forked later at once. Each worker has a slot for
the numbers of its own stop, which the parent adds up.

Storage and waking only. What a rung means is the core's, what a worker does with it `managed.py`'s.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from typing import Final

__all__ = ["SLOTS", "Board", "Order", "Slot"]

SLOTS: Final = 1024
"""Workers that can have numbers at the same time; a worker's age, modulo this, is its slot."""

CAUSES: Final = (
    *("", "SIGTERM", "SIGINT", "SIGQUIT", "SIGUSR2", "SIGWINCH"),
    *("SIGHUP", "SIGTTOU", "fewer workers"),
)
"""What may stand on the board as a cause: memory holds its place in this row."""

_RUNG, _AT, _CAUSE, _RETIRE, _KEEPS_PORT, _RETIRE_TO, _RETIRE_WHY, _SERVED, _SAID = range(9)
_HEAD: Final = 16
"""Words before the first slot; all words are native doubles, which are written in one piece."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the parent was told."""

    rung: int
    """1 terminate, 2 hurry, 3 cut."""
    at: float
    """When, on the clock that all processes of a machine share (`time.monotonic`)."""
    cause: str
    """The signal's name."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The numbers of one worker's stop, all of them floats in memory."""

    pid: float = 0
    in_flight: float = 0
    """In flight when the stop began, streams among them."""
    served: float = 0
    """Requests served since then."""
    streams: float = 0
    """Open when the drain began."""
    told: float = 0
    finishing: float = 0
    """Streams whose policy is to finish."""
    farewells_failed: float = 0
    late_refused: float = 0
    cut: float = 0
    reported: float = 0
    """1 = the numbers are final; a worker that was killed never gets there."""
    last_request_after: float = -1
    """Seconds from the flip to its last ordinary request; -1 = none came."""
    too_short: float = 0
    """1 = that was in the last fifth of the delay."""
    p50: float = -1
    p99: float = -1


_WIDTH: Final = len(fields(Slot))


class Board:
    """One for each instance. Made by the parent before its first fork."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, 8 * (_HEAD + SLOTS * _WIDTH))
        self._words = memoryview(memory).cast("d")
        self._words[_RETIRE_TO] = -1
        self._pipes = [os.pipe() for _ in range(3)]

    # -- the parent's side -----------------------------------------------------------------

    def climb(self, order: Order) -> None:
        """Tell all workers to climb to a rung. A lower one than before changes nothing."""
        if order.rung <= self._words[_RUNG]:
            return
        if not self._words[_RUNG]:
            self._words[_AT] = order.at
            self._words[_CAUSE] = CAUSES.index(order.cause)
        passed = int(self._words[_RUNG])
        self._words[_RUNG] = order.rung  # last: who sees it finds the rest there
        for rung in range(passed, order.rung):
            os.write(self._pipes[rung][1], b"!")

    def retires(self, cause: str) -> None:
        """What the workers are told from now on is no shutdown: the port goes on being served."""
        self._words[_RETIRE] = CAUSES.index(cause)

    def retires_to(self, age: int, cause: str) -> None:
        """Replaced, or taken away, are the workers up to `age`: the oldest go first."""
        if age > self._words[_RETIRE_TO]:
            self._words[_RETIRE_WHY] = CAUSES.index(cause)
            self._words[_RETIRE_TO] = age

    def may_say_again(self) -> None:
        """What its workers have said once for all may be said again: it has been changed."""
        self._words[_SAID] = 0

    def keeps_port(self) -> None:
        """Somebody else (systemd) goes on listening: no worker may shut the listener down."""
        self._words[_KEEPS_PORT] = 1

    def slots(self) -> Iterator[Slot]:
        """Yield the numbers of each worker that has written any."""
        for index in range(SLOTS):
            words = self._words[self._at(index) : self._at(index + 1)]
            if words[0]:
                yield Slot(*words)

    # -- a worker's side -------------------------------------------------------------------

    @property
    def order(self) -> Order | None:
        """What the instance has been told, None while it serves."""
        rung = int(self._words[_RUNG])
        if not rung:
            return None
        return Order(rung, self._words[_AT], CAUSES[int(self._words[_CAUSE])])

    @property
    def retiring(self) -> str:
        """Why all workers retire while the port stays, '' when there is no such reason."""
        return CAUSES[int(self._words[_RETIRE])]

    def retiring_at(self, age: int) -> str:
        """Why the worker of this age retires when it is signalled, '' when nobody has said so."""
        if age <= self._words[_RETIRE_TO]:
            return CAUSES[int(self._words[_RETIRE_WHY])]
        return self.retiring

    @property
    def has_served(self) -> bool:
        """Whether a worker of this instance has ever begun to serve."""
        return bool(self._words[_SERVED])

    def serves(self) -> None:
        """A worker begins to serve."""
        self._words[_SERVED] = 1

    def first_to_say(self) -> bool:
        """Whether no other worker has said it: what is the same for all is said once."""
        first = not self._words[_SAID]
        self._words[_SAID] = 1
        return first

    @property
    def port_goes(self) -> bool:
        """Whether the listener goes away with this instance, which has been told to stop."""
        return bool(self._words[_RUNG]) and not self._words[_KEEPS_PORT]

    def rung_fd(self, rung: int) -> int:
        """Return the descriptor that becomes readable, for good, when `rung` has been climbed."""
        return self._pipes[rung - 1][0]

    def write(self, index: int, slot: Slot) -> None:
        """Put the numbers of worker `index` on the board."""
        at = self._at(index % SLOTS)
        for offset, value in enumerate(astuple(slot)):
            self._words[at + offset] = value

    @staticmethod
    def _at(index: int) -> int:
        return _HEAD + index * _WIDTH
