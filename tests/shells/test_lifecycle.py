"""The edge of the process: joining, orders by code, servers and their limits, observers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import graceful
import graceful.lifecycle
from graceful.asgi import GracefulMiddleware
from graceful.board import Board, Order
from graceful.core.budget import ServerLimit, Settings, SettingsError
from graceful.core.phases import IllegalTransition, Phase
from graceful.core.records import BudgetShort, DrainReport, Fault, Notice, Record, Rung, Started
from graceful.core.traits import ServerTraits
from graceful.lifecycle import Lifecycle
from graceful.loops import current_loop
from graceful.members import Member
from graceful.servers import PlainServer, detect

from .apps import app_of, hello, slow
from .harness import FakeServer, World, http, on_both, on_one


@pytest.fixture
def server() -> FakeServer:
    """A server with an integration."""
    return FakeServer()


# -- orders by code --------------------------------------------------------------------------


@on_both
async def test_lame_duck_and_recover(world: World) -> None:
    """Code can take the process out of rotation and put it back, as often as it likes."""
    app = GracefulMiddleware(app_of(hello))
    async with world.lifespan(app):
        for _ in range(2):
            world.lifecycle.lame_duck()
            world.lifecycle.lame_duck()
            assert world.is_in(Phase.LAME_DUCK)
            await anyio.sleep(3600)
            assert world.is_in(Phase.LAME_DUCK)
            assert (await world.get(app)).body == b"ok"
            world.lifecycle.recover()
            assert world.is_in(Phase.SERVING)
    assert world.phases[:4] == [Phase.LAME_DUCK, Phase.SERVING] * 2


@on_both
async def test_a_delay_that_an_operator_has_served_counts(world: World) -> None:
    """After an hour out of rotation nobody waits for the balancer once more."""
    app = GracefulMiddleware(app_of(hello), propagation_delay=5)
    async with world.lifespan(app):
        world.lifecycle.lame_duck()
        await anyio.sleep(3)
        world.lifecycle.terminate()
        await anyio.sleep(1.9)
        assert world.is_in(Phase.LAME_DUCK)
        await anyio.sleep(0.2)
        assert world.is_in(Phase.DRAINING)


@on_both
async def test_a_probe_hears_the_parent_before_the_worker_has(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its word is on the board, and the thread that listens for it has not had its turn."""

    def never_start(work: Callable[[], object], name: str) -> Callable[[], bool]:
        return lambda: True

    monkeypatch.setattr("graceful.managed.start_daemon", never_start)
    monkeypatch.setattr(world.lifecycle, "_arm_watchdog", lambda: None)  # its time is real
    board = world.lifecycle.board = Board()
    app = GracefulMiddleware(app_of(hello))
    async with world.lifespan(app):
        assert (await world.get(app, "/readyz")).status == 200
        board.climb(Order(1, world.lifecycle.clock(), "SIGTERM"))
        assert (await world.get(app, "/readyz")).status == 503
        assert world.is_in(Phase.LAME_DUCK)


@on_both
async def test_recover_when_it_is_too_late(world: World) -> None:
    """What a signal or `terminate` has begun can't be taken back; the refusal says why."""
    app = GracefulMiddleware(app_of(hello))
    async with world.lifespan(app):
        with pytest.raises(IllegalTransition):
            world.lifecycle.recover()
        world.lifecycle.terminate("operator")
        with pytest.raises(RuntimeError, match="operator asked this process to stop"):
            world.lifecycle.recover()
        assert world.is_in(Phase.LAME_DUCK)


@on_both
async def test_lame_duck_before_and_after_a_life(world: World) -> None:
    """A process that doesn't serve can't be taken out of rotation, and nothing comes of trying."""
    app = GracefulMiddleware(app_of(hello))
    with pytest.raises(IllegalTransition, match="starting"):
        world.lifecycle.lame_duck()
    async with world.lifespan(app):
        assert world.is_in(Phase.SERVING)
    with pytest.raises(IllegalTransition, match="stopped"):
        world.lifecycle.lame_duck()
    assert world.records == []


