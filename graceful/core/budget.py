"""The arithmetic of a stop: settings, where each value came from, the sum, the deadlines.

    pre_stop + propagation_delay + drain_timeout + cleanup_timeout + exit_margin <= grace_period

(linger and stream_window lie inside the drain.) Nothing here reads the environment: the shell
`graceful.settings` collects raw values with their sources and hands them to `resolve`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final, Literal

__all__ = [
    "SETTINGS",
    "SHARED",
    "Finding",
    "ServerLimit",
    "Setting",
    "Settings",
    "SettingsError",
    "Sourced",
    "Timeline",
    "check",
    "closest",
    "resolve",
    "unchecked",
]


class SettingsError(ValueError):
    """A setting is wrong or settings contradict; the message has numbers, sources and the fix."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the settings table: what the name means and which values it takes."""

    name: str
    kind: Literal["seconds", "seconds?", "path?", "mode", "port?"]
    default: float | str | int | None
    meaning: str

    @property
    def variable(self) -> str:
        """The environment variable that beats every other source."""
        return "GRACEFUL_" + self.name.upper()


SETTINGS: Final = (
    # 30 s is Kubernetes' terminationGracePeriodSeconds and ECS' stopTimeout.
    Setting(
        "grace_period",
        "seconds",
        30.0,
        "seconds from the platform's decision to stop until SIGKILL",
    ),
    # EndpointSlice to kube-proxy usually takes 1 to 5 s; Lightship waits 5 s.
    Setting(
        "propagation_delay",
        "seconds",
        5.0,
        "seconds of lame duck: unready but serving, until balancers stop choosing this instance",
    ),
    Setting(
        "pre_stop",
        "seconds",
        0.0,
        "seconds of the grace period that a preStop hook has used up when SIGTERM comes",
    ),
    Setting(
        "stream_window",
        "seconds",
        5.0,
        "seconds over which streams are told to reconnect",
    ),
    Setting(
        "linger",
        "seconds",
        1.0,
        "seconds in which kept-alive connections are still answered after accepting has ended",
    ),
    Setting(
        "drain_timeout",
        "seconds?",
        None,
        "seconds for work in flight to finish; None = the rest of the grace period",
    ),
    Setting(
        "cleanup_timeout",
        "seconds",
        3.0,
        "seconds for clean-up hooks and the app's own shutdown",
    ),
    Setting(
        "exit_margin",
        "seconds",
        1.0,
        "seconds before SIGKILL at which the watchdog reports and leaves",
    ),
    Setting(
        "readiness_path",
        "path?",
        "/readyz",
        "path that answers 200 while SERVING and 503 otherwise; None = off",
    ),
    Setting(
        "liveness_path",
        "path?",
        "/livez",
        "path that answers 200 in every phase; None = off",
    ),
    Setting(
        "readiness_mode",
        "mode",
        "own",
        "'own' = the middleware answers; 'wrap' = the app answers while SERVING",
    ),
    Setting(
        "check_timeout",
        "seconds",
        1.0,
        "seconds that one readiness check may take; Kubernetes' probe timeout is 1 s",
    ),
    Setting(
        "probe_port",
        "port?",
        None,
        "port of a private probe server in a thread of its own; None = off",
    ),
    Setting(
        "liveness_stall",
        "seconds?",
        30.0,
        "seconds of a blocked event loop after which /livez on the probe port is 503; None = off",
    ),
)

_ROWS: Final = MappingProxyType({row.name: row for row in SETTINGS})

_PARTS: Final = ("pre_stop", "propagation_delay", "drain_timeout", "cleanup_timeout", "exit_margin")
"""What the grace period is made of, in the order in which it is spent."""

SHARED: Final = frozenset({"grace_period", "stream_window", "linger", *_PARTS})
"""What is one for the whole instance: its timeline. Probes may be each app's own."""


