"""What real proxies have in common: a program found on PATH, its files, its process, its end.

Which options make it strict, and how it tells of its rotation, is in the module of each.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import aiohttp

from ..instances import Instance
from ..plan import Plan, RehearsalError
from .base import Route

__all__ = ["INSTANCE_HEADER", "LOOK", "Proxy"]

INSTANCE_HEADER: Final = "x-instance"
"""On every response: which instance it came from, by name or by address."""
LOOK: Final = 0.1
"""Seconds between two looks at whether it is as far as it should be."""
START_LIMIT: Final = 5.0
"""Seconds it may take to come up or to go."""

ADMINS: Final = "/usr/sbin"
"""Where Debian keeps proxies; only root has it on PATH."""


class Proxy:
    """One proxy process in the foreground."""

    name = ""
    """Of the program, which is that of the package as well."""

    def __init__(self, plan: Plan, instances: Sequence[Instance], folder: Path) -> None:
        """`folder` gets its configuration and its log."""
        self._plan = plan
        self._instances = instances
        self._folder = folder
        self._origin = ""
        self._process: asyncio.subprocess.Process | None = None

    async def run(
        self, *arguments: str, pass_fds: Sequence[int] = (), env: Mapping[str, str] | None = None
    ) -> None:
        """Start it and wait until it balances between all instances.

        Raises:
            RehearsalError: it is not on PATH, or it does not come up.
        """
        path = os.environ.get("PATH", os.defpath)
        program = shutil.which(self.name, path=f"{path}{os.pathsep}{ADMINS}")
        if program is None:
            raise RehearsalError(
                f"balancer {self.name}: there is no '{self.name}' on PATH; install it (Debian: apt "
                f"install {self.name}) or take --balancer internal"
            )
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=pass_fds,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        await self._until_up()

    @property
    def _log(self) -> Path:
        return self._folder / f"{self.name}.log"

    async def is_up(self) -> bool:
        """Whether it balances between all instances."""
        raise NotImplementedError

    def check_alive(self) -> None:
        """See that it runs: what is lost without it is no loss of the app's.

        Raises:
            RehearsalError: it has ended.
        """
        if self._process is not None and self._process.returncode is not None:
            raise RehearsalError(f"{self.name} has ended: {self._said()}")

    def _said(self) -> str:
        return self._log.read_text(errors="replace").strip() or "it said nothing"

    async def _until_up(self) -> None:
        limit = time.monotonic() + START_LIMIT
        while not await self.is_up():
            exited = self._process is None or self._process.returncode is not None
            if exited or time.monotonic() > limit:
                raise RehearsalError(f"{self.name} did not come up: {self._said()}")
            await asyncio.sleep(LOOK)

    async def close(self) -> None:
        """End it by its process id."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(START_LIMIT):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def connector(self, *, kept_alive: bool) -> aiohttp.BaseConnector:
        """Make a connector to the proxy."""
        if kept_alive:
            return aiohttp.TCPConnector(limit=0, keepalive_timeout=self._plan.client_keepalive)
        return aiohttp.TCPConnector(limit=0, force_close=True)

    def route(self) -> Route | None:
        """Every request goes to the proxy."""
        return Route(self._origin)
