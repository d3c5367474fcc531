"""What every middleware is given, looked at the same way: app, hooks and observers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

from .core.budget import SettingsError
from .driver import Hook, HookPhase

__all__ = ["OneOrMore", "callables", "has_method", "hooks"]

OneOrMore = Callable[[], object] | Sequence[Callable[[], object]]


def has_method(app: object) -> bool:
    """Whether `app` is an object that is called by way of a method written in Python.

    A call of the object goes through C and into the interpreter once more; one of the method does
    not, and costs a request some six hundred instructions less (CPython 3.11).
    """
    return type(getattr(type(app), "__call__", None)) is FunctionType  # noqa: B004 - which one?


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
