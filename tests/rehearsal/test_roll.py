"""What of the losses is put down to a fault: only what the instance that it struck has lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from graceful.rehearsal import Plan, SilentView
from graceful.rehearsal.outcomes import Loss
from graceful.rehearsal.result import Restart, StreamRecord
from graceful.rehearsal.roll import Roller
from graceful.rehearsal.schedule import Kind
from graceful.rehearsal.tally import Tally

from .findings import LOSS, RESTART, STREAM
from .servers import COMMAND, fleet

STRUCK = replace(RESTART, fault="kill-9")


def found(stop: Restart, losses: list[Loss], streams: list[StreamRecord]) -> Restart:
    """Return `stop` with what the load lost."""
    nothing: Any = None  # a balancer and stream clients, which judge nothing
    roller = Roller(fleet(Plan(command=COMMAND)), nothing, nothing, SilentView())
    roller.stops.append(stop)
    tally = Tally()
    for loss in losses:
        tally.lost(Kind.POST, loss)
    (restart,) = roller.findings(tally, streams)
    return restart


def test_the_instance_that_was_struck_is_excused() -> None:
    """Its requests, its streams, and their messages; a refused one may have been its, too."""
    losses = [LOSS, replace(LOSS, instance=None)]
    streams = [replace(STREAM, told=False), replace(STREAM, messages_lost=3)]
    restart = found(STRUCK, losses, streams)
    assert (restart.requests_lost, restart.streams_cut, restart.messages_lost) == (2, 1, 3)
    assert restart.excused == 6


def test_its_sibling_is_not_excused() -> None:
    """What it loses meanwhile is no consequence of the fault."""
    restart = found(STRUCK, [LOSS, replace(LOSS, instance="i2")], [])
    assert (restart.requests_lost, restart.excused) == (2, 1)


@pytest.mark.parametrize("fault", ["", "slow-upload", "full-disk"])
def test_nothing_is_excused_where_nothing_has_to_be_lost(fault: str) -> None:
    """A plain restart, and the faults that an instance must stand."""
    restart = found(replace(STRUCK, fault=fault), [LOSS], [replace(STREAM, told=False)])
    assert (restart.requests_lost, restart.streams_cut, restart.excused) == (1, 1, 0)


def test_each_restart_has_its_own_losses() -> None:
    """Another one's are not counted twice."""
    later = replace(LOSS, restart=2), replace(STREAM, restart=2, told=False)
    restart = found(STRUCK, [later[0]], [later[1]])
    assert (restart.requests_lost, restart.streams_cut, restart.excused) == (0, 0, 0)
