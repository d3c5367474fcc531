"""What tells the balancers apart: who decides when a kept-alive connection moves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from graceful.rehearsal import Plan, RehearsalError
from graceful.rehearsal.balancers import BALANCERS, Balancer
from graceful.rehearsal.balancers.proxy import Proxy
from graceful.rehearsal.client import Sessions, open_sessions

from .servers import COMMAND, Handler, fleet, serving


def needs(program: str) -> pytest.MarkDecorator:
    """Skip where a program is not installed, but not in CI, which has to install it."""
    missing = shutil.which(program) is None and os.environ.get("CI") != "true"
    return pytest.mark.skipif(missing, reason=f"{program} is not on PATH")


needs_haproxy = needs("haproxy")


@dataclass
class Stage:
    """Two servers whose readiness the test sets, behind a balancer."""

    balancer: Balancer
    sessions: Sessions
    ready: dict[str, bool]
    closing: dict[str, bool]
    late: float = 0.0
    """Seconds that readiness takes to answer."""
    probes: int = 0

    async def probed(self, times: int) -> None:
        """Wait until `times` probes more have been answered."""
        until = self.probes + times
        async with asyncio.timeout(20):
            while self.probes < until:  # noqa: ASYNC110 - the servers tell nobody
                await asyncio.sleep(0.02)

    async def ask(self, *, fresh: bool = False) -> str:
        """Send one request; return the name that answered, which the balancer must know too."""
        route = self.balancer.route()
        assert route
        session = self.sessions.fresh if fresh else self.sessions.kept_alive
        async with session.get(route.origin + "/") as response:
            self.balancer.answered(route, response.headers)
            name = await response.text()
        assert route.instance == name
        return name

    async def until_left(self, name: str) -> None:
        """Wait until the balancer no longer chooses `name`; some tell it by their answers only."""
        while name in await self.balancer.rotation():
            await asyncio.sleep(0.02)
            await self._let_answer()

    async def _let_answer(self) -> None:
        if route := self.balancer.route():
            async with self.sessions.fresh.get(route.origin + "/") as response:
                self.balancer.answered(route, response.headers)


@contextlib.asynccontextmanager
async def stage(balancer: str, folder: Path) -> AsyncGenerator[Stage]:
    """Set it: no lag, and probes that a busy machine answers in time."""
    plan = Plan(command=COMMAND, probe_interval=0.25, lag=0.0, rtt=0.001)
    ready, closing = {"i1": True, "i2": True}, {"i1": False, "i2": False}

    s: Stage | None = None

    def app(name: str) -> web.Response:
        response = web.Response(text=name)
        if closing[name]:
            response.force_close()
        return response

    def handler(name: str) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path == "/readyz":
                if s is not None:
                    await asyncio.sleep(s.late)
                    s.probes += 1
                return web.Response(status=200 if ready[name] else 503)
            return app(name)

        return answer

    async with serving(handler("i1")) as one, serving(handler("i2")) as two:
        instances = fleet(plan, one, two).instances
        made = BALANCERS[balancer](plan, instances, folder)
        try:
            await made.start()
            async with open_sessions(made) as sessions:
                s = Stage(made, sessions, ready, closing)
                yield s
        finally:
            await made.close()


MANY = 32
"""Requests after which every instance has had one, where the choice is random, too."""

PROXIES = [pytest.param(name, marks=needs(name)) for name in ("haproxy", "nginx", "caddy")]
EVERY = [
    "internal",
    "internal-l4",
    pytest.param("haproxy", marks=needs_haproxy),
    pytest.param("caddy", marks=needs("caddy")),
]
"""Those that look at readiness; nginx doesn't."""


@pytest.mark.parametrize("balancer", EVERY)
def test_both_instances_get_requests_until_one_is_unready(balancer: str, tmp_path: Path) -> None:
    """And it gets them again when it is ready again."""

    async def play() -> list[set[str]]:
        async with stage(balancer, tmp_path) as s:
            both = {await s.ask(fresh=True) for _ in range(MANY)}
            s.ready["i1"] = False
            await s.until_left("i1")
            left = {await s.ask(fresh=True) for _ in range(MANY)}
            s.ready["i1"] = True
            await s.balancer.until_steady("i1")
            return [both, left, {await s.ask(fresh=True) for _ in range(MANY)}]

    assert asyncio.run(play()) == [{"i1", "i2"}, {"i2"}, {"i1", "i2"}]


