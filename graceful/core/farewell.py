"""What a farewell says on the wire, and when a byte stream may be ended with one.

Pure bytes and strings. Sending them belongs to the shells, the delays to `pacing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from .budget import SettingsError

__all__ = [
    "SERVICE_RESTART",
    "EventBoundary",
    "can_inject",
    "checked_event_name",
    "close_reason",
    "event_stream",
    "sse_farewell",
]

SERVICE_RESTART: Final = 1012
"""WebSocket close code 'service restart' (IANA registry): clients may reconnect at once."""

_EOLS: Final = (b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\r\n", b"\n\r")
"""Two ends of line in a row end an event; each may be LF, CR or CRLF (WHATWG HTML 9.2.5)."""


def close_reason(retry_after_ms: int) -> str:
    """Return the reason of a WebSocket close: JSON, far below RFC 6455's limit of 123 bytes."""
    return json.dumps({"retry_after_ms": retry_after_ms}, separators=(",", ":"))


def sse_farewell(event: str, retry_after_ms: int) -> bytes:
    """Return the last event of an SSE stream.

    `retry:` sets the client's own delay; the `data:` line makes browsers dispatch the event at all.
    """
    data = close_reason(retry_after_ms)
    return f"retry: {retry_after_ms}\nevent: {event}\ndata: {data}\n\n".encode()


def checked_event_name(name: object) -> str:
    """Return `name` if it can stand on an `event:` line.

    Raises:
        SettingsError: not text, empty, or with characters that would start another field.
    """
    if isinstance(name, str) and name and name.isprintable():
        return name
    raise SettingsError(
        f"sse_event = {name!r}: give a name without line breaks, such as 'reconnect'"
    )


def event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether response `headers` announce server-sent events.

    Names should be in lower case, by the specification of ASGI; Django's are not.
    """
    kinds = [v.lower() for k, v in headers if k.lower() == b"content-type"]
    return any(kind.startswith(b"text/event-stream") for kind in kinds)


def can_inject(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether bytes may be added to this body: not when it is encoded or its length is promised."""
    return not any(
        k.lower() == b"content-length"
        or (k.lower() == b"content-encoding" and v.lower() != b"identity")
        for k, v in headers
    )


class EventBoundary:
    """Follows a body chunk by chunk and knows whether an event has just ended.

    A stream that has sent only headers is at a boundary too, and so is a silent one: they need no
    next event to be ended cleanly.
    """

    __slots__ = ("_end", "_tail", "clean")

    def __init__(self, end: bytes | None = None) -> None:
        """`end`: what ends a record; None = the blank line of server-sent events."""
        self.clean = True
        self._tail = b""
        self._end = _EOLS if end is None else end

    def feed(self, chunk: bytes) -> None:
        """Take note of the next bytes of the body."""
        if chunk:
            keep = 4 if isinstance(self._end, tuple) else len(self._end)
            self._tail = chunk[-keep:] if len(chunk) >= keep else (self._tail + chunk)[-keep:]
            self.clean = self._tail.endswith(self._end)
