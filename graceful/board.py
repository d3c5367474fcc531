"""What a managing parent tells its workers, and they it: one `Board`, shared by a fork.

Words of memory mapped before the fork, and a pipe for each rung of the ladder. A parent writes why
and when the instance was told to stop and then makes the rung's pipe readable; nobody ever reads
from it, so it wakes every worker, and one that is forked later at once. Each worker has a slot for
the numbers of its own stop, which the parent adds up.

Workers that are spawned inherit no memory. For them the board is made of descriptors, which
multiprocessing hands on when it starts a process that has the board among its arguments: there is
no name in any folder, so nothing is left behind by a parent that is killed.

Storage and waking only. What a rung means is the core's, what a worker does with it `managed.py`'s.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from multiprocessing.reduction import DupFd
from typing import Any, Final

from .core.budget import Settings

__all__ = ["SLOTS", "Board", "Order", "Slot"]

SLOTS: Final = 1024
"""Workers that can have numbers at the same time; a worker's age, modulo this, is its slot."""

CAUSES: Final = (
    *("", "SIGTERM", "SIGINT", "SIGQUIT", "SIGUSR2", "SIGWINCH"),
    *("SIGHUP", "SIGTTOU", "fewer workers"),
    *("a worker failed", "replaced"),
)
"""What may stand on the board as a cause: memory holds its place in this row."""

_RUNG, _AT, _CAUSE, _RETIRE, _KEEPS_PORT, _RETIRE_TO, _RETIRE_WHY, *_REST = range(11)
_SERVED, _SAID, _TOLD, _POOL_GOES = _REST
_HEAD: Final = 16
"""Words before the first slot; all words are native doubles, which are written in one piece."""

_ACCEPTING, _STOPPED = 1, 2
"""What the word of a worker says once it serves: it accepts connections, or no more."""

_SETTINGS: Final = 8192
"""Bytes for the settings of the workers, at the end of the memory."""


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
_ACCEPTS: Final = _HEAD + SLOTS * _WIDTH
_RETIRES: Final = _ACCEPTS + SLOTS
_WORDS: Final = _RETIRES + SLOTS
"""After the slots, a word of each worker: whether it accepts connections, why it is replaced."""

_SIZE: Final = 8 * _WORDS + _SETTINGS


