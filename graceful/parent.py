"""The parent process of a server, under `graceful run`: one thread that speaks for all workers.

It climbs the ladder, writes on the board what the instance was told, has the server begin its own
stop when the propagation delay is over, kills what is still there at the very end, and writes the
report. Which processes there are, and when they are started and replaced, is the server's business:
its integration passes that on with `begins`, `watches` and `replaces`.

Rules of this file
- Signals and the server's own thread only put something into the inbox; the thread does the rest.
- First the board, then the log: a log that blocks must keep no worker from hearing.
- The end is the watchdog's: also when this thread is held up, the workers are killed in time.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from .board import Board
from .core.budget import ServerLimit, check
from .core.managing import next_rung, stop_is_due
from .core.phases import Phase
from .core.records import DrainReport, Notice, Straggler
from .instance import climb, say_gone, say_started, summed
from .lifecycle import Lifecycle, current, on_terminal
from .observers import render_plain
from .settings import load
from .signals import HANDLED, SignalTrap
from .wakeup import Wakeup
from .watchdog import EXIT_CUT, Watchdog

__all__ = ["Managing", "Parent", "Process", "begin_worker"]

KILLS_AT: Final = 0.5
"""Part of `exit_margin` after which who has outlived its own watchdog is killed. That one leaves at
the beginning of the margin, and gives logging half a second."""

LEAVES_AT: Final = 0.8
"""Part of `exit_margin` after which this process leaves, if the server doesn't end it before."""

UNKNOWN: Final = "before it could say what it had in flight"

LAST_WORDS: Final = 1.0
"""Seconds that the thread gets to say what it is saying when the server has stopped."""


class Process(Protocol):
    """A worker, as multiprocessing started it."""

    @property
    def pid(self) -> int | None: ...

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the process is gone."""
        ...

    def kill(self) -> None:
        """Send SIGKILL, if it is still there."""
        ...


class Managing(Protocol):
    """A server's own parent, as its integration sees it. Called in the thread of `Parent`."""

    name: str
    """For the start-up line: name and version."""

    def stop(self) -> None:
        """Begin the server's own stop: the delay is over, and no worker is started any more."""
        ...

    def refuse(self) -> None:
        """Have the port refuse new clients: no worker accepts them any more."""
        ...

    def heard(self) -> None:
        """A worker has begun to serve, or has stopped accepting."""
        ...

    def limits(self) -> Sequence[ServerLimit]:
        """Return those of the parent's own timeouts that its workers don't know."""
        ...


@dataclass(eq=False, slots=True)
class _Worker:
    slot: int
    process: Process
    end: int
    """A descriptor of our own: the process object closes its when it has been waited for."""


