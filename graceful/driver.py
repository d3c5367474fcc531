"""The only file that waits: it walks one life through lame duck, drain and clean-up.

It runs on the app's event loop, from the first reason to stop until the server can be told to
leave. When to go on is the core's timeline, whom to tell is the core's plan, and each wait ends
early when `wake` is called (an exchange ended, a rung was climbed). Its own are the order of the
steps and how long it waits for what it has cut.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Protocol

import anyio

from .core.inflight import Exchange
from .core.lifecycle import LifecycleCore
from .core.phases import Phase
from .core.records import ExchangeCut, FarewellsSent, Fault, PhaseChanged, Record
from .loops import Loop
from .servers import Server
from .threads import in_thread

__all__ = ["Driver", "DriverOwner", "Hook", "HookPhase", "get_ready"]

CUT_LIMIT: Final = 0.5
"""Seconds that cut exchanges get to unwind before the process goes on without them."""

HookPhase = Literal["lame_duck", "drain", "cleanup"]


@dataclass(frozen=True, slots=True)
class Hook:
    """User code that runs at one point of a stop."""

    phase: HookPhase
    run: Callable[[], object]
    """Sync (run in a thread) or async, without arguments."""
    timeout: float | None = None
    """Seconds; None = whatever its phase has left."""

    @property
    def name(self) -> str:
        """How logs call it."""
        return getattr(self.run, "__qualname__", repr(self.run))


class DriverOwner(Protocol):
    """What the driver needs of the process that it drives."""

    core: LifecycleCore
    step: str
    """What the stop is busy with, for the report of the watchdog."""

    @property
    def hooks(self) -> list[Hook]: ...

    @property
    def servers(self) -> list[tuple[Server, Loop]]: ...

    @property
    def port_goes(self) -> bool:
        """Whether the siblings and the parent give up a listener that is shared, too."""
        ...

    def leave_servers(self) -> None:
        """Have every server start its own shutdown."""
        ...

    def clock(self) -> float: ...

    def publish(self, record: Record | None) -> None: ...

    def move(self, step: Callable[[float], PhaseChanged | None]) -> None:
        """Take one step of the core under the owner's lock and publish what came of it."""
        ...


async def get_ready() -> None:
    """Load what a driver needs of anyio, which else loads it when it is used: after the signal.

    That would take 50 to 100 ms, in which the loop serves nobody, and by then a new version may lie
    where the files were. As a task of the loop; a `ThreadLoop` does so without being started.
    """
    anyio.Event()
    anyio.move_on_after(0)


