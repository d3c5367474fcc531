"""The edge of the process: one `Lifecycle` owns the clock, the lock, signals, driver and observers.

It joins the pure core to the world and decides nothing that the core could. Shells register with
`join`/`leave`; a life begins with the first app that joins and ends when the last one leaves, and
then nothing is left behind: no handler, no thread, no alarm.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import anyio

from .board import Board, Order, Slot
from .core.budget import Settings, SettingsError, check
from .core.inflight import Hold, Tracker
from .core.lifecycle import Cause, LifecycleCore
from .core.phases import IllegalTransition, Phase
from .core.records import (
    BudgetShort,
    DrainReport,
    ExchangeCut,
    Fault,
    Notice,
    PhaseChanged,
    Record,
    Started,
    Straggler,
)
from .driver import Driver, Hook, HookPhase, get_ready
from .guard import Guard
from .loops import Loop, current_loop, format_frames, frames_of
from .managed import Managed
from .members import Member, Members
from .observers import Broadcast, LogObserver, Observer, render_plain
from .servers import Server, Worker, detect
from .settings import for_development
from .signals import HANDLED, in_main_thread

__all__ = ["Lifecycle", "current", "on_terminal"]


OWN = (ExchangeCut, Fault, Notice, BudgetShort)
"""Records in which a worker speaks of itself; of a stop the parent speaks for all workers."""


class _Owner:
    """What the server of one member may ask of the lifecycle."""

    def __init__(self, lifecycle: Lifecycle, member: Member) -> None:
        self._lifecycle = lifecycle
        self._member = member

    async def stop(self, cause: str, *, retires: bool = False) -> None:
        """Drain, unless another server of this process goes on serving."""
        if self._lifecycle.is_last(self._member):
            await self._lifecycle.stop(cause, retires=retires)

    async def server_gone(self) -> int:
        """An app without lifespan ends here, and with the last server the life."""
        return await self._lifecycle.server_gone(self._member)

    def accepts_no_more(self) -> bool:
        """The listener closes now. Returns whether it is to be shut down for all who hold it."""
        board = self._lifecycle.board
        return board is not None and board.spawns and board.accepts_no_more(self._lifecycle.slot)

    def drain_left(self) -> float:
        """Return the seconds until the drain deadline; a moment more once it has passed."""
        return max(0.1, self._lifecycle.remaining())


class Lifecycle:
    """The life of this process: `graceful.current()` finds it.

    Methods may be called from any thread unless they are `async`; those belong on an app's loop.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.clock = clock
        self._draw = draw
        self._lock = threading.RLock()
        self._members = Members()
        self._broadcast = Broadcast([LogObserver()])
        self._waiting: list[tuple[Loop, anyio.Event]] = []
        self._own_hooks: list[Hook] = []
        self._said: set[str] = set()
        self.defaults: Settings | None = None
        """Settings that a server's own configuration brings: what keywords of the apps add to."""
        self.problem: SettingsError | None = None
        """What is wrong with the settings of an app that its server can't be asked for."""
        self.board: Board | None = None
        """What a managing parent of this process writes; None = nobody manages it."""
        self.slot = 0
        """Where on the board this worker writes its numbers."""
        self.core = LifecycleCore(Settings(), draw)
        self._reset(Settings())

    def _reset(self, settings: Settings) -> None:
        """Begin a fresh life in memory; nothing outside is touched."""
        holds = self.core.tracker.holds
        self.core.tracker.serving(False)  # who still holds on to it shall look again
        self.core = LifecycleCore(settings, self._draw)
        self.core.tracker.on_batch = self._check_budget
        self.core.tracker.holds.update(holds)  # work may begin before the first app does
        self._driver: Driver | None = None
        self._driving = False
        self._managed: Managed | None = None
        self._guard = Guard(self._log_last_report, self._plain_last_report)
        self._loud = False
        self._finished = False
        self.step = ""

    # -- what code of the user's may call ---------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.core.settings

    @property
    def phase(self) -> Phase:
        """Where the process is in its life."""
        return self.core.phase

    @property
    def tracker(self) -> Tracker:
        """What is in flight."""
        return self.core.tracker

    def terminate(self, cause: str = "lifecycle.terminate()") -> None:
        """Stop as on SIGTERM: lame duck, drain, leave. A second call skips the delay, a third cuts.

        Never arms the watchdog: a program that embeds a server is not ours to kill.
        """
        self._climb(min(self.core.rung + 1, 3), Cause(cause))

    def lame_duck(self) -> None:
        """Take this process out of rotation until `recover` or a signal. For code; no endpoint."""
        loud, self._loud = self._loud, True
        try:
            self.move(self.core.lame_duck)
        except IllegalTransition:
            self._loud = loud
            raise
        self._on_loop(lambda driver: driver.spawn(driver.flipped))

    def recover(self) -> None:
        """Put this process back into rotation after `lame_duck`.

        Raises:
            RuntimeError: a signal has asked this process to stop, or it is not in lame duck.
        """
        self.move(self.core.recover)
        self._on_loop(lambda driver: driver.recovered())

    def draining(self) -> bool:
        """Whether the drain has begun: long work should come to an end."""
        return self.core.traits.stopping

    def remaining(self) -> float:
        """Return the seconds left for work, infinite until the process is told to stop."""
        return self.core.remaining(self.clock())

    async def wait_draining(self) -> None:
        """Return when the drain begins."""
        waiter = (current_loop(), anyio.Event())
        self._waiting.append(waiter)
        try:
            if not self.draining():
                await waiter[1].wait()
        finally:
            self._waiting.remove(waiter)

    def add_hook(
        self, phase: HookPhase, hook: Callable[[], object], *, timeout: float | None = None
    ) -> None:
        """Run `hook` (sync or async, no arguments) at `phase` of each stop, in order of addition.

        Args:
            timeout: seconds; None = what the phase has left. Never runs past the budget.
        """
        entry = Hook(phase, hook, timeout)
        self._own_hooks.append(entry)

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Tell `observer` of each record from now on; call the result to end that."""
        self._broadcast.add(observer)
        return lambda: self._broadcast.remove(observer)

    # -- joining and leaving ----------------------------------------------------------------

    @property
    def loop(self) -> Loop | None:
        """The loop on which the driver runs: that of the first app still alive."""
        return self._members.loop

    @property
    def hooks(self) -> list[Hook]:
        """Every hook of this life: those added by code, then each app's own."""
        return self._own_hooks + self._members.hooks

    @property
    def port_goes(self) -> bool:
        """Whether all who hold the listener give it up: who stops accepting last shuts it down."""
        return self.board is not None and self.board.spawns and self.board.port_goes

    @property
    def servers(self) -> list[tuple[Server, Loop]]:
        """The servers of the apps that are alive, each with its loop; a guest knows of none."""
        return self._members.servers

    def join(self, member: Member) -> None:
        """An app begins to take part. The first one begins a life.

        Raises:
            SettingsError: another app of this process has settings that contradict.
        """
        with self._lock:
            self._members.forget_ended()
            if self.core.phase not in (Phase.STARTING, Phase.SERVING, Phase.LAME_DUCK):
                self._members.clear()  # that life is ending, and this app begins another
            self._members.check(member)
            fresh = self.core.phase is Phase.STARTING and self.core.settings == member.settings
            if not self._members and not fresh:
                self._release()
                self._reset(member.settings)
            self._members.add(member)
            try:
                self._attach(member)
            except SettingsError:
                self._members.remove(member)
                if not self._members:
                    self._release()
                raise
        if member.loop.is_current():
            member.loop.spawn(get_ready)

    def _attach(self, member: Member) -> None:
        """Find the server of `member` and take the signals, where there are any to take."""
        if member.guest:
            return
        main = in_main_thread()
        handler = signal.getsignal(signal.SIGTERM) if main else None
        server = detect(handler, member.receive, lambda text: self.say_once(Notice(text)))
        if server is not None:
            self._adopt(member, server)
        if self.board is not None:
            self._obey(self.board, server)
            return
        theirs = callable(handler) and not self._guard.takes_signals
        self._loud = self._loud or server is not None or theirs
        if main and not self._guard.takes_signals:
            if self._loud or (member.lifespan and handler is signal.SIG_DFL):
                signals = HANDLED if self._loud else (signal.SIGTERM,)
                self._guard.take_signals(signals, self._on_signal, self.clock, self.settings)
        elif server is not None and not main and not server.development:
            self.say_once(
                Notice(
                    f"{server.name} runs outside the main thread, where no signal arrives; "
                    "call graceful.current().terminate() to stop it gracefully"
                )
            )
        if isinstance(server, Worker) and server.told_early():
            self._on_signal(signal.SIGTERM, self.clock())

    def _adopt(self, member: Member, server: Server) -> None:
        findings = check(self.core.settings, server.limits())
        for finding in findings:
            if finding.severity == "error":
                raise SettingsError(finding.text)
            self.say_once(Notice(finding.text))
        if server.development:
            self.core.settings = for_development(self.core.settings, f"{server.name} --reload")
        if self.board is not None:
            server.managed = True
            server.shares_listener = server.shares_listener or not self.board.spawns
        if not server.traits.knows(server.version):
            self.say_once(Notice(untested(server)))
        member.server = server
        server.attach(_Owner(self, member))

    def _obey(self, board: Board, server: Server | None) -> None:
        """Follow what the parent writes on `board`: a SIGTERM alone says nothing."""
        if self._managed is None:
            self._managed = Managed(board, self, self.clock)
        # Ctrl-C reaches parents and workers; that of `graceful run` says what it means.
        signals = HANDLED if board.spawns else (signal.SIGTERM,)
        self._guard.follow_parent(signals, self._managed.on_sigterm)
        if isinstance(server, Worker) and server.told_early():
            self._managed.on_sigterm(signal.SIGTERM, None)

    def started(self) -> None:
        """An app is ready to serve."""
        if self.phase is Phase.STARTING:
            self.move(self.core.started)
            self._say_started()
            if self.board is not None and self.board.spawns:
                self.board.begins_to_serve(self.slot, self.core.settings)
            if self._managed is not None:
                self._managed.start()

    def _say_started(self) -> None:
        if self._loud and self.core.ready:
            settings = self.core.settings
            in_force = settings.values() | {"drain_timeout": settings.drain}
            name = ", ".join(server.name for server, _ in self.servers if server.name)
            self._broadcast.publish(Started(in_force, dict(settings.sources), name))

    async def before_shutdown(self, member: Member) -> None:
        """The server of `member` asks its app to shut down: drain and clean up before that."""
        if not self.is_last(member):
            await Driver(self, member.loop).clean_up(member.hooks)
            return
        await self.stop("lifespan.shutdown", lingers=False)
        await self.clean_up()
        self.step = f"lifespan.shutdown of {member.name}"

    def leave(self, member: Member) -> None:
        """An app takes part no more. The last one ends the life."""
        with self._lock:
            last = self._members.remove(member)
        member.server.detach()
        if last:
            self.finish()
            self._members.clear()
            self._release()

    def is_last(self, member: Member) -> bool:
        """Whether no other app of this process is alive."""
        return self._members.is_last(member)

    def _release(self) -> None:
        """Give back what this life took from the process."""
        managed, self._managed = self._managed, None
        if managed is not None:
            managed.stop()
        self._guard.give_back()

    def forget_in_child(self) -> None:
        """After a fork, in the child: nothing here is the child's, least of all the signals."""
        self._lock = threading.RLock()
        guard = self._guard
        self._members.clear()
        self._waiting.clear()
        self.core.tracker.holds.clear()
        self._reset(Settings())
        guard.abandon()

    # -- moving -----------------------------------------------------------------------------

    def move(self, step: Callable[[float], PhaseChanged | None]) -> None:
        """Take one step of the core, wake who waits for it, and tell the observers."""
        with self._lock:
            changed = step(self.clock())
        if changed is not None:
            self._wake_waiters()
            self.publish(changed)

    def climb_with_instance(self, order: Order) -> None:
        """The parent was told to stop: climb to the rung of all, on the timeline of all."""
        cause = Cause(order.cause, signal=True)
        self.core.instance_goes()
        self._climb(1, cause, order.at)
        if order.rung > 1:
            self._climb(order.rung, cause)
        self._arm_watchdog()
        self._put_on_board(final=False)

    def heed(self) -> None:
        """Take note of what a parent has told the whole instance, before a probe is answered.

        Not to wait for the thread that listens to it: any worker's probe speaks for the instance.
        """
        if self._managed is not None:
            self._managed.heed()

    def retire(self, cause: str) -> None:
        """Only this worker goes, its instance stays: drain at once, with readiness as it is."""
        self._loud = True
        text = f"{cause}; only worker {os.getpid()} goes, its instance stays"
        self.move(lambda now: self.core.retire(text, now))
        self._drive()
        self._arm_watchdog()

    def _arm_watchdog(self) -> None:
        with self._lock:
            timeline = self.core.timeline
        self._guard.arm(timeline, self.core.settings.exit_margin)

    def _climb(self, rung: int, cause: Cause, at: float | None = None) -> None:
        with self._lock:
            climbed = self.core.climb_to(rung, cause, self.clock() if at is None else at)
        if climbed is not None:
            self._loud = True
            self._drive()
            self._wake_waiters()
            self.publish(climbed[0])
            self.publish(climbed[1])

    def _on_signal(self, number: signal.Signals, at: float) -> None:
        """In the signal thread: flip, wake the loop, arm the end, and only then log."""
        if self._is_replaced():
            self.retire(f"{number.name}, a successor serves")
            self._guard.disarm()
            return
        hurry = number is signal.SIGINT and on_terminal()
        with self._lock:
            climbed = self.core.climb(
                number.name,
                at - self._guard.held(),
                managed=any(server.managed for server, _ in self.servers),
                hurry=hurry,
            )
            flipped_in = self.clock() - at
        if climbed is not None:
            self._loud = True
            self._drive()
            self._wake_waiters()
            self._arm_watchdog()
        self._guard.disarm()
        if climbed is not None:
            self.publish(replace(climbed[0], flipped_in=flipped_in))
            self.publish(climbed[1])

    def _is_replaced(self) -> bool:
        """Whether the first signal is for this process alone, as its server can tell."""
        servers = [server for server, _ in self.servers if isinstance(server, Worker)]
        first = self.core.phase is Phase.SERVING
        return first and bool(servers) and all(server.is_replaced() for server in servers)

    def _drive(self) -> None:
        """Have the driver run on an app's loop, or wake it when it does already."""

        def start_or_wake(driver: Driver) -> None:
            if self._driving:
                driver.wake()
            else:
                self._driving = True
                driver.spawn(driver.stop_and_leave)

        self._on_loop(start_or_wake)

    def _on_loop(self, action: Callable[[Driver], None]) -> None:
        """Run `action` with the driver, on the loop where it runs."""
        loop = self._driver.loop if self._driver is not None else self.loop
        if loop is None:
            loop = self._members.loop_between_turns
        if loop is None or not loop.soon(lambda: action(self._own_driver(loop))):
            self._pass_signal_on()  # nobody is left who could drain

    def _own_driver(self, loop: Loop) -> Driver:
        if self._driver is None or not self._driver.loop.is_alive():
            self._driver = Driver(self, loop)
        return self._driver

    def _wake_waiters(self) -> None:
        if not self.draining():
            return
        for loop, event in tuple(self._waiting):
            loop.soon(event.set)

    def leave_servers(self) -> None:
        """The drain is over: have every server shut down; where none is known, its handler."""
        for server, _ in self.servers:
            server.leave()
        if not any(server.name for server, _ in self.servers):
            self._pass_signal_on()

    def _pass_signal_on(self) -> None:
        """Let the handler that was there before ours do what it does."""
        if not self._guard.takes_signals or not in_main_thread():
            return
        previous = self._guard.previous
        signalled = self.core.cause is not None and self.core.cause.signal
        if callable(previous):
            previous(signal.SIGTERM, None)
        elif previous is signal.SIG_DFL and signalled:  # a program that calls `terminate` lives on
            self.finish()
            self._release()
            signal.raise_signal(signal.SIGTERM)

    # -- the server stops ---------------------------------------------------------------------

    async def stop(self, cause: str, *, lingers: bool = True, retires: bool = False) -> None:
        """A server has begun to stop by itself: drain without a delay, return when drained.

        Args:
            cause: in the words of the log.
            lingers: False when it has closed its connections already: no request can come any more.
            retires: siblings go on serving the port, so readiness stays as it is.
        """
        self._loud = self._loud or len(self.tracker) > 0
        if retires:
            self.move(lambda now: self.core.retire(cause, now, signal=False))
        self.move(lambda now: self.core.shutdown(cause, now))
        driver = self._own_driver(current_loop())
        self._driving = True
        driver.wake()
        await driver.drain(lingers=lingers)

    async def clean_up(self) -> None:
        """Everything is drained: move to CLOSING and run the clean-up hooks."""
        if self.core.phase is Phase.DRAINING:
            self.move(self.core.drained)
        if self.core.phase is Phase.CLOSING:
            await self._own_driver(current_loop()).clean_up(self.hooks)

    async def server_gone(self, member: Member) -> int:
        """The server of `member` has finished its own shutdown. Returns the exit status."""
        if member in self._members and self.is_last(member):
            await self.clean_up()
        self.leave(member)
        return 0 if self._members else self.exit_status

    @property
    def exit_status(self) -> int:
        """What this process exits with once it has stopped; 0 unless a signal asked for it."""
        asked = self.core.cause is not None and self.core.cause.signal
        return self.core.report(self.clock()).exit_status if asked else 0

    def clean_up_now(self, member: Member) -> None:
        """Run the clean-up hooks on the loop of `member`, from a thread that has none; waits."""
        done = threading.Event()

        async def job() -> None:
            try:
                await self.clean_up()
            finally:
                done.set()

        if self.hooks and member.loop.soon(lambda: member.loop.spawn(job)):
            done.wait(self.core.settings.cleanup_timeout)

    def finish(self) -> None:
        """The end of a life: CLOSING ► STOPPED and the drain report, once."""
        with self._lock:
            if self._finished:
                return
            self._finished = True
        if self.core.phase in (Phase.SERVING, Phase.LAME_DUCK):
            self.move(lambda now: self.core.shutdown("the last app has left", now))
        if self.core.phase is Phase.DRAINING:
            self.move(self.core.drained)
        if self.core.phase in (Phase.CLOSING, Phase.STARTING):
            self.move(self.core.closed)
        report = self.core.report(self.clock())
        if self.core.cause is not None:
            self.publish(report)
        self._put_on_board(final=True)
        self._guard.stand_down(clean=report.clean, limit=self.core.settings.cleanup_timeout)

    # -- telling ------------------------------------------------------------------------------

    def publish(self, record: Record | None) -> None:
        """Tell the observers; a life that begins and ends with nothing to say is silent."""
        if record is None:
            return
        if self.board is not None and not (self.core.retiring or isinstance(record, OWN)):
            return  # the parent speaks for all of its workers
        if self._loud or not isinstance(record, PhaseChanged | DrainReport):
            self._broadcast.publish(record)

    def _put_on_board(self, *, final: bool) -> None:
        """Leave the numbers of this worker's stop where the parent finds them."""
        if self.board is None or self.core.retiring or self.core.cause is None:
            return
        self.board.write(self.slot, slot_of(self.core.report(self.clock()), final=final))

    def tell(self, record: Record | None) -> None:
        """Tell the observers for a whole instance: what its parent says, who serves nothing."""
        if isinstance(record, PhaseChanged):
            record = replace(record, in_flight=None, streams=None)
        if record is not None:
            self._broadcast.publish(record)

    def say_once(self, notice: Notice) -> None:
        """Tell the observers what has not been said in this process yet."""
        if notice.text not in self._said:
            self._said.add(notice.text)
            self.publish(notice)

    def _check_budget(self) -> None:
        """Say once while serving that requests here outlast the drain."""
        p99 = self.core.budget_is_short()
        if p99 is not None:
            total = self.tracker.latency.total
            self.publish(BudgetShort(p99, self.core.settings.drain, total))

    def hold(self, name: str) -> Hold:
        """Keep the process for background work until `release`, at most to the drain deadline."""
        hold = Hold(name, self.clock())
        self.tracker.hold(hold)
        return hold

    def release(self, hold: Hold) -> None:
        """End what `hold` began."""
        self.tracker.release(hold)

    def _log_last_report(self) -> None:
        self._broadcast.publish(self._last_report())

    def _plain_last_report(self) -> str:
        return render_plain(self._last_report())

    def _held_by(self, now: float) -> Straggler:
        """Name what holds the end when nothing is in flight: the step that was begun last."""
        main = sys._current_frames().get(threading.main_thread().ident or 0)
        timeline = self.core.timeline
        return Straggler(
            kind="clean-up",
            name=self.step or "the server's own shutdown",
            client="",
            age=now - timeline.signalled if timeline else 0.0,
            phase=self.phase.value,
            stack=format_frames(frames_of(main)),
        )

    def _last_report(self) -> Record:
        now = self.clock()
        alive = self.core.stragglers(now, stacks=True)
        named = {(s.kind, s.name, s.client) for s in alive}
        tally = self.core.tally
        tally.cut = alive + [s for s in tally.cut if (s.kind, s.name, s.client) not in named]
        if not tally.cut:
            tally.cut.append(self._held_by(now))
        return self.core.report(now, by_watchdog=True)