class Parent:
    """One instance: all workers of one server.

    Args:
        server: the server's own parent.
        keeps_port: somebody else holds the socket, too, and it goes on listening.
        lifecycle: that of this process unless given.
    """

    def __init__(
        self, server: Managing, *, keeps_port: bool = False, lifecycle: Lifecycle | None = None
    ) -> None:
        self.board = Board(spawns=True)
        if keeps_port:
            self.board.keeps_port()
        self._keeps_port = keeps_port
        self._server = server
        self._lifecycle = lifecycle or current()
        self._core = self._lifecycle.core
        self._workers: list[_Worker] = []
        self._count = 0
        self._inbox: deque[tuple[int | str, float]] = deque()
        self._wake = os.pipe()
        os.set_blocking(self._wake[1], False)
        self._trap: SignalTrap | None = None
        self._wakeup = Wakeup(HANDLED)
        self._watchdog = Watchdog(self._last_report, self._plain_report, forks=True)
        self._thread = threading.Thread(target=self._run, name="graceful-parent", daemon=True)
        self._stopping = False
        self._refused = False
        self._over = False
        self._has_killed = False
        self._lost: list[Straggler] = []
        self.told = False
        """Whether the instance has been told to stop."""

    # -- what the server's integration calls ---------------------------------------------------

    def start(self, *, signals: bool = True) -> None:
        """Begin. In the main thread, when the server has installed its handlers.

        Args:
            signals: take over SIGTERM and SIGINT; otherwise `signalled` is told of them.

        Raises:
            SettingsError: what the environment sets is wrong.
        """
        self._core.settings = load({})
        if signals:
            self._trap = SignalTrap(self._arrived, self._lifecycle.clock)
            self._trap.install()
        else:
            self._wakeup.install()
        self._thread.start()

    def begins(self) -> int:
        """Return the number of a worker that is about to be started."""
        self._count += 1
        self.board.begins(self._count)
        return self._count

    def watches(self, slot: int, process: Process) -> None:
        """Worker `slot` has been started."""
        self._workers.append(_Worker(slot, process, os.dup(process.sentinel)))
        self._ring()

    def replaces(self, slot: int, cause: str) -> None:
        """Worker `slot` will be told to leave, while the instance stays."""
        if self.board.order is None:
            self.board.retires_one(slot, cause)

    def signalled(self, number: int) -> None:
        """A signal has come; may be called in its handler."""
        self._wakeup.noticed()
        self._arrived(number, self._lifecycle.clock())

    def fails(self) -> None:
        """The server stops by itself, for a worker has failed: the others finish what they have."""
        if not self.told:
            self._arrived("a worker failed", self._lifecycle.clock())

    def says(self, text: str) -> None:
        """Tell the observers."""
        self._lifecycle.tell(Notice(text))

    @property
    def starts_no_more(self) -> bool:
        """Whether a worker that leaves has done so because the instance goes."""
        return stop_is_due(self._core.timeline, self._lifecycle.clock())

    def end(self) -> int:
        """All workers are gone: say how it went. Returns the exit status, 0 or 70."""
        self._over = True
        self._ring()
        self._thread.join(timeout=LAST_WORDS)
        if self._trap is not None:
            self._trap.restore()
        self._wakeup.close()
        if self._core.cause is None:
            return 0
        report = self._report()
        if self.board.has_served:
            say_gone(self._lifecycle, report)
        self._watchdog.stand_down(clean=report.clean, limit=self._core.settings.cleanup_timeout)
        return 0 if report.clean else EXIT_CUT

    # -- the thread ----------------------------------------------------------------------------

    def _arrived(self, what: int | str, at: float) -> None:
        self.told = True
        self._inbox.append((what, at))
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is awake already
            os.write(self._wake[1], b"!")

    def _run(self) -> None:
        while not self._over:
            self._pause()
            self._say_started()
            while self._inbox:
                self._climb(*self._inbox.popleft())
            self._go_on()

    def _pause(self) -> None:
        poll = select.poll()
        workers = {worker.end: worker for worker in self._workers}
        for number in (self._wake[0], self.board.said_fd, *workers):
            poll.register(number, select.POLLIN)
        for number, _ in poll.poll(self._limit()):
            if number == self._wake[0]:
                os.read(number, 4096)
            elif number == self.board.said_fd:
                self.board.heard()
                self._server.heard()
            else:
                self._forget(workers[number])

    def _limit(self) -> float | None:
        """Return the milliseconds until there is something to do without being woken."""
        due = min(self._due(), default=None)
        return None if due is None else max(0.0, due - self._lifecycle.clock()) * 1000 + 1

    def _due(self) -> Iterator[float]:
        timeline = self._core.timeline
        if timeline is not None and not self._stopping:
            yield timeline.delay_ends
        if timeline is not None and not self._has_killed:
            yield timeline.exits_at + KILLS_AT * self._core.settings.exit_margin

    def _forget(self, worker: _Worker) -> None:
        """A worker has ended. After the signal that is as it should be only with its numbers."""
        self._workers.remove(worker)
        slot = self.board.slot(worker.slot)
        left_early = self.board.accepts(worker.slot) if not slot.pid else not slot.reported
        if self.told and left_early and not self._has_killed:
            had = f"with up to {slot.in_flight:.0f} in flight" if slot.in_flight else UNKNOWN
            self._lose(worker, f"killed {had}")
        self.board.gone(worker.slot)
        os.close(worker.end)

    def _lose(self, worker: _Worker, text: str) -> Straggler:
        timeline = self._core.timeline
        age = self._lifecycle.clock() - timeline.signalled if timeline else 0.0
        name, phase = f"{worker.process.pid}: {text}", self._core.phase.value
        self._lost.append(Straggler("worker", name, "", age, phase))
        return self._lost[-1]

    def _say_started(self) -> None:
        """The first worker serves: it has told what settings its app has."""
        core, settings = self._core, self.board.settings
        if settings is None or core.phase is not Phase.STARTING:
            return
        core.settings = settings
        say_started(self._lifecycle, settings, self._server.name)
        for finding in check(settings, self._server.limits()):
            self.says(finding.text)

    def _climb(self, what: int | str, at: float) -> None:
        """Climb a rung: a signal has come, or the server stops by itself."""
        signalled = isinstance(what, int)
        cause = signal.Signals(what).name if isinstance(what, int) else what
        # Where nobody has served there is no balancer to wait for.
        hurry = (what == signal.SIGINT and on_terminal()) or not self.board.has_served
        rung = next_rung(self._core.rung, waits=signalled and not hurry)
        if not self.board.has_served and signalled and not self._core.rung:
            self.says(
                "no worker has said that it serves: it has not started yet, or its app is not "
                "wrapped in GracefulMiddleware and stops as the server alone would stop it"
            )
        climbed = climb(self._lifecycle, self.board, rung, cause, at)
        self._arm()
        for record in climbed if self.board.has_served else ():
            self._lifecycle.tell(record)

    def _arm(self) -> None:
        timeline, margin = self._core.timeline, self._core.settings.exit_margin
        if timeline is not None:
            leaves = timeline.exits_at + LEAVES_AT * margin
            self._watchdog.arm(leaves, margin * (1 - LEAVES_AT))

    def _go_on(self) -> None:
        """Do what is due."""
        core, now = self._core, self._lifecycle.clock()
        timeline = core.timeline
        if timeline is None:
            return
        if not self._stopping and stop_is_due(timeline, now):
            self._stopping = True
            self._server.stop()
            if self.board.has_served:
                self._lifecycle.tell(core.delay_over(now))
        if self._stopping:
            self._refuse()
        if now >= timeline.exits_at + KILLS_AT * core.settings.exit_margin:
            self._kill()

    def _refuse(self) -> None:
        """Nobody may wait for workers of which none will accept it.

        The last one has shut the listener down itself, unless it was killed or another was late.
        """
        stopped = all(self.board.has_stopped(worker.slot) for worker in self._workers)
        if stopped and not self._refused and not self._keeps_port:
            self._refused = True
            self._server.refuse()

    # -- the end -------------------------------------------------------------------------------

    def _kill(self) -> None:
        """End who is still there, a moment before the platform would end this process, too."""
        if self._has_killed:
            return
        self._has_killed = True
        for worker in self._workers:
            worker.process.kill()
        killed: list[Straggler] = []
        for worker in self._workers:
            had = self.board.slot(worker.slot).in_flight
            text = f", up to {had:.0f} in flight" if had else ""
            killed.append(self._lose(worker, f"SIGKILL, its watchdog has not ended it{text}"))
        for straggler in killed:
            self.says(
                f"worker {straggler.name}; {straggler.age:.1f} s after the signal, "
                f"grace_period is {self._core.settings.grace_period:g} s"
            )

    def _report(self) -> DrainReport:
        report = summed(self._core.report(self._lifecycle.clock()), list(self.board.slots()))
        lost = {each.name.partition(":")[0] for each in self._lost}
        others = tuple(each for each in report.cut if each.name.partition(":")[0] not in lost)
        cut = (*others, *self._lost)
        return replace(report, cut=cut, clean=not cut)

    def _last_report(self) -> None:
        """The watchdog leaves: whatever holds this process up, no worker outlives it."""
        self._kill()
        self._lifecycle.tell(self._report())

    def _plain_report(self) -> str:
        return render_plain(self._report())


def begin_worker(board: Board, slot: int) -> None:
    """This process is worker `slot` of the parent that made `board`. Before its app is imported."""
    lifecycle = current()
    lifecycle.board = board
    lifecycle.slot = slot
