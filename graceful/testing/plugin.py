"""The fixture `graceful_rehearsal`: a test restarts real servers under load and counts the losses.

    def test_a_deploy_loses_nothing(graceful_rehearsal) -> None:
        assert graceful_rehearsal("uvicorn app:app --port {port}").lost == 0

pytest finds this module by itself; what it needs is imported when the fixture is asked for. Needs
`graceful-drain[pytest]`.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from graceful.rehearsal import Result

__all__ = ["Rehearsal", "graceful_rehearsal"]

OWN: Final[Mapping[str, Any]] = {"slow_path": "", "post_path": "", "rate": 50.0}
"""Where a test says nothing else: an app has a front page, and what more it has is its own."""

WIDTH: Final = 120
"""Columns of the table in the report of a failed test."""


class Rehearsal:
    """What the fixture gives: call it with a command line, as often as you like."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def __call__(self, command: str, **options: Any) -> Result:
        """Hold one rehearsal, which takes some times the propagation delay, and return its result.

        Args:
            command: how one instance is started; `{port}` stands for its port. No shell reads it.
                Programs of the environment that runs the tests are found first.
            options: the fields of `graceful.rehearsal.Plan`: `rolls`, `rate`, `websockets`, `sse`,
                `quick_path`, `balancer`, …. The instances inherit the environment, so
                `monkeypatch.setenv("GRACEFUL_PROPAGATION_DELAY", "3")` works as it should.

        Raises:
            RuntimeError: the test is an `async def`.
            PlanError: the options contradict each other, or there is no such command.
            RehearsalError: the app does not come up; the message ends with its last lines.
        """
        from .clock import needs_a_plain_test

        needs_a_plain_test("graceful_rehearsal")
        try:
            from graceful.rehearsal import Plan, rehearse
        except ModuleNotFoundError as missing:
            pytest.fail(
                f"graceful_rehearsal needs {missing.name}; run: pip install "
                "'graceful-drain[pytest]'",
                pytrace=False,
            )
        result = rehearse(Plan(command=_words(command), **{**OWN, **options}))
        self._item.add_report_section("call", "graceful rehearsal", _table(result))
        return result


@pytest.fixture
def graceful_rehearsal(request: pytest.FixtureRequest) -> Rehearsal:
    """Restart the instances of a command one after another under load, and count every loss."""
    item: pytest.Item = request.node
    return Rehearsal(item)


def _words(command: str) -> list[str]:
    first, *rest = shlex.split(command) or [""]
    if first in ("python", "python3"):
        return [sys.executable, *rest]
    own = shutil.which(first, path=str(Path(sys.executable).parent))
    return [own if own and os.sep not in first else first, *rest]


def _table(result: Result) -> str:
    from rich.console import Console

    from graceful.rehearsal.table import print_result

    text = io.StringIO()
    print_result(result, Console(file=text, width=WIDTH))
    return text.getvalue()
