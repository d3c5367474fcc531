"""The life of an app in its process: lifespan, settings errors, several apps, test suites."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx
import pytest
import structlog
from sse_starlette.sse import AppStatus
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

import graceful
import graceful.lifecycle
from graceful._asgi_types import App, Message, Receive, Scope, Send
from graceful.asgi import GracefulMiddleware
from graceful.core.phases import Phase
from graceful.core.records import Notice, Record
from graceful.lifecycle import Lifecycle

from .apps import app_of, hello, script, slow
from .harness import Call, FakeServer, World, http, on_both, on_one, websocket

# -- lifespan or none ------------------------------------------------------------------------


@on_both
async def test_with_a_lifespan(world: World) -> None:
    """STARTING until the app has come up, SERVING until the server asks for the end, in silence."""
    app = GracefulMiddleware(app_of(hello))
    assert world.is_in(Phase.STARTING)
    async with world.lifespan(app) as lifespan:
        assert world.is_in(Phase.SERVING)
        assert (await world.get(app)).body == b"ok"
        began = world.now
    assert lifespan.types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert world.is_in(Phase.STOPPED)
    assert world.now == began
    assert world.records == []


@on_one("asyncio")
async def test_a_life_that_is_over_is_forgotten(world: World) -> None:
    """What its exchanges had in common goes with it, although the app object stays."""
    app = GracefulMiddleware(app_of(hello))
    async with world.lifespan(app):
        await world.get(app)
        assert app._short is not None
        common = weakref.ref(app._short)
    gc.collect()
    assert common() is None


@on_both
async def test_without_a_lifespan(world: World) -> None:
    """The first request makes the process SERVING."""
    app = GracefulMiddleware(hello)
    assert (await world.get(app)).body == b"ok"
    assert world.is_in(Phase.SERVING)
    assert (await world.get(app, "/readyz")).status == 200
    assert world.records == []


@on_both
async def test_a_stop_without_a_lifespan(world: World) -> None:
    """The whole choreography runs for an app without a lifespan, too."""
    app = GracefulMiddleware(hello)
    await world.get(app)
    world.lifecycle.terminate()
    assert (await world.get(app, "/readyz")).status == 503
    await world.until(Phase.DRAINING)
    assert world.phases == [Phase.LAME_DUCK, Phase.DRAINING]


@on_both
async def test_an_app_that_has_left_takes_part_again_from_its_next_request_on(
    world: World,
) -> None:
    """Also where another app has kept the process SERVING all the while."""
    heard: list[Record] = []
    app = GracefulMiddleware(app_of(hello), observers=[heard.append])
    async with world.lifespan(GracefulMiddleware(app_of(hello))):
        async with world.lifespan(app):
            await world.get(app)
        assert world.is_in(Phase.SERVING)
        await world.get(app)
        heard.clear()
        world.lifecycle.terminate()
        await world.until(Phase.DRAINING)
        assert heard


async def raises_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError("no lifespan")
    await hello(scope, receive, send)


async def raises_when_asked(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        raise NotImplementedError("no lifespan")
    await hello(scope, receive, send)


async def returns_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        await hello(scope, receive, send)


async def returns_when_asked(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
    else:
        await hello(scope, receive, send)


async def returns_after_startup(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
    else:
        await hello(scope, receive, send)


@on_both
@pytest.mark.parametrize(
    "app",
    [
        raises_at_once,
        raises_when_asked,
        returns_at_once,
        returns_when_asked,
        returns_after_startup,
    ],
)
async def test_an_app_that_does_not_speak_lifespan(world: World, app: App) -> None:
    """The protocol is spoken for it, so that hooks and the last drain work all the same."""
    ran: list[str] = []

    async def cleanup() -> None:
        ran.append("cleanup")

    wrapped = GracefulMiddleware(app, on_cleanup=cleanup)
    async with world.lifespan(wrapped) as lifespan:
        assert (await world.get(wrapped)).body == b"ok"
    assert lifespan.types == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert lifespan.error is None
    assert ran == ["cleanup"]


@on_both
@pytest.mark.parametrize("server", [FakeServer()])
async def test_a_server_that_insists_on_lifespan(world: World, server: FakeServer) -> None:
    """Where the server takes an app without lifespan for an error, it gets to see the error."""
    server.needs_lifespan = True
    app = GracefulMiddleware(raises_at_once)
    async with world.lifespan(app) as lifespan:
        await lifespan.until(lambda: lifespan.over)
    assert isinstance(lifespan.error, NotImplementedError)
    assert lifespan.sent == []


@on_both
async def test_a_start_up_that_fails(world: World) -> None:
    """The app's own failure reaches the server as it is, and a later life is not harmed."""
    failed: Message = {"type": "lifespan.startup.failed", "message": "no database"}
    attempts: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and not attempts:
            attempts.append("first")
            await receive()
            await send(dict(failed))
            return
        await app_of(hello)(scope, receive, send)

    wrapped = GracefulMiddleware(app)
    async with world.lifespan(wrapped) as lifespan:
        await lifespan.until(lambda: lifespan.over)
    assert lifespan.sent == [failed]
    assert world.is_in(Phase.STOPPED)
    async with world.lifespan(wrapped):
        assert world.is_in(Phase.SERVING)
        assert (await world.get(wrapped)).body == b"ok"


