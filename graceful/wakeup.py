"""Sees to it that Python's signal handlers run, whatever the main thread sleeps in.

Python runs handlers in the main thread, between two bytecodes. A signal that comes after its last
look for signals and before the system call in which it goes to sleep, or that the kernel gives to
another thread, is only written down, and waits until that call returns: on an idle loop for ever.
Event loops that take signals themselves have a wake-up descriptor against it, and where one is set
it stays. Where none is, it is ours:

    SIGTERM ─► C handler writes its number into our pipe ─► our thread waits for the handler to run,
            and interrupts the main thread's system call with `NUDGE` until it does

A number in the pipe is a hint and never a signal by itself: a child between fork and exec writes
into the same pipe. What a signal means, and what its handler does, is not of this file.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Collection
from types import FrameType
from typing import Final

__all__ = ["Wakeup"]

NUDGE: Final = signal.SIGURG
"""Ignored unless somebody handles it, and every program has to expect it at any time: Go's runtime
chose it to interrupt threads for these reasons."""

PAUSES: Final = (0.02, 0.1, 0.5, 2.0)
"""Seconds that the handler gets before the main thread is interrupted, and again, and again."""

OVER: Final = b"\0"
"""Ends the thread; no signal has this number."""


class Wakeup:
    """The wake-up descriptor of this process, where nobody else has set one, until `close`.

    Args:
        signals: those whose handlers call `noticed`.
    """

    def __init__(self, signals: Collection[int]) -> None:
        self._signals = signals
        self._noticed = 0
        self._pipe: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None

    def install(self) -> None:
        """Begin. In the main thread."""
        reader, writer = self._pipe = os.pipe()
        os.set_blocking(writer, False)
        others = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        if others != -1:
            signal.set_wakeup_fd(others)
            self._close_pipe()
            self._pipe = None
            return
        if signal.getsignal(NUDGE) is signal.SIG_DFL:
            signal.signal(NUDGE, _nudged)
        self._thread = threading.Thread(
            target=self._run, args=(reader,), name="graceful-wakeup", daemon=True
        )
        self._thread.start()
        _installed.append(self)

    def noticed(self) -> None:
        """A handler runs. Only counts: it may be called in the handler."""
        self._noticed += 1

    def close(self) -> None:
        """Give everything back, and end the thread. In the main thread; may be called twice."""
        if self._thread is None or self._pipe is None:
            return
        nobody_elses = self._withdraw()
        os.write(self._pipe[1], OVER)
        self._thread.join()
        self._let_go(nobody_elses)

    def forget_in_child(self) -> None:
        """After a fork, in the child: the thread is the parent's, and so is what the pipe says."""
        self._let_go(self._withdraw())

    def _withdraw(self) -> bool:
        """Return whether nobody will put our descriptor back.

        An event loop that has come after us may do so when it goes. The number must not be that of
        somebody's socket by then, so that the pipe stays open.
        """
        assert self._pipe is not None
        if signal.getsignal(NUDGE) is _nudged:
            signal.signal(NUDGE, signal.SIG_DFL)
        others = signal.set_wakeup_fd(-1)
        if others in (-1, self._pipe[1]):
            return True
        signal.set_wakeup_fd(others)
        return False

    def _let_go(self, nobody_elses: bool) -> None:
        if nobody_elses:
            self._close_pipe()
        self._thread = self._pipe = None
        _installed.remove(self)

    def _close_pipe(self) -> None:
        for end in self._pipe or ():
            os.close(end)

    def _run(self, reader: int) -> None:
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        came = 0
        pauses = iter(PAUSES)
        while True:
            came = max(came, self._noticed)  # where another descriptor was set for a while
            pause = next(pauses, None) if came > self._noticed else None
            if pause is None:  # noticed, or two at once, of which Python made one
                came = self._noticed
            if poll.poll(None if pause is None else pause * 1000):
                said = os.read(reader, 512)
                if OVER in said:
                    return
                came += sum(number in self._signals for number in said)
                pauses = iter(PAUSES)
            elif came > self._noticed:
                _nudge()


def _nudge() -> None:
    main = threading.main_thread().ident
    if main is not None and signal.getsignal(NUDGE) is _nudged:
        signal.pthread_kill(main, NUDGE)


def _nudged(number: int, frame: FrameType | None) -> None:
    """The call that the main thread was in has been interrupted, which is all that was wanted."""


_installed: list[Wakeup] = []


def _forget_in_child() -> None:
    for wakeup in tuple(_installed):
        wakeup.forget_in_child()


os.register_at_fork(after_in_child=_forget_in_child)