class Board:
    """One for each instance. Made by the parent before its first worker.

    Args:
        spawns: workers are started anew, and are handed the board among their arguments.
    """

    def __init__(self, *, spawns: bool = False) -> None:
        memory = _anonymous_file() if spawns else -1
        pipes = [os.pipe() for _ in range(4 if spawns else 3)]
        self._open(memory, pipes)
        self._words[_RETIRE_TO] = -1

    def _open(self, memory: int, pipes: Sequence[tuple[int, int]]) -> None:
        self._memory = memory
        self._map = mmap.mmap(memory, _SIZE)
        self._words = memoryview(self._map)[: 8 * _WORDS].cast("d")
        self._pipes = pipes
        for _, write in pipes[3:]:
            os.set_blocking(write, False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Hand the descriptors to the process that multiprocessing is about to start."""
        return _opened, (DupFd(self._memory), [(DupFd(r), DupFd(w)) for r, w in self._pipes])

    @property
    def spawns(self) -> bool:
        """Whether workers are started anew: they tell their parent when they serve and stop."""
        return len(self._pipes) > 3

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

    def begins(self, index: int) -> None:
        """A new worker gets the number `index`, and with it a clean slot."""
        self.write(index, Slot())
        self._words[_ACCEPTS + index % SLOTS] = 0
        self._words[_RETIRES + index % SLOTS] = 0

    def retires_one(self, index: int, cause: str) -> None:
        """Only worker `index` is replaced, or taken away."""
        self._words[_RETIRES + index % SLOTS] = CAUSES.index(cause)

    def gone(self, index: int) -> None:
        """Worker `index` has ended: it accepts nothing any more, whatever it has said."""
        self._words[_ACCEPTS + index % SLOTS] = _STOPPED

    def accepts(self, index: int) -> bool:
        """Whether worker `index` serves and has not stopped accepting connections."""
        return self._words[_ACCEPTS + index % SLOTS] == _ACCEPTING

    def has_stopped(self, index: int) -> bool:
        """Whether worker `index` has served and accepts nothing any more."""
        return self._words[_ACCEPTS + index % SLOTS] == _STOPPED

    @property
    def said_fd(self) -> int:
        """Return the descriptor that becomes readable when a worker has told something new."""
        return self._pipes[3][0]

    def heard(self) -> None:
        """What workers have told is known now."""
        os.read(self.said_fd, 4096)

    @property
    def settings(self) -> Settings | None:
        """The settings of the workers, None until one has told them."""
        length = int(self._words[_TOLD])
        if not length:
            return None
        told = json.loads(self._map[8 * _WORDS : 8 * _WORDS + length])
        return Settings(**told["values"], sources=told["sources"])

    def may_say_again(self) -> None:
        """What its workers have said once for all may be said again: it has been changed."""
        self._words[_SAID] = 0

    def keeps_port(self) -> None:
        """Somebody else (systemd) goes on listening: no worker may shut the listener down."""
        self._words[_KEEPS_PORT] = 1

    def pool_goes(self) -> None:
        """No worker is left to ask the pool that works for them: it may leave, too."""
        self._words[_POOL_GOES] = 1

    @property
    def pool_may_go(self) -> bool:
        """Whether a pool that works for the workers may leave with this instance."""
        return bool(self._words[_POOL_GOES])

    def slots(self) -> Iterator[Slot]:
        """Yield the numbers of each worker that has written any."""
        return (slot for slot in map(self.slot, range(SLOTS)) if slot.pid)

    def slot(self, index: int) -> Slot:
        """Return the numbers of worker `index`."""
        at = self._at(index % SLOTS)
        return Slot(*self._words[at : at + _WIDTH])

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
        if one := int(self._words[_RETIRES + age % SLOTS]):
            return CAUSES[one]
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

    def begins_to_serve(self, index: int, settings: Settings) -> None:
        """Worker `index` accepts connections from here on, and keeps to `settings`."""
        text = json.dumps({"values": settings.values(), "sources": dict(settings.sources)}).encode()
        if not self._words[_TOLD] and len(text) <= _SETTINGS:
            self._map[8 * _WORDS : 8 * _WORDS + len(text)] = text
            self._words[_TOLD] = len(text)  # last: who sees it finds the text there
        self._words[_ACCEPTS + index % SLOTS] = _ACCEPTING
        self.serves()
        self._tell_parent()

    def accepts_no_more(self, index: int) -> bool:
        """Worker `index` closes its listener now. Returns whether nobody accepts after it.

        Two that close in the same moment may both be the last; what that means does no harm twice.
        """
        self._words[_ACCEPTS + index % SLOTS] = _STOPPED
        self._tell_parent()
        return self.port_goes and _ACCEPTING not in self._words[_ACCEPTS : _ACCEPTS + SLOTS]

    def _tell_parent(self) -> None:
        with contextlib.suppress(OSError):  # full: it will hear
            os.write(self._pipes[3][1], b"!")

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


def _anonymous_file() -> int:
    """Return a descriptor of memory that has no name."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("graceful-board")
    else:
        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    os.ftruncate(number, _SIZE)
    return number


def _opened(memory: Any, pipes: Sequence[tuple[Any, Any]]) -> Board:
    """Return the board of the parent, in a process that multiprocessing has started with it."""
    board = Board.__new__(Board)
    board._open(_own(memory), [(_own(read), _own(write)) for read, write in pipes])
    return board


def _own(handed_on: Any) -> int:
    number: int = handed_on.detach()
    os.set_inheritable(number, False)
    return number
