"""Ends a process whose GIL is held when SIGTERM comes: the case that no Python code can handle.

A C extension that holds the GIL keeps every Python signal handler and thread from running, so a
SIGTERM that arrives meanwhile is not even noticed. What still works is what the kernel and libc do
by themselves, and that is what is strung together here, once, while the process serves:

    SIGTERM ─► faulthandler's C handler writes to a pipe, then calls Python's own handler
            ─► aio_read(3) on that pipe completes; libc runs its SIGEV_THREAD notification,
               whose function is alarm(2) with the seconds that the process may still live
            ─► SIGALRM ─► faulthandler dumps all stacks, and the default action ends us

When Python does get to run, `held` tells how long ago the signal really came, and `disarm` stops
the alarm. Rejected: a dead man's timer (it would end a process that nobody asked to stop),
a helper process (a second process for each worker), a C extension (no pure wheel any more).

glibc only (tested with 2.36): it reads the notification when the read completes, so a read can be
taken back without an alarm. Elsewhere, and where the program uses SIGALRM itself, the process goes
without, as every other one does; the watchdog's thread covers all that happens with the GIL free.
"""

from __future__ import annotations

import ctypes
import faulthandler
import math
import os
import select
import signal
import sys
import time
from typing import Final

from .watchdog import open_stderr

__all__ = ["Backstop"]

_SIGEV_NONE: Final = 1  # <signal.h>, Linux
_SIGEV_THREAD: Final = 2

_NOTIFY_LIMIT: Final = 1.0
"""Seconds in which libc's notification thread, started by the read, has called alarm."""


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


class Backstop:
    """An alarm that SIGTERM sets without the GIL.

    Args:
        seconds: whole seconds between the signal and the end; below 1 it is not installed.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = math.floor(seconds)
        self.installed = False
        self._spent = False
        self._pipe: tuple[int, int] | None = None
        self._stderr: int | None = None
        self._control = _AioControl()
        self._buffer = ctypes.create_string_buffer(4096)

    def install(self) -> bool:
        """Arm it; call after the Python handler of SIGTERM was set. False: not possible here."""
        if self.seconds < 1 or not sys.platform.startswith("linux"):
            return False
        if signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
            return False
        try:
            libc = ctypes.CDLL(None)
            libc.gnu_get_libc_version  # noqa: B018 - an AttributeError says that it isn't glibc
            self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            os.set_blocking(self._pipe[0], True)
            self._start_read(libc)
            self._stderr = open_stderr()
            faulthandler.register(signal.SIGALRM, file=self._stderr, chain=True)
            faulthandler.register(signal.SIGTERM, file=self._pipe[1], all_threads=False, chain=True)
        except (AttributeError, OSError, ValueError, RuntimeError):
            faulthandler.unregister(signal.SIGALRM)
            self._close()
            return False
        self.installed = True
        return True

    def held(self) -> float:
        """Python runs: return how long ago the signal came, in seconds; 0.0 if just now."""
        if not self.installed or not self._triggered():
            return 0.0
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        return self.seconds - left if left else 0.0

    def disarm(self) -> float:
        """Stop the alarm, waiting for libc to set it if need be. Returns what `held` does."""
        if not self.installed or self._spent or not self._triggered():
            return 0.0
        give_up = time.monotonic() + _NOTIFY_LIMIT
        while not (left := signal.getitimer(signal.ITIMER_REAL)[0]):
            if time.monotonic() > give_up:
                return 0.0
            time.sleep(0.0005)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._spent = True  # the read is not begun again: the watchdog has been armed since
        return self.seconds - left

    def uninstall(self) -> None:
        """Take everything back, before the Python handler of SIGTERM is restored."""
        if not self.installed:
            return
        self.disarm()
        self.installed = False
        current = signal.getsignal(signal.SIGTERM)
        faulthandler.unregister(signal.SIGTERM)
        faulthandler.unregister(signal.SIGALRM)
        # faulthandler puts back the C handler it found; Python's own record of it must agree.
        if current is not None:
            signal.signal(signal.SIGTERM, current)
        self._close()

    def abandon(self) -> None:
        """After a fork, in the child: its signals must not write into the parent's pipe.

        They would set the parent's alarm. libc's read is the parent's, too, and stays untouched.
        """
        if not self.installed:
            return
        self.installed = False
        faulthandler.unregister(signal.SIGTERM)
        faulthandler.unregister(signal.SIGALRM)
        for descriptor in (*(self._pipe or ()), *([self._stderr] if self._stderr else [])):
            os.close(descriptor)
        self._pipe = self._stderr = None

    def _triggered(self) -> bool:
        """Whether a signal has come: its dump is in the pipe, of which libc reads one byte only.

        Whether libc has read it already is another question, and says nothing in the first moment.
        """
        if self._pipe is None:
            return False
        poll = select.poll()
        poll.register(self._pipe[0], select.POLLIN)
        return bool(poll.poll(0))

    def _start_read(self, libc: ctypes.CDLL) -> None:
        assert self._pipe is not None
        control = self._control
        control.fd = self._pipe[0]
        control.buffer = ctypes.addressof(self._buffer)
        control.size = 1
        control.event.notify = _SIGEV_THREAD
        control.event.value = self.seconds
        control.event.function = ctypes.cast(libc.alarm, ctypes.c_void_p).value
        if libc.aio_read(ctypes.byref(control)) != 0:
            raise OSError("aio_read")

    def _close(self) -> None:
        stderr, self._stderr = self._stderr, None
        if stderr is not None:
            os.close(stderr)
        pipe, self._pipe = self._pipe, None
        if pipe is None:
            return
        # The end of the file completes the read, so that libc lets go of the buffer; glibc looks at
        # the notification only then, and finds that there is none any more.
        self._control.event.notify = _SIGEV_NONE
        os.close(pipe[1])
        waiting = (ctypes.c_void_p * 1)(ctypes.addressof(self._control))
        ctypes.CDLL(None).aio_suspend(waiting, 1, None)
        os.close(pipe[0])
