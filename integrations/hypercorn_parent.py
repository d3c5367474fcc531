"""hypercorn's parent process, under `graceful run`: its workers are told why they end.

hypercorn manages: it starts workers, and starts others for those that have ended. Here it is told
to stop when the delay is over, and waits for all workers then; alone it would end the others as
soon as the first one is done. SIGHUP, for which it would end all workers at once, replaces one
after the other: it is asked for one worker more, and then each old one retires when a new one
serves. With `-w 0` there is no parent, and with `--reload` nothing here runs.

Private names used: `hypercorn.__main__.run`; of `hypercorn.run` the globals `signal`, `wait`,
`get_context` and `_join_exited`, through which `run` does all that is changed here; `sockets` and
`config` among the arguments of a worker. Tested with hypercorn 0.18.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import socket
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from importlib.metadata import version
from multiprocessing import connection, get_context
from multiprocessing.context import SpawnProcess
from typing import Any, ClassVar, Final

from hypercorn import run as _run_module  # the module: hypercorn exports no function of this name
from hypercorn.config import Config

from graceful.board import Board
from graceful.core.budget import ServerLimit
from graceful.listeners import shut_down
from graceful.parent import Parent, begin_worker
from graceful.watchdog import EXIT_CUT

__all__ = ["install", "main"]

hypercorn_run: Any = _run_module
command: Any = importlib.import_module("hypercorn.__main__")

GLOBALS: Final = ("signal", "wait", "get_context", "_join_exited")
"""What `hypercorn.run.run` looks up in its module, and is given otherwise here."""


def install() -> None:
    """Have hypercorn's command line start our parent where it would start its own.

    Raises:
        AttributeError: hypercorn has lost a name that this needs.
    """
    for name in GLOBALS:
        getattr(hypercorn_run, name)
    plain: Callable[[Config], int] = command.run

    def run(config: Config) -> int:
        if config.workers == 0 or config.use_reloader:
            return plain(config)
        return Instance(config).run(plain)

    command.run = run


def main() -> int:
    """Run hypercorn's own command line on `sys.argv`."""
    status: int = command.main()
    return status


