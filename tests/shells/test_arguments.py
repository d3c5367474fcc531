"""What middleware is given: which apps are called by way of their method."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from graceful._arguments import has_method


class Called:
    """An object that is called, as frameworks' apps are."""

    def __call__(self) -> None:
        """Do nothing."""

    def other(self) -> None:
        """Do nothing, as a bound method."""


class Inherits(Called):
    """Has its method from another class."""


class Partial:
    """Its `__call__` is no method that was written in Python."""

    __call__ = partial(print)


@pytest.mark.parametrize("app", [Called(), Inherits()])
def test_an_object_with_a_method(app: object) -> None:
    """Its method is what its class has."""
    assert has_method(app)


OTHERS = [print, lambda: None, Called, Called().other, partial(print), Partial(), MagicMock, 1]


@pytest.mark.parametrize("app", [*OTHERS, SimpleNamespace(__call__=print)])
def test_everything_else_is_called_itself(app: object) -> None:
    """Functions, classes, bound methods, and what is written in C."""
    assert not has_method(app)