@on_both
async def test_terminate_once_twice_three_times(world: World) -> None:
    """Each call climbs a rung, each rung is told, and a fourth changes nothing."""
    app = GracefulMiddleware(slow(60))
    async with world.lifespan(app):
        world.call(app, http())
        await world.turns()
        phases: list[Phase] = []
        for _ in range(4):
            world.lifecycle.terminate("deploy")
            phases.append(world.phase)
    assert phases == [Phase.LAME_DUCK, Phase.DRAINING, Phase.DRAINING, Phase.DRAINING]
    assert [(r.rung, r.cause) for r in world.told(Rung)] == [(n, "deploy") for n in (1, 2, 3)]
    assert world.report.cause == "deploy"


@on_both
async def test_terminate_ends_nothing_that_is_not_ours(world: World) -> None:
    """`terminate` drains, and leaves the program that embeds the server alone."""
    app = GracefulMiddleware(app_of(hello))
    async with world.lifespan(app):
        world.lifecycle.terminate()
        await anyio.sleep(3600)
        assert world.is_in(Phase.DRAINING)
        assert not [t for t in threading.enumerate() if t.name == "graceful-exit"]
        late = await world.get(app)
        assert late.status == 503
    assert world.is_in(Phase.STOPPED)


@on_both
async def test_orders_without_any_app(world: World) -> None:
    """Without an app there is nothing to stop; a later life is fresh."""
    world.lifecycle.terminate()
    app = GracefulMiddleware(app_of(hello))
    async with world.lifespan(app):
        assert world.is_in(Phase.SERVING)
        assert world.lifecycle.remaining() == float("inf")


# -- what observers hear ---------------------------------------------------------------------


@on_both
async def test_the_start_is_told_under_a_server(world: World, server: FakeServer) -> None:
    """The start-up line has every value in force, the drain in seconds, and its source."""
    app = GracefulMiddleware(app_of(hello), grace_period=40)
    async with world.lifespan(app):
        (started,) = world.told(Started)
    assert started.server == "test server 1.0"
    assert started.settings["grace_period"] == 40
    assert started.settings["drain_timeout"] == 31
    assert started.sources == {"grace_period": "GracefulMiddleware(...)"}


@on_both
async def test_observers_hear_everything_in_order(world: World) -> None:
    """From the first rung to the drain report, and nothing after they were taken off."""
    told: list[Record] = []
    app = GracefulMiddleware(app_of(hello), observers=[told.append])
    async with world.lifespan(app):
        world.lifecycle.terminate()
        await anyio.sleep(6)
    assert [type(r).__name__ for r in told] == [
        "Rung",
        "PhaseChanged",
        "PhaseChanged",
        "PhaseChanged",
        "PhaseChanged",
        "DrainReport",
    ]
    assert isinstance(told[-1], DrainReport)
    told.clear()
    async with world.lifespan(GracefulMiddleware(app_of(hello))):
        world.lifecycle.terminate()
    assert told == []


@on_both
async def test_an_observer_that_raises(world: World) -> None:
    """One that raises is reported once and stops nothing; the others hear all."""
    told: list[Record] = []

    def broken(record: Record) -> None:
        raise ZeroDivisionError

    app = GracefulMiddleware(app_of(hello), observers=[broken, told.append])
    async with world.lifespan(app) as lifespan:
        world.lifecycle.terminate()
        await anyio.sleep(6)
    assert lifespan.types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    faults = [r for r in told if isinstance(r, Fault)]
    assert len(faults) == 1
    assert "ZeroDivisionError" in faults[0].error
    assert isinstance(told[-1], DrainReport)


@on_both
async def test_observing_can_end(world: World) -> None:
    """`observe` returns the way to end it, which may be called twice."""
    told: list[Record] = []
    end = world.lifecycle.observe(told.append)
    async with world.lifespan(GracefulMiddleware(app_of(hello))):
        world.lifecycle.lame_duck()
        end()
        end()
        world.lifecycle.recover()
    assert len(told) == 1


