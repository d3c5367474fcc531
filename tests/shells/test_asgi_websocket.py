"""WebSockets through the ASGI shell: farewell message, close 1012, what the app sees, denial."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import graceful
from graceful._asgi_types import App, Message, Receive, Scope, Send
from graceful._asgi_websocket import WebSocketExchange
from graceful.asgi import GracefulMiddleware
from graceful.core.phases import Phase
from graceful.core.records import FarewellsSent, Fault

from .apps import app_of
from .harness import Call, World, on_both, on_one, websocket

CLOSE: Message = {"type": "websocket.close", "code": 1012, "reason": '{"retry_after_ms":500}'}
"""What ends a WebSocket where the draw is in the middle of a stream window of five seconds."""

ACCEPT: Message = {"type": "websocket.accept"}


def text(words: str) -> Message:
    """Return a message of the app's to its client."""
    return {"type": "websocket.send", "text": words}


def said(words: str) -> Message:
    """Return a message of the client's to the app."""
    return {"type": "websocket.receive", "text": words}


def echo(seen: list[Message] | None = None) -> App:
    """Return an app that answers each message, and notes all it receives."""
    noted: list[Message] = [] if seen is None else seen

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(dict(ACCEPT))
        while True:
            message = await receive()
            noted.append(message)
            if message["type"] == "websocket.disconnect":
                return
            await send(text(message["text"]))

    return app_of(handler)


def drain_now(world: World) -> None:
    """Begin to drain without a delay."""
    while world.lifecycle.core.rung < 2:
        world.lifecycle.terminate()


def close_like_a_server(call: Call, code: int = 1012) -> None:
    """Give the app the disconnect that servers make of a close, when it is sent."""

    async def closed(message: Message) -> None:
        if message["type"] == "websocket.close":
            call.put({"type": "websocket.disconnect", "code": code, "reason": "the server's"})

    call.on_send = closed


# -- the farewell ----------------------------------------------------------------------------


@on_both
async def test_the_default_farewell_is_the_close(world: World) -> None:
    """Without a farewell message only the close goes out: 1012 and a JSON reason that fits."""
    app = GracefulMiddleware(echo())
    async with world.lifespan(app):
        call = world.call(app, websocket())
        close_like_a_server(call)
        call.put(said("hi"))
        await call.started(2)
        began = world.now
        drain_now(world)
        await call.finished()
        assert world.now == began
    assert call.sent == [ACCEPT, text("hi"), CLOSE]
    assert json.loads(call.sent[-1]["reason"]) == {"retry_after_ms": 500}
    assert len(call.sent[-1]["reason"].encode()) <= 123
    assert world.report.told == 1
    assert world.report.clean


@on_both
async def test_not_before_the_delay_is_over(world: World) -> None:
    """In lame duck a WebSocket goes on; a client told to reconnect would come back here."""
    app = GracefulMiddleware(echo())
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        close_like_a_server(call)
        world.lifecycle.terminate()
        await anyio.sleep(4.9)
        call.put(said("still here"))
        await call.started(2)
        assert call.sent[-1] == text("still here")
        await anyio.sleep(0.2)
        assert call.sent[-1] == CLOSE


def by_name(exchange: WebSocketExchange) -> str:
    return json.dumps({"moved": exchange.describe()["path"], "in": exchange.retry_after_ms})


async def by_name_async(exchange: WebSocketExchange) -> bytes:
    await anyio.lowlevel.checkpoint()
    return by_name(exchange).encode()


class ByName:
    """A farewell with state, called by its instance."""

    async def __call__(self, exchange: WebSocketExchange) -> str:
        return by_name(exchange)


@on_both
@pytest.mark.parametrize(
    ("farewell", "message"),
    [
        pytest.param("bye", text("bye"), id="text"),
        pytest.param(b"\0bye", {"type": "websocket.send", "bytes": b"\0bye"}, id="bytes"),
        pytest.param(by_name_async, {"bytes": b'{"moved": "/ws", "in": 500}'}, id="async"),
        pytest.param(ByName(), {"text": '{"moved": "/ws", "in": 500}'}, id="instance"),
    ],
)
async def test_a_farewell_message(
    world: World, farewell: str | bytes | Callable[[Any], object], message: Message
) -> None:
    """Text, bytes or what a callable makes of the exchange is sent, and then the close."""
    app = GracefulMiddleware(echo(), farewell=farewell)
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        close_like_a_server(call)
        drain_now(world)
        await call.finished()
    assert call.sent == [ACCEPT, {"type": "websocket.send", **message}, CLOSE]