def untested(server: Server) -> str:
    """Return the warning about a version that nobody has tried."""
    oldest, newest = server.traits.tested or ("", "")
    span = oldest if oldest == newest else f"{oldest} to {newest}"
    return (
        f"{server.name} is not among the versions that graceful was tested with ({span}); "
        "rehearse a restart before you rely on it: graceful rehearse"
    )


def slot_of(report: DrainReport, *, final: bool) -> Slot:
    """Return the numbers of `report` as a worker puts them on the board."""
    return Slot(
        pid=os.getpid(),
        in_flight=report.in_flight_at_signal,
        served=report.served,
        streams=report.streams_at_drain,
        told=report.told,
        finishing=report.streams_left_to_finish,
        farewells_failed=report.farewells_failed,
        late_refused=report.late_refused,
        cut=len(report.cut) + len(report.holds),
        reported=final,
        last_request_after=-1 if report.last_request_after is None else report.last_request_after,
        too_short=report.delay_too_short,
        p50=-1 if report.p50 is None else report.p50,
        p99=-1 if report.p99 is None else report.p99,
    )


def on_terminal() -> bool:
    """Whether a person at a terminal may have pressed Ctrl-C."""
    streams = (sys.__stdin__, sys.__stderr__)
    try:
        return any(stream is not None and stream.isatty() for stream in streams)
    except ValueError:
        return False


_process = Lifecycle()
os.register_at_fork(after_in_child=_process.forget_in_child)


def current() -> Lifecycle:
    """Return the lifecycle of this process."""
    return _process