@on_both
async def test_a_budget_that_requests_outlast(world: World) -> None:
    """When requests here take longer than the drain, that is said once while serving."""
    app = GracefulMiddleware(slow(30), grace_period=30)
    async with world.lifespan(app):
        calls = [world.call(app, http()) for _ in range(1100)]
        for call in calls:
            await call.finished()
        (short,) = world.told(BudgetShort)
    assert short.p99 > short.drain == 21
    assert short.requests >= 1000


# -- servers ---------------------------------------------------------------------------------


@on_both
async def test_a_servers_own_timeout_that_would_cut(world: World, server: FakeServer) -> None:
    """A timeout of the server's that contradicts fails the start-up, and nothing stays taken."""
    server.limit_list = [ServerLimit("test --timeout", 5.0, "at_signal")]
    before = signal.getsignal(signal.SIGTERM)
    async with world.lifespan(GracefulMiddleware(app_of(hello))) as lifespan:
        await lifespan.until(lambda: lifespan.over)
    (failed,) = lifespan.sent
    assert "test --timeout = 5 s would cut requests" in failed["message"]
    assert signal.getsignal(signal.SIGTERM) is before
    assert world.lifecycle.servers == []
    assert world.lifecycle.loop is None
    server.limit_list = []
    async with world.lifespan(GracefulMiddleware(app_of(hello), grace_period=20)):
        assert world.is_in(Phase.SERVING)


@on_both
async def test_a_servers_own_timeout_that_is_a_waste(world: World, server: FakeServer) -> None:
    """One that would only waste time is a notice, for the app's own observers as well."""
    told: list[Record] = []
    server.limit_list = [ServerLimit("test --timeout", 50.0, "after_drain")]
    app = GracefulMiddleware(app_of(hello), observers=[told.append])
    async with world.lifespan(app):
        assert world.is_in(Phase.SERVING)
    notices = [r for r in told if isinstance(r, Notice)]
    assert len(notices) == 1
    assert "test --timeout = 50 s" in notices[0].text


@on_both
async def test_under_a_reloader_nothing_waits(world: World, server: FakeServer) -> None:
    """A developer saves a file fifty times an hour: no delay, no linger, no window."""
    server.development = server.connections = True
    app = GracefulMiddleware(app_of(hello))
    async with world.lifespan(app):
        began = world.now
        world.lifecycle.terminate()
        await world.turns()
        assert server.log[-1] == "leave"
        assert world.now == began
        assert world.lifecycle.settings.source("linger") == "test server 1.0 --reload"


def given(server: FakeServer) -> Callable[..., FakeServer]:
    """Return a `detect` that always finds `server`."""
    return lambda *_: server


def test_a_server_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of the main thread no signal arrives: that is said once, with the way to stop."""
    lifecycle = Lifecycle()
    server = FakeServer()
    monkeypatch.setattr(graceful.lifecycle, "_process", lifecycle)
    monkeypatch.setattr(graceful.lifecycle, "detect", given(server))
    told: list[Record] = []
    lifecycle.observe(told.append)
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            world = World(lifecycle, None, tasks)  # type: ignore[arg-type]
            async with world.lifespan(GracefulMiddleware(app_of(hello))):
                assert signal.getsignal(signal.SIGTERM) is before

    thread = threading.Thread(target=anyio.run, args=(main,))
    thread.start()
    thread.join()
    (notice,) = [r for r in told if isinstance(r, Notice)]
    assert "graceful.current().terminate()" in notice.text
    assert server.log == ["attach", "stop accepting", "detach"]


@on_both
async def test_exit_status_of_a_stop_by_code(world: World, server: FakeServer) -> None:
    """Only a signal makes the process end with a status of ours."""
    app = GracefulMiddleware(slow(600), grace_period=10, propagation_delay=0)
    async with world.lifespan(app):
        world.call(app, http())
        await world.turns()
        world.lifecycle.terminate()
        await anyio.sleep(8)
        assert await server.lifecycle.server_gone() == 0
    assert world.report.exit_status == 70


@on_both
async def test_what_the_server_gets_for_its_own_shutdown(world: World, server: FakeServer) -> None:
    """The seconds to the drain deadline, and a moment more when it has passed."""
    app = GracefulMiddleware(app_of(hello), propagation_delay=0)
    async with world.lifespan(app):
        world.lifecycle.terminate()
        assert server.lifecycle.drain_left() == 26
        await anyio.sleep(30)
        assert server.lifecycle.drain_left() == 0.1


@on_one("asyncio")
@pytest.mark.parametrize("plain", [PlainServer()])
async def test_a_server_that_nobody_knows(world: World, plain: PlainServer) -> None:
    """It is told through the handler that it had installed, when the drain is over."""
    called: list[int] = []
    old = signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
    try:
        async with world.lifespan(GracefulMiddleware(app_of(hello), linger=0)):
            world.lifecycle.terminate()
            await anyio.sleep(4.9)
            assert called == []
            await anyio.sleep(0.2)
            assert called == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, old)
    assert plain.has_connections()
    assert plain.limits() == ()


def test_detect_without_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server's integration is imported before its server is."""
    row = ServerTraits(name="none", module="no.such.module", integration="none.either")
    monkeypatch.setattr("graceful.servers.TRAITS", (row,))
    assert detect(signal.SIG_DFL) is None


