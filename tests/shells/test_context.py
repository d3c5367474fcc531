"""What handlers and background work may ask, from anywhere: the exchange, the drain, holds."""

from __future__ import annotations

import contextvars
import copy
import gc
import math
import threading
import weakref
from collections.abc import Callable

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

import graceful
import graceful.lifecycle
from graceful._asgi_http import HttpExchange
from graceful._asgi_types import App, Message, Receive, Scope, Send
from graceful._asgi_websocket import WebSocketExchange
from graceful.asgi import GracefulMiddleware
from graceful.core.inflight import Exchange
from graceful.core.phases import Phase
from graceful.integrations.starlette import exchange_of
from graceful.lifecycle import Lifecycle

from .apps import app_of, hello
from .harness import World, http, on_both, on_one, websocket


def asking(question: Callable[[Scope], object], answers: list[object]) -> App:
    """Return an app that asks something while it serves."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        answers.append(question(scope))
        if scope["type"] == "http":
            await hello(scope, receive, send)

    return app_of(handler)


# -- the exchange ----------------------------------------------------------------------------


@on_both
@pytest.mark.parametrize("state", [True, False])
async def test_current_exchange(world: World, state: bool) -> None:
    """Inside a request it is that request's own; outside there is none."""
    seen: list[object] = []
    app = GracefulMiddleware(asking(lambda scope: graceful.current_exchange(), seen))
    async with world.lifespan(app, state=state):
        assert graceful.current_exchange() is None
        await world.get(app)
        await world.get(app)
        await world.call(app, websocket()).finished()
        assert graceful.current_exchange() is None
    kinds = (HttpExchange, HttpExchange, WebSocketExchange)
    assert all(map(isinstance, seen, kinds))
    assert len(seen) == len(kinds)
    assert seen[0] is not seen[1]


@on_both
@pytest.mark.parametrize("state", [True, False])
async def test_a_handler_that_calls_an_app(world: World, state: bool) -> None:
    """What a handler asks of another wrapped app in its own task has an exchange of its own, and
    afterwards the handler has its own again; after both, that context has none."""
    seen: list[object] = []
    inner = GracefulMiddleware(asking(lambda scope: graceful.current_exchange(), seen))

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        async def nowhere(message: Message) -> None: ...

        seen.append(graceful.current_exchange())
        await inner(http(), receive, nowhere)
        seen.append(graceful.current_exchange())
        await hello(scope, receive, send)

    outer = GracefulMiddleware(app_of(handler))

    async def nothing() -> Message:
        return {"type": "http.request"}

    async def anywhere(message: Message) -> None: ...

    async with world.lifespan(outer, state=state), world.lifespan(inner, state=state):
        await outer(http(), nothing, anywhere)
        assert graceful.current_exchange() is None
        assert len(world.lifecycle.tracker) == 0
    first, asked, last = seen
    assert first is last
    assert asked is not first
    assert None not in seen


@on_both
@pytest.mark.parametrize("state", [True, False])
async def test_the_handle_in_the_state(world: World, state: bool) -> None:
    """`scope["state"]["graceful"]` answers for the exchange of whoever asks, whatever the server
    shares between requests."""
    meeting = anyio.Event()
    policies: dict[str, list[str]] = {}

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        handle = scope["state"]["graceful"]
        if scope["path"] == "/a":
            handle.finish()
            await meeting.wait()
        else:
            meeting.set()
        policies[scope["path"]] = [handle.policy, handle.describe()["path"]]
        await hello(scope, receive, send)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app, state=state):
        first = world.call(app, http("/a"))
        await world.turns()
        await world.get(app, "/b")
        await first.finished()
    assert policies == {"/a": ["finish", "/a"], "/b": ["reconnect", "/b"]}


@on_both
async def test_the_handle_sets_what_is_set_on_it(world: World) -> None:
    """Setting the policy through the handle sets that exchange's, and nobody else's."""
    policies: list[str] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/tokens":
            scope["state"]["graceful"].policy = "finish"
        policies.append(scope["state"]["graceful"].policy)
        await hello(scope, receive, send)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        await world.get(app, "/tokens")
        await world.get(app, "/feed")
    assert policies == ["finish", "reconnect"]


