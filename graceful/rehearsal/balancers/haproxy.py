"""`haproxy`: the real one, found on PATH, as strict as it can be set: no retry, no redispatch.

The tool writes its configuration, hands it the listening socket, and asks its runtime socket
about the rotation. `x-instance` on every response says where a request went.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import aiohttp

from ..instances import Instance
from ..plan import Plan, RehearsalError
from .base import Route

__all__ = ["HAProxy"]

INSTANCE_HEADER: Final = "x-instance"
LOOK: Final = 0.1
"""Seconds between two looks at its statistics."""
START_LIMIT: Final = 5.0
"""Seconds it may take to come up or to go."""

CONFIG: Final = """\
# Written by `graceful rehearse`.
global
    stats socket {admin} mode 600 level user
    stats timeout 1h
    maxconn 4000

defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    # Nothing is hidden: a request that fails on its instance has failed.
    retries 0
    no option redispatch

frontend rehearsal
    bind fd@{fd}
    http-after-response set-header {header} %s
    default_backend app

backend app
    balance roundrobin
    option httpchk GET {readiness}
    http-check expect status 200
    # pool-purge-delay: idle connections are dropped before a server's own 5 s keep-alive ends.
    default-server check inter {interval}ms fall {fall} rise {rise} pool-purge-delay 2s
"""


class HAProxy:
    """One HAProxy process in the foreground."""

    def __init__(self, plan: Plan, instances: Sequence[Instance], folder: Path) -> None:
        """`folder` gets its configuration and its log."""
        self._plan = plan
        self._instances = instances
        self._folder = folder
        # Not in `folder`: a socket's path may have no more than 107 bytes.
        self._runtime = tempfile.TemporaryDirectory(prefix="graceful-haproxy-")
        self._admin = Path(self._runtime.name) / "admin.sock"
        self._process: asyncio.subprocess.Process | None = None
        self._origin = ""

    async def start(self) -> None:
        """Start it and wait until its runtime socket answers.

        Raises:
            RehearsalError: it is not on PATH, or it does not come up.
        """
        program = shutil.which("haproxy")
        if program is None:
            raise RehearsalError(
                "balancer haproxy: there is no 'haproxy' on PATH; install it (Debian: apt install "
                "haproxy) or take --balancer internal"
            )
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            self._origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
            config = self._folder / "haproxy.cfg"
            config.write_text(self._config(listener.fileno()))
            with (self._folder / "haproxy.log").open("wb") as log:
                self._process = await asyncio.create_subprocess_exec(
                    program,
                    *("-db", "-f", str(config)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=asyncio.subprocess.STDOUT,
                    pass_fds=[listener.fileno()],
                    start_new_session=True,
                )
        await self._until_up()

    def _config(self, fd: int) -> str:
        plan = self._plan
        servers = [f"    server {i.name} 127.0.0.1:{i.port}\n" for i in self._instances]
        return CONFIG.format(
            admin=self._admin,
            fd=fd,
            header=INSTANCE_HEADER,
            readiness=plan.readiness_path,
            interval=round(plan.probe_interval * 1000),
            fall=plan.fall,
            rise=plan.rise,
        ) + "".join(servers)

    async def _until_up(self) -> None:
        limit = time.monotonic() + START_LIMIT
        while len(await self.rotation()) < len(self._instances):
            exited = self._process is None or self._process.returncode is not None
            if exited or time.monotonic() > limit:
                said = (self._folder / "haproxy.log").read_text(errors="replace").strip()
                raise RehearsalError(f"haproxy did not come up: {said or 'it said nothing'}")
            await asyncio.sleep(LOOK)

    async def close(self) -> None:
        """End it by its process id."""
        self._runtime.cleanup()
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

    def answered(self, route: Route, headers: Mapping[str, str]) -> None:
        """Read which instance it was; HAProxy writes '<NOSRV>' where it was none."""
        name = headers.get(INSTANCE_HEADER)
        route.instance = name if any(name == i.name for i in self._instances) else None

    async def until_steady(self, instance: str) -> None:
        """Wait until HAProxy calls it UP, with no failed check since."""
        while (await self._statuses()).get(instance) != "UP":  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(LOOK)

    async def rotation(self) -> Sequence[str]:
        """The servers that it chooses from; 'UP 1/2' is on its way down and still chosen."""
        statuses = await self._statuses()
        return [name for name, status in statuses.items() if status.startswith("UP")]

    async def _statuses(self) -> dict[str, str]:
        try:
            text = await self._ask("show stat")
        except OSError:
            return {}
        rows = csv.DictReader(text.removeprefix("# ").splitlines())
        names = {instance.name for instance in self._instances}
        return {row["svname"]: row["status"] for row in rows if row["svname"] in names}

    async def _ask(self, command: str) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self._admin))
        try:
            writer.write(f"{command}\n".encode())
            return (await reader.read()).decode("utf-8", "replace")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