def by_name_later(exchange: WebSocketExchange) -> Awaitable[str]:
    """A sync function that returns an awaitable."""
    return later(by_name(exchange))


async def later(words: str) -> str:
    """Return `words`, asynchronously."""
    await anyio.lowlevel.checkpoint()
    return words


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("farewell", [by_name, by_name_later])
def test_a_sync_farewell(
    backend: str, farewell: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync callable runs in a thread, so that it can't hold up the drain of the others."""
    lifecycle = graceful.Lifecycle(draw=lambda: 0.5)
    monkeypatch.setattr("graceful.lifecycle._process", lifecycle)
    threads: list[threading.Thread] = []

    def noting(exchange: WebSocketExchange) -> object:
        threads.append(threading.current_thread())
        return farewell(exchange)

    app = GracefulMiddleware(echo(), farewell=noting)

    async def main() -> Call:
        call = Call(app, websocket())
        async with anyio.create_task_group() as tasks:
            close_like_a_server(call)
            tasks.start_soon(call.run)
            await call.started(1)
            lifecycle.terminate()
            lifecycle.terminate()
            await call.finished()
        return call

    call = anyio.run(main, backend=backend)
    assert call.sent == [ACCEPT, text('{"moved": "/ws", "in": 500}'), CLOSE]
    assert threads != [threading.main_thread()]


@on_both
async def test_a_farewell_that_raises(world: World) -> None:
    """A callable that raises is reported once for all clients; each still gets its close."""

    async def broken(exchange: WebSocketExchange) -> None:
        raise KeyError("user")

    app = GracefulMiddleware(echo(), farewell=broken)
    async with world.lifespan(app):
        calls = [await world.call(app, websocket()).started(1) for _ in range(3)]
        for call in calls:
            close_like_a_server(call)
        drain_now(world)
        for call in calls:
            await call.finished()
    assert [call.sent for call in calls] == [
        [ACCEPT, {**CLOSE, "reason": call.sent[-1]["reason"]}] for call in calls
    ]
    assert [fault.error for fault in world.told(Fault)] == ["KeyError: 'user'"]
    assert world.report.farewells_failed == 3
    assert world.report.told == 3
    (told,) = world.told(FarewellsSent)
    assert (told.told, told.failed) == (3, 3)


@on_both
async def test_a_farewell_that_hangs(world: World) -> None:
    """A callable that hangs loses its turn after a second; the close goes out all the same."""

    async def hangs(exchange: WebSocketExchange) -> None:
        await anyio.sleep_forever()

    app = GracefulMiddleware(echo(), farewell=hangs)
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        close_like_a_server(call)
        drain_now(world)
        began = world.now
        await call.until(lambda: call.sent[-1]["type"] == "websocket.close")
        assert world.now - began == pytest.approx(1)
    assert call.sent == [ACCEPT, CLOSE]
    assert [fault.error for fault in world.told(Fault)] == ["took longer than 1 s"]
    assert world.report.clean


@on_one("asyncio")
async def test_a_farewell_that_cancels_itself(world: World) -> None:
    """A callable that lets a CancelledError out has failed; nobody else is cancelled by it."""

    async def cancelled(exchange: WebSocketExchange) -> None:
        raise asyncio.CancelledError

    app = GracefulMiddleware(echo(), farewell=cancelled)
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        close_like_a_server(call)
        drain_now(world)
        await call.finished()
    assert call.sent == [ACCEPT, CLOSE]
    assert world.report.farewells_failed == 1


@on_both
@pytest.mark.parametrize("nothing", [None, 7])
async def test_a_farewell_that_has_nothing_to_say(world: World, nothing: object) -> None:
    """None means: for this client only the close."""

    async def silent(exchange: WebSocketExchange) -> object:
        return nothing

    app = GracefulMiddleware(echo(), farewell=silent)
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        close_like_a_server(call)
        drain_now(world)
        await call.finished()
    assert call.sent == [ACCEPT, CLOSE]


@on_both
async def test_a_client_that_leaves_during_its_farewell(world: World) -> None:
    """When the client has gone while the callable ran, there is nobody to close any more."""
    calls: list[Call] = []

    async def slow(exchange: WebSocketExchange) -> str:
        calls[0].put({"type": "websocket.disconnect", "code": 1001})
        await world.turns()
        return "too late"

    seen: list[Message] = []
    app = GracefulMiddleware(echo(seen), farewell=slow)
    async with world.lifespan(app):
        calls.append(await world.call(app, websocket()).started(1))
        drain_now(world)
        await calls[0].finished()
    assert calls[0].sent == [ACCEPT]
    assert seen == [{"type": "websocket.disconnect", "code": 1001}]
    assert world.report.told == 0


@on_both
async def test_a_close_that_raises(world: World) -> None:
    """A connection that broke a moment ago is reported, its app is ended, and the drain goes on."""
    app = GracefulMiddleware(echo(), linger=0)

    async def broken(message: Message) -> None:
        raise BrokenPipeError("gone")

    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        other = await world.call(app, websocket()).started(1)
        call.on_send = broken
        close_like_a_server(other)
        drain_now(world)
        await call.finished()
        await other.finished()
    assert other.sent[-1]["code"] == 1012
    assert [fault.error for fault in world.told(Fault)] == ["BrokenPipeError: gone"]
    assert world.report.farewells_failed == 1


# -- what the app sees -----------------------------------------------------------------------


@on_both
@pytest.mark.parametrize("code", [1000, 1005, 1006, 1012])
async def test_the_app_sees_1012_whatever_the_server_says(world: World, code: int) -> None:
    """The app's disconnect has our code and reason also where the server gives another code."""
    seen: list[Message] = []
    app = GracefulMiddleware(echo(seen))
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        close_like_a_server(call, code)
        drain_now(world)
        await call.finished()
    assert seen == [{**CLOSE, "type": "websocket.disconnect"}]


@on_both
async def test_a_client_that_leaves_by_itself_keeps_its_code(world: World) -> None:
    """A disconnect that is not our doing is passed on as it is, also while draining."""
    seen: list[Message] = []
    app = GracefulMiddleware(echo(seen), stream_window=5)
    gone: Message = {"type": "websocket.disconnect", "code": 1001, "reason": "tab closed"}
    async with world.lifespan(app):
        first = await world.call(app, websocket()).started(1)
        second = await world.call(app, websocket()).started(1)
        close_like_a_server(first)
        drain_now(world)
        await first.finished()
        second.put(dict(gone))
        await second.finished()
    assert seen[-1] == gone
    assert second.sent == [ACCEPT]


@on_both
async def test_messages_already_received_come_first(world: World) -> None:
    """What the client sent before its farewell is delivered before the disconnect, in order."""
    seen: list[Message] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(dict(ACCEPT))
        await anyio.sleep(0.5)
        while (message := await receive())["type"] != "websocket.disconnect":
            seen.append(message)
        seen.append(message)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = world.call(app, websocket())
        close_like_a_server(call)
        call.put(said("1"), said("2"), said("3"))
        await call.started(1)
        drain_now(world)
        await call.finished()
    assert [m.get("text", m.get("code")) for m in seen] == ["1", "2", "3", 1012]


@on_both
async def test_a_server_that_says_nothing_after_the_close(world: World) -> None:
    """Where the server keeps quiet, the app's `receive` returns the disconnect a moment later."""
    seen: list[Message] = []
    app = GracefulMiddleware(echo(seen), linger=0)
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        began = world.now
        drain_now(world)
        await call.finished()
        assert world.now - began == pytest.approx(1)
    assert seen == [{**CLOSE, "type": "websocket.disconnect"}]
    assert world.report.clean


@on_both
async def test_later_sends_raise(world: World) -> None:
    """After the close the app's sends raise StreamClosed, which is an OSError."""
    errors: list[OSError] = []

    async def ticker(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(dict(ACCEPT))
        try:
            while True:
                await send(text("tick"))
                await anyio.sleep(0.1)
        except OSError as error:
            errors.append(error)

    app = GracefulMiddleware(app_of(ticker))
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(2)
        drain_now(world)
        await call.finished()
    assert isinstance(errors[0], graceful.StreamClosed)
    assert call.sent == [ACCEPT, text("tick"), CLOSE]


@on_both
async def test_a_push_only_app(world: World) -> None:
    """One that only sends, and catches nothing, ends by the error without one in the log."""

    async def ticker(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(dict(ACCEPT))
        while True:
            await send(text("tick"))
            await anyio.sleep(0.1)

    app = GracefulMiddleware(app_of(ticker))
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(2)
        drain_now(world)
        await call.finished()
    assert call.error is None
    assert world.report.clean


@on_both
async def test_an_app_that_neither_sends_nor_receives(world: World) -> None:
    """One that waits for something else is cancelled a moment after its farewell."""
    unwound: list[str] = []

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(dict(ACCEPT))
        try:
            await anyio.sleep_forever()
        finally:
            unwound.append("finally")

    app = GracefulMiddleware(app_of(waits), linger=0)
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        began = world.now
        drain_now(world)
        await call.finished()
        assert world.now - began == pytest.approx(1)
    assert unwound == ["finally"]
    assert call.sent == [ACCEPT, CLOSE]
    assert world.report.clean


@on_both
async def test_a_client_that_does_not_read(world: World) -> None:
    """A close that can't be sent keeps nobody: the app is ended, and the drain too."""

    async def full(message: Message) -> None:
        await anyio.sleep_forever()

    app = GracefulMiddleware(echo(), linger=0, grace_period=10, propagation_delay=1)
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        call.on_send = full
        began = world.now
        drain_now(world)
        await call.finished()
        assert world.now - began <= 6.5


def starlette(endpoint: Callable[[WebSocket], Any]) -> Starlette:
    """Return a Starlette app with one WebSocket."""
    return Starlette(routes=[WebSocketRoute("/ws", endpoint)])


@on_both
@pytest.mark.parametrize("kind", ["receives", "sends"])
async def test_a_starlette_endpoint_that_catches_nothing(world: World, kind: str) -> None:
    """WebSocketDisconnect, which Starlette makes of our close, is no error of the app's."""

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            if kind == "receives":
                await socket.receive_text()
            else:
                await socket.send_text("tick")
                await anyio.sleep(0.1)

    app = GracefulMiddleware(starlette(endpoint))
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        close_like_a_server(call)
        drain_now(world)
        await call.finished()
    assert call.sent[-1] == CLOSE


@on_both
async def test_a_starlette_endpoint_that_catches_the_disconnect(world: World) -> None:
    """`except WebSocketDisconnect` gets the code and the reason with the client's delay."""
    seen: list[tuple[int, str]] = []

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        try:
            async for _ in socket.iter_text():
                pass
            await socket.receive_text()
        except (WebSocketDisconnect, RuntimeError):
            pass
        try:
            await socket.send_text("too late")
        except (WebSocketDisconnect, RuntimeError) as error:
            seen.append((getattr(error, "code", 0), type(error).__name__))

    app = GracefulMiddleware(starlette(endpoint))
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        close_like_a_server(call)
        drain_now(world)
        await call.finished()
    assert len(seen) == 1
    assert call.sent == [{**ACCEPT, "subprotocol": None, "headers": []}, CLOSE]


@on_both
async def test_a_concurrent_receive(world: World) -> None:
    """Two receives at once are the server's business, and none of them is lost to the app."""
    seen: list[str] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(dict(ACCEPT))

        async def one() -> None:
            seen.append((await receive())["type"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            tasks.start_soon(one)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(1)
        await world.turns()
        call.put(said("a"), said("b"))
        await call.finished()
    assert seen == ["websocket.receive"] * 2


# -- ended by others -------------------------------------------------------------------------


@on_both
async def test_closed_by_the_app(world: World) -> None:
    """An app that has closed its WebSocket and still works gets no second close."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(dict(ACCEPT))
        await send({"type": "websocket.close", "code": 4000})
        await anyio.sleep(3)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(2)
        drain_now(world)
        await call.finished()
    assert call.types == ["websocket.accept", "websocket.close"]
    assert call.sent[-1]["code"] == 4000
    assert world.report.told == 0


@on_both
async def test_policy_finish(world: World) -> None:
    """A WebSocket that must finish is waited for, and closed only at the drain deadline."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = graceful.current_exchange()
        assert isinstance(exchange, WebSocketExchange)
        exchange.finish()
        await echo()(scope, receive, send)

    app = GracefulMiddleware(app_of(handler), grace_period=10, propagation_delay=1)
    async with world.lifespan(app):
        done = await world.call(app, websocket()).started(1)
        stuck = await world.call(app, websocket("/stuck")).started(1)
        world.lifecycle.terminate()
        await world.until(Phase.DRAINING)
        await anyio.sleep(3)
        done.put({"type": "websocket.disconnect", "code": 1000})
        await done.finished()
        await stuck.finished()
    assert done.sent == [ACCEPT]
    assert stuck.sent[-1]["code"] == 1012
    assert world.report.streams_left_to_finish == 2
    assert [s.name for s in world.report.cut] == ["WEBSOCKET /stuck"]


@on_both
async def test_a_cut_after_the_apps_own_close(world: World) -> None:
    """What the app's `receive` returns at the cut always has a code: frameworks read it."""
    seen: list[Message] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(dict(ACCEPT))
        await send({"type": "websocket.close", "code": 4000})
        scope["state"]["graceful"].finish()
        seen.append(await receive())

    app = GracefulMiddleware(app_of(handler), grace_period=10, propagation_delay=1)
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(2)
        world.lifecycle.terminate()
        await call.finished()
    assert [type(message["code"]) for message in seen] in ([], [int])
    assert call.types.count("websocket.close") == 1


# -- turned away -----------------------------------------------------------------------------


@on_both
async def test_a_new_one_in_draining_is_denied(world: World) -> None:
    """Where the server can answer a handshake, it is answered 503 with `Retry-After`."""
    seen: list[Message] = []
    app = GracefulMiddleware(echo(seen))
    async with world.lifespan(app):
        drain_now(world)
        await world.until(Phase.DRAINING)
        call = await world.call(app, websocket()).finished()
    assert call.types == ["websocket.http.response.start", "websocket.http.response.body"]
    assert call.status == 503
    assert int(call.header("retry-after")[0]) >= 1
    assert call.header("connection") == ["close"]
    assert call.header("content-length") == [str(len(call.body))]
    assert seen == []


@on_both
@pytest.mark.parametrize("extensions", [None, {}, {"tls": {}}])
async def test_a_new_one_without_the_denial_extension(
    world: World, extensions: dict[str, Any] | None
) -> None:
    """Where it can't, a close before accept makes the server answer 403."""
    app = GracefulMiddleware(echo())
    async with world.lifespan(app):
        drain_now(world)
        await world.until(Phase.DRAINING)
        scope = websocket(denial=False, extensions=extensions)
        call = await world.call(app, scope).finished()
    assert call.types == ["websocket.close"]


@on_both
@pytest.mark.parametrize("denial", [True, False])
async def test_told_before_it_accepted(world: World, denial: bool) -> None:
    """A handshake that the app still thinks about is denied; its accept comes too late."""
    errors: list[OSError] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await anyio.sleep(0.5)
        try:
            await send(dict(ACCEPT))
        except OSError as error:
            errors.append(error)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = world.call(app, websocket(denial=denial))
        await world.turns()
        drain_now(world)
        await call.finished()
    expected = ["websocket.http.response.start", "websocket.http.response.body"]
    assert call.types == (expected if denial else ["websocket.close"])
    assert len(errors) == 1
    assert world.report.clean


@on_both
async def test_cut_before_it_accepted(world: World) -> None:
    """Policy `finish` lets a handshake go on; at the deadline it is denied, not forgotten."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["graceful"].finish()
        await receive()
        await anyio.sleep_forever()

    app = GracefulMiddleware(app_of(handler), grace_period=10, propagation_delay=1)
    async with world.lifespan(app):
        call = world.call(app, websocket())
        await world.turns()
        world.lifecycle.terminate()
        await call.finished()
    assert call.types == ["websocket.http.response.start", "websocket.http.response.body"]
    assert call.status == 503


@on_both
async def test_denied_by_the_app(world: World) -> None:
    """A denial response of the app's own is passed on, and the exchange is over with it."""
    denial: list[Message] = [
        {"type": "websocket.http.response.start", "status": 401, "headers": []},
        {"type": "websocket.http.response.body", "body": b"who are you"},
    ]

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in denial:
            await send(dict(message))
        await anyio.sleep(2)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = await world.call(app, websocket()).started(2)
        drain_now(world)
        await call.finished()
    assert call.sent == denial


@on_both
async def test_an_unknown_message_is_passed_on(world: World) -> None:
    """Messages that are yet to be invented go out unchanged."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(dict(ACCEPT))
        await send({"type": "websocket.ping", "payload": b"1"})

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = await world.call(app, websocket()).finished()
    assert call.sent == [ACCEPT, {"type": "websocket.ping", "payload": b"1"}]


@on_both
async def test_an_app_that_raises(world: World) -> None:
    """What the app raises goes on to the server, and the stream is over."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    app = GracefulMiddleware(app_of(broken))
    async with world.lifespan(app):
        with pytest.raises(ZeroDivisionError):
            await world.call(app, websocket()).finished()
        assert len(world.lifecycle.tracker) == 0


@on_both
async def test_many_are_spread_over_the_window(world: World) -> None:
    """Two hundred farewells fill the window, and no tenth of a second has a tenth of them."""
    app = GracefulMiddleware(echo(), stream_window=5, linger=0)
    closed: list[float] = []

    async def note(message: Message) -> None:
        if message["type"] == "websocket.close":
            closed.append(world.now)

    async with world.lifespan(app):
        calls = [await world.call(app, websocket()).started(1) for _ in range(200)]
        for call in calls:
            call.on_send = note
        drain_now(world)
        await world.turns()
        began = closed[0]
        for call in calls:
            await call.finished()
    assert len(closed) == 200
    assert max(closed) - began < 5
    slots = [int((at - began) / 0.1) for at in closed]
    assert max(map(slots.count, slots)) <= 20