@on_both
async def test_the_handle_outside_of_requests(world: World) -> None:
    """In the lifespan there is no exchange to ask; that is said, and copying the state works."""
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            with pytest.raises(LookupError, match="no request"):
                scope["state"]["graceful"].finish()
            with pytest.raises(LookupError, match="no request"):
                scope["state"]["graceful"].policy = "finish"
            seen.append(copy.copy(scope["state"]))
            seen.append(copy.deepcopy(scope["state"]))
            seen.append(repr(scope["state"]))
            assert not hasattr(scope["state"]["graceful"], "__len__")
        await app_of(hello)(scope, receive, send)

    async with world.lifespan(GracefulMiddleware(app)) as lifespan:
        assert lifespan.types == ["lifespan.startup.complete"]
    assert len(seen) == 3


@on_both
async def test_a_task_that_outlives_its_request(world: World) -> None:
    """A task started in a request knows the exchange only while it is in flight."""
    seen: list[bool] = []
    over = anyio.Event()

    async with anyio.create_task_group() as tasks:

        async def background() -> None:
            seen.append(graceful.current_exchange() is not None)
            await over.wait()
            seen.append(graceful.current_exchange() is not None)

        async def handler(scope: Scope, receive: Receive, send: Send) -> None:
            tasks.start_soon(background)
            await anyio.sleep(1)
            await hello(scope, receive, send)

        app = GracefulMiddleware(app_of(handler))
        async with world.lifespan(app):
            await world.get(app)
            over.set()
            await world.turns()
    assert seen[1] is False


def test_in_frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`request.state.graceful`, `exchange_of` and `current_exchange` agree: async, sync (in a
    thread), mounted and WebSocket endpoints."""
    monkeypatch.setattr(graceful.lifecycle, "_process", Lifecycle())
    seen: list[bool] = []

    def agree(connection: Request | WebSocket) -> None:
        mine = graceful.current_exchange()
        described = connection.state.graceful.describe()
        seen.append(
            mine is exchange_of(connection) and described == exchange_of(connection).describe()
        )

    async def endpoint(request: Request) -> Response:
        agree(request)
        return PlainTextResponse("ok")

    def sync(request: Request) -> Response:
        agree(request)
        return PlainTextResponse("ok")

    async def socket(socket: WebSocket) -> None:
        agree(socket)
        await socket.accept()
        await socket.close()

    routes = [Route("/", endpoint), Route("/sync", sync), WebSocketRoute("/ws", socket)]
    app = Starlette(routes=[Mount("/sub", routes=list(routes)), *routes])
    app.add_middleware(GracefulMiddleware)
    with TestClient(app) as client:
        for path in ("/", "/sync", "/sub/", "/sub/sync"):
            assert client.get(path).text == "ok"
        with client.websocket_connect("/ws"):
            pass
    assert seen == [True] * 5


def test_exchange_of_an_app_that_is_not_wrapped() -> None:
    """Without the middleware `exchange_of` says what to do."""

    async def endpoint(request: Request) -> Response:
        with pytest.raises(LookupError, match="add_middleware"):
            exchange_of(request)
        return PlainTextResponse("ok")

    assert TestClient(Starlette(routes=[Route("/", endpoint)])).get("/").text == "ok"


class Connection:
    """What a server keeps of a request: its `send` leads back to it."""

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        """Take a message."""


class Part(dict[str, object]):
    """A message with, perhaps, a large body."""


@on_one("asyncio")
async def test_a_context_that_outlives_its_request_keeps_no_connection(world: World) -> None:
    """Servers start timers while they send, and each has a copy of the context of the request."""
    kept: list[contextvars.Context] = []
    parts: list[weakref.ref[Part]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(contextvars.copy_context())
        for name in ("start", "body"):
            part = Part(type=f"http.response.{name}", status=200, headers=[], body=b"much")
            parts.append(weakref.ref(part))
            await send(part)

    wrapped = GracefulMiddleware(app_of(app))
    connection = Connection()
    alive = weakref.ref(connection)
    async with world.lifespan(wrapped):
        scope = {**http("/"), "state": dict(world.state or {})}
        await wrapped(scope, connection.receive, connection.send)
        gc.disable()
        try:
            del connection, scope
            assert alive() is None
            assert [part() for part in parts] == [None, None]
        finally:
            gc.enable()
    (exchange,) = [value for value in kept[0].values() if isinstance(value, HttpExchange)]
    assert exchange.describe()["path"] == ""
    with pytest.raises(OSError, match="this request is over"):
        await exchange.send({"type": "http.response.body"})


@on_one("asyncio")
async def test_threads_inherit_the_exchange(world: World) -> None:
    """Work that a handler gives to a thread with its context has the handler's exchange."""
    seen: list[Exchange | None] = []

    def work() -> None:
        seen.append(graceful.current_exchange())

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
        thread.start()
        thread.join()
        assert seen == [graceful.current_exchange()] != [None]
        await hello(scope, receive, send)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        await world.get(app)


