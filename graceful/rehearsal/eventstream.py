"""Reads server-sent events (WHATWG HTML 9.2) out of chunks of bytes. Pure.

Only what a rehearsal asks about: the name, the data, `retry:`, and whether a block ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Event", "EventReader"]


@dataclass(frozen=True)
class Event:
    """One block of fields that ended with a blank line."""

    name: str
    data: str
    retry_ms: int | None


class EventReader:
    """Gives back whole events as their bytes come in; one per connection."""

    __slots__ = ("_buffer", "_data", "_name", "_retry", "_seen")

    def __init__(self) -> None:
        self._buffer = b""
        self._clear()

    def _clear(self) -> None:
        self._name = "message"
        self._data: list[str] = []
        self._retry: int | None = None
        self._seen = False

    @property
    def at_boundary(self) -> bool:
        """Whether no event is half-way through."""
        return not self._seen and not self._buffer

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that `chunk` completes."""
        self._buffer += chunk
        *lines, self._buffer = self._buffer.replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if line:
                self._field(line.decode("utf-8", "replace"))
            elif self._seen:
                yield Event(self._name, "\n".join(self._data), self._retry)
                self._clear()

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        if not name:
            return  # a comment, such as a ping
        self._seen = True
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "retry" and value.isdecimal():
            self._retry = int(value)