def test_detect_survives_an_integration_that_has_lost_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that has changed stops in the plain way, and the loss is told."""
    row = ServerTraits(name="future", module="signal", integration="none.either")
    monkeypatch.setattr("graceful.servers.TRAITS", (row,))
    lost: list[str] = []
    assert detect(signal.SIG_DFL, lost=lost.append) is None
    assert len(lost) == 1
    assert "future" in lost[0]
    assert "none" in lost[0]


# -- members ---------------------------------------------------------------------------------


def member(loop: Any, *, lifespan: bool = False, **settings: Any) -> Member:
    return Member("an app", Settings(**settings), loop, lifespan)


@on_both
async def test_a_life_ends_with_its_last_member(world: World) -> None:
    """Members may leave in any order, and twice."""
    loop = current_loop()
    one, two = member(loop), member(loop)
    world.lifecycle.join(one)
    world.lifecycle.join(two)
    world.lifecycle.started()
    world.lifecycle.started()
    assert not world.lifecycle.is_last(one)
    world.lifecycle.leave(two)
    world.lifecycle.leave(two)
    assert world.lifecycle.is_last(one)
    assert world.is_in(Phase.SERVING)
    world.lifecycle.leave(one)
    assert world.is_in(Phase.STOPPED)


@on_both
async def test_members_whose_loop_is_gone_are_forgotten(world: World) -> None:
    """An app without a lifespan can't say when it is over; its loop can."""

    class Dead:
        def is_current(self) -> bool:
            return False

        def is_alive(self) -> bool:
            return False

    world.lifecycle.join(member(Dead(), grace_period=10))
    new = member(current_loop(), grace_period=20)
    world.lifecycle.join(new)
    assert world.lifecycle.settings.grace_period == 20
    assert world.lifecycle.is_last(new)
    world.lifecycle.leave(new)


@on_both
async def test_contradicting_members(world: World) -> None:
    """The error names both apps and both values of each setting that differs."""
    one = member(current_loop(), lifespan=True)
    world.lifecycle.join(one)
    with pytest.raises(SettingsError, match=r"linger is 1\.0 in an app and 2\.0 in an app"):
        world.lifecycle.join(member(current_loop(), linger=2.0))
    world.lifecycle.leave(one)


def test_the_lifecycle_of_the_process() -> None:
    """There is one, and everybody finds the same."""
    assert graceful.current() is graceful.current()
    assert isinstance(graceful.current(), graceful.Lifecycle)


# -- signals, each in a process of its own -----------------------------------------------------

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from graceful.asgi import GracefulMiddleware

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    await work()

async def work(): ...

def note(words):
    async def hook(): print(words, flush=True)
    return hook

async def serve(wrapped, then):
    inbox, outbox = asyncio.Queue(), asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {}, "state": {}}
    task = asyncio.ensure_future(wrapped(scope, inbox.get, outbox.put))
    inbox.put_nowait({"type": "lifespan.startup"})
    await outbox.get()
    await then(wrapped)
    inbox.put_nowait({"type": "lifespan.shutdown"})
    await task

