"""Ends a process whose GIL is held when SIGTERM comes: the case that no Python code can handle.

A C extension that holds the GIL keeps every Python signal handler and thread from running, so a
SIGTERM that arrives meanwhile is not even noticed. What still works is what the kernel, libc and
Python's C handler do by themselves, and that is what is strung together here while the process
serves:

    SIGTERM ─► Python's C handler writes the signal's number into the wake-up descriptor (wakeup.py)
            ─► aio_read(3) on that pipe completes; libc runs its SIGEV_THREAD notification,
               whose function is alarm(2) with the seconds that the process may still live
            ─► SIGALRM ─► faulthandler dumps all stacks, and the default action ends us

When Python does get to run, `held` tells how long ago the signal really came, and `disarm` stops
the alarm. A number that is none of ours (SIGCHLD, say) sets the alarm, too, for there is no code
that could look at it: the thread of wakeup.py stops it as soon as any Python runs.

Rejected: faulthandler as the handler of SIGTERM, which looks through the interpreter's frames while
they change (one process in a hundred died of SIGSEGV as it was told to stop, and a busy one within
a few hundred signals, on CPython 3.11, 3.12 and 3.13); a dead man's timer (it would end a process
that nobody asked to stop); a helper process (a second one for each worker); a C extension (no pure
wheel any more).

glibc only (tested with 2.36): it reads the notification when the read completes, so a read can be
taken back without an alarm. Elsewhere, and where the program uses SIGALRM itself, the process goes
without, as every other one does; the watchdog's thread covers all that happens with the GIL free.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from .threads import original
from .watchdog import open_stderr

__all__ = ["Backstop"]

_SIGEV_NONE: Final = 1  # <signal.h>, Linux
_SIGEV_THREAD: Final = 2

_NOTIFY_LIMIT: Final = 0.5
"""Seconds in which libc's notification thread, started by the read, has called alarm: how long the
very end waits for one that it would have to stop."""


class _SigEvent(ctypes.Structure):
    """`struct sigevent` of Linux: 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("pad", ctypes.c_char * 32),
    )


class _AioControl(ctypes.Structure):
    """The head of `struct aiocb`; the rest is libc's own and starts zeroed."""

    _fields_ = (
        ("fd", ctypes.c_int),
        ("opcode", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("event", _SigEvent),
        ("libc", ctypes.c_char * 512),
    )


class _TimeSpec(ctypes.Structure):
    """`struct timespec`."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Backstop:
    """An alarm that a signal sets without the GIL.

    Args:
        seconds: whole seconds between the signal and the end; below 1 it is not installed.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = math.floor(seconds)
        self.watches = False
        """libc waits for the next number: `read` returns it, and nobody else may read the pipe."""
        self._libc: ctypes.CDLL | None = None
        self._reader = -1
        self._stderr = -1
        self._set = False
        """libc has read a number, so that the alarm is set or about to be."""
        self._ours = False
        """It is that of a signal which is taken, and after which `disarm` is called."""
        self._spent = False
        """A signal has been taken, and the watchdog armed: there is no further read."""
        self._stopped = False
        """The last alarm is stopped, perhaps before `read` has said what set it."""
        self._lock = original("_thread", "allocate_lock")()
        self._control = _AioControl()
        self._buffer = ctypes.create_string_buffer(1)

    def install(self, reader: int) -> bool:
        """Watch the pipe that ends in `reader`, a descriptor. False: not possible here."""
        if self.seconds < 1 or not sys.platform.startswith("linux"):
            return False
        if signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
            return False
        self._reader = reader
        try:
            self._libc = ctypes.CDLL(None)
            self._libc.gnu_get_libc_version  # noqa: B018 - an AttributeError says: not glibc
            self._stderr = open_stderr()
            faulthandler.register(signal.SIGALRM, file=self._stderr, chain=True)
            self._begin()
        except (AttributeError, OSError, ValueError, RuntimeError):
            self._forget()
            return False
        return True

    def read(self, pause: float | None, is_ours: Callable[[int], bool]) -> bytes:
        """Return the number that has come; b"" after `pause` seconds, and when interrupted.

        Args:
            pause: seconds; None waits for ever.
            is_ours: whether `disarm` will be called for a number, because its signal is taken.
        """
        assert self._libc is not None
        waiting = (ctypes.c_void_p * 1)(ctypes.addressof(self._control))
        limit = None
        if pause is not None:
            limit = ctypes.byref(_TimeSpec(int(pause), int(pause % 1 * 1e9)))
        if self._libc.aio_suspend(waiting, 1, limit) != 0:
            return b""
        self.watches = False
        number = self._buffer.raw[0]
        self._ours = is_ours(number)
        self._set = bool(number) and not self._stopped  # no signal is 0: see `let_go`
        return self._buffer.raw

    def settle(self) -> bool:
        """Stop an alarm that nobody needs, and watch again. Returns whether to ask again soon.

        libc sets the alarm in a thread of its own, which may take its time.
        """
        if not self._set:
            return False
        if not _running():
            return True
        if self._spent or not self._ours:
            self._stop()
            self._begin_again()
        return False

    def was_not_ours(self) -> None:
        """No signal came to this process: a child between fork and exec writes into its pipe."""
        self._ours = False

    def held(self) -> float:
        """Python runs: return how long ago the signal came, in seconds; 0.0 if just now."""
        left = _running() if self._is_told() and not self._spent else 0.0
        return self.seconds - left if left else 0.0

    def disarm(self) -> None:
        """A signal has been taken, and what follows has an end without us. From any thread.

        What libc has not read yet, or not told yet, is stopped by `settle`.
        """
        with self._lock:
            self._spent = True
            if self._is_told() and _running():
                self._stopped = True
                self._stop()

    def let_go(self) -> None:
        """From now on what libc reads sets no alarm; a 0 that is written now ends the last read."""
        with self._lock:
            self._spent = True
            self._control.event.notify = _SIGEV_NONE

    def uninstall(self) -> None:
        """Take everything back, when the last read is over. In the main thread."""
        if self._libc is None:
            return
        give_up = time.monotonic() + _NOTIFY_LIMIT
        while self._set and not _running() and time.monotonic() < give_up:
            time.sleep(0.0005)
        if self._set:
            self._stop()
        self._forget()

    def abandon(self) -> None:
        """After a fork, in the child: no alarm was inherited. libc's read is the parent's."""
        self.watches = False
        if self._libc is not None:
            self._forget()

    def _is_told(self) -> bool:
        """Whether libc has read a number. The program may have a timer of its own otherwise."""
        if self._libc is None:
            return False
        told: int = self._libc.aio_error(ctypes.byref(self._control))
        return told != errno.EINPROGRESS

    def _begin(self) -> None:
        assert self._libc is not None
        control = self._control
        control.fd = self._reader
        control.buffer = ctypes.addressof(self._buffer)
        control.size = 1
        control.event.notify = _SIGEV_THREAD
        control.event.value = self.seconds
        control.event.function = ctypes.cast(self._libc.alarm, ctypes.c_void_p).value
        if self._libc.aio_read(ctypes.byref(control)) != 0:
            raise OSError("aio_read")
        self.watches = True

    def _begin_again(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if not self._spent:
                self._begin()

    def _stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._set = False

    def _forget(self) -> None:
        self._libc = None
        faulthandler.unregister(signal.SIGALRM)
        stderr, self._stderr = self._stderr, -1
        if stderr != -1:
            os.close(stderr)


def _running() -> float:
    """Return the seconds after which the alarm would come, 0.0 when none is set."""
    return signal.getitimer(signal.ITIMER_REAL)[0]
