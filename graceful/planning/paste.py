"""Settings to paste into what people have: environment, manifest, unit, compose file, task.

A row of `KINDS` for each; the platform's own grace period stands beside the variables, because the
two must be the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Final

from ..core.advice import Choice
from ..core.budget import SETTINGS, Settings
from ..core.platforms import PLATFORMS, Check, Number

__all__ = ["KINDS", "fitting", "snippet", "variables"]


def variables(settings: Settings) -> dict[str, str]:
    """Return the GRACEFUL_* seconds that are not the defaults, and the two main ones."""
    return {
        row.variable: _number(getattr(settings, row.name))
        for row in SETTINGS
        if row.name in ("grace_period", "propagation_delay")
        or (row.kind.startswith("seconds") and getattr(settings, row.name) != row.default)
    }


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.15g}"


def fitting(choice: Choice) -> tuple[str, ...]:
    """Return the kinds that the chosen platforms are configured with."""
    found = tuple(_OF_PLATFORM[name] for name in choice.platforms if name in _OF_PLATFORM)
    return tuple(dict.fromkeys(found)) or ("env",)


_OF_PLATFORM: Final = MappingProxyType(
    {"kubernetes": "kubernetes", "ecs": "ecs", "systemd": "systemd", "docker": "compose"}
)


def snippet(kind: str, settings: Settings, choice: Choice) -> str:
    """Return the text of one kind, without an end of line."""
    return "\n".join(KINDS[kind](settings, choice))


def _env(settings: Settings, choice: Choice) -> Iterator[str]:
    yield from _beside(settings, choice)
    for name, value in variables(settings).items():
        yield f"{name}={value}"


def _beside(settings: Settings, choice: Choice) -> Iterator[str]:
    """Say what has to stand at the platform, where that is not in the same file."""
    for name in choice.platforms:
        grace = PLATFORMS[name].grace
        if grace is not None:
            yield f"# {name}: {grace.option} of at least {_whole(settings)} s"


def _kubernetes(settings: Settings, choice: Choice) -> Iterator[str]:
    yield "# in spec.template.spec of the Deployment"
    yield f"terminationGracePeriodSeconds: {_whole(settings)}"
    yield "containers:"
    yield "  - name: app"
    if settings.pre_stop:
        sleep = f'["sleep", "{_number(settings.pre_stop)}"]'
        yield f"    lifecycle: {{preStop: {{exec: {{command: {sleep}}}}}}}"
    yield "    env:"
    for name, value in variables(settings).items():
        yield f'      - {{name: {name}, value: "{value}"}}'
    check = PLATFORMS["kubernetes"].check
    if check is not None and settings.readiness_path is not None:
        yield "    readinessProbe:"
        # JSON strings are YAML strings, whatever is in the path.
        yield f"      httpGet: {{path: {json.dumps(settings.readiness_path)}, port: 8000}}"
        for field, knob, default in _probe(check):
            seconds = choice.numbers.get(("kubernetes", knob), default.value)
            yield f"      {field}: {max(1, math.ceil(seconds))}"


def _probe(check: Check) -> Iterator[tuple[str, str, Number]]:
    yield "periodSeconds", "probe_period", check.period
    yield "failureThreshold", "failure_threshold", check.threshold
    yield "timeoutSeconds", "probe_timeout", check.timeout


def _gunicorn(settings: Settings, choice: Choice) -> Iterator[str]:
    names = {row.variable: row.name for row in SETTINGS}
    yield from _beside(settings, choice)
    yield "# gunicorn.conf.py; graceful_timeout follows from it: leave it out"
    yield "from graceful.integrations.gunicorn import install"
    yield ""
    yield "install("
    yield "    globals(),"
    for variable, value in variables(settings).items():
        yield f"    {names[variable]}={'None' if value == 'none' else value},"
    yield ")"


def _systemd(settings: Settings, _: Choice) -> Iterator[str]:
    yield "[Service]"
    yield f"TimeoutStopSec={_whole(settings)}"
    for name, value in variables(settings).items():
        yield f"Environment={name}={value}"


def _compose(settings: Settings, _: Choice) -> Iterator[str]:
    yield "services:"
    yield "  app:"
    yield f"    stop_grace_period: {_whole(settings)}s"
    yield "    environment:"
    for name, value in variables(settings).items():
        yield f'      {name}: "{value}"'


def _ecs(settings: Settings, _: Choice) -> Iterator[str]:
    environment = [{"name": k, "value": v} for k, v in variables(settings).items()]
    text = json.dumps({"stopTimeout": _whole(settings), "environment": environment}, indent=2)
    yield from text.splitlines()


def _whole(settings: Settings) -> int:
    return math.ceil(settings.grace_period)


KINDS: Final[MappingProxyType[str, Callable[[Settings, Choice], Iterator[str]]]] = MappingProxyType(
    {
        "env": _env,
        "kubernetes": _kubernetes,
        "gunicorn": _gunicorn,
        "systemd": _systemd,
        "compose": _compose,
        "ecs": _ecs,
    }
)
"""What there is to paste, by the name that `--paste` takes."""
