"""How things are spread in time: farewells over the stream window, closes over the delay.

Pure arithmetic; randomness is an argument (`random.Random` or a function that gives [0, 1)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["MAX_GAP", "close_probability", "farewell_offsets", "retry_delay_ms"]

Draw = Callable[[], float]
"""Gives a float in [0, 1), as `random.random` does."""

MAX_GAP: Final = 1.0
"""Seconds. NATS lame duck caps its interval so that ten clients don't take the whole window."""

MIN_RETRY_MS: Final = 50
"""An EventSource or a WebSocket client told '0' would redial in the same instant as its peers."""


def farewell_offsets(count: int, window: float, draw: Draw) -> list[float]:
    """Return when to tell each of `count` streams to reconnect, in seconds from the start.

    As NATS lame duck does: the gap is `window / count`, drawn from [1/2, 1) of that and at most
    `MAX_GAP`, so the last farewell always falls inside the window.
    """
    if count <= 0:
        return []
    gap = min(window / count, MAX_GAP)
    offsets: list[float] = []
    at = 0.0
    for _ in range(count):
        offsets.append(at)
        at += gap * (0.5 + draw() / 2)
    return offsets


def close_probability(elapsed: float, delay: float) -> float:
    """Return the chance that a response sent `elapsed` seconds into lame duck says close.

    Grows linearly from 0 to 1 (Envoy's drain manager, HAProxy's close-spread-time): early in the
    delay a client that is told to redial would be sent to this very process again.
    """
    if delay <= 0 or elapsed >= delay:
        return 1.0
    return max(0.0, elapsed / delay)


def retry_delay_ms(window: float, draw: Draw) -> int:
    """Return the milliseconds one client should wait before it reconnects.

    Each client gets its own: clients reset their back-off on a clean close, so the spread of a
    reconnecting herd can come from the server only. Up to a fifth of the stream window.
    """
    return max(MIN_RETRY_MS, round(draw() * window * 200))
