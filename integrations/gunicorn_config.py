"""gunicorn's own settings, read against the budget: what is wrong, and what works against it.

Reads a configuration and judges it with the core. Changes nothing and holds nothing.

What was written down, and where it stands, gunicorn forgets: a value that equals a default can't be
told from one that was left alone. So `Config.set`, through which every explicit value goes (file,
command line, `GUNICORN_CMD_ARGS`), notes the names. Public names only. Tested with gunicorn 27.0.1.
"""

from __future__ import annotations

import math
from typing import Any, Final

from gunicorn.config import Config

from graceful.core.budget import Settings, SettingsError
from graceful.core.managed import worker_findings
from graceful.core.records import Notice
from graceful.lifecycle import Lifecycle

from . import gunicorn_workers as workers

__all__ = ["arbiter_timeout", "given", "note_what_is_given", "tell_findings"]

GIVEN: Final = "graceful_given"
"""Attribute of a configuration: the names that somebody has set."""


def note_what_is_given() -> None:
    """Have each configuration of this process note what is set in it from now on."""
    original = Config.set

    def set_and_note(self: Config, name: str, value: object) -> None:
        original(self, name, value)
        setattr(self, GIVEN, given_names(self) | {name})  # not by `vars`: see `watch_alive`

    Config.set = set_and_note  # type: ignore[method-assign]


def given(cfg: Any, name: str) -> Any:
    """Return the value of `name` that somebody has set, None when it was left alone."""
    return getattr(cfg, name) if name in given_names(cfg) else None


def given_names(cfg: Any) -> frozenset[str]:
    """Return the names that somebody has set."""
    names: frozenset[str] = getattr(cfg, GIVEN, frozenset())
    return names


def arbiter_timeout(settings: Settings, given: int | None) -> int:
    """Return the seconds of gunicorn's `graceful_timeout`, which begins when the delay is over.

    Args:
        settings: the budget.
        given: what the user has set, None = left alone: it comes from the budget then.

    Raises:
        SettingsError: what the user has given would cut requests that the budget lets finish.
    """
    needed = settings.drain + settings.cleanup_timeout
    left = settings.grace_period - settings.pre_stop - settings.propagation_delay
    if given is None:
        return math.ceil(left - settings.exit_margin / 2)
    if given < needed:
        raise SettingsError(
            f"gunicorn's graceful_timeout = {given} s would kill workers before drain_timeout "
            f"{settings.drain:g} + cleanup_timeout {settings.cleanup_timeout:g} = {needed:g} s "
            f"are over; leave graceful_timeout out (it becomes {math.ceil(left)}), or lower "
            "drain_timeout"
        )
    return given


def tell_findings(cfg: Any, lifecycle: Lifecycle) -> None:
    """Tell what of gunicorn's own settings works against the budget."""
    kind = cfg.worker_class
    if not workers.is_known(kind):
        lifecycle.tell(Notice(_unknown(kind)))
    findings = worker_findings(
        lifecycle.core.settings,
        blocks_heartbeat=cfg.worker_class_str == "sync",
        workers=cfg.workers,
        timeout=cfg.timeout,
        max_requests=cfg.max_requests,
        max_requests_jitter=cfg.max_requests_jitter,
        threads=cfg.threads if workers.has_threads(kind) else 0,
        worker_connections=cfg.worker_connections,
    )
    for text in findings:
        lifecycle.tell(Notice(text))


def _unknown(kind: type) -> str:
    return (
        f"worker class {kind.__module__}.{kind.__qualname__} is unknown to graceful: its workers "
        "say 503, finish what the middleware sees, and are then ended by their own handler of "
        "SIGTERM; rehearse a restart before you rely on it: graceful rehearse"
    )
