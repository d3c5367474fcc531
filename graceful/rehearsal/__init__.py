"""Rehearses a rolling restart: any command line, behind a balancer, under load, every loss counted.

    from graceful.rehearsal import Plan, rehearse
    result = rehearse(Plan(command=["uvicorn", "app:app", "--port", "{port}"], rolls=3))
    assert result.ok, result.verdict

It judges from outside and imports nothing else of graceful. Needs `graceful-drain[rehearsal]`.
"""

from __future__ import annotations

from .outcomes import Loss, Outcome
from .plan import Plan, PlanError, RehearsalError
from .result import Restart, Result, StreamRecord, explain
from .run import check, rehearse
from .view import PlainView, SilentView, View

__all__ = [
    "Loss",
    "Outcome",
    "PlainView",
    "Plan",
    "PlanError",
    "RehearsalError",
    "Restart",
    "Result",
    "SilentView",
    "StreamRecord",
    "View",
    "check",
    "explain",
    "rehearse",
]
