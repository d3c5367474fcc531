"""The few things that differ between asyncio and trio, behind one small interface.

Found from the running loop when a life begins. anyio covers what waits (events, sleeps, time
limits); this file covers what anyio has no words for: reaching a loop from a signal or a thread,
starting a task that nobody awaits, and ending or interrupting one particular task.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context
from types import FrameType, TracebackType
from typing import Any, Protocol

__all__ = [
    "AsyncioInterrupt",
    "AsyncioLoop",
    "Interrupt",
    "Loop",
    "await_chain",
    "current_loop",
    "format_frames",
    "frames_of",
    "report_crash",
    "thread_working_for",
]


class Interrupt(Protocol):
    """A block of awaits that can be abandoned from outside, as if it had returned early.

    `with interrupt: …` swallows the cancellation that `fire` caused, and only that one. For one
    block: a new one is made for the next.
    """

    fired: bool
    """The block was told to end. It may have ended by itself all the same."""

    def fire(self) -> None:
        """Abandon the block; on the loop's thread. Nothing when it isn't entered yet, or over."""
        ...

    def __enter__(self) -> object: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool: ...


class Loop(Protocol):
    """One running event loop."""

    name: str

    def soon(self, callback: Callable[[], object]) -> bool:
        """Run `callback` on the loop, from any thread; False when the loop is gone."""
        ...

    def spawn(self, job: Callable[[], Awaitable[None]]) -> None:
        """Start `job` as a task of its own, on the loop's thread; its failure is logged."""
        ...

    def interrupt(self) -> Interrupt:
        """Return a new interrupt for use by the current task."""
        ...

    def tasks(self) -> Iterable[asyncio.Task[Any]]:
        """Return the asyncio tasks that are not done; none on other loops."""
        ...

    def is_current(self) -> bool:
        """Whether this loop is the one that runs the caller."""
        ...

    def is_alive(self) -> bool:
        """Whether this loop still runs."""
        ...


def current_loop() -> Loop:
    """Return the running loop.

    Raises:
        RuntimeError: no asyncio or trio loop is running in this thread.
    """
    try:
        return AsyncioLoop(asyncio.get_running_loop())
    except RuntimeError:
        if "trio" in sys.modules:
            from ._trio import TrioLoop

            return TrioLoop()
        raise


class AsyncioLoop:
    """asyncio, and uvloop, which has the same interface."""

    name = "asyncio"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: set[asyncio.Task[None]] = set()

    def soon(self, callback: Callable[[], object]) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop has been closed
            return False
        return True

    def spawn(self, job: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                await job()
            except Exception as error:
                report_crash(error)

        task = self._loop.create_task(run(), name="graceful")
        self._jobs.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._jobs.discard)

    def interrupt(self) -> Interrupt:
        return AsyncioInterrupt()

    def tasks(self) -> Iterable[asyncio.Task[Any]]:
        try:
            return asyncio.all_tasks(self._loop)
        except RuntimeError:  # a task of somebody else's making, such as granian's in Rust
            return ()

    def is_alive(self) -> bool:
        return self._loop.is_running()

    def is_current(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False


class AsyncioInterrupt:
    """`asyncio.timeout` without the clock: the same `cancel` and `uncancel` bookkeeping."""

    __slots__ = ("_before", "_cancelled", "_task", "fired")

    def __init__(self) -> None:
        self.fired = False
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._before = 0

    def fire(self) -> None:
        if self._task is None or self.fired:
            return
        self.fired = True
        if asyncio.current_task() is self._task:
            # The block itself is running. A cancellation would wait for the task's next await,
            # which may come after the block, so it is sent when the task is suspended.
            self._task.get_loop().call_soon(self._cancel)
        else:
            self._cancel()

    def _cancel(self) -> None:
        if self._task is not None and not self._task.done():
            self._cancelled = True
            self._task.cancel("graceful: told to reconnect")

    def __enter__(self) -> AsyncioInterrupt:
        task = asyncio.current_task()
        assert task is not None, "callbacks have no task that could be interrupted"
        self._task, self._before = task, task.cancelling()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        task, self._task = self._task, None
        if task is None or not self._cancelled:
            return False
        # Somebody else's cancellation on top of ours must go on.
        only_ours = task.uncancel() <= self._before
        return only_ours and kind is not None and issubclass(kind, asyncio.CancelledError)


def report_crash(error: Exception) -> None:
    """Log that a task or callback of ours failed: nobody awaits it who could."""
    logging.getLogger("graceful").error("a task of graceful's own failed", exc_info=error)


def await_chain(coroutine: object) -> list[FrameType]:
    """Return the frames of a suspended coroutine and of those that it awaits, outermost first."""
    frames: list[FrameType] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        frame = frame or getattr(coroutine, "ag_frame", None)
        if isinstance(frame, FrameType):
            frames.append(frame)
        inner = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
        coroutine = inner or getattr(coroutine, "ag_await", None) or _hidden_behind(coroutine)
    return frames


_OPAQUE = (
    "async_generator_asend",
    "async_generator_athrow",
    "anext_awaitable",
    "coroutine_wrapper",
)


def _hidden_behind(step: object) -> object:
    """Return what an opaque step awaits, such as the async generator of an `async for`.

    The interpreter has no attribute for it; its garbage collector knows.
    """
    if type(step).__name__ not in _OPAQUE:
        return None
    return next(filter(_leads_on, gc.get_referents(step)), None)


def _leads_on(thing: object) -> bool:
    known = hasattr(thing, "ag_frame") or hasattr(thing, "cr_frame")
    return known or type(thing).__name__ in _OPAQUE


_WORKERS = ("run", "worker_fn", "func", "thread_handler")
"""What runs the work of a thread: `run` of anyio and concurrent.futures, `worker_fn` of trio,
`func` of asgiref (3.13; Django's sync views), and in older ones `thread_handler`."""


def thread_working_for(wanted: Callable[[Context], bool]) -> list[FrameType]:
    """Return the stack of the thread that runs sync code in a context that is `wanted`, or [].

    Worker threads keep the caller's context in a local variable; nothing public leads from a
    request to the thread that serves it.
    """
    for top in sys._current_frames().values():
        frames: list[FrameType] = []
        frame: FrameType | None = top
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        for index, candidate in enumerate(frames):
            if candidate.f_code.co_name in _WORKERS and any(map(wanted, _contexts(candidate))):
                return frames[: index + 1][::-1]
    return []


def _contexts(frame: FrameType) -> list[Context]:
    local = frame.f_locals
    work = getattr(local.get("self"), "fn", None)  # concurrent.futures' work item
    bound = getattr(getattr(work, "func", None), "__self__", None)  # partial(context.run, ...)
    older = getattr(local.get("func"), "__self__", None)  # context.run
    return [c for c in (local.get("context"), bound, older) if isinstance(c, Context)]


def frames_of(top: FrameType | None) -> list[FrameType]:
    """Return the stack that ends in `top`, outermost first."""
    frames: list[FrameType] = []
    while top is not None:
        frames.append(top)
        top = top.f_back
    return frames[::-1]


def format_frames(frames: list[FrameType]) -> str:
    """Return source lines of `frames` as a traceback prints them."""
    lines = [
        traceback.FrameSummary(f.f_code.co_filename, f.f_lineno, f.f_code.co_name) for f in frames
    ]
    return "".join(traceback.StackSummary.from_list(lines).format()).rstrip()