class Worker(SpawnProcess):
    """A worker, as its parent has it."""

    parent: ClassVar[Parent]
    slot: int

    def start(self) -> None:
        """Ctrl-C is the parent's business, as under hypercorn alone."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            super().start()
        finally:
            signal.signal(signal.SIGINT, before)
        self.parent.watches(self.slot, self)


class Instance:
    """hypercorn's parent, while its `run` runs."""

    def __init__(self, config: Config) -> None:
        self.name = f"hypercorn {version('hypercorn')}"
        self._config = config
        binds = (*config.bind, *config.insecure_bind)
        self._parent = Parent(self, keeps_port=any(bind.startswith("fd://") for bind in binds))
        self._spawn = get_context("spawn")
        self._workers: list[Worker] = []
        self._listeners: list[int] = []
        self._shutdown: Callable[[], object] | None = None
        self._reload: Callable[[], object] | None = None
        self._stopping = False
        self._failed = 0
        self._wake = os.pipe()
        for number in self._wake:
            os.set_blocking(number, False)
        self._asked = False
        self._old: list[Worker] = []
        """Workers that a reload has yet to replace."""
        self._leaving: Worker | None = None
        self._replaced_by_nobody = False
        Worker.parent = self._parent

    def run(self, plain: Callable[[Config], int]) -> int:
        """Run hypercorn's own `run`, and return the exit status."""
        self._parent.start()
        with self._instead():
            plain(self._config)
        status = self._parent.end()
        if self._failed:
            return self._failed if self._failed > 0 else EXIT_CUT
        return status

    @contextlib.contextmanager
    def _instead(self) -> Generator[None]:
        """Stand between hypercorn's `run` and what it calls."""
        before = {name: getattr(hypercorn_run, name) for name in GLOBALS}
        self._join = before["_join_exited"]
        vars(hypercorn_run).update(
            signal=_Signals(self), wait=self.wait, get_context=self._context, _join_exited=self.join
        )
        try:
            yield
        finally:
            vars(hypercorn_run).update(before)

    def _context(self, method: str) -> _Context:
        return _Context(self, self._spawn)

    # -- what Parent calls, in its thread --------------------------------------------------------

    def stop(self) -> None:
        self._stopping = True
        if self._shutdown is not None:
            self._shutdown()
        self._ring()

    def refuse(self) -> None:
        for number in self._listeners:
            shut_down(number)

    def limits(self) -> Sequence[ServerLimit]:
        """A worker has hypercorn's configuration, too, and says what is wrong."""
        return ()

    def heard(self) -> None:
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is awake already
            os.write(self._wake[1], b"!")

    # -- what hypercorn's `run` calls ------------------------------------------------------------

    def on_signal(self, number: int, handler: Any) -> None:
        """It says what a signal is to do. SIGTERM and SIGINT have a handler of ours."""
        if number == signal.SIGTERM:
            self._shutdown = handler
            if self._stopping:
                handler()
        elif number == signal.SIGHUP:
            self._reload = handler
            signal.signal(signal.SIGHUP, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True
        self._ring()

    def worker(self, target: Callable[..., None], kwargs: Mapping[str, Any]) -> Worker:
        """It starts a worker."""
        slot = self._parent.begins()
        sockets = kwargs["sockets"]
        listeners = (*sockets.secure_sockets, *sockets.insecure_sockets)
        self._listeners = [listener.fileno() for listener in listeners]
        worker = Worker(target=_run_worker, args=(self._parent.board, slot, target, kwargs))
        worker.slot = slot
        self._workers.append(worker)
        return worker

    def wait(self, sentinels: Iterable[int]) -> list[int]:
        """It waits until a worker has ended, and starts another one then, or ends the rest."""
        waiting: list[Any] = list(sentinels)
        while waiting:
            ready: list[Any] = list(connection.wait([*waiting, self._wake[0]]))
            ended = [number for number in waiting if number in ready]
            if self._wake[0] in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake[0], 4096)
            failed = [self._note_end(number) for number in ended]
            if self._parent.told and (any(failed) or self._parent.starts_no_more):
                waiting = [number for number in waiting if number not in ended]
            elif ended or self._replace_next():
                return ended
        self.stop()
        return []

    def _note_end(self, sentinel: int) -> int:
        """Return the status with which a worker has ended."""
        worker = next(each for each in self._workers if each.sentinel == sentinel)
        worker.join()
        self._workers.remove(worker)
        if worker.exitcode and not self._parent.told:
            self._note_failure(worker, worker.exitcode)
        return worker.exitcode or 0

    def _note_failure(self, worker: Worker, status: int) -> None:
        if self._old and not self._parent.board.has_stopped(worker.slot):
            self._parent.says(
                f"the new worker {worker.pid} ended with {status}; the reload is given up, "
                "the old workers stay"
            )
            self._end_reload()
            self._replaced_by_nobody = True
        else:
            self._failed = status
            self._parent.fails()

    def join(self, processes: list[Any]) -> int:
        """It joins who has ended, and stops when one has failed."""
        status: int = self._join(processes)
        if self._replaced_by_nobody:
            self._replaced_by_nobody = False
            return 0
        return status

    # -- reloads ---------------------------------------------------------------------------------

    def _replace_next(self) -> bool:
        """Go on with a reload. Returns whether another worker is to be started now."""
        if self._asked:
            self._asked = False
            return self._begin_reload()
        if self._old and self._leaving not in self._workers and self._new_ones_serve():
            self._leaving = self._old.pop(0)
            if not self._old:
                self._config.workers -= 1
            self._parent.replaces(self._leaving.slot, "SIGHUP")
            self._leaving.terminate()
        return False

    def _new_ones_serve(self) -> bool:
        new = [each for each in self._workers if each not in self._old]
        return bool(new) and all(self._parent.board.accepts(each.slot) for each in new)

    def _begin_reload(self) -> bool:
        if not self._parent.board.has_served:  # an app that is not wrapped tells nothing
            assert self._reload is not None
            self._reload()
            return False
        if self._old:
            return False  # one is going on
        self._old = list(self._workers)
        self._config.workers += 1
        return True

    def _end_reload(self) -> None:
        self._old.clear()
        self._config.workers -= 1


class _Signals:
    """The module `signal` for hypercorn's `run`."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def signal(self, number: int, handler: Any) -> None:
        self._instance.on_signal(number, handler)

    def __getattr__(self, name: str) -> Any:
        return getattr(signal, name)


class _Context:
    """The context of multiprocessing for hypercorn's `run`."""

    def __init__(self, instance: Instance, spawn: Any) -> None:
        self.Event = spawn.Event
        self._instance = instance

    def Process(self, target: Callable[..., None], kwargs: Mapping[str, Any]) -> Worker:
        return self._instance.worker(target, kwargs)


def _run_worker(
    board: Board, slot: int, target: Callable[..., None], kwargs: Mapping[str, Any]
) -> None:
    """Run in the process of a worker, before its app is imported."""
    begin_worker(board, slot)
    sockets = kwargs["sockets"]
    if kwargs["config"].worker_class == "asyncio":  # trio takes no other class, uvloop the number
        for listeners in (sockets.secure_sockets, sockets.insecure_sockets):
            listeners[:] = [_Listener(fileno=each.detach()) for each in listeners]
    target(**kwargs)


class _Listener(socket.socket):
    """A listener that a sibling may shut down for all while this worker still asks it.

    A Django project takes part from its first request on: until then nobody knows of its worker.
    """

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return super().accept()
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise BlockingIOError(errno.EAGAIN, "the listener is shut down") from error
            raise
