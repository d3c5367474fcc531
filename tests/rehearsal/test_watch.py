"""What is noted of an instance while it stops, probe by probe."""

from __future__ import annotations

import pytest

from graceful.rehearsal import Plan
from graceful.rehearsal.instances import Phase
from graceful.rehearsal.readiness import Answer
from graceful.rehearsal.watch import Watch

from .servers import COMMAND, fleet

READY, UNREADY, REFUSED, SILENT = Answer.READY, Answer.UNREADY, Answer.REFUSED, Answer.SILENT


@pytest.mark.parametrize(
    ("answers", "unready", "refused", "phase", "said"),
    [
        ([READY], None, None, "serving", []),
        ([READY, UNREADY], 1.0, None, "lame duck", ["flipped"]),
        ([UNREADY, UNREADY, REFUSED], 0.0, 2.0, "draining", ["flipped", "refused"]),
        ([READY, REFUSED, REFUSED], None, 1.0, "draining", ["refused"]),
        ([READY, SILENT, SILENT, SILENT], None, 1.0, "draining", ["no longer answered"]),
        ([READY, SILENT, REFUSED], None, 1.0, "draining", ["refused"]),
        ([UNREADY, SILENT, UNREADY], 0.0, None, "lame duck", ["flipped"]),
    ],
)
def test_probes_are_read_as_phases(
    answers: list[Answer], unready: float | None, refused: float | None, phase: str, said: list[str]
) -> None:
    """The first time of each counts, and each is told once; one silent probe proves nothing."""
    stage = fleet(Plan(command=COMMAND), 1)
    (instance,) = stage.instances
    instance.phase = Phase.SERVING
    lines: list[str] = []
    watch = Watch(stage, instance, lines.append)
    for second, answer in enumerate(answers):
        watch._note(answer, 100.0 + second, 100.0)
    assert watch.unready_at == (None if unready is None else 100.0 + unready)
    assert watch.refused_at == (None if refused is None else 100.0 + refused)
    assert str(instance.phase) == phase
    assert len(lines) == len(said)
    assert all(word in line for word, line in zip(said, lines, strict=True))
