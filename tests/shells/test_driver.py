"""The choreography: what happens in which order from the first reason to stop to the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import graceful
from graceful._asgi_types import Receive, Scope, Send
from graceful.asgi import GracefulMiddleware
from graceful.core.phases import Phase
from graceful.core.records import ExchangeCut, FarewellsSent, Fault
from graceful.driver import Hook, call

from .apps import EVENTS, app_of, hello, part, slow
from .harness import FakeServer, World, http, on_both, on_one


@pytest.fixture
def server() -> FakeServer:
    """A server that notes what it is asked to do."""
    return FakeServer()


def log_app(server: FakeServer, **settings: Any) -> GracefulMiddleware:
    """Return an app whose hooks and clean-up write into the server's log."""

    def note(words: str) -> Callable[[], Any]:
        async def hook() -> None:
            server.log.append(words)

        return hook

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await slow(3)(scope, receive, send)
            server.log.append("request")
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        server.log.append("app's shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    return GracefulMiddleware(
        app,
        on_lame_duck=note("on_lame_duck"),
        on_drain=note("on_drain"),
        on_cleanup=note("on_cleanup"),
        **settings,
    )


async def left(server: FakeServer) -> None:
    """Return when the server was told to leave."""
    while "leave" not in server.log:  # noqa: ASYNC110 - virtual time
        await anyio.sleep(0.01)


# -- order -----------------------------------------------------------------------------------


@on_both
async def test_the_order_of_a_stop(world: World, server: FakeServer) -> None:
    """Hooks, the listener, work, the server's own shutdown, clean-up: each in its place."""
    app = log_app(server)
    async with world.lifespan(app):
        world.lifecycle.terminate()
        await anyio.sleep(4.5)
        call = world.call(app, http())
        await call.finished()
        await world.turns()
    assert server.log == [
        "attach",
        "on_lame_duck",
        "stop accepting",
        "on_drain",
        "request",
        "leave",
        "on_cleanup",
        "app's shutdown",
        "detach",
    ]
    assert world.phases[1:] == [Phase.LAME_DUCK, Phase.DRAINING, Phase.CLOSING, Phase.STOPPED]


@on_both
async def test_the_times_of_a_stop(world: World, server: FakeServer) -> None:
    """The delay is served in full, the linger while connections are open, and nothing else."""
    server.connections = True
    app = GracefulMiddleware(app_of(hello), propagation_delay=5, linger=1)
    async with world.lifespan(app):
        began = world.now
        world.lifecycle.terminate()
        await world.until(Phase.DRAINING)
        assert world.now - began == pytest.approx(5, abs=0.02)
        await left(server)
        assert world.now - began == pytest.approx(6, abs=0.02)


@on_both
async def test_no_linger_without_connections(world: World, server: FakeServer) -> None:
    """When the last connection is gone nobody can send a request any more."""
    app = GracefulMiddleware(app_of(hello), propagation_delay=0, linger=1)
    async with world.lifespan(app):
        began = world.now
        world.lifecycle.terminate()
        await world.turns()
        assert server.log[-1] == "leave"
        assert world.now == began


@on_both
async def test_connections_that_close_during_the_linger(world: World, server: FakeServer) -> None:
    """The end of the last request ends the linger too, when no connection is left then."""
    server.connections = True
    app = GracefulMiddleware(slow(0.5), propagation_delay=0, linger=1)
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        began = world.now
        world.lifecycle.terminate()

        async def close(message: object) -> None:
            server.connections = False

        call.on_send = close
        await call.finished()
        await world.turns()
        assert server.log[-1] == "leave"
        assert world.now - began == pytest.approx(0.5)


@on_both
async def test_a_timer_that_fires_early(world: World, server: FakeServer) -> None:
    """The end of the linger is found also when it falls between two looks at the clock."""
    server.connections = True
    clock = world.lifecycle.clock
    early = True
    app = GracefulMiddleware(app_of(hello), propagation_delay=0, linger=1)
    async with world.lifespan(app):
        ends = clock() + 1

        def hesitant() -> float:
            nonlocal early
            if early and clock() >= ends:
                early = False
                return ends - 1e-6
            return clock()

        world.lifecycle.clock = hesitant
        world.lifecycle.terminate()
        await left(server)
        assert clock() == pytest.approx(ends, abs=0.02)


