"""Catches SIGTERM and SIGINT, records them, and hands them to a thread that may take its time.

Rules of this file
------------------
- A handler does nothing but count and `SimpleQueue.put`, the one queue operation that is documented
  to be reentrant: a handler runs between any two bytecodes of the main thread, so it must not take
  a lock that the main thread may hold, log, allocate threads, or touch a phase.
- `signal.signal`, not `loop.add_signal_handler`: it works on every loop, it can be chained, and it
  runs while the event loop is blocked in a sleeping handler. That it runs at all while the main
  thread sleeps is the business of `wakeup.py`.
- The thread exists so that a signal has effect (readiness, watchdog) under a blocked loop.
- Previous handlers are kept and restored. Whether and when one is called is the owner's choice.
- The trap has the attribute `should_exit`, as uvicorn's server has: sse-starlette looks for it
  behind the handler of SIGTERM and would end every stream the moment it reads True.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import Any

from .backstop import Backstop
from .wakeup import Wakeup

__all__ = ["HANDLED", "SignalTrap", "in_main_thread"]

HANDLED = (signal.SIGTERM, signal.SIGINT)

Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


def in_main_thread() -> bool:
    """Whether signal handlers can be set here (CPython allows it in the main thread only)."""
    return threading.current_thread() is threading.main_thread()


class SignalTrap:
    """Owns the handlers of some signals until `restore`.

    Args:
        on_signal: called in a thread of its own with the signal and the clock when it came.
        clock: gives seconds on the monotonic clock of the lifecycle.
        backstop: see `Wakeup`.
    """

    should_exit = False

    def __init__(
        self,
        on_signal: Callable[[signal.Signals, float], None],
        clock: Callable[[], float] = time.monotonic,
        backstop: Backstop | None = None,
    ) -> None:
        self._on_signal = on_signal
        self._clock = clock
        self._caught: SimpleQueue[tuple[int, float] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.previous: dict[signal.Signals, Handler] = {}
        self._wakeup = Wakeup(self.previous, backstop)

    def install(self, signals: tuple[signal.Signals, ...] = HANDLED) -> None:
        """Take over `signals`. Must be called in the main thread."""
        self._thread = threading.Thread(target=self._deliver, name="graceful-signals", daemon=True)
        self._thread.start()
        for number in signals:
            self.previous[number] = signal.signal(number, self.handle)
        self._wakeup.install()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Record the signal. Runs in signal context: see the rules of this file."""
        self._wakeup.noticed()
        if self._thread is None:
            self._pass_on(number, frame)
        else:
            self._caught.put((number, self._clock()))

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Our part is over, and somebody who has replaced our handler still calls it."""
        previous = self.previous.get(signal.Signals(number))
        if callable(previous):
            previous(number, frame)
        elif previous is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def restore(self) -> None:
        """Give the signals back, unless somebody has replaced our handler since."""
        for number, handler in self.previous.items():
            if signal.getsignal(number) == self.handle:
                # None: the handler was not set from Python; the default is the closest there is.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._wakeup.close()
        self.close()

    def abandon(self) -> None:
        """After a fork, in the child: the thread is the parent's; the signals are as before us."""
        self._thread = None
        self.restore()

    def close(self) -> None:
        """End the thread; what was caught before is still delivered."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._caught.put(None)
            if thread is not threading.current_thread():
                thread.join(1.0)

    def _deliver(self) -> None:
        while (caught := self._caught.get()) is not None:
            number, at = caught
            self._on_signal(signal.Signals(number), at)
