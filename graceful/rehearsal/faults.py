"""What else may go wrong during a restart, done on purpose: one small class for each.

A fault begins just before SIGTERM or just after it, and is put away when the process has gone. Each
says whether it may cost requests by its nature; then only the exit of the instance is judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Mapping
from typing import ClassVar, Final, cast

from .instances import Instance
from .plan import SECONDS, Plan, PlanError

__all__ = ["FAULTS", "Fault", "check_faults"]

LATER: Final = 0.5
"""Seconds after SIGTERM at which what comes after it comes."""
MOMENTS: Final = (0.3, 0.6, 0.8, 0.95)
"""Parts of the time that a start takes, at which SIGTERM comes."""
STOPPED: Final = 1.0
"""Seconds that a process is stopped by SIGSTOP."""
UPLOAD: Final = 40
"""Bytes of a slow upload, one in each tenth of a second."""
CONNECTIONS: Final = 256
"""Connections that fill a listen backlog; servers have 100 to 2,048."""
FOREVER: Final = 3600.0
"""Seconds that a request asks for which is not to end."""


class Fault:
    """One thing that goes wrong during one restart."""

    text: ClassVar = ""
    costs: ClassVar = False
    """It may cost requests and streams, whatever the instance does."""

    def __init__(self, instance: Instance, plan: Plan) -> None:
        self.instance = instance
        self.plan = plan
        self.found = ""
        """What came of it, in words."""
        self.killed = False
        """Whether it took SIGKILL to end it."""
        self.failed = False
        """Whether the instance did not do what it must."""
        self._writers: list[asyncio.StreamWriter] = []

    async def before(self) -> None:
        """SIGTERM is about to be sent."""

    async def after(self) -> None:
        """SIGTERM has been sent; cancelled when the process has gone."""

    async def between(self) -> None:
        """The process has gone, and the next one has not been started."""

    async def close(self) -> None:
        """The process has gone: put away what is left of the fault."""
        for writer in self._writers:
            writer.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to the instance, past the balancer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.instance.port)
        self._writers.append(writer)
        return reader, writer

    async def ask(self, path: str) -> asyncio.StreamReader:
        """Send a GET, and leave the answer to the caller."""
        reader, writer = await self.connect()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: rehearsal\r\n\r\n".encode())
        return reader


class SecondSigterm(Fault):
    """An impatient operator."""

    text = "a second SIGTERM soon after the first, which skips the propagation delay"
    costs = True

    async def after(self) -> None:
        await asyncio.sleep(LATER)
        self.instance.terminate()


class SigtermAtStart(Fault):
    """A deployment that is rolled back while it starts."""

    text = "SIGTERM at four moments of the next start: the process must leave each time"

    async def between(self) -> None:
        exits = [await self._exit(part * self.instance.start_seconds) for part in MOMENTS]
        codes = ", ".join(str(code) for code, _ in exits)
        slowest = max(seconds for _, seconds in exits)
        self.found = f"it exited {codes}, at most {slowest:.2f} s after it"

    async def _exit(self, moment: float) -> tuple[int | None, float]:
        """Start a process, stop it after `moment` seconds; its exit code and how long it took."""
        await self.instance.start()
        await asyncio.sleep(moment)
        self.instance.terminate()
        began = time.monotonic()
        if not await self.instance.until_exit(self.plan.kill_after):
            self.killed = True
            await self.instance.end()
        seconds = time.monotonic() - began
        await self.instance.clear()
        return self.instance.exit_code, seconds


class BlockedLoop(Fault):
    """A handler that blocks the event loop."""

    text = "a request to --block-path, which blocks the event loop, before SIGTERM"
    costs = True

    async def before(self) -> None:
        await self.ask(self.plan.block_path)
        await asyncio.sleep(LATER)


class EndlessHandler(Fault):
    """A request that does not end by itself."""

    text = "a request to --slow-path for an hour, before SIGTERM: it is cut at the drain deadline"

    async def before(self) -> None:
        self._reader = await self.ask(self.plan.slow_path.replace(SECONDS, str(FOREVER)))
        await asyncio.sleep(LATER)

    async def after(self) -> None:
        self.found = await _answer(self._reader)


class SlowUpload(Fault):
    """A client on a bad line."""

    text = "an upload to --post-path of 4 s that is under way: it must be answered"

    async def before(self) -> None:
        self._reader, self._writer = await self.connect()
        self._writer.write(
            f"POST {self.plan.post_path} HTTP/1.1\r\nHost: rehearsal\r\n"
            f"Content-Length: {UPLOAD}\r\n\r\n".encode()
        )
        await self._send(1)

    async def _send(self, count: int) -> None:
        for _ in range(count):
            self._writer.write(b".")
            await asyncio.sleep(0.1)

    async def after(self) -> None:
        self.found, self.failed = "it was cut", True
        with contextlib.suppress(OSError):
            await self._send(UPLOAD - 1)
            self.found = await _answer(self._reader)
            self.failed = " 200 " not in self.found


class SlowReader(Fault):
    """A client that asks and does not read."""

    text = "a client of --sse-path that reads nothing: it must not hold the exit"

    async def before(self) -> None:
        _, writer = await self.connect()
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(f"GET {self.plan.sse_path} HTTP/1.1\r\nHost: rehearsal\r\n\r\n".encode())


class Kill9(Fault):
    """The kernel was out of memory."""

    text = "SIGKILL soon after SIGTERM, of one worker where there are some"
    costs = True

    async def after(self) -> None:
        await asyncio.sleep(LATER)
        workers = self.instance.workers()
        if workers:
            self.found = f"one of {len(workers)} workers was killed"
            workers[0].kill()
        else:
            self.found = "the process itself was killed"
            self.instance.send(signal.SIGKILL)


class FullBacklog(Fault):
    """Clients that connect and say nothing."""

    text = "256 silent connections before SIGTERM: they must not hold the exit"

    async def before(self) -> None:
        for _ in range(CONNECTIONS):
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.connect()


class StopCont(Fault):
    """A machine that freezes for a moment."""

    text = "SIGSTOP soon after SIGTERM, and SIGCONT a second later"
    costs = True

    async def after(self) -> None:
        await asyncio.sleep(LATER)
        self.instance.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(STOPPED)
        finally:
            self.instance.send(signal.SIGCONT)


class FullDisk(Fault):
    """A disk that is full, so nothing can be logged."""

    text = (
        "all output of the instances goes to a full disk (/dev/full): they must leave all the same"
    )


async def _answer(reader: asyncio.StreamReader) -> str:
    """Wait for the first line of an answer, and say in words what it was."""
    with contextlib.suppress(OSError):
        if head := await reader.readline():
            return f"it was answered {head.decode('latin-1').strip()}"
    return "it was answered nothing"


FAULTS: Final[Mapping[str, type[Fault]]] = {
    "second-sigterm": SecondSigterm,
    "sigterm-at-start": SigtermAtStart,
    "blocked-loop": BlockedLoop,
    "endless-handler": EndlessHandler,
    "slow-upload": SlowUpload,
    "slow-reader": SlowReader,
    "kill-9": Kill9,
    "full-backlog": FullBacklog,
    "stop-cont": StopCont,
    "full-disk": FullDisk,
}

NEEDS: Final[Mapping[str, str]] = {
    "blocked-loop": "block_path",
    "endless-handler": "slow_path",
    "slow-upload": "post_path",
    "slow-reader": "sse_path",
}
"""Fault → path without which it can't be done."""


def check_faults(plan: Plan) -> None:
    """See that each fault of `plan` can be done.

    Raises:
        PlanError: there is no such fault, or its path is not given.
    """
    for name in plan.faults:
        if name not in FAULTS:
            raise PlanError(f"fault = {name!r}: there are {', '.join(FAULTS)}")
        path = NEEDS.get(name)
        if path is not None and not getattr(plan, path):
            raise PlanError(f"fault {name} needs --{path.replace('_', '-')}")
