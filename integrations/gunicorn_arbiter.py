"""gunicorn's arbiter as the lifecycle sees it: the ladder, reloads, the report of the instance.

The arbiter alone knows whether the instance goes away or one worker is replaced. On its first
SIGTERM it writes that on the board, which every worker reads at once, and goes on: it reaps,
respawns and answers for the port until the propagation delay is over; only then does its own stop
begin. Everything else that ends a worker (HUP, TTOU, a maximum of requests) is a retirement.

All of it is put on the one arbiter as attributes, so a second one in a process knows nothing of it.

Private names used: `Arbiter.handle_term`, `handle_int`, `handle_quit`, `handle_hup`, `handle_ttou`,
`handle_winch`, `kill_worker`, `reap_workers`, `wait_for_signals`, `SIG_QUEUE`, `WORKERS`,
`num_workers`, `reexec_pid`, `systemd`; `app.reload`, `cfg` and `callable`. Tested with gunicorn
27.0.1.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import gunicorn
from gunicorn.errors import HaltServer

from graceful.board import Board, Order
from graceful.core.managing import next_rung, stop_is_due
from graceful.core.records import Notice
from graceful.instance import climb, say_gone, say_started, summed
from graceful.lifecycle import Lifecycle
from graceful.settings import unknown_variables

from .gunicorn_config import own_settings, tell_findings
from .gunicorn_dirty import DirtyPool

__all__ = ["Instance"]

RETIRING: Final = {"hup": "SIGHUP", "ttou": "SIGTTOU", "winch": "SIGWINCH"}
"""Signals by which the arbiter replaces workers or takes them away, and the cause on the board."""


class Instance:
    """The arbiter and all its workers: climbs the ladder, tells the workers, writes the report."""

    def __init__(self, server: Any, lifecycle: Lifecycle) -> None:
        self._server = server
        self._lifecycle = lifecycle
        self._core = lifecycle.core
        self._stopping = False
        self._signalled: float | None = None
        assert lifecycle.board is not None
        assert lifecycle.defaults is not None
        self._board: Board = lifecycle.board
        self._core.settings = lifecycle.defaults
        if server.systemd:
            self._board.keeps_port()
        self._reason = ""
        self._term = server.handle_term
        self._wait = server.wait_for_signals
        server.handle_term = self.handle_term
        server.wait_for_signals = self.wait_for_signals
        for name in ("int", "quit"):
            self._wrap_quick(name)
        for name, cause in RETIRING.items():
            self._wrap_retiring(name, cause)
        self._kill = server.kill_worker
        server.kill_worker = self.kill_worker
        self._reap = server.reap_workers
        server.reap_workers = self.reap_workers
        self._reload = server.app.reload
        server.app.reload = self.reload
        DirtyPool(server, self._board)
        server.SIG_QUEUE = _Queue(server.SIG_QUEUE, self.arrived, self.third)
        self._say_started()

    def _wrap_quick(self, name: str) -> None:
        original = getattr(self._server, f"handle_{name}")

        def handle() -> None:
            self._climb(3, f"SIG{name.upper()}")
            self._stopping = True
            original()

        setattr(self._server, f"handle_{name}", handle)

    def _wrap_retiring(self, name: str, cause: str) -> None:
        original = getattr(self._server, f"handle_{name}")

        def handle() -> None:
            self._reason = cause
            try:
                original()
            except NothingReloadedError as error:
                self._lifecycle.tell(Notice(str(error)))
            finally:
                self._reason = ""

        setattr(self._server, f"handle_{name}", handle)

    def _say_started(self) -> None:
        lifecycle, name = self._lifecycle, f"gunicorn {gunicorn.__version__}"
        say_started(lifecycle, self._core.settings, name, *own_settings(self._server.cfg))
        for text in unknown_variables():
            lifecycle.tell(Notice(text))
        tell_findings(self._server.cfg, lifecycle)

    # -- the ladder ----------------------------------------------------------------------------

    def arrived(self, number: object) -> None:
        """A signal has come; in signal context, so no lock and no word.

        Its handler is called when the arbiter's loop gets to it, which a reload keeps for as long
        as an old worker takes. The workers must not go on saying 200 until then.
        """
        first = self._signalled is None and not self._core.rung
        if first and number == signal.SIGTERM and not self._server.reexec_pid:
            self._signalled = time.monotonic()
            self._board.climb(Order(self._next_rung(), self._signalled, "SIGTERM"))

    def _next_rung(self) -> int:
        """Nobody has to notice where systemd holds the socket: who is started next serves it."""
        return next_rung(self._core.rung, waits=not self._server.systemd)

    def _stop_is_due(self) -> bool:
        return stop_is_due(self._core.timeline, self._lifecycle.clock())

    def handle_term(self) -> None:
        """What the arbiter does on SIGTERM, of which the last one is our own."""
        if self._server.reexec_pid:
            # A new arbiter serves the port: this one's workers are replaced, and no more.
            self._board.retires("SIGUSR2")
            self._stop()
        if not self._stop_is_due():
            self._climb(self._next_rung(), "SIGTERM")
        if self._stop_is_due():
            self._lifecycle.tell(self._core.delay_over(self._lifecycle.clock()))
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._term()  # raises StopIteration, which ends the arbiter's loop

    def third(self, number: object) -> object:
        """A signal while the arbiter waits for its workers: SIGTERM means a quick stop then."""
        if not self._stopping or number != signal.SIGTERM:
            return number
        self._climb(3, "SIGTERM")
        return signal.SIGQUIT

    def _climb(self, rung: int, cause: str) -> None:
        heard = None if self._core.rung else self._signalled
        at = time.monotonic() if heard is None else heard
        for record in climb(self._lifecycle, self._board, rung, cause, at):
            self._lifecycle.tell(record)

    def wait_for_signals(self, timeout: float = 1.0) -> list[Any]:
        """Wait no longer than the propagation delay, whose end counts as another SIGTERM."""
        timeline = self._core.timeline
        if self._core.rung != 1 or timeline is None:
            return list(self._wait(timeout=timeout))
        left = max(0.0, timeline.delay_ends - self._lifecycle.clock())
        signals = list(self._wait(timeout=min(timeout, left)))
        due = self._stop_is_due() and signal.SIGTERM not in signals
        return [*signals, signal.SIGTERM] if due else signals

    # -- workers that are replaced ---------------------------------------------------------------

    def reap_workers(self) -> None:
        """Go on without a worker that can't start any more: the new version may lie there already.

        gunicorn alone halts. In the lame duck that is the end of the delay, and in its own stop of
        the waiting for all the others, which are left to themselves.
        """
        try:
            self._reap()
        except HaltServer as error:
            left = len(self._server.WORKERS)
            if not (self._stopping or (self._core.rung and left)):
                raise
            if not self._stopping:
                self._server.num_workers = left
                text = f"{error.reason.rstrip('.')} while the instance goes; it goes on with {left}"
                self._lifecycle.tell(Notice(text))

    def kill_worker(self, pid: int, number: int) -> None:
        """Write the reason before the signal: a worker that finds one waits for no other."""
        worker = self._server.WORKERS.get(pid)
        if number == signal.SIGTERM and worker is not None and self._board.order is None:
            self._board.retires_to(worker.age, self._reason or "fewer workers")
        self._kill(pid, number)

    def reload(self) -> None:
        """Read the configuration again; when it can't be read everything stays as it is.

        Only here, and not around the whole reload, which workers leave by SystemExit as well.
        """
        app, lifecycle = self._server.app, self._lifecycle
        cfg, defaults, directory = app.cfg, lifecycle.defaults, os.getcwd()
        self._board.may_say_again()
        try:
            self._reload()
            app.cfg.address  # noqa: B018 - it is parsed when it is asked for
        except (Exception, SystemExit) as error:
            app.cfg, lifecycle.defaults = cfg, defaults
            os.chdir(directory)
            os.environ.update(cfg.env)
            raise NothingReloadedError(_why_not(error)) from None

    # -- the report ------------------------------------------------------------------------------

    def report(self) -> None:
        """All workers are gone: say how it went, once, for all of them."""
        if self._core.cause is None:
            return
        own = self._core.report(self._lifecycle.clock())
        say_gone(self._lifecycle, summed(own, list(self._board.slots())))


class NothingReloadedError(Exception):
    """The configuration can't be read."""


def _why_not(error: BaseException) -> str:
    """Return one line; gunicorn itself leaves with a status where it has caught an error."""
    if isinstance(error, SystemExit) and error.__context__ is not None:
        error = error.__context__
    told = " ".join(str(error).split())
    return (
        f"the configuration can't be read ({type(error).__name__}: {told}); nothing is reloaded, "
        "the workers and the settings stay as they were"
    )


class _Queue:
    """The arbiter's queue of signals: seen as they come, and as they are taken."""

    def __init__(
        self, queue: Any, arrived: Callable[[object], None], seen: Callable[[object], object]
    ) -> None:
        self._queue = queue
        self._arrived = arrived
        self._seen = seen

    def put_nowait(self, number: object) -> None:
        self._arrived(number)
        self._queue.put_nowait(number)

    def get(self, block: bool = True, timeout: float | None = None) -> object:
        return self._seen(self._queue.get(block=block, timeout=timeout))

    def get_nowait(self) -> object:
        return self._seen(self._queue.get_nowait())
