"""granian's parent process, under `graceful run`: its workers are told why they are signalled.

granian manages: it starts, watches, replaces and joins workers. It is told to stop when the delay
is over, and each worker that it replaces (SIGHUP, lifetime, RSS) retires. With `--reload` nothing
here runs, and where workers are threads (free-threaded Python) it can't be put in.

On Linux each worker has a TCP listener of its own, and a Unix socket's copy is closed by granian's
own shutdown: nobody hangs in a backlog that the parent holds.

Private names used: `granian.cli.Server`, `granian.cli.entrypoint`; of `granian.server.mp.MPServer`
`startup`, `shutdown`, `signal_handler_interrupt`, `_spawn_worker`, `_respawn_workers`, `_reload`,
`wrks`, `pid`, `reload_on_changes`, `interrupt_children`, `workers_kill_timeout`; of its workers
`inner`, `start`, `is_alive`, `interrupt_by_parent`. Tested with granian 2.8.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import granian
from granian import cli
from granian.server.mp import MPServer

from graceful.board import Board
from graceful.core.budget import ServerLimit
from graceful.parent import Parent, begin_worker

__all__ = ["install", "main"]

NEEDED: Final = (
    *("startup", "shutdown", "signal_handler_interrupt"),
    *("_spawn_worker", "_respawn_workers", "_reload"),
)

command: Any = cli

SLOT: Final = "graceful_slot"
"""Attribute of a worker's object in the parent: its number on the board."""


def install() -> None:
    """Have granian's command line start our parent where it would start its own.

    Raises:
        AttributeError: granian has lost a name that this needs, or its workers are threads.
    """
    for name in NEEDED:
        getattr(MPServer, name)
    if command.Server is not MPServer:
        raise AttributeError("granian.cli.Server starts no processes")
    command.Server = GracefulServer


def main() -> None:
    """Run granian's own command line on `sys.argv`."""
    command.entrypoint()


class GracefulServer(MPServer):
    """granian's parent, whose workers are told why they are signalled."""

    name = f"granian {granian.__version__}"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._parent = None if self.reload_on_changes else Parent(self)
        self._cause = ""

    @property
    def _granian(self) -> Any:
        """What granian's own parent does."""
        return super()

    def startup(self, spawn_target: Any, target_loader: Any) -> None:
        if self._parent is not None:
            self._parent.start(signals=False)
        self._granian.startup(spawn_target, target_loader)

    def shutdown(self, exit_code: int = 0) -> None:
        parent = self._parent
        if parent is None:
            self._granian.shutdown(exit_code)
            return
        if parent.told:
            self.interrupt_children.clear()  # who has left meanwhile was told to
        else:
            parent.fails()
        try:
            self._granian.shutdown(exit_code)
        finally:
            status = parent.end()
        if status:
            sys.exit(status)

    def stop(self) -> None:
        for worker in self.wrks:
            worker.interrupt_by_parent = True
        self._granian.signal_handler_interrupt()

    def refuse(self) -> None:
        """What the parent holds of the port it has let go of before."""

    def heard(self) -> None:
        """granian waits a while for the new one, whether it serves or not."""

    def limits(self) -> Sequence[ServerLimit]:
        """A forked worker can read what its parent was given, and says what is wrong."""
        if "fork" in {worker._spawn_method for worker in self.wrks}:
            return ()
        seconds = self.workers_kill_timeout or None
        return (ServerLimit("granian --workers-kill-timeout", seconds, "at_signal"),)

    def signal_handler_interrupt(self, *arguments: Any, **keywords: Any) -> None:
        if self._parent is None or os.getpid() != self.pid:  # of a worker that imports its app yet
            self._granian.signal_handler_interrupt(*arguments, **keywords)
        else:
            self._parent.signalled(arguments[0])

    # -- workers ---------------------------------------------------------------------------------

    def _spawn_worker(  # type: ignore[override]
        self, idx: int, target: Any, callback_loader: Any
    ) -> Any:
        parent = self._parent
        if parent is None:
            return self._granian._spawn_worker(idx, target, callback_loader)
        slot = parent.begins()
        told = partial(_run_worker, parent.board, slot, target)
        worker: Any = self._granian._spawn_worker(idx, told, callback_loader)
        start = worker.start

        def start_and_watch() -> None:
            start()
            parent.watches(slot, worker.inner)

        worker.start = start_and_watch
        setattr(worker, SLOT, slot)
        return worker

    def _reload(self, spawn_target: Any, target_loader: Any) -> Any:
        self._cause = "SIGHUP"
        try:
            return self._granian._reload(spawn_target, target_loader)
        finally:
            self._cause = ""

    def _respawn_workers(
        self, workers: Any, spawn_target: Any, target_loader: Any, delay: float = 0
    ) -> None:
        parent = self._parent
        current: Any = self.wrks
        for idx in workers:
            old = current[idx]
            if parent is not None:
                if parent.starts_no_more or (parent.told and old.is_alive()):
                    return
                parent.replaces(getattr(old, SLOT), self._cause or "replaced")
            self._granian._respawn_workers([idx], spawn_target, target_loader, delay)


def _run_worker(board: Board, slot: int, target: Callable[..., None], *arguments: Any) -> None:
    """Run in the process of a worker, before its app is imported."""
    begin_worker(board, slot)
    target(*arguments)
