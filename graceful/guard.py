"""What a life takes from its process, and gives back: signal handlers, backstop, watchdog.

It decides nothing: what a signal means is asked of the lifecycle, when the end is due of the core.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import FrameType

from .backstop import Backstop
from .core.budget import Settings, Timeline
from .signals import Handler, SignalTrap, in_main_thread
from .watchdog import Watchdog

__all__ = ["Guard"]


class Guard:
    """The hold of one life on its process.

    Args:
        log_report: see `Watchdog`.
        plain_report: see `Watchdog`.
    """

    def __init__(self, log_report: Callable[[], None], plain_report: Callable[[], str]) -> None:
        self._reports = log_report, plain_report
        self._trap: SignalTrap | None = None
        self._backstop: Backstop | None = None
        self._watchdog: Watchdog | None = None
        self._replaced: dict[signal.Signals, Handler] = {}

    @property
    def takes_signals(self) -> bool:
        """Whether signals come to this life."""
        return self._trap is not None

    @property
    def previous(self) -> Handler:
        """The handler of SIGTERM that was there before ours; None when ours is not there."""
        return self._trap.previous.get(signal.SIGTERM) if self._trap is not None else None

    def take_signals(
        self,
        signals: Sequence[signal.Signals],
        arrived: Callable[[signal.Signals, float], None],
        clock: Callable[[], float],
        settings: Settings,
    ) -> None:
        """Have `signals` arrive, also while the interpreter is blocked; in the main thread."""
        self._watchdog = Watchdog(*self._reports)
        self._backstop = Backstop(
            settings.grace_period - settings.pre_stop - settings.exit_margin / 2
        )
        self._trap = SignalTrap(arrived, clock, self._backstop)
        self._trap.install(tuple(signals))

    def follow_parent(
        self,
        signals: Sequence[signal.Signals],
        handler: Callable[[int, FrameType | None], object],
    ) -> None:
        """Have `handler` called: a managing parent says what a signal means."""
        if self._watchdog is None:
            self._watchdog = Watchdog(*self._reports)
        if in_main_thread() and not self._replaced:
            for number in signals:
                self._replaced[number] = signal.signal(number, handler)

    def arm(self, timeline: Timeline | None, margin: float) -> None:
        """Have the watchdog leave when `timeline` ends, `margin` seconds before SIGKILL."""
        if self._watchdog is not None and timeline is not None:
            self._watchdog.arm(timeline.exits_at, margin)

    def held(self) -> float:
        """Return the seconds for which the signal has waited for the interpreter."""
        return self._backstop.held() if self._backstop is not None else 0.0

    def disarm(self) -> None:
        """The signal has been taken: the backstop is not needed any more."""
        if self._backstop is not None:
            self._backstop.disarm()

    def stand_down(self, *, clean: bool, limit: float) -> None:
        """The stop is over and reported: see `Watchdog.stand_down`."""
        if self._watchdog is not None:
            self._watchdog.stand_down(clean=clean, limit=limit)

    def give_back(self) -> None:
        """Put back every handler. Only the main thread can: in another one nothing is done."""
        if not in_main_thread():
            return
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced.clear()
        self._backstop = None
        trap, self._trap = self._trap, None
        if trap is not None:
            trap.restore()

    def abandon(self) -> None:
        """After a fork, in the child: let go of what is the parent's."""
        if self._trap is not None:
            self._trap.abandon()