@on_both
async def test_an_app_that_dies_after_its_start_up(world: World) -> None:
    """A lifespan task that raises later is the server's to report; nothing stays behind."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise RuntimeError("poller died")

    async with world.lifespan(GracefulMiddleware(app)) as lifespan:
        with pytest.raises(RuntimeError, match="poller died"):
            await lifespan.finished()
    assert world.lifecycle.servers == []


@on_both
async def test_a_stop_during_start_up(world: World) -> None:
    """Told to stop before it ever served, the process never becomes ready."""
    come_up = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await come_up.wait()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    wrapped = GracefulMiddleware(app)
    call = world.call(wrapped, {"type": "lifespan", "asgi": {}, "state": {}})
    call.put({"type": "lifespan.startup"})
    await world.turns()
    world.lifecycle.terminate()
    come_up.set()
    await call.started()
    assert world.is_in(Phase.CLOSING)
    assert (await world.get(wrapped, "/readyz")).status == 503
    call.put({"type": "lifespan.shutdown"})
    await call.finished()
    assert world.phases == [Phase.CLOSING, Phase.STOPPED]


@on_both
@pytest.mark.parametrize("state", [True, False])
async def test_the_state_of_the_app_is_its_own(world: World, state: bool) -> None:
    """What the app puts into the lifespan's state reaches its requests, where servers have one."""
    seen: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            if state:
                scope["state"]["pool"] = "a pool"
            await app_of(hello)(scope, receive, send)
        else:
            seen.append(dict(scope["state"]))
            scope["state"]["mine"] = 1
            await hello(scope, receive, send)

    wrapped = GracefulMiddleware(app)
    async with world.lifespan(wrapped, state=state):
        await world.get(wrapped)
        await world.get(wrapped)
    assert [sorted(s) for s in seen] == [["graceful", "pool"] if state else ["graceful"]] * 2


# -- mistakes in the settings ----------------------------------------------------------------


@on_both
async def test_a_settings_error_fails_the_start_up(world: World) -> None:
    """The constructor doesn't raise, where servers would take that for 'no lifespan'; the message
    with the numbers and the fix is the reason of `lifespan.startup.failed`, and then raised, as
    frameworks do."""
    app = GracefulMiddleware(app_of(hello), propagation_delay=10, drain_timeout=25)
    async with world.lifespan(app) as lifespan:
        await lifespan.until(lambda: lifespan.over)
    (failed,) = lifespan.sent
    assert isinstance(lifespan.error, graceful.SettingsError)
    assert failed["type"] == "lifespan.startup.failed"
    assert failed["message"] == str(lifespan.error)
    assert "exceeds grace_period 30 s (from default) by 9 s" in failed["message"]
    assert "GracefulMiddleware(...)" in failed["message"]
    assert world.lifecycle.servers == []