class Driver:
    """Walks one life to its end. `drain` may be awaited by several callers; it runs once."""

    def __init__(self, owner: DriverOwner, loop: Loop) -> None:
        self._owner = owner
        self._core = owner.core
        self.loop = loop
        self._wake = anyio.Event()
        self._running = False
        self.lingers = True
        self._drained = anyio.Event()
        self._cleaned = False
        self._announced = False
        self._hooks: list[anyio.CancelScope] = []  # those that run beside the rest
        self._hooks_before: anyio.Event | None = None

    # -- waking --------------------------------------------------------------------------

    def wake(self) -> None:
        """End the current wait; from any thread."""
        if self.loop.is_current():
            self._wake.set()
        else:
            self.loop.soon(lambda: self._wake.set())

    async def _pause(self, until: float) -> None:
        """Wait for `wake` or until `until` on the owner's clock."""
        with anyio.move_on_after(max(0.0, until - self._owner.clock())):
            await self._wake.wait()
        self._wake = anyio.Event()

    # -- the choreography ----------------------------------------------------------------

    async def stop_and_leave(self) -> None:
        """After a signal: the whole choreography, then the server's own shutdown."""
        try:
            await self.drain()
        except Exception as error:  # what is left of the grace period would pass with nothing done
            self._owner.publish(Fault("the drain", _brief(error)))
        self._owner.leave_servers()

    def spawn(self, job: Callable[[], Awaitable[None]]) -> None:
        """Start `job` as a task of its own, on the driver's loop."""
        self.loop.spawn(job)

    async def drain(self, *, lingers: bool = True) -> None:
        """Return when nothing is in flight any more or the drain deadline has passed.

        `lingers` is False when the server has closed its connections already.
        """
        if self._running:
            await self._drained.wait()
            return
        self._running = True
        self.lingers = lingers
        self.announce()
        self._core.tracker.on_end = self.wake
        for exchange in tuple(self._core.tracker.live):
            exchange.watch()
        try:
            await self._serve_delay()
            if self._core.phase is Phase.DRAINING:
                await self._empty()
        finally:
            self._core.tracker.on_end = None
            self._drained.set()

    async def _serve_delay(self) -> None:
        core = self._core
        if core.phase is not Phase.LAME_DUCK:
            return
        while core.phase is Phase.LAME_DUCK and core.timeline is not None:
            if self._owner.clock() >= core.timeline.delay_ends:
                self._owner.move(core.delay_over)
                return
            await self._pause(core.timeline.delay_ends)

    async def _empty(self) -> None:
        """DRAINING: stop accepting, tell the streams, let the rest finish, cut what is left."""
        core, servers = self._core, self._owner.servers
        self._start_hooks("drain", self._deadline)
        round_ = _Drain(self, [server for server, _ in servers])
        shared = any(server.shares_listener for server, _ in servers)
        if shared and not self._owner.port_goes:
            # The socket goes on listening in the parent or a sibling whatever this process does;
            # to stop accepting early would only leave clients hanging in the backlog.
            await round_.until_old_work_is_done()
        for server, loop in servers:
            stop = partial(self._stop_accepting, server)
            if loop.is_current():
                await stop()
            else:
                loop.soon(partial(loop.spawn, stop))
        await round_.until_idle()
        self._end_hooks()
        round_.say_told()
        if len(core.tracker):
            await self._cut()

    async def _stop_accepting(self, server: Server) -> None:
        """A server that is not as it was when it was tested goes on accepting, and drains."""
        try:
            await server.stop_accepting()
        except Exception as error:
            self._owner.publish(Fault(f"closing the listener of {server.name}", _brief(error)))

    def _deadline(self) -> float:
        """The drain deadline; none in an operator's lame duck, which has no end of its own."""
        timeline = self._core.timeline
        return timeline.drain_deadline if timeline else math.inf

    async def _cut(self) -> None:
        core, now = self._core, self._owner.clock()
        stragglers = core.stragglers(now, stacks=True)
        core.tally.cut += [s for s in stragglers if s.kind != "hold"]
        core.tally.holds += [s.name for s in stragglers if s.kind == "hold"]
        self._owner.publish(ExchangeCut(tuple(stragglers), self._after()))
        for exchange in tuple(core.tracker.live):
            exchange.cut = True
            exchange.start_cut(self._failed_farewell)
        give_up = now + CUT_LIMIT
        while core.tracker.live and self._owner.clock() < give_up:
            await self._pause(give_up)

    def _after(self) -> float:
        timeline = self._core.timeline
        return self._owner.clock() - timeline.signalled if timeline else 0.0

    def _failed_farewell(self, exchange: Exchange, error: Exception) -> None:
        self._core.tally.farewells_failed += 1
        self._owner.publish(Fault(f"farewell to a {exchange.kind}", _brief(error)))

    # -- hooks ---------------------------------------------------------------------------

    def announce(self) -> None:
        """Readiness has flipped, for whatever reason: run the lame duck hooks, once."""
        if not self._announced:
            self._announced = True
            self._start_hooks("lame_duck", self._deadline)

    async def flipped(self) -> None:
        """Code has taken the process out of rotation, while it goes on serving."""
        self.announce()

    def recovered(self) -> None:
        """The process is back in rotation: the next flip is announced again."""
        self._announced = False

    def _start_hooks(self, phase: HookPhase, deadline: Callable[[], float]) -> None:
        """Run the hooks of `phase` beside the drain, in order; it is not over before they are."""
        hooks = [hook for hook in self._owner.hooks if hook.phase == phase]
        if not hooks:
            return
        scope, before, over = anyio.CancelScope(), self._hooks_before, anyio.Event()
        self._hooks.append(scope)
        self._hooks_before = over

        async def run() -> None:
            if before is not None:
                await before.wait()
            with scope:
                await self._run_hooks(hooks, deadline)
            self._hooks.remove(scope)
            over.set()
            self._wake.set()

        self.loop.spawn(run)

    def _end_hooks(self) -> None:
        for scope in self._hooks:
            scope.cancel()

    @property
    def hooks_run(self) -> bool:
        """Whether hooks still run beside the drain."""
        return bool(self._hooks)

    async def clean_up(self, hooks: Sequence[Hook]) -> None:
        """Run the clean-up hooks among `hooks`, in order, once, within the clean-up budget."""
        if self._cleaned:
            return
        self._cleaned = True
        timeline = self._core.timeline
        ends = timeline.cleanup_deadline if timeline else math.inf
        # A drain that ended early leaves clean-up its own time, not the rest of the drain's.
        ends = min(ends, self._owner.clock() + self._core.settings.cleanup_timeout)
        await self._run_hooks([hook for hook in hooks if hook.phase == "cleanup"], lambda: ends)

    async def _run_hooks(self, hooks: list[Hook], deadline: Callable[[], float]) -> None:
        for hook in hooks:
            left = max(0.0, deadline() - self._owner.clock())
            limit = left if hook.timeout is None else min(left, hook.timeout)
            self._owner.step = f"on_{hook.phase} hook {hook.name}"
            try:
                with anyio.move_on_after(limit) as scope:
                    await call(hook.run)
                if scope.cancelled_caught:
                    error = f"took longer than its {limit:.3g} s; the stop goes on without it"
                    self._owner.publish(Fault(f"on_{hook.phase} hook {hook.name}", error))
            except anyio.get_cancelled_exc_class():
                error = "its phase is over; the stop goes on without it"
                self._owner.publish(Fault(f"on_{hook.phase} hook {hook.name}", error))
                raise
            except Exception as error:
                self._owner.publish(Fault(f"on_{hook.phase} hook {hook.name}", _brief(error)))