@dataclass(frozen=True, slots=True)
class Sourced:
    """A raw value and the place it was written down."""

    value: object
    source: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Every value in force. Seconds are floats; `sources` says where each one came from."""

    grace_period: float = 30.0
    propagation_delay: float = 5.0
    pre_stop: float = 0.0
    stream_window: float = 5.0
    linger: float = 1.0
    drain_timeout: float | None = None
    cleanup_timeout: float = 3.0
    exit_margin: float = 1.0
    readiness_path: str | None = "/readyz"
    liveness_path: str | None = "/livez"
    readiness_mode: str = "own"
    check_timeout: float = 1.0
    probe_port: int | None = None
    liveness_stall: float | None = 30.0
    sources: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)

    @property
    def drain(self) -> float:
        """Seconds of drain in force: `drain_timeout`, or the rest of the grace period."""
        if self.drain_timeout is not None:
            return self.drain_timeout
        return self.grace_period - self._fixed

    @property
    def _fixed(self) -> float:
        return self.pre_stop + self.propagation_delay + self.cleanup_timeout + self.exit_margin

    def source(self, name: str) -> str:
        """Return where the value of `name` was written down."""
        return self.sources.get(name, "default")

    def values(self) -> dict[str, Any]:
        """Return every setting by name, without the sources."""
        return {row.name: getattr(self, row.name) for row in SETTINGS}

    def differences(self, other: Settings) -> list[str]:
        """Return the names of the settings whose values are not the same in `other`."""
        mine, theirs = self.values(), other.values()
        return [name for name in mine if mine[name] != theirs[name]]


def resolve(*layers: Mapping[str, Sourced]) -> Settings:
    """Merge raw values, the first layer winning, into checked `Settings`.

    Raises:
        SettingsError: an unknown name, an unparsable value, or values that contradict.
    """
    settings = unchecked(*layers)
    errors = [finding.text for finding in check(settings) if finding.severity == "error"]
    if errors:
        raise SettingsError(errors[0])
    return settings


def unchecked(*layers: Mapping[str, Sourced]) -> Settings:
    """Merge raw values into `Settings` that may contradict: to be shown, never to be served with.

    Raises:
        SettingsError: an unknown name or an unparsable value.
    """
    merged: dict[str, Sourced] = {}
    for layer in layers:
        for name, raw in layer.items():
            merged.setdefault(name, raw)
    values = {name: _parse(_row(name, raw), raw) for name, raw in merged.items()}
    sources = MappingProxyType({name: raw.source for name, raw in merged.items()})
    return Settings(**values, sources=sources)


def _row(name: str, raw: Sourced) -> Setting:
    row = _ROWS.get(name)
    if row is None:
        raise SettingsError(f"unknown setting {name!r} (from {raw.source}); {closest(name, _ROWS)}")
    return row


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the known name nearest to `name`."""
    from difflib import get_close_matches

    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(names)}"


def _parse(row: Setting, raw: Sourced) -> Any:
    value = raw.value
    if row.kind.endswith("?") and (value is None or value in ("", "none", "None", "off")):
        return None
    match row.kind:
        case "seconds" | "seconds?":
            return _seconds(row, raw)
        case "path?":
            return _path(row, raw)
        case "port?":
            return _port(row, raw)
        case _:  # mode
            if value in ("own", "wrap"):
                return value
            raise _bad(row, raw, "use 'own' or 'wrap'")


def _seconds(row: Setting, raw: Sourced) -> float:
    try:
        if isinstance(raw.value, bool) or not isinstance(raw.value, int | float | str):
            raise TypeError
        seconds = float(raw.value)
    except (TypeError, ValueError, OverflowError):
        raise _bad(row, raw, "give a number of seconds, such as 5 or 2.5") from None
    if not math.isfinite(seconds):
        raise _bad(row, raw, "give a finite number of seconds")
    if seconds < 0:
        raise _bad(row, raw, "give zero or more seconds")
    return seconds


def _path(row: Setting, raw: Sourced) -> str:
    value = raw.value
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        raise _bad(row, raw, "give a path that starts with '/', or None to switch it off")
    return value


def _port(row: Setting, raw: Sourced) -> int:
    try:
        if isinstance(raw.value, bool) or not isinstance(raw.value, int | str):
            raise TypeError
        port = int(raw.value)
    except (TypeError, ValueError):
        raise _bad(row, raw, "give a port number from 0 to 65535 (0 = any free one)") from None
    if not 0 <= port <= 65535:
        raise _bad(row, raw, "give a port number from 0 to 65535 (0 = any free one)")
    return port


