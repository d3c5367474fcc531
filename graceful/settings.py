"""Collects raw setting values from where people write them down, each with its source.

Environment beats keyword arguments beats defaults: the grace period belongs to whoever deploys,
beside the manifest that sets it. What the values mean, and whether they fit, is the core's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict

from .core.budget import (
    SETTINGS,
    SHARED,
    Settings,
    SettingsError,
    Sourced,
    closest,
    resolve,
    unchecked,
)

__all__ = ["Binding", "Keywords", "for_development", "load", "unknown_variables"]


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


@dataclass(frozen=True, slots=True)
class Binding(Settings):
    """Settings of a server that serves already, where an error would end what works.

    An app that contradicts follows them, and `contradicted` is told of it.
    """

    contradicted: Callable[[str], object] = field(default=str, compare=False)

    @classmethod
    def of(cls, settings: Settings, contradicted: Callable[[str], object]) -> Binding:
        """Return `settings` for apps that are to follow them."""
        return cls(**settings.values(), sources=settings.sources, contradicted=contradicted)


_PREFIX = "GRACEFUL_"
_VARIABLES = {row.variable: row.name for row in SETTINGS}


def load(
    keywords: Mapping[str, object],
    *,
    source: str = "keyword argument",
    environ: Mapping[str, str] | None = None,
    base: Settings | None = None,
    checked: bool = True,
) -> Settings:
    """Return the checked settings in force.

    Args:
        keywords: settings as given in code, by name.
        source: where those were written, for messages.
        environ: `os.environ` unless given.
        base: what a server's own configuration has set for all apps: keywords add to it.
        checked: False for who only shows what values that contradict would lead to.

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
        return (resolve if checked else unchecked)(from_env, from_code)
    from_code = {
        name: given
        for name, given in from_code.items()
        if name in from_env or _agrees(name, given, base)
    }
    given = {name: value for name, value in base.values().items() if name in base.sources}
    from_base = {name: Sourced(value, base.source(name)) for name, value in given.items()}
    return resolve(from_env, from_code, from_base)


def _agrees(name: str, given: Sourced, base: Settings) -> bool:
    """Whether what an app gives fits into `base`; where that is binding, no is told, not raised."""
    text = _contradiction(name, given, base)
    if text and not isinstance(base, Binding):
        raise SettingsError(text)
    if text and isinstance(base, Binding):
        base.contradicted(text)
    return not text


def _contradiction(name: str, given: Sourced, base: Settings) -> str:
    value = getattr(base, name, given.value)  # who knows no such name says so later
    if given.value == value:
        return ""
    if name in base.sources:
        return (
            f"{name} is {value!r} in {base.source(name)} and {given.value!r} in "
            f"{given.source}; give it in one place, or the same value in both"
        )
    if name in SHARED:
        return (
            f"{name} = {given.value!r} (from {given.source}) comes too late for the server, "
            f"whose own stop keeps to {value!r}; give it to install(...) in the "
            f"server's configuration, or as ${_PREFIX}{name.upper()}"
        )
    return ""


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