@on_both
async def test_a_listener_that_is_shared(world: World, server: FakeServer) -> None:
    """Where siblings keep the port open, accepting ends only when the old work is done, with time
    left for the linger."""
    server.shares_listener = server.connections = True
    app = log_app(server, propagation_delay=0, linger=1)
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        world.lifecycle.terminate()
        await call.finished()
        await anyio.sleep(1.1)
    assert server.log == [
        "attach",
        "on_lame_duck",
        "on_drain",
        "request",
        "stop accepting",
        "leave",
        "on_cleanup",
        "app's shutdown",
        "detach",
    ]


@on_both
@pytest.mark.parametrize("shared", [True, False])
async def test_hopeless_work_ends_at_the_deadline(
    world: World, server: FakeServer, shared: bool
) -> None:
    """Work that would take for ever is cut at the drain deadline, whoever owns the listener."""
    server.shares_listener = shared
    app = GracefulMiddleware(slow(600), grace_period=12, propagation_delay=2, linger=1)
    async with world.lifespan(app):
        call = world.call(app, http("/slow"))
        await world.turns()
        began = world.now
        world.lifecycle.terminate()
        await call.finished()
        assert world.now - began == pytest.approx(8)
        await world.turns()
        assert server.log[-2:] == ["stop accepting", "leave"]
    (cut,) = world.told(ExchangeCut)
    assert cut.after == pytest.approx(8)
    assert world.report.seconds <= 11


# -- the ladder ------------------------------------------------------------------------------


@on_both
async def test_the_second_rung_skips_the_delay(world: World, server: FakeServer) -> None:
    """Nobody waits for a delay twice asked to end; work is finished all the same."""
    app = GracefulMiddleware(slow(3))
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        began = world.now
        world.lifecycle.terminate()
        await anyio.sleep(1)
        world.lifecycle.terminate()
        assert world.is_in(Phase.DRAINING)
        await call.finished()
        await world.turns()
        assert world.now - began == pytest.approx(3)
        assert server.log[-1] == "leave"
    assert world.report.clean


@on_both
async def test_the_third_rung_cuts(world: World, server: FakeServer) -> None:
    """The third time, what is in flight is cut at once, streams are told at once."""
    app = GracefulMiddleware(slow(10))
    async with world.lifespan(app):
        call = world.call(app, http("/slow"))
        await world.turns()
        began = world.now
        for _ in range(3):
            world.lifecycle.terminate()
            await world.turns()
        await call.finished()
        assert world.now == began
        assert call.status == 503
        world.lifecycle.terminate()
        await world.turns()
        assert server.log[-1] == "leave"
    assert [s.name for s in world.report.cut] == ["GET /slow"]
    assert world.report.exit_status == 70


@on_both
async def test_all_rungs_in_one_instant(world: World, server: FakeServer) -> None:
    """Three orders before the driver has moved at all are the third rung."""
    app = GracefulMiddleware(slow(10))
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        began = world.now
        for _ in range(3):
            world.lifecycle.terminate()
        await call.finished()
        assert world.now == began
        assert call.status == 503


@on_both
async def test_a_cut_while_streams_are_being_told(world: World, server: FakeServer) -> None:
    """The third rung doesn't wait for the stream window."""

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(EVENTS))
        while (await receive())["type"] != "http.disconnect":
            pass

    app = GracefulMiddleware(app_of(stream), stream_window=10)
    async with world.lifespan(app):
        calls = [await world.call(app, http()).started() for _ in range(10)]
        began = world.now
        world.lifecycle.terminate()
        world.lifecycle.terminate()
        await anyio.sleep(1)
        world.lifecycle.terminate()
        for one in calls:
            await one.finished()
        assert world.now - began < 2
    assert all(b"reconnect" in one.body for one in calls)


# -- holds, streams, drains ------------------------------------------------------------------


@on_both
async def test_work_that_begins_while_draining_is_waited_for(
    world: World, server: FakeServer
) -> None:
    """A request on a kept-alive connection during the linger is finished like any other."""
    server.connections = True
    app = GracefulMiddleware(slow(3), propagation_delay=0, linger=1)
    async with world.lifespan(app):
        world.lifecycle.terminate()
        await anyio.sleep(0.9)
        call = await world.call(app, http()).finished()
        assert call.body == b"ok"
        await world.turns()
        assert server.log[-1] == "leave"


