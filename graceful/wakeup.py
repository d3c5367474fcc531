"""Sees to it that Python's signal handlers run, whatever the main thread sleeps in.

Python runs handlers in the main thread, between two bytecodes. A signal that comes after its last
look for signals and before the system call in which it goes to sleep, or that the kernel gives to
another thread, is only written down, and waits until that call returns: on an idle loop for ever.
Event loops that take signals themselves have a wake-up descriptor against it. Where none is, it is
ours:

    SIGTERM ─► C handler writes its number into our pipe ─► our thread waits for the handler to run,
            and interrupts the main thread's system call with `NUDGE` until it does

The same pipe tells libc of a signal where Python can't run (backstop.py). A process has one wake-up
descriptor only: where a loop's is set, and there is no backstop to be told, it stays; else ours
takes its place, and our thread writes into theirs whatever comes.

A number in the pipe is a hint and never a signal by itself: a child between fork and exec writes
into the same pipe. What a signal means, and what its handler does, is not of this file.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from types import FrameType
from typing import Any, Final

from .backstop import Backstop
from .threads import original, start_daemon

__all__ = ["Wakeup"]

NUDGE: Final = signal.SIGURG
"""Ignored unless somebody handles it, and every program has to expect it at any time: Go's runtime
chose it to interrupt threads for these reasons. Its number is higher than theirs: see `nudged`."""

PAUSES: Final = (0.02, 0.1, 0.5, 2.0)
"""Seconds that the handler gets before the main thread is interrupted, and again, and again."""

UNSETTLED: Final = 0.01
"""Seconds after which the backstop is asked again."""

NOBODYS: Final = -1
"""What Python says when no descriptor is set."""

OVER: Final = b"\0"
"""Ends the thread; no signal has this number."""


class Wakeup:
    """The wake-up descriptor of this process until `close`.

    Args:
        signals: those whose handlers call `noticed`; they are set before `install`.
        backstop: what is to be told of them although Python can't run.
    """

    def __init__(self, signals: Collection[int], backstop: Backstop | None = None) -> None:
        self._signals = signals
        self._backstop = backstop or Backstop(0)
        self._handlers: dict[int, Any] = {}
        self._theirs = NOBODYS
        self._noticed = 0
        self._nudged = False
        self._pipe: tuple[int, int] | None = None
        self._has_ended: Callable[[], bool] | None = None

    def install(self) -> None:
        """Begin. In the main thread."""
        reader, writer = self._pipe = os.pipe()
        os.set_blocking(writer, False)
        self._theirs = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        if not self._backstop.install(reader) and self._theirs != NOBODYS:
            signal.set_wakeup_fd(self._theirs, warn_on_full_buffer=False)
            self._close_pipe()
            self._pipe = None
            return
        self._handlers = {number: signal.getsignal(number) for number in self._signals}
        if signal.getsignal(NUDGE) is signal.SIG_DFL:
            signal.signal(NUDGE, _nudged)
        self._has_ended = start_daemon(partial(self._run, reader), "graceful-wakeup")
        _installed.append(self)

    def noticed(self) -> None:
        """A handler runs. Only counts: it may be called in the handler."""
        self._noticed += 1

    def nudged(self) -> None:
        """The main thread has been interrupted. Python runs the handlers of lower numbers first, so
        that of a signal which really came has run by now. Called in a handler.
        """
        self._nudged = True

    def close(self) -> None:
        """Give everything back, and end the thread. In the main thread; may be called twice."""
        if self._has_ended is None or self._pipe is None:
            return
        nobody_elses = self._withdraw()
        self._backstop.let_go()
        os.write(self._pipe[1], OVER)
        over = self._has_ended()  # if it has no turn, it reads from the pipe later
        self._backstop.uninstall()
        self._let_go(nobody_elses and over)

    def forget_in_child(self) -> None:
        """After a fork, in the child: the thread is the parent's, and so is what the pipe says.

        Nor is the descriptor of the parent's loop put back: what comes of it is the parent's, too.
        """
        self._theirs = NOBODYS
        self._backstop.abandon()
        self._let_go(self._withdraw())

    def _withdraw(self) -> bool:
        """Return whether nobody will put our descriptor back.

        An event loop that has come after us may do so when it goes. The number must not be that of
        somebody's socket by then, so that the pipe stays open.
        """
        assert self._pipe is not None
        if signal.getsignal(NUDGE) is _nudged:
            signal.signal(NUDGE, signal.SIG_DFL)
        now = signal.set_wakeup_fd(NOBODYS)
        if now == self._pipe[1]:
            with contextlib.suppress(OSError, ValueError):  # theirs is gone
                signal.set_wakeup_fd(self._theirs, warn_on_full_buffer=False)
        elif now != NOBODYS:
            signal.set_wakeup_fd(now, warn_on_full_buffer=False)
            return False
        return True

    def _let_go(self, unused: bool) -> None:
        if unused:
            self._close_pipe()
        self._has_ended = self._pipe = None
        _installed.remove(self)

    def _close_pipe(self) -> None:
        for end in self._pipe or ():
            os.close(end)

    def _run(self, reader: int) -> None:
        came = 0
        pauses = iter(PAUSES)
        nudges_at = math.inf
        while True:
            came = max(came, self._noticed)  # where another descriptor was set for a while
            if came == self._noticed:
                nudges_at = math.inf
            again_at = time.monotonic() + UNSETTLED if self._backstop.settle() else math.inf
            said = self._read(reader, min(nudges_at, again_at))
            if OVER in said:
                return
            self._pass_on(said)
            if new := sum(number in self._signals for number in said):  # a nudge has one, too
                came += new
                self._nudged = False
                pauses = iter(PAUSES)
            elif came == self._noticed or time.monotonic() < nudges_at:
                continue
            else:
                _nudge()
            if (pause := next(pauses, None)) is None:  # two at once, of which Python made one
                came = self._noticed
                if self._nudged:  # or it was somebody else's
                    self._backstop.was_not_ours()
            else:
                nudges_at = time.monotonic() + pause

    def _read(self, reader: int, until: float) -> bytes:
        """Return the numbers that have come; none when it is `until`, on the monotonic clock."""
        pause = None if math.isinf(until) else max(0.0, until - time.monotonic())
        if self._backstop.watches:
            return self._backstop.read(pause, self._is_awaited)
        poll = original("select", "poll")()
        poll.register(reader, select.POLLIN)
        return os.read(reader, 512) if poll.poll(pause and pause * 1000) else b""

    def _pass_on(self, said: bytes) -> None:
        if said and self._theirs != NOBODYS:
            with contextlib.suppress(OSError):  # full, so that it wakes anyhow; or gone
                os.write(self._theirs, said)

    def _is_awaited(self, number: int) -> bool:
        """Whether the handler that calls `noticed` is still the one that the signal has."""
        return number in self._handlers and signal.getsignal(number) == self._handlers[number]


def _nudge() -> None:
    main = threading.main_thread().ident
    if main is not None and signal.getsignal(NUDGE) is _nudged:
        signal.pthread_kill(main, NUDGE)


def _nudged(number: int, frame: FrameType | None) -> None:
    """The call that the main thread was in has been interrupted, which is all that was wanted."""
    for wakeup in _installed:
        wakeup.nudged()


_installed: list[Wakeup] = []


def _forget_in_child() -> None:
    for wakeup in tuple(_installed):
        wakeup.forget_in_child()


os.register_at_fork(after_in_child=_forget_in_child)
