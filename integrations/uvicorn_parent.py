"""uvicorn's parent process, under `graceful run`: its workers are told why they are signalled.

uvicorn manages: it starts, pings, replaces and joins workers. It is told to stop when the delay is
over, and each SIGTERM that it sends to one worker for another reason is a retirement. With one
worker there is no parent, and with `--reload` nothing here runs.

Private names used: `uvicorn.main.Multiprocess`; of `uvicorn.supervisors.multiprocess` the classes
`Multiprocess` (`run`, `should_exit`, `sockets`, `terminate_all`, `keep_subprocess_alive`,
`handle_hup`, `handle_ttou`) and `Process` (`start`, `target`, `ping`, `terminate`, `kill`,
`process`, `child_conn`), which `Multiprocess` looks up by its global name. Tested with uvicorn
0.54.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from socket import socket
from typing import Any, ClassVar, Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors import multiprocess
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from graceful.board import Board
from graceful.core.budget import ServerLimit
from graceful.listeners import shut_down
from graceful.parent import Parent, begin_worker

__all__ = ["install", "main"]

NEEDED = {
    Multiprocess: ("run", "terminate_all", "keep_subprocess_alive", "handle_hup", "handle_ttou"),
    Process: ("start", "target", "ping", "terminate", "kill"),
}

A_MOMENT: Final = 0.5
"""Seconds in which a worker ends that has closed what it would answer by."""


def install() -> None:
    """Have uvicorn's command line start our parent where it would start its own.

    Raises:
        AttributeError: uvicorn has lost a name that this needs.
    """
    for owner, names in NEEDED.items():
        for name in names:
            getattr(owner, name)
    module = import_module("uvicorn.main")
    if module.Multiprocess is not Multiprocess:
        raise AttributeError("uvicorn.main has another Multiprocess")
    module.Multiprocess = GracefulMultiprocess  # type: ignore[attr-defined]
    multiprocess.Process = Worker  # type: ignore[misc]


def main() -> None:
    """Run uvicorn's own command line on `sys.argv`."""
    uvicorn.main()


class Worker(Process):
    """One worker: of it, the parent has the process, and the process the board."""

    parent: ClassVar[Parent]
    cause: ClassVar[str] = ""
    """Why workers are being replaced."""

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        self.slot = self.parent.begins()
        self.board: Board = self.parent.board

    def start(self) -> None:
        super().start()
        # The worker has its own. Who pings one that has gone would else wait for the whole timeout,
        # with no worker in its place and no ear for the next signal.
        self.child_conn.close()
        self.parent.watches(self.slot, self.process)

    def target(self, sockets: list[socket] | None = None) -> None:
        """What the process runs, before its app is imported."""
        begin_worker(self.board, self.slot)
        super().target(sockets)

    def ping(self, timeout: float = 5) -> bool:
        answers = super().ping(timeout)
        if not answers:
            self.process.join(A_MOMENT)
        return answers

    def terminate(self) -> None:
        self.parent.replaces(self.slot, self.cause or "replaced")
        super().terminate()

    def kill(self) -> None:
        """uvicorn kills who has ended, too: to be sure."""
        if self.process.is_alive():
            seconds = self.config.timeout_worker_healthcheck
            self.parent.says(
                f"worker {self.pid} is killed by uvicorn: no answer, or not ready, in {seconds} s, "
                "and what it has in flight is lost; raise --timeout-worker-healthcheck"
            )
        super().kill()


class GracefulMultiprocess(Multiprocess):
    """uvicorn's parent, whose workers are told why they are signalled."""

    name = f"uvicorn {uvicorn.__version__}"

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        self._parent = Parent(self, keeps_port=config.fd is not None)
        Worker.parent = self._parent

    def run(self) -> None:
        self._parent.start()
        super().run()
        failed = any(process.exitcode == STARTUP_FAILURE for process in self.processes)
        status = self._parent.end()
        if failed or status:
            sys.exit(STARTUP_FAILURE if failed else status)

    def stop(self) -> None:
        self.should_exit.set()

    def refuse(self) -> None:
        for listener in self.sockets:
            shut_down(listener.fileno())

    def heard(self) -> None:
        """uvicorn has its own way to ask who serves."""

    def limits(self) -> Sequence[ServerLimit]:
        """A worker has uvicorn's configuration, too, and says what is wrong."""
        return ()

    def terminate_all(self) -> None:
        if not self._parent.told:
            self._parent.fails()
        super().terminate_all()

    def keep_subprocess_alive(self) -> None:
        """Workers that are done leave by themselves; that is no reason to start others."""
        if not self._parent.starts_no_more:
            super().keep_subprocess_alive()

    def handle_hup(self) -> None:
        self._replacing("SIGHUP", super().handle_hup)

    def handle_ttou(self) -> None:
        self._replacing("SIGTTOU", super().handle_ttou)

    def _replacing(self, cause: str, handle: Any) -> None:
        Worker.cause = cause
        try:
            handle()
        finally:
            Worker.cause = ""
