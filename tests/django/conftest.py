"""One Django for these tests, and a lifecycle of its own for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import graceful.lifecycle
from graceful.lifecycle import Lifecycle

from .project import configure

configure()


@pytest.fixture
def lifecycle(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lifecycle]:
    """The lifecycle of the process, as far as this test can see."""
    fresh = Lifecycle()
    monkeypatch.setattr(graceful.lifecycle, "_process", fresh)
    yield fresh
    fresh._release()
