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

__all__ = ["EXIT_CUT", "Watchdog", "open_stderr"]

EXIT_CUT: Final = 70
"""EX_SOFTWARE of sysexits.h: something was cut. (75 and up mean 'try again' to some managers.)"""

LOG_LIMIT: Final = 0.5
"""Seconds that logging gets for the last report before it is written to stderr bare."""

BACKSTOP_AFTER: Final = 0.8
"""Seconds after the watchdog should have left at which faulthandler does, at the latest."""


class Watchdog:
    """Leaves with `os._exit` at a given time unless it stands down before.

    Args:
        log_report: makes the last report and logs it; may block, may be slow.
        plain_report: makes the last report as text without logging or locks.
        forks: this process may still fork others, in which faulthandler, once armed, would wait for
            a thread that they don't have; it does without.
    """

    def __init__(
        self,
        log_report: Callable[[], None],
        plain_report: Callable[[], str],
        *,
        forks: bool = False,
    ) -> None:
        self._log_report = log_report
        self._plain_report = plain_report
        self._forks = forks
        self._deadline = float("inf")
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._only_at_interpreter_exit = False
        self._reported = False
        self._stderr: int | None = None

    def arm(self, deadline: float, margin: float) -> None:
        """Leave at `deadline` (monotonic seconds), `margin` seconds before SIGKILL would come."""
        self._deadline = min(self._deadline, deadline)
        if self._stderr is None:
            self._stderr = open_stderr()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="graceful-exit", daemon=True)
            self._thread.start()
        self._changed.set()
        if self._forks:
            return
        after = min(BACKSTOP_AFTER, margin * BACKSTOP_AFTER)
        patience = max(0.05, self._deadline - time.monotonic() + after)
        faulthandler.dump_traceback_later(patience, exit=True, file=self._stderr)

    def stand_down(self, *, clean: bool, limit: float) -> None:
        """The stop is over and reported. After an unclean one what was cut may hold the exit.

        `limit`: seconds that the rest of the program gets then, such as `atexit` work.
        """
        if self._thread is None:
            return
        self._reported = True
        if clean:
            self._only_at_interpreter_exit = True
            self._close()
        else:
            self._deadline = min(self._deadline, time.monotonic() + limit)
        self._changed.set()

    def _close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        stderr, self._stderr = self._stderr, None
        if stderr is not None:
            os.close(stderr)

    def _run(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0:
            self._changed.wait(left)
            self._changed.clear()
        # CPython marks the main thread as over before it joins the others at interpreter exit.
        if self._only_at_interpreter_exit and threading.main_thread().is_alive():
            return
        if not self._reported:
            self._report()
        elif self._only_at_interpreter_exit:
            write_bare(held_by_threads())
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
        write_bare(self._plain_report())


def write_bare(text: str) -> None:
    """Write past logging and past `sys.stderr`."""
    os.write(open_stderr(), text.encode("utf-8", "backslashreplace"))


def held_by_threads() -> str:
    """Name the threads that the interpreter waits for before it ends."""
    names = [t.name for t in threading.enumerate() if not t.daemon and t.is_alive()]
    return f"graceful: the exit was held by threads that are not daemons: {', '.join(names)}\n"


def open_stderr() -> int:
    """Return a new descriptor of stderr, on which a write does not wait if that can be had.

    A dump of stacks into a full pipe that nobody reads would wait for ever, and the exit that
    follows it with it. Opened anew a pipe has flags of its own; a socket (systemd's journal) can't
    be opened so, and its copy may block.
    """
    stream = sys.__stderr__
    try:
        number = stream.fileno() if stream is not None else 2
    except (OSError, ValueError):
        number = 2
    try:
        return os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND)
    except OSError:
        pass
    try:
        return os.dup(number)
    except OSError:  # a daemon that has closed it
        return os.open(os.devnull, os.O_WRONLY)
