"""`serve` and `serve_threaded`: a gRPC server that takes part in the life of its process.

Public names only: `start`, `stop` and `wait_for_termination` of both servers. Tested with grpcio
1.85.

grpcio has no way to close the listener and keep the connections: `stop` refuses connections and
new RPCs in one instant, and tells clients so (GOAWAY), while RPCs in flight go on. It is called
when the linger is over, for a client that watches no health would send RPCs for ever; until then
what comes in DRAINING is served or turned away by the interceptor.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, Unpack

import anyio
import grpc
import grpc.aio

from graceful._arguments import OneOrMore, callables, hooks
from graceful.core.budget import ServerLimit
from graceful.core.records import Notice
from graceful.core.traits import traits_named
from graceful.driver import Hook
from graceful.lifecycle import Lifecycle, current
from graceful.loops import AsyncioLoop, Loop, current_loop
from graceful.members import Member
from graceful.observers import Observer
from graceful.probe_server import ProbeServer
from graceful.probes import Check, Probes
from graceful.servers import ServerOwner
from graceful.settings import Keywords, load, unknown_variables
from graceful.signals import Handler
from graceful.threads import ThreadLoop

from .exchange import GrpcExchange
from .health import Health

__all__ = ["GrpcServer", "detect", "serve", "serve_threaded"]

FLUSH: Final = 0.1
"""Seconds that a server gets that has nothing in flight any more but watches of its health, which
would hold its stop for as long as it may take."""

SLACK: Final = 1.0
"""Seconds after the drain deadline by which grpc would cancel RPCs itself; we cut and name them."""


async def serve(
    server: grpc.aio.Server,
    *,
    health: Any = None,
    services: Sequence[str] = ("",),
    checks: Mapping[str, Check] | None = None,
    on_lame_duck: OneOrMore | None = None,
    on_drain: OneOrMore | None = None,
    on_cleanup: OneOrMore | None = None,
    observers: Sequence[Observer] | None = None,
    **settings: Unpack[Keywords],
) -> None:
    """Start `server`, serve until the process is told to stop, and return when all is over.

    Args:
        server: a `grpc.aio.server` with `interceptor()` first among its interceptors and its
            ports added.
        health: its `grpc_health.v1.health.aio.HealthServicer`, if it has one.
        services: the names of services whose health follows the process; "" is the whole server.
        checks: readiness checks by name, as for `GracefulMiddleware`; run once a second while
            serving, they set the health of `services`.
        on_lame_duck, on_drain, on_cleanup: hooks, sync or async, one or several, run in order.
        observers: callables that get each record (`graceful.core.records`) beside the log.
        settings: the rows of `graceful.core.budget.SETTINGS` by name, in seconds where they are
            times. `GRACEFUL_*` environment variables beat them. None at all = those of the app
            that this process serves already.

    Raises:
        SystemExit: the settings are wrong, which is said in a line; or, status 70, something was
            cut after a signal.
    """
    loop = AsyncioLoop(asyncio.get_running_loop())

    def stop(grace: float) -> None:
        loop.soon(lambda: loop.spawn(lambda: server.stop(grace)))

    # A server that is started beside this one takes the signals in its first step; ours go on top.
    await asyncio.sleep(0)
    part = _Part(GrpcServer("grpc.aio", stop), loop)
    try:
        part.prepare("serve(...)", settings, checks, observers)
        part.join(
            health, services, hooks(lame_duck=on_lame_duck, drain=on_drain, cleanup=on_cleanup)
        )
    except ValueError as error:
        sys.exit(f"graceful: {error}")
    try:
        await server.start()
        part.started()
        # Shielded, for a cancelled wait would cancel what grpc itself waits for.
        await asyncio.shield(asyncio.ensure_future(server.wait_for_termination()))
    finally:
        await part.lifecycle.before_shutdown(part.member)
        await server.stop(part.server.left())
        status = part.leave()
    if status:
        sys.exit(status)


def serve_threaded(
    server: grpc.Server,
    *,
    health: Any = None,
    services: Sequence[str] = ("",),
    checks: Mapping[str, Check] | None = None,
    on_lame_duck: OneOrMore | None = None,
    on_drain: OneOrMore | None = None,
    on_cleanup: OneOrMore | None = None,
    observers: Sequence[Observer] | None = None,
    **settings: Unpack[Keywords],
) -> None:
    """As `serve`, for a threaded `grpc.server` with `threaded_interceptor()`.

    Call it in the main thread: signals arrive nowhere else.

    Args:
        server: has its ports added.
        health: its `grpc_health.v1.health.HealthServicer`, if it has one.
        services: as for `serve`, like all that follows.
        checks: see there.
        on_lame_duck, on_drain, on_cleanup: see there.
        observers: see there.
        settings: see there.

    Raises:
        SystemExit: see there.
    """
    loop = ThreadLoop()
    part = _Part(GrpcServer("grpc", server.stop), loop)
    try:
        part.prepare("serve_threaded(...)", settings, checks, observers)
        part.join(
            health, services, hooks(lame_duck=on_lame_duck, drain=on_drain, cleanup=on_cleanup)
        )
    except ValueError as error:
        sys.exit(f"graceful: {error}")
    try:
        server.start()
        part.started()
        server.wait_for_termination()
    finally:
        part.run(lambda: part.lifecycle.before_shutdown(part.member))
        server.stop(part.server.left()).wait()
        status = part.leave()
        loop.close()
    if status:
        sys.exit(status)


def detect(handler: Handler, receive: object = None) -> GrpcServer | None:
    """Return the server that `serve` runs; nobody could find it behind a handler.

    Args:
        handler: not needed.
        receive: the server itself, as `serve` gives it.
    """
    return receive if isinstance(receive, GrpcServer) else None


class GrpcServer:
    """One gRPC server, as the lifecycle sees it.

    Args:
        name: as the start-up line calls it.
        stop: begins the server's own stop with so many seconds; from any thread.
    """

    def __init__(self, name: str, stop: Callable[[float], object]) -> None:
        self._stop = stop
        self._owner: ServerOwner | None = None
        self._leaves = False
        self.traits = traits_named("grpc")
        self.version: str = grpc.__version__
        self.name = f"{name} {self.version}"
        self.managed = self.shares_listener = self.development = self.needs_lifespan = False

    def limits(self) -> Sequence[ServerLimit]:
        """None: the grace of `stop` is ours."""
        return ()

    def attach(self, owner: ServerOwner) -> None:
        self._owner = owner

    def detach(self) -> None:
        """Nothing was replaced."""

    async def stop_accepting(self) -> None:
        """Accept until the linger is over, then send clients away: see the top of this file."""
        current_loop().spawn(self._send_away)

    async def _send_away(self) -> None:
        await anyio.sleep(current().settings.linger)
        if self._owner is not None and not self._leaves:
            self._stop(self._owner.drain_left() + SLACK)

    def has_connections(self) -> bool:
        """Nobody tells; RPCs may be on the wire until the linger is over."""
        return True

    def leave(self) -> None:
        self._leaves = True
        self._stop(self.left())

    def left(self) -> float:
        """Return the seconds that the server's own stop may take."""
        lifecycle = current()
        busy = any(isinstance(exchange, GrpcExchange) for exchange in tuple(lifecycle.tracker.live))
        if self._owner is None or not busy:
            return FLUSH
        return min(self._owner.drain_left(), lifecycle.settings.drain)