def request(wrapped):
    async def nothing(*_): await asyncio.sleep(3600)
    async def ignore(message): ...
    scope = {"type": "http", "method": "GET", "path": "/slow", "headers": [], "state": {}}
    return asyncio.ensure_future(wrapped(scope, nothing, ignore))

SETTINGS = dict(grace_period=2.5, propagation_delay=0.2, drain_timeout=0.5, cleanup_timeout=0.5,
                exit_margin=1, linger=0)
"""


def program(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` after PROGRAM in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + code],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


def test_sigterm_under_a_server_that_nobody_knows() -> None:
    """Where SIGTERM had its default action the process drains first, and then ends by it."""
    done = program("""
wrapped = GracefulMiddleware(app, on_drain=note("drain"), **SETTINGS)
async def then(wrapped):
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(30)
asyncio.run(serve(wrapped, then))
""")
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == "drain\n"
    assert re.search("(?i)drain report .*cause=SIGTERM clean=true", done.stderr)


def test_the_watchdog_names_what_blocks_the_loop() -> None:
    """A handler that blocks the event loop: the process is gone with 70, and its stack is shown."""
    done = program("""
async def work():
    time.sleep(60)
async def then(wrapped):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    await request(wrapped)
asyncio.run(serve(GracefulMiddleware(app, **SETTINGS), then))
""")
    assert done.returncode == 70
    assert re.search("(?i)drain report .*cause=SIGTERM clean=false", done.stderr)
    assert "still in flight: http GET /slow" in done.stderr
    assert "in work" in done.stderr


def test_three_signals() -> None:
    """The third signal cuts; under a handler of the program's own that is called at the end."""
    done = program("""
async def work():
    await asyncio.sleep(60)
async def then(wrapped):
    over = asyncio.get_running_loop().create_future()
    task = request(wrapped)
    await asyncio.sleep(0)
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
    await task
    while not left:
        await asyncio.sleep(0.01)
left = []
signal.signal(signal.SIGTERM, lambda number, frame: left.append(number))
asyncio.run(serve(GracefulMiddleware(app, **SETTINGS), then))
assert len(left) == 1
time.sleep(30)
""")
    assert done.returncode == 70  # what was cut may hold the exit: it is not waited for
    assert done.stderr.count("told to stop") == 3
    assert re.search("(?i)drain report .*cause=SIGTERM clean=false", done.stderr)


def test_a_program_that_goes_on_living() -> None:
    """After a clean stop by a signal a program that only embedded the server is left alone."""
    done = program("""
async def then(wrapped):
    signal.raise_signal(signal.SIGTERM)
    while not left:
        await asyncio.sleep(0.01)
left = []
mine = lambda number, frame: left.append(number)
signal.signal(signal.SIGTERM, mine)
asyncio.run(serve(GracefulMiddleware(app, **SETTINGS), then))
assert signal.getsignal(signal.SIGTERM) is mine
time.sleep(3)
print("alive", [t.name for t in threading.enumerate() if t.name == "graceful-signals"])
""")
    assert (done.returncode, done.stdout) == (0, "alive []\n")


class Running:
    """A loop of which only matters that it runs."""

    def is_current(self) -> bool:
        return False

    def is_alive(self) -> bool:
        return True


@pytest.mark.parametrize(("development", "said"), [(False, 1), (True, 0)])
def test_a_server_in_a_thread_says_where_signals_are(
    monkeypatch: pytest.MonkeyPatch, development: bool, said: int
) -> None:
    """Once; not where a reloader has the signals, and nobody stops anything gracefully."""
    server = FakeServer()
    server.development = development

    def found(*_: object) -> FakeServer:
        return server

    monkeypatch.setattr(graceful.lifecycle, "detect", found)
    lifecycle, records = Lifecycle(), list[Record]()
    lifecycle.observe(records.append)
    loop: Any = Running()
    member = Member("app", Settings(), loop, True)
    thread = threading.Thread(target=lifecycle.join, args=(member,))
    thread.start()
    thread.join()
    notices = [each.text for each in records if isinstance(each, Notice)]
    assert sum("outside the main thread" in text for text in notices) == said
    lifecycle.leave(member)