def _bad(row: Setting, raw: Sourced, fix: str) -> SettingsError:
    return SettingsError(f"{row.name} = {raw.value!r} (from {raw.source}): {fix}")


@dataclass(frozen=True, slots=True)
class ServerLimit:
    """A timeout of the server's own that takes part in the sum."""

    name: str
    """As the server's users write it, e.g. 'uvicorn --timeout-graceful-shutdown'."""
    seconds: float | None
    """None = it waits for ever."""
    begins: Literal["at_signal", "after_drain", "at_clean_up"]
    """When the server starts to count: at SIGTERM, only once graceful's drain is over, or when it
    asks the app to shut down, which is when the clean-up hooks run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a budget. Errors stop the process at start."""

    severity: Literal["error", "warning"]
    text: str


def check(settings: Settings, limits: Iterable[ServerLimit] = ()) -> list[Finding]:
    """Return everything that is wrong with `settings` beside the server's own timeouts."""
    findings = [*_check_sum(settings), *_check_parts(settings), *_check_paths(settings)]
    for limit in limits:
        findings += _check_limit(settings, limit)
    return findings


def _check_sum(settings: Settings) -> Iterable[Finding]:
    total = settings._fixed + (settings.drain_timeout or 0.0)
    excess = total - settings.grace_period
    if settings.grace_period <= 0:
        yield Finding(
            "error",
            f"grace_period = {_s(settings.grace_period)} {_from(settings, 'grace_period')}: "
            "SIGKILL would come at once; give the seconds that the platform really waits",
        )
    elif settings.propagation_delay >= settings.grace_period:
        yield Finding(
            "error",
            f"propagation_delay {_s(settings.propagation_delay)} s "
            f"{_from(settings, 'propagation_delay')} leaves nothing of grace_period "
            f"{_s(settings.grace_period)} s {_from(settings, 'grace_period')}; "
            "lower propagation_delay or raise grace_period (and the platform's setting)",
        )
    elif excess > 1e-9:
        yield Finding("error", _excess_text(settings, total, excess))
    elif settings.drain_timeout == 0:
        yield Finding(
            "error",
            f"drain_timeout = 0 {_from(settings, 'drain_timeout')}: everything in flight would be "
            "cut at once; raise it, or leave it unset for the rest of the grace period",
        )
    elif settings.drain <= 0:
        yield Finding(
            "error",
            f"nothing is left of grace_period {_s(settings.grace_period)} s "
            f"{_from(settings, 'grace_period')} for work in flight: {_sum_text(settings)} = "
            f"{_s(total)} s; {_lower(settings, 0.0)}, or raise grace_period together with the "
            "platform's own setting",
        )


def _sum_text(settings: Settings) -> str:
    parts = [(name, getattr(settings, name)) for name in _PARTS]
    return " + ".join(f"{name} {_s(value)}" for name, value in parts if value)


def _excess_text(settings: Settings, total: float, excess: float) -> str:
    return (
        f"{_sum_text(settings)} = {_s(total)} s exceeds grace_period "
        f"{_s(settings.grace_period)} s {_from(settings, 'grace_period')} by {_s(excess)} s; "
        f"{_lower(settings, excess)}, or raise grace_period together with the platform's own "
        "setting"
    )


def _lower(settings: Settings, excess: float) -> str:
    """Name the parts of the sum that can make up for `excess`, rather those set by hand."""
    nonzero = [name for name in _PARTS if getattr(settings, name)]
    able = [name for name in nonzero if getattr(settings, name) > excess]
    by_hand = [name for name in able if settings.source(name) != "default"]
    names = by_hand or able
    joint = " or " if names else " and "
    return "lower " + joint.join(f"{n} {_from(settings, n)}" for n in names or nonzero)


