"""What a managing parent makes of a signal, and of time: pure, like everything here.

The other side is `managed.py`. Both parents decide by this: gunicorn's arbiter with our hooks in
it, and the thread of `graceful run`.
"""

from __future__ import annotations

from .budget import Timeline

__all__ = ["next_rung", "stop_is_due"]


def next_rung(rung: int, *, waits: bool) -> int:
    """Return the rung that one more reason to stop climbs to.

    Args:
        rung: the one that the instance is on, 0 = it serves.
        waits: there is a balancer, or somebody else, that is to notice before the drain begins.
    """
    return min(3, max(rung + 1, 1 if waits else 2))


def stop_is_due(timeline: Timeline | None, now: float) -> bool:
    """Whether the server's own stop begins now: the delay has been served, or is skipped."""
    return timeline is not None and now >= timeline.delay_ends