@on_both
async def test_farewells_are_counted_in_one_record(world: World, server: FakeServer) -> None:
    """However many streams there are, one record says how many were told."""

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(EVENTS))
        while True:
            await send(part(b"data: x\n\n"))
            await anyio.sleep(0.1)

    app = GracefulMiddleware(app_of(stream))
    async with world.lifespan(app):
        for _ in range(20):
            await world.call(app, http()).started()
    (told,) = world.told(FarewellsSent)
    assert (told.told, told.window) == (20, 5)
    assert world.report.streams_at_drain == 20


@on_both
async def test_a_drain_that_is_asked_for_twice(world: World, server: FakeServer) -> None:
    """A server that stops by itself in the middle of a drain waits for that one."""
    app = GracefulMiddleware(slow(4), propagation_delay=0)
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        began = world.now
        world.lifecycle.terminate()
        await world.turns()
        await server.lifecycle.stop("the server is shutting down")
        assert world.now - began == pytest.approx(4)
        assert call.over
        assert server.log.count("stop accepting") == 1


@on_both
async def test_a_server_that_stops_by_itself(world: World, server: FakeServer) -> None:
    """`stop` drains without any delay and says why; it is no reason for exit status 70."""
    app = GracefulMiddleware(slow(600))
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        await server.lifecycle.stop("max requests")
        assert call.status == 503
        assert await server.lifecycle.server_gone() == 0
    assert world.report.cause == "max requests"
    assert world.phases[1:] == [Phase.DRAINING, Phase.CLOSING, Phase.STOPPED]


@on_both
async def test_a_server_that_stops_during_the_delay(world: World, server: FakeServer) -> None:
    """Its listener is gone then, so there is no delay left to serve."""
    app = GracefulMiddleware(app_of(hello))
    async with world.lifespan(app):
        began = world.now
        world.lifecycle.terminate()
        await anyio.sleep(2)
        await server.lifecycle.stop("the server is shutting down")
        assert world.now - began == pytest.approx(2)


class Changed(FakeServer):
    """A server that is not as it was when its integration was written."""

    async def stop_accepting(self) -> None:
        raise KeyError("servers")


class Unasked(FakeServer):
    """One of which not even that can be asked."""

    def has_connections(self) -> bool:
        raise AttributeError("connections")


@pytest.mark.parametrize("server", [Changed()], ids=["changed"])
@on_both
async def test_a_listener_that_cannot_be_closed(world: World, server: FakeServer) -> None:
    """Work in flight is finished all the same, and the server is told to leave."""
    server.log.clear()
    app = GracefulMiddleware(slow(3), propagation_delay=0)
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        world.lifecycle.terminate()
        await left(server)
        assert (call.over, call.status) == (True, 200)
    faults = [record for record in world.records if isinstance(record, Fault)]
    assert faults == [Fault("closing the listener of test server 1.0", "KeyError: 'servers'")]
    assert world.report.clean


@pytest.mark.parametrize("server", [Unasked()], ids=["unasked"])
@on_both
async def test_a_drain_that_fails(world: World, server: FakeServer) -> None:
    """The process doesn't wait for its watchdog then."""
    server.log.clear()
    app = GracefulMiddleware(app_of(hello), propagation_delay=0)
    async with world.lifespan(app):
        world.lifecycle.terminate()
        await left(server)
    faults = [record for record in world.records if isinstance(record, Fault)]
    assert faults == [Fault("the drain", "AttributeError: connections")]
    assert world.phases[-1] is Phase.STOPPED


# -- hooks -----------------------------------------------------------------------------------


@on_both
async def test_hooks_run_in_order(world: World, server: FakeServer) -> None:
    """One after the other: those that code has added, then the app's, as given."""
    order: list[str] = []

    def hook(name: str, seconds: float = 0) -> Callable[[], Any]:
        async def run() -> None:
            await anyio.sleep(seconds)
            order.append(name)

        return run

    world.lifecycle.add_hook("cleanup", hook("own", 0.5))
    app = GracefulMiddleware(app_of(hello), on_cleanup=[hook("first", 0.3), hook("second")])
    async with world.lifespan(app):
        world.lifecycle.add_hook("cleanup", hook("late"))
    assert order == ["own", "late", "first", "second"]
    order.clear()
    async with world.lifespan(app):
        pass
    assert order == ["own", "late", "first", "second"]


