"""trio behind the interface of `graceful.loops`, which imports this file where trio runs.

What trio does differently: an exception in a callback or a system task ends the whole program, so
none may leave here, and cancellation belongs to a block (a scope), never to a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from types import TracebackType
from typing import Any

import trio

from .loops import Interrupt, report_crash

__all__ = ["TrioInterrupt", "TrioLoop"]


class TrioLoop:
    """The trio run that is under way in this thread."""

    name = "trio"

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()

    def soon(self, callback: Callable[[], object]) -> bool:
        def call() -> None:
            try:
                callback()
            except Exception as error:
                report_crash(error)

        try:
            self._token.run_sync_soon(call)
        except trio.RunFinishedError:
            return False
        return True

    def spawn(self, job: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                await job()
            except Exception as error:
                report_crash(error)

        trio.lowlevel.spawn_system_task(run, name="graceful", context=copy_context())

    def interrupt(self) -> Interrupt:
        return TrioInterrupt()

    def tasks(self) -> Iterable[asyncio.Task[Any]]:
        return ()

    def is_current(self) -> bool:
        try:
            return trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:
            return False

    def is_alive(self) -> bool:
        return self.soon(lambda: None)  # trio has no other public way to ask


class TrioInterrupt:
    """A cancel scope that counts only while it is entered."""

    __slots__ = ("_scope", "fired")

    def __init__(self) -> None:
        self.fired = False
        self._scope: trio.CancelScope | None = None

    def fire(self) -> None:
        if self._scope is not None and not self.fired:
            self.fired = True
            self._scope.cancel()

    def __enter__(self) -> TrioInterrupt:
        self._scope = trio.CancelScope()
        self._scope.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        scope, self._scope = self._scope, None
        return scope is not None and scope.__exit__(kind, error, trace)
