"""`haproxy`: the real one, found on PATH, as strict as it can be set: no retry, no redispatch.

The tool writes its configuration, hands it the listening socket, and asks its runtime socket
about the rotation. `x-instance` on every response says where a request went.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ..instances import Instance
from ..plan import Plan
from .base import PATIENCE, Route
from .proxy import INSTANCE_HEADER, LOOK, Proxy

__all__ = ["HAProxy"]

CONFIG: Final = """\
# Written by `graceful rehearse`.
global
    stats socket {admin} mode 600 level user
    stats timeout 1h
    maxconn 4000

defaults
    mode http
    timeout connect 5s
    timeout check {patience:g}s
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
    # pool-purge-delay: idle connections are dropped before a server's own keep-alive ends.
    default-server check inter {interval}ms fall {fall} rise {rise} pool-purge-delay {idle}ms
"""


class HAProxy(Proxy):
    """One HAProxy process in the foreground."""

    name = "haproxy"

    def __init__(self, plan: Plan, instances: Sequence[Instance], folder: Path) -> None:
        super().__init__(plan, instances, folder)
        # Not in `folder`: a socket's path may have no more than 107 bytes.
        self._runtime = tempfile.TemporaryDirectory(prefix="graceful-haproxy-")
        self._admin = Path(self._runtime.name) / "admin.sock"

    async def start(self) -> None:
        """Start it and wait until its runtime socket answers.

        Raises:
            RehearsalError: it is not on PATH, or it does not come up.
        """
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            self._origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
            config = self._folder / "haproxy.cfg"
            config.write_text(self._config(listener.fileno()))
            await self.run("-db", "-f", str(config), pass_fds=[listener.fileno()])

    def _config(self, fd: int) -> str:
        plan = self._plan
        servers = [f"    server {i.name} 127.0.0.1:{i.port}\n" for i in self._instances]
        return CONFIG.format(
            admin=self._admin,
            patience=PATIENCE,
            idle=round(plan.client_keepalive * 1000),
            fd=fd,
            header=INSTANCE_HEADER,
            readiness=plan.readiness_path,
            interval=round(plan.probe_interval * 1000),
            fall=plan.fall,
            rise=plan.rise,
        ) + "".join(servers)

    async def is_up(self) -> bool:
        return len(await self._chosen()) == len(self._instances)

    async def close(self) -> None:
        await super().close()
        self._runtime.cleanup()

    def answered(self, route: Route, headers: Mapping[str, str]) -> None:
        """Read which instance it was; HAProxy writes '<NOSRV>' where it was none."""
        name = headers.get(INSTANCE_HEADER)
        route.instance = name if any(name == i.name for i in self._instances) else None

    async def until_steady(self, instance: str) -> None:
        """Wait until HAProxy calls it UP, with no failed check since."""
        while (await self._statuses()).get(instance) != "UP":
            self.check_alive()
            await asyncio.sleep(LOOK)

    async def rotation(self) -> Sequence[str]:
        """The servers that it chooses from."""
        self.check_alive()
        return await self._chosen()

    async def _chosen(self) -> list[str]:
        """Ask it; 'UP 1/2' is on its way down and still chosen."""
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