# -- the drain -------------------------------------------------------------------------------


@on_both
async def test_draining_and_remaining(world: World) -> None:
    """`draining` turns true with the drain; `remaining` counts down from the first signal on."""
    app = GracefulMiddleware(app_of(hello))
    async with world.lifespan(app):
        assert (graceful.draining(), graceful.remaining()) == (False, math.inf)
        world.lifecycle.terminate()
        assert (graceful.draining(), graceful.remaining()) == (False, 26)
        await anyio.sleep(4)
        assert graceful.remaining() == pytest.approx(22)
        world.lifecycle.terminate()
        assert graceful.draining()
        await anyio.sleep(40)
        assert graceful.remaining() == 0


@on_both
async def test_wait_draining(world: World) -> None:
    """It returns when the drain begins, at once where it has begun, and for all who wait."""
    app = GracefulMiddleware(app_of(hello))
    moments: list[float] = []

    async def wait() -> None:
        await graceful.wait_draining()
        moments.append(world.now)

    began = world.now
    async with world.lifespan(app), anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        tasks.start_soon(wait)
        await world.turns()
        world.lifecycle.terminate()
        await anyio.sleep(4.9)
        assert moments == []
        await anyio.sleep(0.2)
        tasks.start_soon(wait)
    assert moments[:2] == [pytest.approx(began + 5)] * 2
    assert moments[2] == pytest.approx(began + 5.1)
    assert world.lifecycle._waiting == []


@on_both
async def test_a_waiter_that_gives_up(world: World) -> None:
    """A handler that stops waiting leaves nothing behind."""
    async with world.lifespan(GracefulMiddleware(app_of(hello))):
        with anyio.move_on_after(1):
            await graceful.wait_draining()
        assert world.lifecycle._waiting == []


@on_both
async def test_a_shutdown_without_a_signal_wakes_those_who_wait(world: World) -> None:
    """A plain `lifespan.shutdown` is a drain, too: a handler that waits for it can end itself."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await graceful.wait_draining()
        await hello(scope, receive, send)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        began = world.now
    assert world.now == began
    assert call.body == b"ok"


def test_waiting_on_several_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that waits on the loop of another thread is woken there."""
    lifecycle = Lifecycle()
    monkeypatch.setattr(graceful.lifecycle, "_process", lifecycle)
    woken: list[str] = []

    def thread(backend: str) -> None:
        anyio.run(graceful.wait_draining, backend=backend)
        woken.append(backend)

    app = Starlette()
    app.add_middleware(GracefulMiddleware)
    threads = [threading.Thread(target=thread, args=(b,)) for b in ("asyncio", "trio")]
    with TestClient(app):
        for one in threads:
            one.start()
        while len(lifecycle._waiting) < 2:
            pass
    for one in threads:
        one.join()
    assert sorted(woken) == ["asyncio", "trio"]