@on_both
@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"grace_period": -1}, "grace_period"),
        ({"drain_timout": 1}, "drain_timeout"),
        ({"sse_event": "a\nb"}, "sse_event"),
        ({"checks": {"db": 7}}, "checks"),
    ],
)
async def test_a_settings_error_without_a_lifespan(
    world: World, mistake: dict[str, Any], words: str
) -> None:
    """Where no lifespan could fail, readiness and every request say what is wrong."""
    app = GracefulMiddleware(hello, **mistake)
    for path in ("/", "/readyz", "/livez"):
        call = await world.get(app, path)
        assert call.status == 503
        assert words in call.body.decode()
    denied = await world.call(app, websocket()).finished()
    assert [m["code"] for m in denied.sent] == [1011]


@on_both
async def test_an_unknown_variable_is_a_notice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GRACEFUL_* variable that is no setting is said, to the app's own observers as well."""
    monkeypatch.setenv("GRACEFUL_GRACE_PERIODE", "20")
    told: list[Record] = []
    app = GracefulMiddleware(app_of(hello), observers=[told.append])
    async with world.lifespan(app):
        pass
    (notice,) = told
    assert isinstance(notice, Notice)
    assert "GRACEFUL_GRACE_PERIOD'" in notice.text


# -- several ---------------------------------------------------------------------------------


@on_both
async def test_two_apps_share_the_lifecycle(world: World) -> None:
    """Two wrapped apps in one process have one life, which ends with the last of them."""
    first = GracefulMiddleware(slow(1), grace_period=20)
    second = GracefulMiddleware(app_of(hello), grace_period=20)
    async with world.lifespan(first):
        async with world.lifespan(second):
            await world.get(first)
            await world.get(second)
            assert world.lifecycle.tracker.served == 2
        assert world.is_in(Phase.SERVING)
        assert (await world.get(first)).body == b"ok"
    assert world.is_in(Phase.STOPPED)


@on_both
async def test_contradicting_settings_name_both(world: World) -> None:
    """Two apps of one process can't have two grace periods; the error names both, and once the
    first is gone the second may start."""
    first = GracefulMiddleware(app_of(hello), grace_period=20)
    second = GracefulMiddleware(script(), grace_period=40)
    async with world.lifespan(first):
        async with world.lifespan(second) as lifespan:
            await lifespan.until(lambda: lifespan.over)
        (failed,) = lifespan.sent
        assert failed["type"] == "lifespan.startup.failed"
        assert "grace_period is 20.0 in GracefulMiddleware(function)" in failed["message"]
        assert "and 40.0 in GracefulMiddleware(function)" in failed["message"]
        assert (await world.get(first)).status == 200
    async with world.lifespan(second) as lifespan:
        assert lifespan.types == ["lifespan.startup.complete"]


@on_both
async def test_contradicting_settings_without_a_lifespan(world: World) -> None:
    """The second one's requests fail with the error while the first is there, and not after."""
    first = GracefulMiddleware(app_of(hello), grace_period=20)
    second = GracefulMiddleware(hello, grace_period=40)
    async with world.lifespan(first):
        call = await world.get(second)
        assert call.status == 503
        assert b"grace_period is 20.0" in call.body
        assert (await world.get(second, "/readyz")).status == 503
    assert (await world.get(second)).status == 200


@on_both
async def test_wrapped_twice_by_mistake(world: World) -> None:
    """The outer one does it all; the inner one only passes on."""
    app = GracefulMiddleware(GracefulMiddleware(slow(3)))
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        assert len(world.lifecycle.tracker) == 1
        world.lifecycle.terminate()
        await call.finished()
        world.draw.value = 0
        call = await world.get(app)
        assert call.header("connection") == ["close"]
    assert world.told(Notice) == []


@on_both
async def test_wrapped_twice_with_contradicting_settings(world: World) -> None:
    """What the inner one asks for has no effect, so that is said."""
    app = GracefulMiddleware(
        GracefulMiddleware(app_of(hello), grace_period=20, on_cleanup=lambda: None),
        grace_period=40,
    )
    async with world.lifespan(app) as lifespan:
        assert lifespan.types == ["lifespan.startup.complete"]
        assert (await world.get(app)).status == 200
    assert world.lifecycle.settings.grace_period == 40
    (notice,) = world.told(Notice)
    assert "twice" in notice.text
    assert "grace_period" in notice.text


