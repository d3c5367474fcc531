"""What a worker of a managing parent makes of a SIGTERM: pure, like everything here.

The parent alone knows whether the whole instance goes away or only this worker, so a worker acts
on what the parent has written on the board. Its own SIGTERM says only that there is something to
be read: systemd signals the parent and all workers at once, and the parent signals them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from .budget import Settings

__all__ = ["REASON_WAIT", "Verdict", "verdict", "worker_findings"]

REASON_WAIT: Final = 1.0
"""Seconds that a worker which was signalled waits for a reason: a parent that was signalled at the
same time may take until the next turn of its loop to write one."""

CONNECTIONS: Final = 1000
"""gunicorn's default of `worker_connections`."""

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


def worker_findings(
    settings: Settings,
    *,
    blocks_heartbeat: bool,
    workers: int,
    timeout: float,
    max_requests: int,
    max_requests_jitter: int,
    threads: int = 0,
    worker_connections: int = 0,
) -> Iterator[str]:
    """Yield what of a parent's own settings works against the budget: warnings, each one line.

    Args:
        blocks_heartbeat: a worker is silent while it serves a request.
        timeout: seconds of silence after which the parent kills a worker; 0 = never.
        max_requests: requests after which a worker is replaced; 0 = never.
        threads: how many serve in each worker; 0 = it has no pool.
        worker_connections: how many connections each worker keeps open, idle ones included.

    What is not looked at, because a stop takes no longer for it: how long idle connections are kept
    (they are closed when the linger is over), and whether the app is loaded before the fork.
    """
    if blocks_heartbeat and 0 < timeout < settings.drain:
        yield (
            f"timeout = {timeout:g} s kills a worker in any request that takes longer, so "
            f"drain_timeout {settings.drain:g} s promises more than it holds; raise timeout, or "
            f"lower drain_timeout to {timeout:g}"
        )
    if max_requests and not max_requests_jitter and workers > 1:
        yield (
            f"max_requests = {max_requests} without max_requests_jitter: all {workers} workers are "
            f"replaced at about the same time; give max_requests_jitter = {max_requests // 10 or 1}"
        )
    if threads and worker_connections <= threads:
        yield (
            f"worker_connections = {worker_connections} with {threads} threads: as soon as so many "
            "connections are open, idle ones too, a readiness probe waits and can't be told 503 "
            f"within propagation_delay {settings.propagation_delay:g} s; raise worker_connections "
            f"(gunicorn's own is {CONNECTIONS})"
        )
