"""Finding the middleware inside of what a server has been given to serve.

Servers that ask no app to start know their app all the same. The middleware may be the app itself,
or deep inside: an attribute of a Flask app, the first in a Django project's list, what a function
has closed over. The interpreter's garbage collector knows what refers to what.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from types import FunctionType, ModuleType
from typing import TypeVar

__all__ = ["is_wrapped_later", "outermost"]

T = TypeVar("T")


def outermost(app: object, kind: type[T]) -> T | None:
    """Return the first instance of `kind` on the way from `app` inwards, None if there is none."""
    for each in _inwards(app):
        if issubclass(type(each), kind):  # `isinstance` would wake up lazy objects
            return each  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
    return None


def is_wrapped_later(app: object, kind: type[object]) -> bool:
    """Whether `app` leads to the class `kind`: Starlette makes the instance with a request."""
    found = (each for each in _inwards(app) if issubclass(type(each), type))
    return any(issubclass(each, kind) for each in found if isinstance(each, type))


def _inwards(app: object) -> Iterator[object]:
    """Yield `app`, what it refers to, what that refers to, and so on."""
    seen, front = {id(app)}, [app]
    while front:
        yield from front
        front = [part for each in front for part in _inside(each) if id(part) not in seen]
        seen.update(map(id, front))


def _inside(thing: object) -> Sequence[object]:
    """Return what `thing` is made of; its type, module and globals lead to the whole program."""
    if type(thing) is FunctionType:
        return (thing.__closure__, thing.__defaults__, thing.__kwdefaults__, thing.__dict__)
    return () if issubclass(type(thing), (type, ModuleType)) else gc.get_referents(thing)