class _Part:
    """What one server brings into the lifecycle, and how it takes that out again."""

    member: Member

    def __init__(self, server: GrpcServer, loop: Loop) -> None:
        self.lifecycle: Lifecycle = current()
        self.server = server
        self._loop = loop
        self._health: Health | None = None
        self._probe_server: ProbeServer | None = None
        self._forget: list[Callable[[], None]] = []

    def prepare(
        self,
        source: str,
        keywords: Keywords,
        checks: Mapping[str, Check] | None,
        observers: Sequence[Observer] | None,
    ) -> None:
        """Check what was given.

        Raises:
            SettingsError: it contradicts, or can't be called.
        """
        lifecycle = self.lifecycle
        follows = not keywords and lifecycle.servers
        self._settings = (
            lifecycle.settings
            if follows
            else load(keywords, source=source, base=lifecycle.defaults)
        )
        self._checks = bool(checks)
        self._probes = Probes(self._settings, checks or {}, lifecycle)
        self._observers = callables("observers", observers)

    def join(self, servicer: Any, services: Sequence[str], given: tuple[Hook, ...]) -> None:
        """Take part, before the server serves.

        Raises:
            SettingsError: another app of this process has settings that contradict.
        """
        lifecycle = self.lifecycle
        probes = self._probes
        self._health = Health(servicer, services, lifecycle, self._loop, probes, self._checks)
        ordered = (*self._health.hooks, *given)
        self.member = Member("grpc", self._settings, self._loop, True, ordered, receive=self.server)
        self._forget = [
            lifecycle.observe(each) for each in (self._health.observe, *self._observers)
        ]
        try:
            lifecycle.join(self.member)
        except ValueError:
            self._stop_observing()
            raise
        for text in unknown_variables():
            lifecycle.say_once(Notice(text))
        if self._settings.probe_port is not None:
            self._probe_server = ProbeServer(self._settings, probes, lifecycle)
            self._probe_server.start()

    def started(self) -> None:
        """The server serves."""
        self.lifecycle.started()
        if self._health is not None:
            self._health.start()

    def run(self, job: Callable[[], Awaitable[object]]) -> None:
        """Do `job` on the loop, from a thread that has none; waits."""
        done = Future[None]()

        async def run() -> None:
            try:
                await job()
            finally:
                done.set_result(None)

        if self._loop.soon(lambda: self._loop.spawn(run)):
            done.result()

    def leave(self) -> int:
        """Take part no more, in the thread that has joined. Returns the exit status."""
        if self._probe_server is not None:
            self._probe_server.stop()
        self.lifecycle.leave(self.member)
        self._stop_observing()
        return 0 if self.lifecycle.servers else self.lifecycle.exit_status

    def _stop_observing(self) -> None:
        for forget in self._forget:
            forget()
        self._forget.clear()