class _Drain:
    """One drain: farewells, linger and work in flight side by side."""

    def __init__(self, driver: Driver, servers: list[Server]) -> None:
        self._driver = driver
        self._owner = driver._owner
        self._core = driver._core
        self._servers = servers
        start = self._owner.clock()
        self._old = tuple(self._core.tracker.live)
        plan = self._core.farewells()
        finishing = [s for s in self._core.tracker.streams() if s.policy == "finish"]
        self._core.tally.streams_left_to_finish = len(finishing)
        self._to_tell = [(start + offset, exchange) for offset, exchange in reversed(plan)]
        self._accepted_until: float | None = None

    async def until_old_work_is_done(self) -> None:
        """Return when what was in flight at the start is over, with time left for the linger."""
        core, settings = self._core, self._core.settings
        while True:
            now = self._owner.clock()
            latest = self._driver._deadline() - settings.linger - CUT_LIMIT
            self._tell_due(now)
            if now >= latest or not (self._to_tell or self._alive(self._old)):
                return
            await self._driver._pause(min(latest, self._next_step(now)))
            if core.rung >= 3:
                return

    async def until_idle(self) -> None:
        """Return when nothing is in flight and the linger is over, or the deadline has passed."""
        self._accepted_until = self._owner.clock()
        while True:
            now = self._owner.clock()
            deadline = self._driver._deadline()
            self._tell_due(now)
            if now >= deadline:
                return
            if self._is_idle() and now >= self._lingers_until():
                return
            await self._driver._pause(min(deadline, self._next_step(now)))

    def _is_idle(self) -> bool:
        return not (self._to_tell or len(self._core.tracker) or self._driver.hooks_run)

    def _alive(self, exchanges: tuple[Exchange, ...]) -> bool:
        live = self._core.tracker.live
        return any(exchange in live for exchange in exchanges) or bool(self._core.tracker.holds)

    def _lingers_until(self) -> float:
        """Nobody can send a request any more once the last connection is gone."""
        assert self._accepted_until is not None
        connected = any(server.has_connections() for server in self._servers)
        if not self._driver.lingers or not connected:
            return self._accepted_until
        return self._accepted_until + self._core.settings.linger

    def _next_step(self, now: float) -> float:
        """Return when there is something to do after `now`, by which the caller has decided.

        Another look at the clock could fall on the other side of the end of the linger.
        """
        steps = [self._core.next_oversleep()]
        if self._to_tell:
            steps.append(self._to_tell[-1][0])
        if self._accepted_until is not None and (ends := self._lingers_until()) > now:
            steps.append(ends)
        return min(steps)

    def _tell_due(self, now: float) -> None:
        """Send the farewells whose time has come; cancel apps that have overslept theirs."""
        hurried = self._core.rung >= 3
        while self._to_tell and (hurried or self._to_tell[-1][0] <= now):
            exchange = self._to_tell.pop()[1]
            if exchange in self._core.tracker.live:
                exchange.start_farewell(self._driver._failed_farewell)
        for exchange in self._core.oversleepers(now):
            exchange.end_app()

    def say_told(self) -> None:
        """Tell the observers how many streams were told; one record, not one for each."""
        tally = self._core.tally
        if tally.told or tally.farewells_failed or tally.streams_left_to_finish:
            self._owner.publish(
                FarewellsSent(
                    told=tally.told,
                    left_to_finish=tally.streams_left_to_finish,
                    failed=tally.farewells_failed,
                    window=self._core.window,
                    after=self._driver._after(),
                )
            )


async def call(function: Callable[..., object], *arguments: object) -> object:
    """Call user code that may be sync or async; sync code runs in a thread that can be left."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - asks how it is defined, not whether
    ):
        result: object = function(*arguments)
    else:
        result = await in_thread(lambda: function(*arguments))
    if inspect.isawaitable(result):
        awaitable: Awaitable[object] = result
        try:
            return await awaitable
        except asyncio.CancelledError as error:
            # `task.cancel(); await task` is how people end a task: it is no cancellation of ours.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RuntimeError("it let a CancelledError out") from error
    return result


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
