"""The ordinary requests: their outcomes, and that none is ever sent twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from itertools import count

import aiohttp
import pytest
from aiohttp import web

from graceful.rehearsal import Outcome, Plan, RehearsalError
from graceful.rehearsal.client import Fleet, open_sessions
from graceful.rehearsal.load import Load

from .servers import COMMAND, Handler, abort, fleet, for_ever, one_server, serving


@contextlib.asynccontextmanager
async def closes_reused_connections() -> AsyncGenerator[tuple[int, list[bytes]]]:
    """Answer the first request of a connection and close it on the second, unanswered."""
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


async def twice(*, retry: bool) -> tuple[int, bool]:
    """Send two requests on one connection; return how many arrived, and whether one failed."""
    async with closes_reused_connections() as (port, heads):
        async with open_sessions(one_server(port)) as sessions:
            session, failed = sessions.kept_alive, False
            if retry:
                session._retry_connection = True
            for _ in range(2):
                try:
                    async with session.get(f"http://127.0.0.1:{port}/") as response:
                        await response.read()
                except aiohttp.ServerDisconnectedError:
                    failed = True
        return len(heads), failed


def test_a_request_on_a_closed_connection_is_not_sent_again() -> None:
    """A client that hides losses can't count them."""
    assert asyncio.run(twice(retry=False)) == (2, True)


def test_the_http_client_would_send_it_again() -> None:
    """When this fails, aiohttp no longer retries and the marked line in `client.py` can go."""
    assert asyncio.run(twice(retry=True)) == (3, False)


async def loaded(plan: Plan, handler: Handler) -> tuple[Load, Fleet]:
    """Run the load for a quarter of a second."""
    async with serving(handler) as port:
        balancer = one_server(port)
        async with open_sessions(balancer) as sessions:
            instances = fleet(plan, port)
            load = Load(instances, balancer, sessions)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.25):
                    await load.run()
            await load.finish()
            return load, instances


async def echo(request: web.Request) -> web.StreamResponse:
    """What an app of the contract does."""
    return web.Response(body=await request.read())


def test_a_good_app_loses_nothing_and_every_request_is_told_apart() -> None:
    """Every request has an id of its own; the instance gets the credit."""
    seen: list[str] = []

    async def app(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers["x-request-id"])
        return await echo(request)

    plan = Plan(command=COMMAND, rate=100)
    load, instances = asyncio.run(loaded(plan, app))
    assert load.tally.losses == []
    assert load.tally.total == len(seen) == len(set(seen)) >= 10
    assert instances.instances[0].served == load.tally.total
    assert load.tally.in_flight == 0
    assert set(load.tally.requests()) <= {"quick", "slow", "post"}


async def unavailable(request: web.Request) -> web.StreamResponse:
    """Turn everything away."""
    return web.Response(status=503)


async def changed(request: web.Request) -> web.StreamResponse:
    """Answer with half of the body."""
    return web.Response(body=(await request.read())[:-1])


async def cut(request: web.Request) -> web.StreamResponse:
    """Promise more than is sent."""
    response = web.StreamResponse(headers={"content-length": "100"})
    await response.prepare(request)
    await response.write(b"half")
    await asyncio.sleep(0.05)  # or the reset overtakes what has been written
    abort(request)
    return response


async def gone(request: web.Request) -> web.StreamResponse:
    """End the connection without an answer."""
    abort(request)
    return web.Response()


async def silent(request: web.Request) -> web.StreamResponse:
    """Never answer."""
    await for_ever()
    return web.Response()


async def again(request: web.Request) -> web.StreamResponse:
    """Say that this id has been seen before."""
    return web.Response(body=await request.read(), headers={"x-times-seen": "2"})


@pytest.mark.parametrize(
    ("app", "outcome"),
    [
        (unavailable, Outcome.STATUS),
        (changed, Outcome.TRUNCATED),
        (cut, Outcome.TRUNCATED),
        (gone, Outcome.RESET),
        (silent, Outcome.TIMED_OUT),
        (again, Outcome.REPEATED),
    ],
)
def test_every_way_of_losing_a_request_has_its_name(app: Handler, outcome: Outcome) -> None:
    """Seen from the client, with nothing hidden."""
    only_post = Plan(
        command=COMMAND, rate=20, request_timeout=0.2, quick_path="", slow_path="", seed=2
    )
    load, instances = asyncio.run(loaded(only_post, app))
    assert {loss.outcome for loss in load.tally.losses} == {outcome}
    assert load.tally.total == len(load.tally.losses) >= 3
    assert instances.instances[0].lost == load.tally.total
    assert load.tally.losses[0].path == "/echo"
    assert load.tally.losses[0].restart is None


def test_a_slow_app_gets_no_fewer_requests() -> None:
    """An open loop: what is due is sent, whatever is still in flight."""
    served = count()

    async def slow(request: web.Request) -> web.StreamResponse:
        next(served)
        await asyncio.sleep(0.3)
        return await echo(request)

    load, _ = asyncio.run(loaded(Plan(command=COMMAND, rate=100), slow))
    assert load.tally.total == next(served) >= 10


def test_an_app_that_lacks_a_path_is_found_before_the_load() -> None:
    """The message says which option to set."""

    async def checked() -> None:
        async with serving(unavailable) as port:
            balancer = one_server(port)
            async with open_sessions(balancer) as sessions:
                await Load(fleet(Plan(command=COMMAND), port), balancer, sessions).check()

    with pytest.raises(RehearsalError, match=r"quick / .* status \(503\).*--quick-path ''"):
        asyncio.run(checked())
