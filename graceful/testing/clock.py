"""Time that passes only when everything waits: a clock, and an asyncio loop that lives by it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final

__all__ = ["FakeClock", "NothingLeft", "VirtualLoop", "needs_a_plain_test"]

PATIENCE: Final = 5.0
"""Real seconds that a thread which nobody knows of gets to wake the loop."""


BUSY_LIMIT: Final = 60.0
"""Real seconds that work in a thread may take: a test that hangs tells nobody why."""


class NothingLeft(Exception):
    """What was waited for can't come any more: nothing is due, and no thread is at work."""


def needs_a_plain_test(what: str) -> None:
    """Refuse to run a loop within a loop.

    Raises:
        RuntimeError: an event loop runs in this thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        f"{what} runs an event loop of its own: use it in a plain `def` test, not in an `async def`"
    )


class FakeClock:
    """Seconds that pass when they are told to. Call it for the time."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"time does not run back: advance({seconds:g})")
        self._now += seconds


class _JumpingSelector(selectors.DefaultSelector):
    """Where a loop would sleep, its clock jumps to the moment at which it would have woken."""

    def __init__(self, clock: FakeClock, is_busy: Callable[[], bool]) -> None:
        super().__init__()
        self._clock = clock
        self._is_busy = is_busy

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._is_busy():  # real time, until the thread is done
            ready = super().select(BUSY_LIMIT)
            if not ready:
                raise NothingLeft(f"work in a thread has not come back for {BUSY_LIMIT:g} s")
            return ready
        if timeout is not None:
            self._clock.advance(timeout)
            return ready
        ready = super().select(PATIENCE)
        if not ready:
            raise NothingLeft(
                f"nothing is due and no thread has had anything to say for {PATIENCE:g} s; what is "
                "waited for will not come"
            )
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time. While work of its own is in threads, time is real."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._in_threads = 0
        self.is_busy: Callable[[], bool] = lambda: False
        """Whether more threads are at work than went through `run_in_executor`."""
        super().__init__(_JumpingSelector(clock, lambda: bool(self._in_threads) or self.is_busy()))

    def time(self) -> float:
        return self._clock()

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._in_threads += 1
        future.add_done_callback(self._back)
        return future

    def _back(self, _: asyncio.Future[Any]) -> None:
        self._in_threads -= 1