@on_both
async def test_wrapped_inside_a_mount_of_a_wrapped_app(world: World) -> None:
    """The inner app of a mount is inside the outer one's exchange."""
    inner = GracefulMiddleware(Starlette(routes=[Route("/x", plain_endpoint)]))
    app = GracefulMiddleware(Starlette(routes=[Mount("/sub", inner)]))
    async with world.lifespan(app):
        assert (await world.get(app, "/sub/x")).body == b"ok"
        assert world.lifecycle.tracker.served == 1


async def plain_endpoint(request: Request) -> Response:
    """Answer ok."""
    return PlainTextResponse("ok")


# -- probes ----------------------------------------------------------------------------------


@on_both
async def test_probes_by_phase(world: World) -> None:
    """Readiness is 200 while SERVING only; liveness always; both before the app."""
    app = GracefulMiddleware(app_of(hello))
    async with world.lifespan(app):

        async def probe() -> list[int]:
            return [(await world.get(app, path)).status for path in ("/readyz", "/livez")]

        assert await probe() == [200, 200]
        world.lifecycle.lame_duck()
        assert await probe() == [503, 200]
        world.lifecycle.recover()
        assert await probe() == [200, 200]
        world.lifecycle.terminate()
        assert await probe() == [503, 200]
        world.lifecycle.terminate()
        assert world.is_in(Phase.DRAINING)
        assert await probe() == [503, 200]
        call = await world.get(app, "/readyz", method="HEAD")
        assert (call.status, call.body) == (503, b"")
        assert call.header("cache-control") == ["no-store"]
        assert world.lifecycle.tracker.served == 0


@on_both
async def test_probe_paths(world: World) -> None:
    """A path can be moved or switched off, and is matched after `root_path` is taken off."""
    app = GracefulMiddleware(app_of(hello), readiness_path="/ready", liveness_path=None)
    async with world.lifespan(app):
        assert b"ready" in (await world.get(app, "/ready")).body
        assert b"ready" in (await world.get(app, "/sub/ready", root_path="/sub")).body
        for path in ("/readyz", "/livez", "/sub/ready", "/ready/", "/already", ""):
            assert (await world.get(app, path)).body == b"ok"
        assert (await world.get(app, "/sub/livez", root_path="/sub")).body == b"ok"


@on_both
async def test_readiness_mode_wrap(world: World) -> None:
    """The app answers its own readiness while SERVING, the middleware otherwise."""
    app = GracefulMiddleware(app_of(hello), readiness_mode="wrap")
    async with world.lifespan(app):
        assert (await world.get(app, "/readyz")).body == b"ok"
        world.lifecycle.terminate()
        call = await world.get(app, "/readyz")
        assert call.status == 503
        assert b"lame_duck" in call.body


@on_both
async def test_checks(world: World) -> None:
    """A check that fails makes readiness 503 and is named; liveness never asks it."""
    failing = [True]

    async def database() -> None:
        if failing:
            raise ConnectionError("password=hunter2")

    app = GracefulMiddleware(app_of(hello), checks={"database": database})
    async with world.lifespan(app):
        call = await world.get(app, "/readyz")
        assert call.status == 503
        assert b'"database":"failed"' in call.body
        assert b"hunter2" not in call.body
        assert (await world.get(app, "/livez")).status == 200
        failing.clear()
        await anyio.sleep(2)
        assert (await world.get(app, "/readyz")).status == 200


# -- test suites -----------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Lifecycle:
    """A process that has never run an app."""
    lifecycle = Lifecycle()
    monkeypatch.setattr(graceful.lifecycle, "_process", lifecycle)
    return lifecycle


def python_threads() -> list[threading.Thread]:
    """Return the threads that run, but for those that trio keeps for a while by itself."""
    return [t for t in threading.enumerate() if not t.name.startswith("Trio thread")]


def tasks_of_process() -> int:
    """Return how many threads the kernel knows of that Python doesn't."""
    return len(os.listdir("/proc/self/task")) - threading.active_count()


LIMIT = 30.0
"""Seconds in which a thread that is to end has got its turn."""


