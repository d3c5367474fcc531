"""The processes under test: their ports, their output, their signals, and that none outlives us.

An instance is any command line. It runs in a session of its own, so that SIGTERM goes to its main
process only, as platforms do it, and SIGKILL can go to everything that it has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO, Final

import psutil

from .plan import Plan, PlanError, RehearsalError
from .readiness import Answer, probe

__all__ = ["Instance", "Phase", "reserved_ports"]

TAIL: Final = 20
"""Lines of an instance's output that an error shows."""
READY_POLL: Final = 0.05
"""Seconds between two looks at an instance that is starting, or at what it has left."""
MISSING: Final = 3.0
"""Seconds of nothing but 404 after which no readiness path will come any more."""
UNREADY: Final[Mapping[Answer, str]] = {
    Answer.UNREADY: "{path} answers, but not with success",
    Answer.MISSING: "there is no {path} (404); give --readiness-path",
    Answer.REFUSED: "nothing listens on its port; does the command take it from {{port}}?",
    Answer.SILENT: "{path} is not answered",
}
"""Why an instance is not ready, for people."""
HELPERS: Final = 2.0
"""Seconds for helper processes to notice that their parent has gone."""


class Phase(StrEnum):
    """What an instance looks like from outside."""

    STARTING = "starting"
    SERVING = "serving"
    LAME_DUCK = "lame duck"
    """Unready, and accepting."""
    DRAINING = "draining"
    """No new connections."""
    EXITED = "exited"


class Instance:
    """One place behind the balancer, with the process that fills it at the moment."""

    def __init__(self, name: str, port: int, plan: Plan, logs: Path) -> None:
        self.name = name
        self.port = port
        self.phase = Phase.EXITED
        self.life = 0
        """How many processes have filled this place so far."""
        self.start_seconds = 0.0
        """How long its latest start took, until it was ready."""
        self.last_ok_at = 0.0
        """Clock time at which it last finished an ordinary request well."""
        self.served = 0
        self.lost = 0
        self.in_flight = 0
        self.log = logs / f"{name}.log"
        self._plan = plan
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0
        self._started_at = 0.0

    async def start(self) -> None:
        """Start the process; `until_ready` waits for it.

        Raises:
            PlanError: there is no such command.
        """
        self.life += 1
        self.phase = Phase.STARTING
        self._started_at = time.monotonic()
        command = self._plan.command_for(self.port)
        with self._output() as output:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise PlanError(f"can't start {command[0]!r}: {error.strerror}") from error

    def _output(self) -> IO[bytes]:
        """Open what the process writes to."""
        log = self.log.open("ab")
        self._log_start = log.tell()
        if "full-disk" not in self._plan.faults:
            return log
        log.close()
        return Path("/dev/full").open("ab", buffering=0)

    async def until_ready(self) -> None:
        """Wait until the readiness path answers with success.

        Raises:
            RehearsalError: it died or took too long; the message ends with its output.
        """
        path, limit = self._plan.readiness_path, self._plan.start_timeout
        began, missing_since = time.monotonic(), math.inf
        while (answer := await probe(self.port, path, timeout=1.0)) is not Answer.READY:
            now = time.monotonic()
            missing_since = min(missing_since, now) if answer is Answer.MISSING else math.inf
            if self.exit_code is not None:
                raise RehearsalError(self._said(f"exited with {self.exit_code} while starting"))
            if now > began + limit or now > missing_since + MISSING:
                why = UNREADY[answer].format(path=path)
                raise RehearsalError(self._said(f"was not ready after {now - began:.1f} s: {why}"))
            await asyncio.sleep(READY_POLL)
        self.start_seconds = time.monotonic() - self._started_at
        self.phase = Phase.SERVING

    def _said(self, what: str) -> str:
        with self.log.open("rb") as output:
            output.seek(self._log_start)
            lines = output.read().decode("utf-8", "replace").splitlines()[-TAIL:]
        said = "\n".join(f"    {line}" for line in lines) or "    (no output)"
        return f"{self.name} (port {self.port}) {what}; its last lines:\n{said}"

    @property
    def exit_code(self) -> int | None:
        """Of the current process; None while it runs."""
        return self._process.returncode if self._process else None

    @property
    def status(self) -> int:
        """The exit code of a process that has exited."""
        assert self.exit_code is not None
        return self.exit_code

    def terminate(self) -> None:
        """Send SIGTERM to the main process only."""
        self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        """Signal the main process only, if it still runs."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)

    def workers(self) -> list[psutil.Process]:
        """Return the processes that the main process has started to serve."""
        if self._process is None:
            return []
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [child for child in children if not _is_helper(child)]

    def reload(self) -> None:
        """Send the reload signal to the main process only; what serves from here on is new."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.Signals[self._plan.signal_name])
            self.life += 1

    async def until_replaced(self, old: Sequence[psutil.Process], timeout: float) -> bool:
        """Wait until none of the workers `old` runs; False = one still did after `timeout` seconds.

        Raises:
            RehearsalError: the signal has ended the instance.
        """
        limit = time.monotonic() + timeout
        while any(map(_runs, old)):
            if self.exit_code is not None:
                name = self._plan.signal_name
                raise RehearsalError(self._said(f"was ended by {name} ({self.exit_code})"))
            if time.monotonic() > limit:
                return False
            await asyncio.sleep(READY_POLL)
        return True

    async def until_exit(self, timeout: float) -> bool:
        """Wait for the exit of the main process; False = it still ran after `timeout` seconds."""
        assert self._process
        try:
            async with asyncio.timeout(timeout):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    async def clear(self) -> bool:
        """After the exit: kill what the process has left behind; False = nothing was left.

        Helpers that end when they notice, such as multiprocessing's, get a moment for it.
        """
        limit = time.monotonic() + HELPERS
        while self._signal_group(0):
            if time.monotonic() > limit:
                return self._signal_group(signal.SIGKILL)
            await asyncio.sleep(READY_POLL)
        return False

    def _signal_group(self, number: int) -> bool:
        """Signal everything that the process has started; False = nobody is there."""
        if self._process is None:
            return False
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):  # the latter on macOS: only zombies
            return False
        return True

    def kill(self) -> None:
        """Kill everything that the process has started, and itself."""
        self._signal_group(signal.SIGKILL)

    async def end(self) -> None:
        """Make sure that nothing of it runs any more."""
        self.kill()
        if self._process:
            await self._process.wait()
        self.phase = Phase.EXITED


def _is_helper(process: psutil.Process) -> bool:
    """Whether `process` is that of multiprocessing, which outlives every worker."""
    try:
        return any("multiprocessing.resource_tracker" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return True


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def reserved_ports(count: int) -> Generator[list[int]]:
    """Find free loopback ports and keep others from being given them while instances restart.

    A port without a listener may become the source port of any connection, of our own load too.
    On Linux a bound socket that does not listen prevents that, and with SO_REUSEADDR on both sides
    a server may still bind and listen there. Elsewhere it may not, and the ports are let go.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for reserved in sockets:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(("127.0.0.1", 0))
        ports = [reserved.getsockname()[1] for reserved in sockets]
        if sys.platform != "linux":
            stack.close()
        yield ports
