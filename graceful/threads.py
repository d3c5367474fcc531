"""An event loop for code that has none of its own, and threads that are threads under gevent too.

WSGI servers have no loop on which a drain could be driven, so it gets one in a thread. Under
gevent's monkey patching `threading.Thread` makes greenlets: a loop in one of those would be stopped
by whatever blocks the hub, and, worse, `asyncio.get_running_loop` would find it in every greenlet
of the thread (Django refuses its ORM then, `asyncio.run` anything). So threads are started by what
`get_original` gives, which is public. The selector stays gevent's: locks that a greenlet waits for
are handed on by the hub of the thread that had them first, and this way it runs while we sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from importlib import import_module
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread

from .loops import AsyncioInterrupt, AsyncioLoop, Interrupt, current_loop

__all__ = ["ThreadLoop", "in_thread", "original", "start_daemon", "start_work", "wait_for"]

T = TypeVar("T")

BACKEND: Final = "anyio._backends._asyncio"
"""A private name of anyio's (4.16), which loads it when it is used: here after the signal, when a
new version may lie where the files were. Without the name it does so."""

LAST_TURN: Final = 1.0
"""Seconds in which the thread of a closed loop has ended, if its tasks let it."""


class ThreadLoop:
    """An asyncio loop in one daemon thread, which is started when there is something to run."""

    name = "thread"

    def __init__(self) -> None:
        with contextlib.suppress(ImportError):
            import_module(BACKEND)
        self._lock = _lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: AsyncioLoop | None = None
        self._has_ended: Callable[[], bool] | None = None
        self._closed = False

    def soon(self, callback: Callable[[], object]) -> bool:
        running = self._started()
        return running is not None and running.soon(callback)

    def spawn(self, job: Callable[[], Awaitable[None]]) -> None:
        assert self._running is not None, "only code on the loop spawns"
        self._running.spawn(job)

    def interrupt(self) -> Interrupt:
        return AsyncioInterrupt()

    def tasks(self) -> Iterable[asyncio.Task[Any]]:
        return () if self._running is None else self._running.tasks()

    def is_current(self) -> bool:
        return self._running is not None and self._running.is_current()

    def is_alive(self) -> bool:
        """Whether it can run something: also before its thread has been started."""
        return not self._closed

    def close(self) -> None:
        """End the thread; what still runs on it is cancelled. From any thread, also twice."""
        with self._lock:
            closed, self._closed = self._closed, True
            loop = self._loop
        if closed or loop is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        assert self._has_ended is not None
        self._has_ended()

    def _started(self) -> AsyncioLoop | None:
        """Return the loop, None when it has been closed."""
        if self._running is None:
            with self._lock:
                if self._running is None and not self._closed:
                    self._start()
        return None if self._closed else self._running

    def _start(self) -> None:
        ready = _lock()
        ready.acquire()
        self._has_ended = start_daemon(partial(self._run, ready.release), "graceful-loop")
        ready.acquire()  # until there is a loop: less than a millisecond
        assert self._loop is not None
        self._running = AsyncioLoop(self._loop)

    def _run(self, ready: Callable[[], object]) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            self._loop = runner.get_loop()
            ready()
            self._loop.run_forever()


def start_daemon(run: Callable[[], object], name: str) -> Callable[[], bool]:
    """Run `run`, which takes as long as the process, in a daemon thread of the operating system.

    Returns:
        A function that waits, `LAST_TURN` at most, for the end of the thread, and says whether it
        has come; in that thread it says no. Whoever tells the thread to end calls it, so that none
        of ours is left when the interpreter ends.
    """
    over, identity = _lock(), original("_thread", "get_ident")
    own: list[int] = []
    over.acquire()

    def run_to_the_end() -> None:
        own.append(identity())
        try:
            run()
        finally:
            _end_hub()
            over.release()

    def has_ended() -> bool:
        if identity() in own or not over.acquire(timeout=LAST_TURN):
            return False
        over.release()
        return True

    if _patched():
        original("_thread", "start_new_thread")(run_to_the_end, ())
    else:
        threading.Thread(target=run_to_the_end, name=name, daemon=True).start()
    return has_ended


def _end_hub() -> None:
    """End the hub that gevent has given this thread, which gevent asks for.

    One that is left to an interpreter that ends has corrupted its memory: with gevent 26.9 one
    worker in six ended with SIGABRT, after all was done.
    """
    if _patched():
        gevent: Any = import_module("gevent")
        gevent.get_hub().destroy(destroy_loop=True)


def start_work(run: Callable[[], object], name: str) -> None:
    """Run `run`, which is over soon, in a thread; asked by code on a `ThreadLoop`."""
    if _patched():
        gevent: Any = import_module("gevent")
        gevent.get_hub().threadpool.spawn(run)  # its threads have hubs that gevent takes care of
    else:
        start_daemon(run, name)


async def in_thread(function: Callable[[], object]) -> object:
    """Run sync code in a thread, which is left to itself when the caller is cancelled."""
    if not _patched():
        # In a tuple: trio takes an awaitable that comes back for a mistake.
        (result,) = await anyio.to_thread.run_sync(lambda: (function(),), abandon_on_cancel=True)
        return result
    loop, done, future = current_loop(), anyio.Event(), Future[object]()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)
        loop.soon(done.set)

    start_work(partial(copy_context().run, run), "graceful-hook")
    await done.wait()
    return future.result()


def wait_for(blocking: Callable[[], T]) -> T:
    """Return what `blocking` does, which waits for a thread; greenlets go on meanwhile."""
    if not _patched():
        return blocking()
    gevent: Any = import_module("gevent")
    result: T = gevent.get_hub().threadpool.apply(blocking)
    return result


def original(module: str, name: str) -> Any:
    """Return `name` of `module` as it was before gevent patched it, if it did."""
    if _patched():
        return sys.modules["gevent.monkey"].get_original(module, name)
    return getattr(import_module(module), name)


def _patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _lock() -> Any:
    """Return a lock that threads of the operating system can hand to each other."""
    return original("_thread", "allocate_lock")()