@on_both
async def test_hooks_of_the_drain_run_beside_it_and_are_waited_for(
    world: World, server: FakeServer
) -> None:
    """A drain with nothing in flight is not over before its hooks are, nor does clean-up begin."""
    order: list[str] = []

    async def deregister() -> None:
        await anyio.sleep(2)
        order.append("deregistered")

    async def close() -> None:
        order.append("closed")

    app = GracefulMiddleware(
        app_of(hello), on_drain=deregister, on_cleanup=close, propagation_delay=0
    )
    async with world.lifespan(app):
        pass
    assert order == ["deregistered", "closed"]


@on_both
async def test_a_hook_that_raises(world: World, server: FakeServer) -> None:
    """It is reported by name, and the next one has its turn."""
    order: list[str] = []

    async def broken() -> None:
        raise KeyError("broken")

    async def next_one() -> None:
        order.append("next")

    app = GracefulMiddleware(app_of(hello), on_cleanup=[broken, next_one])
    async with world.lifespan(app):
        world.lifecycle.terminate()
    (fault,) = world.told(Fault)
    assert fault.what.startswith("on_cleanup hook")
    assert "broken" in fault.what
    assert fault.error == "KeyError: 'broken'"
    assert order == ["next"]


@on_one("asyncio")
async def test_a_hook_that_lets_a_cancelled_error_out(world: World, server: FakeServer) -> None:
    """`task.cancel(); await task` in a hook is a mistake of the hook's alone."""
    order: list[str] = []

    async def stop_poller() -> None:
        poller = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        poller.cancel()
        await poller

    async def next_one() -> None:
        order.append("next")

    hooks = [stop_poller, next_one]
    app = GracefulMiddleware(app_of(hello), on_drain=hooks, on_cleanup=hooks)
    async with world.lifespan(app) as lifespan:
        pass
    assert lifespan.types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert order == ["next", "next"]
    assert len(world.told(Fault)) == 2


@on_both
async def test_a_hook_that_hangs(world: World, server: FakeServer) -> None:
    """It loses its turn at its own limit, or at what its phase has left, and that is said."""
    order: list[str] = []

    async def hangs() -> None:
        await anyio.sleep_forever()

    async def next_one() -> None:
        order.append("next")

    world.lifecycle.add_hook("cleanup", hangs, timeout=0.5)
    world.lifecycle.add_hook("cleanup", next_one)
    app = GracefulMiddleware(app_of(hello), on_cleanup=[hangs, next_one], cleanup_timeout=3)
    async with world.lifespan(app):
        began = world.now
    assert world.now - began == pytest.approx(3)
    assert order == ["next", "next"]
    first, second = world.told(Fault)
    assert "took longer than its 0.5 s" in first.error
    assert "took longer than its 2.5 s" in second.error


@on_both
async def test_hooks_of_lame_duck_end_with_the_drain(world: World, server: FakeServer) -> None:
    """What hangs in `on_lame_duck` doesn't hold up the flip to DRAINING; it may use the time that
    the drain has, and ends with it."""

    async def hangs() -> None:
        await anyio.sleep_forever()

    app = GracefulMiddleware(
        app_of(hello), on_lame_duck=hangs, grace_period=12, propagation_delay=2, linger=0
    )
    async with world.lifespan(app):
        began = world.now
        world.lifecycle.terminate()
        await world.until(Phase.DRAINING)
        assert world.now - began == pytest.approx(2, abs=0.02)
        await left(server)
        assert world.now - began == pytest.approx(8, abs=0.02)
    (fault,) = world.told(Fault)
    assert "hangs" in fault.what
    assert "the stop goes on without it" in fault.error


@on_both
async def test_hooks_of_the_drain_end_with_it(world: World, server: FakeServer) -> None:
    """What hangs in `on_drain` ends at the drain deadline, and at once on the third rung."""

    async def hangs() -> None:
        await anyio.sleep_forever()

    settings: dict[str, Any] = {"grace_period": 12, "propagation_delay": 0, "linger": 0}
    app = GracefulMiddleware(app_of(hello), on_drain=hangs, **settings)
    async with world.lifespan(app):
        began = world.now
        world.lifecycle.terminate()
        await left(server)
        assert world.now - began == pytest.approx(8, abs=0.2)
    server.log.clear()
    async with world.lifespan(app):
        began = world.now
        for _ in range(3):
            world.lifecycle.terminate()
        await world.turns()
        assert "leave" in server.log
        assert world.now == began


