"""The whole protocol as two tables: which phase follows which event, and what holds in a phase.

Theory of operation
-------------------
A process lives once around this circle:

    STARTING ──► SERVING ──► LAME_DUCK ──► DRAINING ──► CLOSING ──► STOPPED ──► (STARTING)

- It never goes back, but for LAME_DUCK ──► SERVING on `RECOVER`, which the lifecycle admits
  only while an operator, and no signal, has asked for lame duck.
- `TERMINATE`, `HURRY` and `CUT`, the three rungs of the ladder, are defined in every phase: a
  signal may come at any time, and a table with holes would make that a crash.
- `SHUTDOWN` is a server that stops without a signal (a plain `lifespan.shutdown`): its listener
  is gone already, so there is nobody to advertise to and no delay to serve.
- What the driver and the app report (`STARTED`, `DELAY_OVER`, `DRAINED`, `CLOSED`) may be overtaken
  by a signal between a look at the phase and the report; then it changes nothing.
- `RETIRE` replaces one worker while its instance stays. The port goes on being served by
  siblings, so readiness stays 200; only the lifecycle knows that, not the phase.

Rules of this file: data only. A behaviour that depends on the phase is a column of `TRAITS`;
an `if phase is …` in a shell is a column that is missing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["TRAITS", "TRANSITIONS", "Event", "IllegalTransition", "Phase", "Traits", "next_phase"]


class Phase(Enum):
    """Where the process is in its life. `value` is the word used in logs and probe bodies."""

    STARTING = "starting"
    SERVING = "serving"
    LAME_DUCK = "lame_duck"
    DRAINING = "draining"
    CLOSING = "closing"
    STOPPED = "stopped"


class Event(Enum):
    """What moves a process from one phase to the next."""

    START = "start"  # a new life begins: `lifespan.startup`
    STARTED = "started"  # start-up is complete, or the first request came without a lifespan
    LAME_DUCK = "lame_duck"  # an operator's code asked to be unready
    RECOVER = "recover"  # ... and changed its mind
    TERMINATE = "terminate"  # first rung: the whole choreography
    HURRY = "hurry"  # second rung: skip the rest of the propagation delay
    CUT = "cut"  # third rung: cut what is in flight
    RETIRE = "retire"  # this worker goes, its instance stays
    SHUTDOWN = "shutdown"  # the server stops without a signal
    DELAY_OVER = "delay_over"  # the propagation delay has been served
    DRAINED = "drained"  # nothing is in flight any more, or the drain deadline has passed
    CLOSED = "closed"  # clean-up is done


class IllegalTransition(RuntimeError):
    """An event came in a phase that has no place for it; the message names both."""


_STARTING, _SERVING, _LAME_DUCK = Phase.STARTING, Phase.SERVING, Phase.LAME_DUCK
_DRAINING, _CLOSING, _STOPPED = Phase.DRAINING, Phase.CLOSING, Phase.STOPPED

TRANSITIONS: Final = MappingProxyType(
    {
        _STARTING: {
            Event.STARTED: _SERVING,
            # Told to stop before it ever served: nobody was sent here, nothing is in flight.
            Event.TERMINATE: _CLOSING,
            Event.HURRY: _CLOSING,
            Event.CUT: _CLOSING,
            Event.RETIRE: _CLOSING,
            Event.SHUTDOWN: _CLOSING,
            Event.CLOSED: _STOPPED,  # start-up failed
        },
        _SERVING: {
            Event.STARTED: _SERVING,  # a second app of the process
            Event.LAME_DUCK: _LAME_DUCK,
            Event.TERMINATE: _LAME_DUCK,
            Event.HURRY: _DRAINING,
            Event.CUT: _DRAINING,
            Event.RETIRE: _DRAINING,
            Event.SHUTDOWN: _DRAINING,
        },
        _LAME_DUCK: {
            Event.STARTED: _LAME_DUCK,
            Event.LAME_DUCK: _LAME_DUCK,
            Event.RECOVER: _SERVING,
            Event.TERMINATE: _LAME_DUCK,
            Event.HURRY: _DRAINING,
            Event.CUT: _DRAINING,
            Event.RETIRE: _DRAINING,
            Event.SHUTDOWN: _DRAINING,
            Event.DELAY_OVER: _DRAINING,
        },
        _DRAINING: {
            Event.STARTED: _DRAINING,
            Event.LAME_DUCK: _DRAINING,  # unready already, and past the point of return
            Event.TERMINATE: _DRAINING,
            Event.HURRY: _DRAINING,
            Event.CUT: _DRAINING,
            Event.RETIRE: _DRAINING,
            Event.SHUTDOWN: _DRAINING,
            Event.DELAY_OVER: _DRAINING,
            Event.DRAINED: _CLOSING,
        },
        _CLOSING: {
            # A start-up that was overtaken by SIGTERM still reports that it is complete.
            Event.STARTED: _CLOSING,
            Event.LAME_DUCK: _CLOSING,
            Event.TERMINATE: _CLOSING,
            Event.HURRY: _CLOSING,
            Event.CUT: _CLOSING,
            Event.RETIRE: _CLOSING,
            Event.SHUTDOWN: _CLOSING,
            Event.DELAY_OVER: _CLOSING,
            Event.DRAINED: _CLOSING,
            Event.CLOSED: _STOPPED,
        },
        _STOPPED: {
            Event.START: _STARTING,
            Event.TERMINATE: _STOPPED,
            Event.HURRY: _STOPPED,
            Event.CUT: _STOPPED,
            Event.RETIRE: _STOPPED,
            Event.SHUTDOWN: _STOPPED,
            Event.DELAY_OVER: _STOPPED,
            Event.DRAINED: _STOPPED,
            Event.CLOSED: _STOPPED,
        },
    }
)


@dataclass(frozen=True, slots=True)
class Traits:
    """What holds while the process is in one phase: one row of the protocol's table."""

    ready: bool
    """Readiness answers 200 (a retiring worker answers 200 in every phase)."""
    accepts: bool
    """The listener is open."""
    close: Literal["never", "ramp", "always"]
    """`Connection: close` on HTTP/1 responses; 'ramp' grows from 0 to 1 over the delay."""
    new_streams: bool
    """New WebSockets and SSE responses are let in; otherwise turned away with a retry delay."""
    stopping: bool
    """`graceful.draining()`: long work should come to an end."""


TRAITS: Final = MappingProxyType(
    {
        _STARTING: Traits(False, accepts=False, close="never", new_streams=True, stopping=False),
        _SERVING: Traits(True, accepts=True, close="never", new_streams=True, stopping=False),
        _LAME_DUCK: Traits(False, accepts=True, close="ramp", new_streams=True, stopping=False),
        _DRAINING: Traits(False, accepts=False, close="always", new_streams=False, stopping=True),
        _CLOSING: Traits(False, accepts=False, close="always", new_streams=False, stopping=True),
        _STOPPED: Traits(False, accepts=False, close="always", new_streams=False, stopping=True),
    }
)


def next_phase(phase: Phase, event: Event) -> Phase:
    """Return the phase that follows `event` in `phase`.

    Raises:
        IllegalTransition: the table has no such entry.
    """
    try:
        return TRANSITIONS[phase][event]
    except KeyError:
        raise IllegalTransition(f"{event.value!r} cannot happen while {phase.value}") from None
