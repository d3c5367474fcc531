"""`internal-l4`: a balancer of connections, as kube-proxy and network load balancers are.

The rotation only decides where *new* connections go. A kept-alive connection goes on being used
after its instance has left, and only the server moves it: by `Connection: close`, or by closing
it, which the client learns half a round trip late. That round trip is waited between choosing a
connection and writing on it; on loopback nothing would ever cross on the wire.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from ..instances import Instance
from ..plan import Plan
from .base import Route
from .internal import ProbedRotation

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

__all__ = ["InternalL4Balancer"]

SERVICE: Final = "service.invalid"
"""Name of the service; it exists only in `_Resolver` (RFC 2606 keeps .invalid out of DNS)."""

_current: ContextVar[Route] = ContextVar("route of the request that this task sends")
"""The connector is told neither by aiohttp nor by us whose connection it makes."""


class _Resolver(AbstractResolver):
    """Answers with host and port of the instance whose turn it is, once per connection."""

    def __init__(self, probed: ProbedRotation, ports: Mapping[str, int]) -> None:
        self._probed = probed
        self._ports = ports

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        name = self._probed.choose()
        if name is None:
            raise OSError("no instance is in the rotation")
        _current.get().instance = name
        return [
            ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=self._ports[name],
                family=socket.AF_INET,
                proto=0,
                flags=0,
            )
        ]

    async def close(self) -> None:
        pass


class _FarConnector(aiohttp.TCPConnector):
    """Lets a round trip pass after a connection has been chosen, and notes whose it is."""

    def __init__(
        self, *, rtt: float, names: Mapping[int, str], resolver: AbstractResolver, **how: float
    ) -> None:
        super().__init__(limit=0, resolver=resolver, use_dns_cache=False, **how)  # type: ignore[arg-type]
        self._rtt = rtt
        self._names = names

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        if connection.transport is not None:
            port = connection.transport.get_extra_info("peername", (None, 0))[1]
            _current.get().instance = self._names.get(port)
        try:
            await asyncio.sleep(self._rtt)
        except BaseException:
            connection.close()
            raise
        return connection


class InternalL4Balancer:
    """Balances connections over one shared pool."""

    def __init__(self, plan: Plan, instances: Sequence[Instance], folder: Path) -> None:
        """`folder` stays empty."""
        self._plan = plan
        self._names = {i.port: i.name for i in instances}
        self._probed = ProbedRotation(plan, instances)
        self._resolver = _Resolver(self._probed, {i.name: i.port for i in instances})
        self.start = self._probed.start
        self.close = self._probed.close
        self.until_steady = self._probed.until_steady

    def connector(self, *, kept_alive: bool) -> aiohttp.BaseConnector:
        """Make a connector; all instances are one host to it, so they share one pool."""
        if kept_alive:
            return self._far(keepalive_timeout=self._plan.client_keepalive)
        return self._far(force_close=True)

    def _far(self, **how: float) -> _FarConnector:
        rtt = self._plan.rtt
        return _FarConnector(rtt=rtt, names=self._names, resolver=self._resolver, **how)

    def route(self) -> Route | None:
        """Every request goes to the service; the connector learns to which instance."""
        route = Route(f"http://{SERVICE}")
        _current.set(route)
        return route

    def answered(self, route: Route, headers: Mapping[str, str]) -> None:
        """Nothing to learn: the connector has noted it."""

    async def rotation(self) -> Sequence[str]:
        """The instances that new connections may go to now."""
        return self._probed.members()
