"""gunicorn's own settings, judged against the budget: what is wrong, and what works against it.

Numbers and sentences; whoever has a gunicorn to ask (`integrations/gunicorn_config.py`), or a file
that configures one (`graceful check`), brings the values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from .budget import Settings, SettingsError

__all__ = ["CONNECTIONS", "arbiter_timeout", "worker_findings"]

CONNECTIONS: Final = 1000
"""gunicorn's default of `worker_connections`."""

KEEPALIVE: Final = 2
"""gunicorn's default of `keepalive`, in seconds."""


def arbiter_timeout(settings: Settings, given: int | None) -> int:
    """Return the seconds of gunicorn's `graceful_timeout`, which begins when the delay is over.

    Args:
        settings: the budget.
        given: what the user has set, None = left alone: it comes from the budget then.

    Raises:
        SettingsError: what the user has given would cut requests that the budget lets finish.
    """
    needed = settings.drain + settings.cleanup_timeout
    if given is None:
        return math.ceil(_left(settings) - settings.exit_margin / 2)
    if given < needed:
        raise SettingsError(
            f"gunicorn's graceful_timeout = {given} s would kill workers before drain_timeout "
            f"{settings.drain:g} + cleanup_timeout {settings.cleanup_timeout:g} = {needed:g} s "
            f"are over; leave graceful_timeout out (it becomes {math.ceil(_left(settings))}), or "
            "lower drain_timeout"
        )
    return given


def _left(settings: Settings) -> float:
    """Return the seconds between the end of the delay and SIGKILL."""
    return settings.grace_period - settings.pre_stop - settings.propagation_delay


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
    keepalive: float = KEEPALIVE,
    closes_idle: bool = True,
    graceful_timeout: float = 0,
    sources: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Yield what of a parent's own settings works against the budget: warnings, each one line.

    Args:
        settings: the budget.
        blocks_heartbeat: a worker is silent while it serves a request.
        workers: how many there are.
        timeout: seconds of silence after which the parent kills a worker; 0 = never.
        max_requests: requests after which a worker is replaced; 0 = never.
        max_requests_jitter: up to so many more of them, drawn by each worker.
        threads: how many serve in each worker; 0 = it has no pool.
        worker_connections: how many connections each worker keeps open, idle ones included.
        keepalive: seconds that an idle connection is kept.
        closes_idle: idle connections are closed when the linger is over, however long `keepalive`.
        graceful_timeout: seconds that the parent waits for its workers from the end of the delay.
        sources: where a value comes from, by name, where that is known.

    What is not looked at is whether the app is loaded before the fork: a stop takes no longer for
    it, and a reload that changes nothing for it is told when it happens.
    """
    said = {name: f" (from {text})" for name, text in (sources or {}).items()}

    def value(name: str, number: float, unit: str = " s") -> str:
        return f"{name} = {number:g}{unit}{said.get(name, '')}"

    if blocks_heartbeat and 0 < timeout < settings.drain:
        yield (
            f"{value('timeout', timeout)} kills a worker in any request that takes longer, so "
            f"drain_timeout {settings.drain:g} s promises more than it holds; raise timeout, or "
            f"lower drain_timeout to {timeout:g}"
        )
    if max_requests and not max_requests_jitter and workers > 1:
        yield (
            f"{value('max_requests', max_requests, '')} without max_requests_jitter: all {workers} "
            "workers are replaced at about the same time; give max_requests_jitter = "
            f"{max_requests // 10 or 1}"
        )
    if threads and worker_connections <= threads:
        yield (
            f"{value('worker_connections', worker_connections, '')} with {threads} threads: as "
            f"soon as so many connections are open, idle ones too (for keepalive = {keepalive:g} "
            "s), a readiness probe waits and can't be told 503 within propagation_delay "
            f"{settings.propagation_delay:g} s; raise worker_connections (gunicorn's own is "
            f"{CONNECTIONS})"
        )
    if not closes_idle and keepalive > settings.cleanup_timeout:
        yield (
            f"{value('keepalive', keepalive)}: a worker of this class may wait so long for idle "
            "connections when its drain is over, and only cleanup_timeout "
            f"{settings.cleanup_timeout:g} s are left then; lower keepalive to "
            f"{settings.cleanup_timeout:g}"
        )
    if graceful_timeout > math.ceil(left := _left(settings)):
        yield (
            f"{value('graceful_timeout', graceful_timeout)} is longer than the {left:g} s that "
            f"grace_period {settings.grace_period:g} s leaves after the delay: a worker that "
            "hangs in its last moments is left to the platform's SIGKILL; leave graceful_timeout "
            f"out (it becomes {arbiter_timeout(settings, None)})"
        )
