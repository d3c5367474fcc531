"""Were messages of a stream lost? Pure bookkeeping of numbers; `now` is an argument."""

from __future__ import annotations

from typing import Final

__all__ = ["UNHEARD", "Echoes", "Numbers"]

UNHEARD: Final = 0.1
"""Seconds before the farewell up to which a message of ours counts as heard by the app.

What is written later may cross the farewell on the wire, and nobody can promise it.
"""


class Numbers:
    """Follows the numbers 1, 2, 3, … that one connection pushes."""

    __slots__ = ("last", "lost")

    def __init__(self) -> None:
        self.last = 0
        self.lost = 0

    def feed(self, number: int) -> None:
        """Take note of the next number; what was jumped over is lost."""
        self.lost += max(0, number - self.last - 1)
        self.last = max(self.last, number)


class Echoes:
    """Follows our own messages on one connection until the app has echoed them.

    An app that echoes none is one that does not echo: nothing of ours can be lost on it.
    """

    __slots__ = ("_echoed", "_pending", "sent")

    def __init__(self) -> None:
        self._pending: dict[int, float] = {}
        self._echoed = False
        self.sent = 0

    def next(self, now: float) -> int:
        """Return the number of the message that is written `now`."""
        self.sent += 1
        self._pending[self.sent] = now
        return self.sent

    def heard(self, number: int) -> None:
        """The app has echoed message `number`."""
        self._echoed = True
        self._pending.pop(number, None)

    def lost(self, farewell: float) -> int:
        """How many were written well before the `farewell` and never echoed."""
        unheard = sum(written <= farewell - UNHEARD for written in self._pending.values())
        return unheard if self._echoed else 0
