"""A server inside the test's own loop, and a balancer that knows only it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import aiohttp
from aiohttp import web

from graceful.rehearsal import Plan
from graceful.rehearsal.balancers import Balancer, Route
from graceful.rehearsal.client import Fleet
from graceful.rehearsal.instances import Instance

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

COMMAND = ("serve", "{port}")


class OneServer:
    """Stands where a balancer would and sends everything to one port."""

    def __init__(self, port: int) -> None:
        self._origin = f"http://127.0.0.1:{port}"

    async def start(self) -> None:
        """Nothing runs."""

    async def close(self) -> None:
        """Nothing runs."""

    def connector(self, *, kept_alive: bool) -> aiohttp.BaseConnector:
        """Plain connectors."""
        return aiohttp.TCPConnector() if kept_alive else aiohttp.TCPConnector(force_close=True)

    def route(self) -> Route | None:
        """To the one server."""
        return Route(self._origin, "i1")

    def answered(self, route: Route, headers: Mapping[str, str]) -> None:
        """It is known who answered."""

    async def until_steady(self, instance: str) -> None:
        """It always is."""

    async def rotation(self) -> Sequence[str]:
        """The one server."""
        return ["i1"]


def one_server(port: int) -> Balancer:
    """Return the balancer; the annotation checks that it is one."""
    return OneServer(port)


def fleet(plan: Plan, *ports: int) -> Fleet:
    """Instances that are never started: the tests serve on their ports."""
    places = [Instance(f"i{n}", port, plan, Path()) for n, port in enumerate(ports, 1)]
    return Fleet(plan, places)


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncGenerator[int]:
    """Serve `handler` for every request; gives the port."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def script(*handlers: Handler) -> Handler:
    """Answer the first request by the first handler and so on; the last one answers the rest."""
    left = list(handlers)

    async def answer(request: web.Request) -> web.StreamResponse:
        handler = left.pop(0) if len(left) > 1 else left[0]
        return await handler(request)

    return answer


def abort(request: web.Request) -> None:
    """End the connection as a process does that dies."""
    assert request.transport
    request.transport.abort()


async def for_ever() -> None:
    """Until cancelled."""
    await asyncio.get_running_loop().create_future()
