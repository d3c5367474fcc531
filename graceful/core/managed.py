"""What a worker of a managing parent makes of a SIGTERM: pure, like everything here.

The parent alone knows whether the whole instance goes away or only this worker, so a worker acts
on what the parent has written on the board. Its own SIGTERM says only that there is something to
be read: systemd signals the parent and all workers at once, and the parent signals them again.
"""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["REASON_WAIT", "Verdict", "verdict"]

REASON_WAIT: Final = 1.0
"""Seconds that a worker which was signalled waits for a reason: a parent that was signalled at the
same time may take until the next turn of its loop to write one."""

Verdict = Literal["climb", "retire", "wait"]


def verdict(*, rung: int, retiring: bool, signalled_at: float | None, now: float) -> Verdict:
    """Return what a worker does now.

    Args:
        rung: what the parent has written: 0 = nothing.
        retiring: the parent has written that its workers are replaced.
        signalled_at: when this worker was sent a SIGTERM, None = it was not.
    """
    if rung:
        return "climb"
    if signalled_at is None:
        return "wait"
    return "retire" if retiring or now - signalled_at >= REASON_WAIT else "wait"
