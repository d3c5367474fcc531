"""gunicorn's own settings, read against the budget: what is wrong, and what works against it.

Reads a configuration and judges it with the core. Changes nothing and holds nothing.

What was written down, and where it stands, gunicorn forgets: a value that equals a default can't be
told from one that was left alone. So `Config.set`, through which every explicit value goes (file,
command line, `GUNICORN_CMD_ARGS`), notes the names. Public names only. Tested with gunicorn 27.0.1.
"""

from __future__ import annotations

from typing import Any, Final

from gunicorn.config import Config

from graceful.core.budget import Settings
from graceful.core.records import Notice
from graceful.core.worker_settings import arbiter_timeout, worker_findings
from graceful.lifecycle import Lifecycle

from . import gunicorn_workers as workers

__all__ = ["note_what_is_given", "own_settings", "take_from_budget", "tell_findings"]

GIVEN: Final = "graceful_given"
"""Attribute of a configuration: the names that somebody has set."""

FROM_BUDGET: Final = "graceful_from_budget"
"""Attribute of a configuration: its `graceful_timeout` is ours."""


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


OWN: Final = (
    *("timeout", "graceful_timeout", "keepalive", "worker_connections"),
    *("max_requests", "max_requests_jitter", "preload_app"),
)
"""What of gunicorn's own matters when an instance stops, for the start-up line."""


def own_settings(cfg: Any) -> tuple[dict[str, object], dict[str, str]]:
    """Return gunicorn's own settings, and where those come from that are not its defaults."""
    values = {name: getattr(cfg, name) for name in OWN}
    return values, {name: _source(cfg, name) for name in OWN if name in given_names(cfg)}


def _source(cfg: Any, name: str) -> str:
    """Return where a value comes from; of what is set gunicorn does not tell the place."""
    if name == "graceful_timeout" and getattr(cfg, FROM_BUDGET, False):
        return "the budget"
    return "gunicorn's configuration" if name in given_names(cfg) else "gunicorn's defaults"


def take_from_budget(cfg: Any, settings: Settings) -> None:
    """Have the arbiter wait for its workers as long as the budget says.

    Raises:
        SettingsError: what the user has set would cut requests that the budget lets finish.
    """
    left_alone = given(cfg, "graceful_timeout") is None
    cfg.set("graceful_timeout", arbiter_timeout(settings, given(cfg, "graceful_timeout")))
    setattr(cfg, FROM_BUDGET, left_alone)


def tell_findings(cfg: Any, lifecycle: Lifecycle) -> None:
    """Tell what of gunicorn's own settings works against the budget."""
    kind = cfg.worker_class
    if not workers.is_known(kind):
        lifecycle.tell(Notice(_unknown(kind)))
    findings = worker_findings(
        lifecycle.core.settings,
        blocks_heartbeat=workers.blocks_heartbeat(kind),
        workers=cfg.workers,
        timeout=cfg.timeout,
        max_requests=cfg.max_requests,
        max_requests_jitter=cfg.max_requests_jitter,
        threads=cfg.threads if workers.has_threads(kind) else 0,
        worker_connections=cfg.worker_connections,
        keepalive=cfg.keepalive,
        closes_idle=workers.is_known(kind),
        graceful_timeout=cfg.graceful_timeout,
        sources={name: _source(cfg, name) for name in OWN},
    )
    for text in findings:
        lifecycle.tell(Notice(text))


def _unknown(kind: type) -> str:
    return (
        f"worker class {kind.__module__}.{kind.__qualname__} is unknown to graceful: its workers "
        "say 503, finish what the middleware sees, and are then ended by their own handler of "
        "SIGTERM; rehearse a restart before you rely on it: graceful rehearse"
    )
