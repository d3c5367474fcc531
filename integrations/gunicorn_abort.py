"""The last words of a worker that its arbiter aborts: where it hangs.

The arbiter sends SIGABRT to who has given no sign of life for `timeout` seconds. What gunicorn does
with it then is left as it is; this only says first what was in flight and where the main thread is.

By a handler of our own, for the hook `worker_abort` comes too late or never: gunicorn's ASGI worker
has it called by the loop, which is what hangs, and uvicorn's worker has no handler at all. Public
names only. Tested with gunicorn 27.0.1.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any, Final

from graceful.core.records import ExchangeCut, Straggler
from graceful.lifecycle import Lifecycle
from graceful.loops import format_frames, frames_of

__all__ = ["say_when_aborted"]

CAUSE: Final = "the worker hangs"

INNERMOST: Final = 20
"""Frames of the main thread to show: those of the arbiter, which has forked it, say nothing."""


def say_when_aborted(lifecycle: Lifecycle, timeout: float) -> None:
    """Name what hangs on SIGABRT, then go on as the worker would have. In the main thread.

    Args:
        lifecycle: of the worker's process.
        timeout: gunicorn's, in seconds.
    """
    before: Any = signal.getsignal(signal.SIGABRT)
    said = False

    def aborted(number: int, frame: FrameType | None) -> None:
        nonlocal said
        if not said:
            said = True
            _say(lifecycle, timeout, frame)
        if callable(before):
            before(number, frame)
        elif before is signal.SIG_DFL:
            signal.signal(number, before)
            signal.raise_signal(number)

    signal.signal(signal.SIGABRT, aborted)


def _say(lifecycle: Lifecycle, timeout: float, frame: FrameType | None) -> None:
    """Name what is in flight, and the main thread, which is at `frame`."""
    core, now = lifecycle.core, lifecycle.clock()
    stuck = [each for each in core.stragglers(now, stacks=True) if each.kind != "hold"]
    core.retire(CAUSE, now, signal=False)  # its instance stays, unless it has been told to go
    core.tally.cut += stuck
    text = f"{os.getpid()}: no sign of life for timeout = {timeout:g} s; its main thread"
    stack = format_frames(frames_of(frame)[-INNERMOST:])
    worker = Straggler("worker", text, "", timeout, core.phase.value, stack)
    lifecycle.publish(ExchangeCut((worker, *stuck), 0.0))
