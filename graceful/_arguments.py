"""What every middleware is given, checked the same way: hooks and observers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .core.budget import SettingsError
from .driver import Hook, HookPhase

__all__ = ["OneOrMore", "callables", "hooks"]

OneOrMore = Callable[[], object] | Sequence[Callable[[], object]]


def hooks(
    *, lame_duck: OneOrMore | None, drain: OneOrMore | None, cleanup: OneOrMore | None
) -> tuple[Hook, ...]:
    """Return the hooks of all phases.

    Raises:
        SettingsError: one of them can't be called.
    """
    given: tuple[tuple[HookPhase, object], ...] = (
        ("lame_duck", lame_duck),
        ("drain", drain),
        ("cleanup", cleanup),
    )
    return tuple(
        Hook(phase, run) for phase, some in given for run in callables(f"on_{phase}", some)
    )


def callables(name: str, given: object) -> list[Any]:
    """Return one callable or several as a list.

    Raises:
        SettingsError: it has an entry that can't be called.
    """
    if given is None:
        return []
    found: list[Any] = []
    if callable(given) or isinstance(given, str) or not isinstance(given, Iterable):
        found.append(given)
    else:
        found += given
    for entry in found:
        if not callable(entry):
            raise SettingsError(f"{name} = {entry!r}: give a callable, or a list of callables")
    return found
