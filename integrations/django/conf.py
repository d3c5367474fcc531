"""`settings.GRACEFUL`: what may stand in it, and what is in force together with the environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from django.conf import settings
from django.utils import module_loading

from graceful.core.budget import SETTINGS, Settings, SettingsError, closest
from graceful.lifecycle import current
from graceful.settings import load

__all__ = ["OPTIONS", "SOURCE", "Configuration", "configuration", "looked_up"]

SOURCE: Final = "settings.GRACEFUL"
"""What messages call the place."""

OPTIONS: Final = ("checks", "sse_event", "on_lame_duck", "on_drain", "on_cleanup", "observers")
"""What the middleware takes beside the rows of `SETTINGS`; callables, or dotted paths to them."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What this project has written down."""

    keywords: Mapping[str, object] = field(default_factory=dict[str, object])
    """Settings, as they stand there."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def settings(self) -> Settings:
        """Return the checked settings in force.

        Raises:
            SettingsError: a bad value, or values that contradict.
        """
        return load(self.keywords, source=SOURCE, base=current().defaults)


def configuration() -> Configuration:
    """Read `settings.GRACEFUL`.

    Raises:
        SettingsError: it is no dict, has an unknown name, or a dotted path that leads nowhere.
    """
    given: object = getattr(settings, "GRACEFUL", {})
    if not isinstance(given, Mapping):
        raise SettingsError(
            f"{SOURCE} = {given!r}: give a dict, such as {{'grace_period': 30}}, or leave it out"
        )
    written = cast("Mapping[object, object]", given)
    names = {row.name for row in SETTINGS}
    for name in written:
        if name not in names and name not in OPTIONS:
            near = closest(str(name).lower(), (*names, *OPTIONS))
            raise SettingsError(f"unknown setting {name!r} (from {SOURCE}); {near}")
    return Configuration(
        {str(name): value for name, value in written.items() if name in names},
        {
            str(name): _option(str(name), value)
            for name, value in written.items()
            if name in OPTIONS
        },
    )


def _option(name: str, value: object) -> object:
    if name == "sse_event":
        return value
    if name == "checks":
        if not isinstance(value, Mapping):
            raise SettingsError(
                f"checks = {value!r} (from {SOURCE}): give a dict, name to callable"
            )
        checks = cast("Mapping[object, object]", value)
        return {key: _callable(f"checks[{key!r}]", check) for key, check in checks.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_callable(name, entry) for entry in cast("Iterable[object]", value)]
    return _callable(name, value)


def _callable(name: str, value: object) -> object:
    """Return what a dotted path leads to; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return looked_up(value)
    except ImportError as error:
        raise SettingsError(f"{name} = {value!r} (from {SOURCE}): {error}") from error


def looked_up(path: str) -> object:
    """Return what a dotted path leads to.

    Raises:
        ImportError: it leads nowhere.
    """
    found: object = module_loading.import_string(path)
    return found