@pytest.mark.parametrize("balancer", EVERY)
def test_an_instance_that_is_late_is_not_taken_for_one_that_is_unready(
    balancer: str, tmp_path: Path
) -> None:
    """On a busy machine all of them may be late at once."""

    async def play() -> set[str]:
        async with stage(balancer, tmp_path) as s:
            s.late = 1.5
            await s.probed(3)
            return {await s.ask(fresh=True) for _ in range(MANY)}

    assert asyncio.run(play()) == {"i1", "i2"}


@pytest.mark.parametrize("balancer", PROXIES)
def test_a_proxy_that_has_ended_is_no_loss_of_the_app_s(balancer: str, tmp_path: Path) -> None:
    async def play() -> None:
        async with stage(balancer, tmp_path) as s:
            assert isinstance(s.balancer, Proxy)
            assert s.balancer._process
            s.balancer._process.kill()
            await s.balancer._process.wait()
            await s.balancer.rotation()

    with pytest.raises(RehearsalError, match=f"{balancer} has ended"):
        asyncio.run(play())


def test_a_balancer_of_requests_moves_kept_alive_clients_by_itself(tmp_path: Path) -> None:
    """`internal` has a pool per instance."""

    async def play() -> set[str]:
        async with stage("internal", tmp_path) as s:
            assert {await s.ask() for _ in range(4)} == {"i1", "i2"}
            s.ready["i1"] = False
            await s.until_left("i1")
            return {await s.ask() for _ in range(4)}

    assert asyncio.run(play()) == {"i2"}


def test_with_a_balancer_of_connections_only_the_server_moves_them(tmp_path: Path) -> None:
    """`internal-l4`: a kept-alive connection stays until `Connection: close`."""

    async def play() -> list[str]:
        async with stage("internal-l4", tmp_path) as s:
            first = await s.ask()
            s.ready[first] = False
            await s.until_left(first)
            stayed = await s.ask()
            s.closing[first] = True
            last = await s.ask()
            assert (first, first) == (stayed, last)
            return [first, await s.ask()]

    first, moved = asyncio.run(play())
    assert first != moved


def test_with_nobody_left_there_is_no_route(tmp_path: Path) -> None:
    """The load counts that as refused."""

    async def play() -> object:
        async with stage("internal", tmp_path) as s:
            s.ready.update(i1=False, i2=False)
            await s.until_left("i1")
            await s.until_left("i2")
            return s.balancer.route()

    assert asyncio.run(play()) is None


@needs_haproxy
def test_haproxy_answers_for_nobody_and_its_answer_belongs_to_nobody(tmp_path: Path) -> None:
    """Its own 503 must not be blamed on an instance."""

    async def play() -> tuple[int, str | None]:
        async with stage("haproxy", tmp_path) as s:
            s.ready.update(i1=False, i2=False)
            await s.until_left("i1")
            await s.until_left("i2")
            route = s.balancer.route()
            assert route
            async with s.sessions.fresh.get(route.origin) as response:
                s.balancer.answered(route, response.headers)
                return response.status, route.instance

    assert asyncio.run(play()) == (503, None)


@needs("nginx")
def test_nginx_goes_on_choosing_an_instance_that_is_unready(tmp_path: Path) -> None:
    """It has no health checks: what ends its choice is a connection that fails."""

    async def play() -> set[str]:
        async with stage("nginx", tmp_path) as s:
            s.ready["i1"] = False
            return {await s.ask(fresh=True) for _ in range(MANY)}

    assert asyncio.run(play()) == {"i1", "i2"}


@pytest.mark.parametrize("balancer", ["haproxy", "nginx", "caddy"])
def test_a_proxy_that_is_not_installed_is_one_clear_line(
    balancer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the way out."""
    monkeypatch.setattr("graceful.rehearsal.balancers.proxy.ADMINS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    async def play() -> None:
        async with stage(balancer, tmp_path):
            pass

    with pytest.raises(RehearsalError, match=f"no '{balancer}' on PATH; install it"):
        asyncio.run(play())


def test_haproxy_that_does_not_come_up_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that does not know an option of ours."""
    program = tmp_path / "haproxy"
    program.write_text("#!/bin/sh\necho 'unknown keyword'\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    async def play() -> None:
        async with stage("haproxy", tmp_path):
            pass

    with pytest.raises(RehearsalError, match="haproxy did not come up: unknown keyword"):
        asyncio.run(play())


@needs("caddy")
def test_caddy_does_not_choose_in_turn(tmp_path: Path) -> None:
    """Its round_robin answers 503 to requests that skip the same instance at one moment."""

    async def play() -> str:
        async with stage("caddy", tmp_path):
            return (tmp_path / "Caddyfile").read_text()

    assert "lb_policy random\n" in asyncio.run(play())