# -- holds -----------------------------------------------------------------------------------


@on_both
async def test_a_hold_keeps_the_process(world: World) -> None:
    """Background work outside of requests is waited for, by name, until its block is left."""
    app = GracefulMiddleware(app_of(hello))
    ended: list[float] = []

    async def work() -> None:
        async with graceful.hold("nightly export"):
            await anyio.sleep(7)
            ended.append(world.now)

    async with anyio.create_task_group() as tasks:
        async with world.lifespan(app):
            tasks.start_soon(work)
            await world.turns()
        assert ended == [world.now]
    assert world.report.clean
    assert world.report.holds == ()


@on_both
async def test_a_hold_at_the_deadline_is_named(world: World) -> None:
    """What is still held when the drain deadline passes is in the report."""
    app = GracefulMiddleware(app_of(hello), grace_period=10, propagation_delay=1)

    async def work() -> None:
        with graceful.hold("nightly\nexport"):
            await anyio.sleep(60)

    async with anyio.create_task_group() as tasks:
        async with world.lifespan(app):
            tasks.start_soon(work)
            await world.turns()
            world.lifecycle.terminate()
        tasks.cancel_scope.cancel()
    assert world.report.holds == (r"nightly\nexport",)
    assert not world.report.clean
    assert len(world.lifecycle.tracker) == 0


@on_both
async def test_a_hold_lets_go_when_its_work_fails(world: World) -> None:
    """An exception leaves the block as it is, and the hold is gone."""
    async with world.lifespan(GracefulMiddleware(app_of(hello))):
        with pytest.raises(KeyError):
            async with graceful.hold("work"):
                raise KeyError
        with pytest.raises(KeyError), graceful.hold("work"):
            raise KeyError
        assert len(world.lifecycle.tracker) == 0


@on_both
async def test_one_hold_entered_twice(world: World) -> None:
    """A hold that is kept as an object can be entered again, also while it is held."""
    async with world.lifespan(GracefulMiddleware(app_of(hello))):
        hold = graceful.hold("work")
        with hold:
            with hold:
                assert len(world.lifecycle.tracker) == 2
            assert len(world.lifecycle.tracker) == 1
        assert len(world.lifecycle.tracker) == 0


def test_a_hold_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread's hold keeps the drain waiting, and its end wakes it."""
    lifecycle = Lifecycle()
    monkeypatch.setattr(graceful.lifecycle, "_process", lifecycle)
    order: list[str] = []
    held, drains = threading.Event(), threading.Event()

    def work() -> None:
        with graceful.hold("thread"):
            held.set()
            drains.wait()
            order.append("work")

    thread = threading.Thread(target=work)

    async def cleanup() -> None:
        order.append("cleanup")

    async def drain() -> None:
        drains.set()

    app = Starlette()
    app.add_middleware(GracefulMiddleware, on_drain=drain, on_cleanup=cleanup)
    with TestClient(app):
        thread.start()
        held.wait()
    thread.join()
    assert order == ["work", "cleanup"]


def test_from_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions and orders may come from any thread."""
    lifecycle = Lifecycle()
    monkeypatch.setattr(graceful.lifecycle, "_process", lifecycle)
    app = Starlette()
    app.add_middleware(GracefulMiddleware, propagation_delay=0)
    with TestClient(app) as client:
        assert not graceful.draining()
        assert graceful.remaining() == math.inf
        assert graceful.current() is lifecycle
        lifecycle.lame_duck()
        assert client.get("/readyz").status_code == 503
        lifecycle.recover()
        assert client.get("/readyz").status_code == 200
        lifecycle.terminate()
        assert client.portal is not None
        client.portal.call(graceful.wait_draining)
        assert graceful.draining()
        assert graceful.remaining() < 30
    assert lifecycle.phase is Phase.STOPPED


def test_outside_of_any_life() -> None:
    """Before any app has started the questions have their plain answers."""
    fresh = Lifecycle()
    assert not fresh.draining()
    assert fresh.remaining() == math.inf
    assert graceful.current_exchange() is None
