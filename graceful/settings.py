"""Collects raw setting values from where people write them down, each with its source.

Environment beats keyword arguments beats defaults: the grace period belongs to whoever deploys,
beside the manifest that sets it. What the values mean, and whether they fit, is the core's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, TypedDict

from .core.budget import SETTINGS, SHARED, Settings, SettingsError, Sourced, closest, resolve

__all__ = ["Keywords", "for_development", "load", "unknown_variables"]


class Keywords(TypedDict, total=False):
    """The settings as keyword arguments, for type checkers and editors; the rows of `SETTINGS`."""

    grace_period: float
    propagation_delay: float
    pre_stop: float
    stream_window: float
    linger: float
    drain_timeout: float | None
    cleanup_timeout: float
    exit_margin: float
    readiness_path: str | None
    liveness_path: str | None
    readiness_mode: Literal["own", "wrap"]
    check_timeout: float
    probe_port: int | None
    liveness_stall: float | None


_PREFIX = "GRACEFUL_"
_VARIABLES = {row.variable: row.name for row in SETTINGS}


def load(
    keywords: Mapping[str, object],
    *,
    source: str = "keyword argument",
    environ: Mapping[str, str] | None = None,
    base: Settings | None = None,
) -> Settings:
    """Return the checked settings in force.

    Args:
        keywords: settings as given in code, by name.
        source: where those were written, for messages.
        environ: `os.environ` unless given.
        base: what a server's own configuration has set for all apps: keywords add to it.

    Raises:
        SettingsError: an unknown keyword, an unparsable value, or values that contradict.
    """
    environ = os.environ if environ is None else environ
    from_env = {
        name: Sourced(environ[variable], f"${variable}")
        for variable, name in _VARIABLES.items()
        if variable in environ and not _is_service_link(environ[variable])
    }
    from_code = {name: Sourced(value, source) for name, value in keywords.items()}
    if base is None:
        return resolve(from_env, from_code)
    _check_agreement(from_code, base, from_env)
    given = {name: value for name, value in base.values().items() if name in base.sources}
    from_base = {name: Sourced(value, base.source(name)) for name, value in given.items()}
    return resolve(from_env, from_code, from_base)


def _check_agreement(
    from_code: Mapping[str, Sourced], base: Settings, from_env: Mapping[str, Sourced]
) -> None:
    for name, given in from_code.items():
        if name in from_env or given.value == getattr(base, name):
            continue
        if name in SHARED and name not in base.sources:
            raise SettingsError(
                f"{name} = {given.value!r} (from {given.source}) comes too late for the server, "
                f"whose own stop keeps to {getattr(base, name)!r}; give it to install(...) in the "
                f"server's configuration, or as ${_PREFIX}{name.upper()}"
            )
        if name in base.sources:
            raise SettingsError(
                f"{name} is {getattr(base, name)!r} in {base.source(name)} and {given.value!r} in "
                f"{given.source}; give it in one place, or the same value in both"
            )


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return one sentence for each `GRACEFUL_*` variable that is no setting.

    Never a reason to stop: Kubernetes injects such names for a Service called 'graceful'.
    """
    environ = os.environ if environ is None else environ
    return [
        f"${name} is no setting of graceful and is ignored; {closest(name, _VARIABLES)}"
        for name in sorted(environ)
        if name.startswith(_PREFIX) and (name not in _VARIABLES or _is_service_link(environ[name]))
    ]


def for_development(settings: Settings, source: str) -> Settings:
    """Return `settings` for a server that reloads on each saved file: nothing ever waits."""
    changed = ("propagation_delay", "stream_window", "linger", "drain_timeout")
    return replace(
        settings,
        propagation_delay=0.0,
        stream_window=0.0,
        linger=0.0,
        drain_timeout=min(1.0, settings.drain),
        sources={**settings.sources, **dict.fromkeys(changed, source)},
    )


def _is_service_link(value: str) -> bool:
    """Whether this is what Kubernetes writes for a Service, such as tcp://10.0.0.1:80."""
    return value.startswith(("tcp://", "udp://"))