@pytest.fixture
def traceless(
    alone: Lifecycle, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Lifecycle]:
    """See that a test leaves nothing in this process, and that nothing is said."""

    def state() -> dict[str, Any]:
        return {
            "threads": sorted(t.name for t in python_threads()),
            "signals": [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)],
            "alarm": signal.getitimer(signal.ITIMER_REAL)[0] > 0,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "members": list(alone._members),
            "waiting": list(alone._waiting),
            "observers": alone._broadcast._observers,
            "hooks": list(alone._own_hooks),
            "structlog": structlog.is_configured(),
            "handlers": list(logging.getLogger("graceful").handlers),
        }

    caplog.set_level(logging.DEBUG, "graceful")
    before, tasks = state(), tasks_of_process()
    yield alone
    gc.collect()
    give_up = time.monotonic() + LIMIT  # a thread pool's thread ends when it gets its turn
    while state()["threads"] != before["threads"] and time.monotonic() < give_up:
        time.sleep(0.01)
    assert state() == before
    assert alone.loop is None
    assert not alone._guard.takes_signals
    assert caplog.record_tuples == []
    assert capfd.readouterr() == ("", "")
    give_up = time.monotonic() + 5  # libc keeps a helper thread of its own for a second
    while tasks_of_process() > tasks and time.monotonic() < give_up:
        time.sleep(0.05)
    assert tasks_of_process() <= tasks


async def forever() -> AsyncIterator[bytes]:
    """An endless stream of events."""
    while True:
        yield b"data: x\n\n"
        await anyio.sleep(0.001)


def suite_app(**settings: Any) -> Starlette:
    """Return an app as people test them: wrapped by `add_middleware`, with all kinds of routes."""

    async def events(request: Request) -> Response:
        return StreamingResponse(forever(), media_type="text/event-stream")

    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    def sync(request: Request) -> Response:
        assert graceful.current_exchange() is not None
        return PlainTextResponse("sync")

    app = Starlette(
        routes=[
            Route("/", plain_endpoint),
            Route("/sync", sync),
            Route("/events", events),
            WebSocketRoute("/ws", socket),
        ]
    )
    app.add_middleware(GracefulMiddleware, **settings)
    return app


def use(client: TestClient) -> None:
    """Make one of each request."""
    assert client.get("/").text == "ok"
    assert client.get("/sync").text == "sync"
    assert client.get("/readyz").status_code == 200
    with client.websocket_connect("/ws") as session:
        session.send_text("hi")
        assert session.receive_text() == "hi"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_one_app_in_many_test_clients(traceless: Lifecycle, backend: Any) -> None:
    """An app object started and stopped many times, each time on another loop in another thread."""
    hooks: list[str] = []
    app = suite_app(on_cleanup=lambda: hooks.append("cleanup"))
    for _ in range(5):
        with TestClient(app, backend=backend) as client:
            use(client)
            assert traceless.phase.name == "SERVING"
        assert traceless.phase.name == "STOPPED"
    assert hooks == ["cleanup"] * 5


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_one_app_without_a_lifespan_in_many_loops(traceless: Lifecycle, backend: Any) -> None:
    """A TestClient that is no context manager has a new loop for each request."""
    app = suite_app()
    for _ in range(3):
        use(TestClient(app, backend=backend))
        assert traceless.phase.name == "SERVING"
    traceless._members.clear()  # of loops that are gone; the next app to join would forget them
    traceless._release()


def test_backends_take_turns(traceless: Lifecycle) -> None:
    """asyncio, then trio, then asyncio: nothing of one loop is used on the next."""
    app = suite_app()
    backends: list[Any] = ["asyncio", "trio", "asyncio", "trio"]
    for backend in backends:
        with TestClient(app, backend=backend) as client:
            use(client)
        use(TestClient(app, backend=backend))
    traceless._members.clear()
    traceless._release()


def test_many_apps_one_after_the_other(traceless: Lifecycle) -> None:
    """Each test makes its own app with its own settings, as fixtures do."""
    for seconds in (10, 20, 30):
        with TestClient(suite_app(grace_period=seconds)) as client:
            use(client)
            assert traceless.settings.grace_period == seconds