def _check_parts(settings: Settings) -> Iterable[Finding]:
    for name in ("stream_window", "linger"):
        value = getattr(settings, name)
        if 0 < settings.drain < value and settings.source(name) != "default":
            yield Finding(
                "error",
                f"{name} {_s(value)} s {_from(settings, name)} does not fit into the drain of "
                f"{_s(settings.drain)} s; lower {name} or raise drain_timeout or grace_period",
            )
    if settings.check_timeout == 0:
        yield Finding(
            "error",
            f"check_timeout = 0 {_from(settings, 'check_timeout')}: every readiness check would "
            "fail; give the seconds that one check may take",
        )
    if settings.liveness_stall == 0:
        yield Finding(
            "error",
            f"liveness_stall = 0 {_from(settings, 'liveness_stall')}: liveness would fail at once "
            "and have the process killed; give more seconds, or None to switch it off",
        )


def _check_paths(settings: Settings) -> Iterable[Finding]:
    path = settings.readiness_path
    if path is not None and path == settings.liveness_path:
        yield Finding(
            "error",
            f"readiness_path and liveness_path are both {path!r}: a liveness probe there would "
            "fail during the drain and have the process killed; give them different paths",
        )


def _check_limit(settings: Settings, limit: ServerLimit) -> Iterable[Finding]:
    if limit.seconds is None:
        return
    needed = settings.propagation_delay + settings.drain
    if limit.begins == "at_signal" and limit.seconds < needed:
        yield Finding(
            "error",
            f"{limit.name} = {_s(limit.seconds)} s would cut requests: propagation_delay "
            f"{_s(settings.propagation_delay)} + drain {_s(settings.drain)} = {_s(needed)} s; "
            f"raise it to at least {_s(needed)} or leave it unset",
        )
    if limit.begins == "at_clean_up" and limit.seconds < settings.cleanup_timeout:
        yield Finding(
            "error",
            f"{limit.name} = {_s(limit.seconds)} s would cut clean-up hooks: cleanup_timeout is "
            f"{_s(settings.cleanup_timeout)} s; raise the one or lower the other",
        )
    if limit.begins == "after_drain" and limit.seconds > settings.cleanup_timeout:
        yield Finding(
            "warning",
            f"{limit.name} = {_s(limit.seconds)} s begins after graceful's drain of up to "
            f"{_s(settings.drain)} s and is cut short to what grace_period "
            f"{_s(settings.grace_period)} s leaves; unset it, graceful's drain takes its place",
        )


def _s(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _from(settings: Settings, name: str) -> str:
    return f"(from {settings.source(name)})"


@dataclass(frozen=True, slots=True)
class Timeline:
    """The deadlines of one stop, in seconds on the caller's clock."""

    began: float
    """When the grace period began: SIGTERM, less `pre_stop`."""
    signalled: float
    """When this process learnt of it."""
    delay_ends: float
    drain_deadline: float
    cleanup_deadline: float
    exits_at: float
    """The watchdog leaves here; SIGKILL would come `exit_margin` later."""

    @classmethod
    def start(cls, settings: Settings, now: float, *, delay: float | None = None) -> Timeline:
        """Return the deadlines of a stop that was asked for at `now`.

        `delay` replaces the propagation delay, for a stop that has none or has served a part.
        """
        wait = settings.propagation_delay if delay is None else delay
        began = now - settings.pre_stop
        return cls(
            began=began,
            signalled=now,
            delay_ends=now + wait,
            drain_deadline=now + wait + settings.drain,
            cleanup_deadline=now + wait + settings.drain + settings.cleanup_timeout,
            exits_at=began + settings.grace_period - settings.exit_margin,
        )

    def hurried(self, now: float) -> Timeline:
        """Return the timeline with what is left of the delay skipped; the end stays."""
        return self._moved(delay_ends=min(self.delay_ends, now))

    def cut(self, now: float, cleanup_timeout: float) -> Timeline:
        """Return the timeline with the drain over now, and clean-up right after it."""
        return self._moved(
            delay_ends=min(self.delay_ends, now),
            drain_deadline=min(self.drain_deadline, now),
            cleanup_deadline=min(self.cleanup_deadline, now + cleanup_timeout),
        )

    def _moved(self, **changes: float) -> Timeline:
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return Timeline(**(values | changes))
