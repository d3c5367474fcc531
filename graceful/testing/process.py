"""What processes in memory have in common: a lifecycle of their own, time, signals, the order of
events. How an app is called is in `asgi.py` and `wsgi.py`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio.to_thread

import graceful.lifecycle

from ..core.budget import ServerLimit
from ..core.lifecycle import Cause
from ..core.phases import Phase
from ..core.records import DrainReport, PhaseChanged, Record
from ..core.traits import UNKNOWN
from ..lifecycle import Lifecycle
from ..members import Member
from ..servers import ServerOwner
from .clock import FakeClock, NothingLeft, VirtualLoop, needs_a_plain_test

__all__ = ["Process"]

T = TypeVar("T")

SETTLE: Final = 30
"""Turns of the loop in which everything has run that could, without time passing."""


class _Server:
    """The server of a process in memory: it never closes what the lifecycle has not let go of."""

    name = "graceful.testing"
    version = ""
    traits = UNKNOWN
    managed = shares_listener = development = needs_lifespan = False

    def __init__(self) -> None:
        self.owner: ServerOwner | None = None
        self.leaving = asyncio.Event()

    def limits(self) -> Sequence[ServerLimit]:
        return ()

    def attach(self, owner: ServerOwner) -> None:
        self.owner = owner

    def detach(self) -> None:
        """The owner is asked for the exit status after that."""

    async def stop_accepting(self) -> None:
        """There is no listener."""

    def has_connections(self) -> bool:
        return True

    def leave(self) -> None:
        self.leaving.set()


class _Lifecycle(Lifecycle):
    """A lifecycle whose server and signals are the test's."""

    def __init__(self, clock: Callable[[], float], draw: Callable[[], float]) -> None:
        super().__init__(clock=clock, draw=draw)
        self.server = _Server()

    def _attach(self, member: Member) -> None:
        if not member.guest:
            self._loud = True
            self._adopt(member, self.server)

    def sigterm(self) -> None:
        """Climb one rung, as on a signal, but for the watchdog: the program is not ours to end."""
        self._climb(min(self.core.rung + 1, 3), Cause("SIGTERM", signal=True))


class Process:
    """A process that serves an app object, from start-up to exit, inside a `with` block.

    Args:
        seed: of the random numbers: farewell times, retry delays, the ramp of `Connection: close`.

    Raises:
        RuntimeError: an event loop runs already, as in an `async def` test.
    """

    def __init__(self, *, seed: int = 0) -> None:
        needs_a_plain_test(type(self).__name__)
        self.clock = FakeClock()
        self.events: list[str] = []
        """What happened, in order: signals, phases, requests and their ends, lifespan."""
        self.records: list[Record] = []
        """Everything that observers were told (`graceful.core.records`)."""
        self.exit_status: int | None = None
        """0, or 70 when something was cut; None while the process runs."""
        self._lifecycle = _Lifecycle(self.clock, random.Random(seed).random)
        self._lifecycle.observe(self._note)
        self._loop = VirtualLoop(self.clock)
        self._runner = asyncio.Runner(loop_factory=lambda: self._loop)
        self._stopping: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._before: Lifecycle | None = None

    # -- what a test does ------------------------------------------------------------------

    def sigterm(self) -> None:
        """Send SIGTERM: the first begins the stop, the second skips the delay, the third cuts."""
        self.events.append("SIGTERM")
        self._run(self._sigterm())

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, and happen what is due in them."""
        self._run(asyncio.sleep(seconds))

    def until(self, phase: Phase) -> None:
        """Let time pass until the process is in `phase`, or has exited.

        Raises:
            NothingLeft: it won't ever be.
        """
        self._run(self._until(lambda: self.phase is phase))

    def run(self) -> None:
        """Let time pass until the process has exited.

        Raises:
            NothingLeft: it won't ever: nobody has asked it to stop.
        """
        self._run(self._until(lambda: False))

    @property
    def phase(self) -> Phase:
        """Where the process is in its life."""
        return self._lifecycle.phase

    @property
    def now(self) -> float:
        """Seconds since the first SIGTERM; negative before it, and infinitely so without any."""
        timeline = self._lifecycle.core.timeline
        return self.clock() - timeline.signalled if timeline else float("-inf")

    @property
    def report(self) -> DrainReport:
        """The drain report.

        Raises:
            LookupError: there is none yet.
        """
        for record in self.records:
            if isinstance(record, DrainReport):
                return record
        raise LookupError(f"no drain report yet: the process is {self.phase.value}")

    # -- from start-up to exit -----------------------------------------------------------

    def __enter__(self) -> Self:
        self._before = graceful.lifecycle._process
        graceful.lifecycle._process = self._lifecycle
        try:
            self._run(self._begin())
        except BaseException:
            self._put_away()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and self.exit_status is None:
                self._run(self._end())
        finally:
            self._put_away()

    def _put_away(self) -> None:
        assert self._before is not None
        graceful.lifecycle._process = self._before
        self._runner.close()

    async def _begin(self) -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        self._loop.is_busy = lambda: limiter.borrowed_tokens > 0
        await self._start_app()
        self._stopping = asyncio.create_task(self._leave_when_told())

    async def _leave_when_told(self) -> None:
        server = self._lifecycle.server
        await server.leaving.wait()
        await self._end()

    async def _end(self) -> None:
        """What a server does when it stops: shut the app down, then ask for the exit status."""
        await self._stop_app()
        owner = self._lifecycle.server.owner
        self.exit_status = await owner.server_gone() if owner is not None else 0
        self.happened(f"exit {self.exit_status}")
        if self._stopping is not None and self._stopping is not asyncio.current_task():
            self._stopping.cancel()

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached() and self.exit_status is None:
            if self._stopping is not None and self._stopping.done():
                self._stopping.result()  # raises what has gone wrong
            if self._lifecycle.core.cause is None:
                raise NothingLeft("the process serves: nobody has asked it to stop; call sigterm()")
            await self._changed.wait()

    async def _sigterm(self) -> None:
        self._lifecycle.sigterm()
        await self._settle()

    async def _settle(self) -> None:
        """Let everything run that can, without time passing."""
        for _ in range(SETTLE):
            await asyncio.sleep(0)

    def _run(self, step: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(step)

    def _note(self, record: Record) -> None:
        self.records.append(record)
        if isinstance(record, PhaseChanged):
            self.happened(record.new.value)

    def happened(self, event: str) -> None:
        """Note an event, and wake who waits for one. An app under test may note its own."""
        self.events.append(event)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- what a kind of app has to say -------------------------------------------------------

    async def _start_app(self) -> None:
        raise NotImplementedError

    async def _stop_app(self) -> None:
        raise NotImplementedError