def test_clients_in_threads(traceless: Lifecycle) -> None:
    """Tests that run in a worker thread are as good as in the main one."""

    def one() -> None:
        with TestClient(suite_app()) as client:
            use(client)

    for _ in range(3):
        thread = threading.Thread(target=one)
        thread.start()
        thread.join()


def test_asyncio_run_in_the_main_thread(traceless: Lifecycle) -> None:
    """Where SIGTERM has its default action it is taken during the life, and given back."""
    app = GracefulMiddleware(app_of(hello))

    async def main() -> None:
        handlers: list[object] = []
        async with anyio.create_task_group() as tasks:
            call = Call(app, {"type": "lifespan", "asgi": {}, "state": {}})
            tasks.start_soon(call.run)
            call.put({"type": "lifespan.startup"})
            await call.started(1)
            handlers.append(signal.getsignal(signal.SIGTERM))
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                assert (await client.get("/")).text == "ok"
            call.put({"type": "lifespan.shutdown"})
            await call.finished()
        assert getattr(handlers[0], "__self__", None) is not None

    for _ in range(3):
        asyncio.run(main())


def test_httpx_transport(traceless: Lifecycle) -> None:
    """`httpx.ASGITransport` speaks no lifespan; each `asyncio.run` is another loop."""
    app = suite_app()

    async def main() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            assert (await client.get("/")).text == "ok"
            assert (await client.get("/sync")).text == "sync"

    for _ in range(3):
        asyncio.run(main())
    traceless._members.clear()
    traceless._release()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stop_on_a_later_loop(alone: Lifecycle, backend: str) -> None:
    """Without a lifespan, too, a stop reaches the loop that runs now, not the one before it."""
    app = suite_app()
    bodies: list[bytes] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            call = Call(app, http("/events"))
            tasks.start_soon(call.run)
            await call.started(3)
            alone.terminate()
            alone.terminate()
            await call.finished()
            bodies.append(call.body)
            tasks.cancel_scope.cancel()

    for _ in range(3):
        anyio.run(main, backend=backend)
    assert len(bodies) == 3
    assert all(b"event: reconnect" in body for body in bodies)


def test_an_open_stream_ends_with_the_client(alone: Lifecycle) -> None:
    """A test that leaves a stream open isn't held up: it is told, and the TestClient ends."""
    app = suite_app()
    with TestClient(app) as client:

        def read() -> None:
            with contextlib.suppress(BaseException):  # some versions abort what is still open
                client.get("/events")

        reader = threading.Thread(target=read)
        reader.start()
        while not len(alone.tracker):  # the request is on its way
            time.sleep(0.001)
    reader.join()
    assert len(alone.tracker) == 0
    assert alone.phase.name == "STOPPED"


# -- signals of the process ------------------------------------------------------------------


@on_one("asyncio")
@pytest.mark.parametrize("server", [FakeServer()])
async def test_sse_starlettes_introspection_keeps_working(world: World, server: FakeServer) -> None:
    """sse-starlette looks behind the handler of SIGTERM for `should_exit`, and would end every
    stream the moment it reads True."""
    app = GracefulMiddleware(app_of(hello))
    async with world.lifespan(app):
        handler = signal.getsignal(signal.SIGTERM)
        owner: Any = getattr(handler, "__self__", None)
        assert owner.should_exit is False
        world.lifecycle.terminate()
        await world.turns()
        assert owner.should_exit is False
    assert AppStatus.should_exit is False


@on_both
@pytest.mark.parametrize("server", [FakeServer()])
async def test_handlers_of_the_program_are_restored(world: World, server: FakeServer) -> None:
    """Handlers that were there come back at the end, unless somebody has replaced ours since."""

    def before(number: int, frame: object) -> None: ...

    def since(number: int, frame: object) -> None: ...

    old = {n: signal.signal(n, before) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        async with world.lifespan(GracefulMiddleware(app_of(hello))):
            assert signal.getsignal(signal.SIGTERM) is not before
            signal.signal(signal.SIGINT, since)
        assert signal.getsignal(signal.SIGTERM) is before
        assert signal.getsignal(signal.SIGINT) is since
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