@on_both
async def test_hooks_of_one_phase_before_those_of_the_next(
    world: World, server: FakeServer
) -> None:
    """When the rest of the delay is skipped, its hooks are finished first, in order."""
    order: list[str] = []

    async def slow_hook() -> None:
        await anyio.sleep(1)
        order.append("lame duck")

    async def drain() -> None:
        order.append("drain")

    app = GracefulMiddleware(app_of(hello), on_lame_duck=slow_hook, on_drain=drain)
    async with world.lifespan(app):
        began = world.now
        world.lifecycle.terminate()
        await world.turns()
        world.lifecycle.terminate()
        await left(server)
        assert world.now - began == pytest.approx(1, abs=0.02)
    assert order == ["lame duck", "drain"]


@on_both
async def test_hooks_of_lame_duck_run_for_an_operator_too(world: World, server: FakeServer) -> None:
    """Each flip of readiness is announced once: by code, again after `recover`, and by a stop."""
    flips: list[Phase] = []

    async def announce() -> None:
        flips.append(world.phase)

    app = GracefulMiddleware(app_of(hello), on_lame_duck=announce)
    async with world.lifespan(app):
        for _ in range(2):
            world.lifecycle.lame_duck()
            await world.turns()
            world.lifecycle.lame_duck()
            await world.turns()
            world.lifecycle.recover()
            await world.turns()
        assert len(flips) == 2
        world.lifecycle.lame_duck()
        await world.turns()
        world.lifecycle.terminate()
        await left(server)
    assert len(flips) == 3


@on_both
async def test_clean_up_runs_once(world: World, server: FakeServer) -> None:
    """The server's end and the lifespan's both ask for clean-up; it happens once."""
    runs: list[str] = []

    async def cleanup() -> None:
        runs.append("cleanup")

    app = GracefulMiddleware(app_of(hello), on_cleanup=cleanup)
    async with world.lifespan(app):
        world.lifecycle.terminate()
        world.lifecycle.terminate()
        await world.turns()
        await server.lifecycle.stop("again")
        assert await server.lifecycle.server_gone() == 0
    assert runs == ["cleanup"]


def test_sync_hooks_run_in_threads(monkeypatch: pytest.MonkeyPatch, server: FakeServer) -> None:
    """A sync hook can block without blocking the loop; one that hangs is left behind."""
    lifecycle = graceful.Lifecycle()
    monkeypatch.setattr("graceful.lifecycle._process", lifecycle)
    faults: list[str] = []
    seen: list[str] = []
    let_go = threading.Event()

    def hangs() -> None:
        let_go.wait()

    def works() -> None:
        seen.append(threading.current_thread().name)

    lifecycle.observe(lambda r: faults.append(r.what) if isinstance(r, Fault) else None)
    lifecycle.add_hook("cleanup", hangs, timeout=0.05)
    lifecycle.add_hook("cleanup", works)

    async def main() -> None:
        app = GracefulMiddleware(app_of(hello))
        async with anyio.create_task_group() as tasks:
            world = World(lifecycle, None, tasks)  # type: ignore[arg-type]
            async with world.lifespan(app):
                pass

    anyio.run(main)
    let_go.set()
    assert len(faults) == 1
    assert "hangs" in faults[0]
    assert seen != [threading.main_thread().name]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_call(backend: str) -> None:
    """User code may be a function, a coroutine function, an object, or return an awaitable."""

    async def coroutine(x: int) -> int:
        return x

    class Callable_:
        async def __call__(self, x: int) -> int:
            return x

    async def main() -> list[object]:
        functions: list[Callable[[int], object]] = [
            coroutine,
            Callable_(),
            lambda x: x,
            lambda x: coroutine(x),
        ]
        return [await call(function, 7) for function in functions]

    assert anyio.run(main, backend=backend) == [7, 7, 7, 7]


def test_the_name_of_a_hook() -> None:
    """Logs call a hook by its qualified name, or by its repr where it has none."""

    class Object:
        def __call__(self) -> None: ...

        def __repr__(self) -> str:
            return "<an object>"

    assert Hook("drain", test_the_name_of_a_hook).name == "test_the_name_of_a_hook"
    assert Hook("drain", Object()).name == "<an object>"
