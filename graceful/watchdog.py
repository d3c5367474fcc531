"""Holds the end: the process is gone before SIGKILL comes, and says what held it up.

Armed by a caught signal only: an embedding program that calls `lifecycle.terminate()` is not ours
to kill. Rules of this file
- The thread that leaves never logs, never takes a lock and never writes: whatever may block (a full
  log pipe, a held logging lock) happens in a thread beside it and gets `LOG_LIMIT` seconds.
- `faulthandler` is the backstop a little later. Its thread needs no GIL.
- After a clean stop it only stays on guard for the interpreter's own end, which waits for threads
  that are not daemons; a program that goes on living after its server has stopped is left alone.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["EXIT_CUT", "Watchdog"]

EXIT_CUT: Final = 70
"""EX_SOFTWARE of sysexits.h: something was cut. (75 and up mean 'try again' to some managers.)"""

LOG_LIMIT: Final = 0.5
"""Seconds that logging gets for the last report before it is written to stderr bare."""

BACKSTOP_AFTER: Final = 0.8
"""Seconds after the watchdog should have left at which faulthandler does, at the latest."""


class Watchdog:
    """Leaves with `os._exit` at a given time unless it is disarmed before.

    Args:
        log_report: makes the last report and logs it; may block, may be slow.
        plain_report: makes the last report as text without logging or locks.
    """

    def __init__(self, log_report: Callable[[], None], plain_report: Callable[[], str]) -> None:
        self._log_report = log_report
        self._plain_report = plain_report
        self._deadline = float("inf")
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._only_at_interpreter_exit = False
        self._reported = False

    def arm(self, deadline: float, margin: float) -> None:
        """Leave at `deadline` (monotonic seconds), `margin` seconds before SIGKILL would come."""
        self._deadline = min(self._deadline, deadline)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="graceful-exit", daemon=True)
            self._thread.start()
        self._changed.set()
        after = min(BACKSTOP_AFTER, margin * BACKSTOP_AFTER)
        patience = max(0.05, self._deadline - time.monotonic() + after)
        faulthandler.dump_traceback_later(patience, exit=True, file=_stderr())

    def stand_down(self, *, clean: bool) -> None:
        """The stop is over and reported. After an unclean one what was cut may hold the exit."""
        if self._thread is None:
            return
        self._reported = True
        if clean:
            self._only_at_interpreter_exit = True
            faulthandler.cancel_dump_traceback_later()
        else:
            self._deadline = min(self._deadline, time.monotonic() + LOG_LIMIT)
        self._changed.set()

    def disarm(self) -> None:
        """Forget everything and end the thread."""
        self._deadline = float("inf")
        if self._thread is not None:
            faulthandler.cancel_dump_traceback_later()
        self._changed.set()

    def _run(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0:
            if left == float("inf"):
                return
            self._changed.wait(left)
            self._changed.clear()
        # CPython marks the main thread as over before it joins the others at interpreter exit.
        if self._only_at_interpreter_exit and threading.main_thread().is_alive():
            return
        if not self._reported:
            self._report()
        os._exit(EXIT_CUT)

    def _report(self) -> None:
        done = threading.Event()

        def log() -> None:
            self._log_report()
            done.set()

        threading.Thread(target=log, name="graceful-report", daemon=True).start()
        if done.wait(LOG_LIMIT):
            return
        bare = threading.Thread(target=self._write_bare, name="graceful-bare", daemon=True)
        bare.start()
        bare.join(LOG_LIMIT / 2)

    def _write_bare(self) -> None:
        """Write past logging; the descriptor is opened anew where it can be, to not block on it."""
        data = self._plain_report().encode("utf-8", "backslashreplace")
        try:
            descriptor = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND)
        except OSError:
            descriptor = 2
        os.write(descriptor, data)


def _stderr() -> int:
    stream = sys.__stderr__
    try:
        return stream.fileno() if stream is not None else 2
    except (OSError, ValueError):
        return 2
