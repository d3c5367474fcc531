"""Server-sent events and declared streams through the ASGI shell: farewell, clean end, policies."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import graceful
import graceful.lifecycle
from graceful._asgi_http import HttpExchange
from graceful._asgi_types import App, Message, Receive, Scope, Send
from graceful.asgi import GracefulMiddleware
from graceful.core.phases import Phase
from graceful.core.records import FarewellsSent

from .apps import EVENTS, app_of, part, script
from .harness import Call, World, http, on_both, on_one, run_world

FAREWELL = b'retry: 500\nevent: reconnect\ndata: {"retry_after_ms":500}\n\n'
"""What a client is told where the draw is in the middle of a stream window of five seconds."""


def feed(*chunks: bytes, gap: float = 1.0, start: Message = EVENTS) -> App:
    """Return an app that sends events `gap` seconds apart and then nothing, for ever."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(start))
        for chunk in chunks:
            await send(part(chunk))
            await anyio.sleep(gap)
        await anyio.sleep_forever()

    return app_of(handler)


def drain_now(world: World) -> None:
    """Begin to drain without a delay."""
    world.lifecycle.terminate()
    world.lifecycle.terminate()


def parts_of(call: Call) -> list[bytes]:
    """Return the bytes of each message of the body."""
    return [bytes(m["body"]) for m in call.sent if m["type"] == "http.response.body"]


# -- where a farewell may land ---------------------------------------------------------------

EOLS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@st.composite
def event_streams(draw: st.DrawFn) -> list[bytes]:
    """Return a stream of events with any ends of line, split anywhere, also into nothing."""
    lines: list[bytes] = []
    for _ in range(draw(st.integers(1, 5))):
        fields = draw(st.lists(st.sampled_from([b"data: x", b"id: 1", b": ping", b"data"])))
        for field in (*fields, b""):
            lines += [field, draw(EOLS)]
    whole = b"".join(lines)
    if draw(st.booleans()):
        whole += b"data: never ended"
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


def at_boundary(sent: bytes) -> bool:
    """Whether `sent` ends with a whole event, by the words of the WHATWG specification."""
    lines = sent.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return sent == b"" or lines.endswith(b"\n\n")


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(chunks=event_streams(), position=st.floats(0, 1), while_serving=st.booleans())
@example(chunks=[b"data: half", b"", b"\n\n"], position=0.66, while_serving=True)
@example(chunks=[b"data: x\n", b"\n", b"data"], position=0.66, while_serving=True)
def test_a_farewell_never_lands_inside_an_event(
    monkeypatch: pytest.MonkeyPatch, chunks: list[bytes], position: float, while_serving: bool
) -> None:
    """However a stream is split and whenever the drain begins, the farewell follows a whole event
    at once or at the next one, and all bytes of the app before it are delivered in order."""
    gap = 0.01
    before = round(position * len(chunks))
    calls: list[Call] = []

    async def story(world: World) -> None:
        app = GracefulMiddleware(feed(*chunks, gap=gap), propagation_delay=60, grace_period=90)
        async with world.lifespan(app):
            if not while_serving:
                world.lifecycle.terminate()
                await world.turns()
            calls.append(world.call(app, http()))
            await calls[0].until(lambda: len(calls[0].sent) == 1 + before or before == 0)
            await anyio.sleep(gap / 2)
            if while_serving:
                world.lifecycle.terminate()
            world.lifecycle.terminate()

    run_world(story, "asyncio", monkeypatch)
    (call,) = calls
    assert call.error is None
    sent = max(before, 1)  # the first chunk follows the headers without a gap
    sums = [b"".join(chunks[:n]) for n in range(sent, len(chunks) + 1)]
    expected = next((s for s in sums if at_boundary(s)), None)
    if expected is None:
        assert call.body == b"".join(chunks)
        assert not call.complete
    else:
        assert call.body == expected + FAREWELL
        assert call.complete


@on_both
async def test_headers_only_is_a_boundary(world: World) -> None:
    """A stream that has sent nothing but its headers is told without waiting for an event."""
    app = GracefulMiddleware(feed())
    async with world.lifespan(app):
        call = await world.call(app, http()).started()
        began = world.now
        drain_now(world)
        await call.until(lambda: call.complete)
        assert world.now == began
    assert call.body == FAREWELL
    assert world.report.told == 1
    assert world.report.clean


@on_both
async def test_a_silent_stream_is_told_at_once(world: World) -> None:
    """A stream whose last bytes ended an event needs no next event."""
    app = GracefulMiddleware(feed(b"data: 1\n\n"))
    async with world.lifespan(app):
        call = world.call(app, http())
        await anyio.sleep(3600)
        began = world.now
        drain_now(world)
        await call.until(lambda: call.complete)
        assert world.now == began
    assert call.body == b"data: 1\n\n" + FAREWELL


@on_both
async def test_not_before_the_delay_is_over(world: World) -> None:
    """In lame duck a client that was told to reconnect would come back to this very process."""
    app = GracefulMiddleware(feed(*[b"data: x\n\n"] * 100))
    async with world.lifespan(app):
        call = world.call(app, http())
        await anyio.sleep(2.5)
        world.lifecycle.terminate()
        await anyio.sleep(4.9)
        assert world.is_in(Phase.LAME_DUCK)
        assert len(parts_of(call)) == 8
        await anyio.sleep(0.2)
        assert call.complete
    assert call.body == b"data: x\n\n" * 8 + FAREWELL


@on_both
async def test_each_client_has_its_own_delay_and_its_own_time(world: World) -> None:
    """Farewells are spread over the stream window, each with a delay that was drawn for it."""
    app = GracefulMiddleware(feed(), stream_window=4, linger=0)
    async with world.lifespan(app):
        calls = [await world.call(app, http()).started() for _ in range(4)]
        ended: list[float] = []
        drain_now(world)
        await world.turns()
        began = world.now
        for index, call in enumerate(calls):
            await call.until(partial(getattr, call, "complete"))
            ended.append(world.now - began)
            world.draw.value = (0.1, 0.9, 0.3, 0.7)[index]
    assert len({call.body for call in calls}) == 4
    assert ended == sorted(ended)
    assert ended[0] == 0
    assert ended[1] > 0
    assert ended[-1] < 4
    (told,) = world.told(FarewellsSent)
    assert (told.told, told.failed, told.left_to_finish) == (4, 0, 0)


@on_both
async def test_the_name_of_the_event_can_be_chosen(world: World) -> None:
    """`sse_event` is what the client listens for; data makes browsers dispatch it."""
    app = GracefulMiddleware(feed(), sse_event="moved")
    async with world.lifespan(app):
        call = await world.call(app, http()).started()
    retry, event, data, *_ = call.body.decode().splitlines()
    assert event == "event: moved"
    assert json.loads(data.removeprefix("data: ")) == {
        "retry_after_ms": int(retry.removeprefix("retry: "))
    }


@on_both
async def test_memoryviews(world: World) -> None:
    """Frameworks hand on memoryviews as the body; they are bytes like any other."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(EVENTS))
        for _ in range(3):
            await send({**part(b""), "body": memoryview(b"data: x\n\n")})
            await anyio.sleep(1)
        await anyio.sleep_forever()

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = world.call(app, http())
        await anyio.sleep(0.5)
        world.lifecycle.terminate()
    assert call.error is None
    assert call.body.endswith(b"data: x\n\n" + FAREWELL)


@on_both
async def test_headers_as_an_iterator_are_understood(world: World) -> None:
    """A stream whose headers can be read only once is recognised when the drain begins."""
    start = {**EVENTS, "headers": iter(EVENTS["headers"])}
    app = GracefulMiddleware(feed(b"data: x\n\n", start=start))
    async with world.lifespan(app):
        call = await world.call(app, http()).started(2)
    assert call.body.endswith(FAREWELL)
    assert call.header("content-type") == ["text/event-stream; charset=utf-8"]


@on_both
async def test_a_stream_after_an_early_hint(world: World) -> None:
    """What comes before the start of the response doesn't hide that it is a stream."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        await feed(b"data: x\n\n")(scope, receive, send)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = await world.call(app, http()).started(3)
    assert call.body.endswith(FAREWELL)


# -- where none may be injected --------------------------------------------------------------


def listening(start: Message, chunk: bytes) -> App:
    """Return an app that sends one chunk and ends its response when the client leaves."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(start))
        await send(part(chunk))
        while (await receive())["type"] != "http.disconnect":
            pass
        await send(part(b"the app's end", more=False))

    return app_of(handler)


@on_both
@pytest.mark.parametrize(
    "extra",
    [
        pytest.param({"headers": [(b"content-encoding", b"gzip")]}, id="content-encoding"),
        pytest.param({"headers": [(b"content-length", b"1000")]}, id="content-length"),
        pytest.param({"trailers": True}, id="trailers"),
    ],
)
@pytest.mark.parametrize("phase", ["serving", "lame duck"])
async def test_a_body_that_is_not_ours_to_extend(
    world: World, extra: dict[str, Any], phase: str
) -> None:
    """Into a body with an encoding, a promised length or trailers nothing is injected: the app
    sees its client leave and ends the response itself."""
    start = {**EVENTS, **extra, "headers": [*EVENTS["headers"], *extra.get("headers", [])]}
    app = GracefulMiddleware(listening(start, b"data: x\n\n"))
    async with world.lifespan(app):
        if phase == "lame duck":
            world.lifecycle.terminate()
            await world.turns()
        call = await world.call(app, http()).started(2)
        while world.phase is not Phase.DRAINING:
            world.lifecycle.terminate()
        await call.finished()
    assert call.body == b"data: x\n\nthe app's end"
    assert call.complete
    assert world.report.clean
    assert world.report.told == 1


@on_both
async def test_head_has_no_body_to_end(world: World) -> None:
    """The answer to HEAD announces a stream and is none."""
    app = GracefulMiddleware(script(dict(EVENTS), part(b"", more=False)))
    async with world.lifespan(app):
        drain_now(world)
        await world.until(Phase.DRAINING)
        call = await world.get(app, method="HEAD")
    assert call.status == 200
    assert parts_of(call) == [b""]
    assert world.report.told == 0


@on_both
async def test_a_stream_that_has_ended_is_left_alone(world: World) -> None:
    """After its last byte a stream has no place for a farewell, while its task still runs."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(EVENTS))
        await send(part(b"data: x\n\n"))
        await send(part(b"data: y\n\n", more=False))
        await anyio.sleep(3)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = await world.call(app, http()).started(3)
    assert call.body == b"data: x\n\ndata: y\n\n"
    assert call.complete


@on_both
async def test_an_ordinary_response_is_no_stream(world: World) -> None:
    """A slow download is finished, not told to reconnect."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(5):
            await send(part(b"\n\n"))
            await anyio.sleep(1)
        await send(part(b"end", more=False))

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = await world.call(app, http()).started(2)
    assert call.body == b"\n\n" * 5 + b"end"


# -- the app's end ---------------------------------------------------------------------------


@on_both
async def test_later_sends_raise(world: World) -> None:
    """After the farewell the app's sends raise an OSError, as the specification says."""
    errors: list[BaseException] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(EVENTS))
        try:
            while True:
                await send(part(b"data: x\n\n"))
                await anyio.sleep(0.5)
        except OSError as error:
            errors.append(error)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = await world.call(app, http()).started(2)
    assert isinstance(errors[0], graceful.StreamClosed)
    assert call.error is None
    assert call.body == b"data: x\n\n" + FAREWELL


@on_both
async def test_a_raw_app_that_never_calls_receive(world: World) -> None:
    """One that only waits is cancelled a moment after its farewell; its `finally` runs, and the
    stop is clean all the same."""
    unwound: list[float] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await feed()(scope, receive, send)
        finally:
            unwound.append(anyio.current_time())

    app = GracefulMiddleware(app_of(handler), linger=0)
    async with world.lifespan(app):
        call = await world.call(app, http()).started()
        began = world.now
        drain_now(world)
        await call.finished()
        assert unwound[0] - began == pytest.approx(1)
    assert call.body == FAREWELL
    assert world.report.clean


@on_both
async def test_a_client_that_does_not_read(world: World) -> None:
    """A send that hangs on a full socket keeps nobody: the app's call is cancelled."""

    async def full(message: Message) -> None:
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    app = GracefulMiddleware(feed(b"data: x\n\n"), linger=0)
    async with world.lifespan(app):
        call = world.call(app, http())
        call.on_send = full
        await call.started(2)
        began = world.now
        drain_now(world)
        await call.finished()
    assert world.now - began < 2
    assert world.report.clean


@on_both
async def test_receive_says_disconnect_again_and_again(world: World) -> None:
    """An app that asks twice after the end of its stream gets the same answer twice."""
    seen: list[str] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(EVENTS))
        await receive()
        seen.extend([(await receive())["type"] for _ in range(3)])

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        await world.call(app, http()).started()
    assert seen == ["http.disconnect"] * 3


def starlette_feed(kind: str, unwound: list[str]) -> Starlette:
    """Return an app with an endless stream of one kind, whose generator notes its `finally`."""

    async def events() -> AsyncIterator[str]:
        try:
            while True:
                yield "data: x\n\n"
                await anyio.sleep(0.3)
        finally:
            unwound.append(kind)

    async def silent() -> AsyncIterator[str]:
        try:
            yield "data: x\n\n"
            await anyio.sleep_forever()
        finally:
            unwound.append(kind)

    async def dictionaries() -> AsyncIterator[dict[str, str]]:
        async for _ in events():
            yield {"data": "x"}

    async def endpoint(request: Request) -> Response:
        if kind == "sse-starlette":
            return EventSourceResponse(dictionaries())
        content = events() if kind == "async" else silent()
        return StreamingResponse(content, media_type="text/event-stream")

    return Starlette(routes=[Route("/", endpoint)])


@on_one("asyncio")
@pytest.mark.parametrize("kind", ["async", "silent", "sse-starlette"])
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_the_finally_of_a_generator_runs(world: World, kind: str, spec_version: str) -> None:
    """A framework's generator is ended with its stream, under both versions of the specification,
    and no error reaches the server's log."""
    unwound: list[str] = []
    app = GracefulMiddleware(starlette_feed(kind, unwound), linger=0)
    async with world.lifespan(app):
        call = await world.call(app, http(spec_version=spec_version)).started(2)
        await anyio.sleep(1)
        drain_now(world)
        await call.finished()
        await world.turns()
        assert unwound == [kind]
    assert call.complete
    assert call.body.endswith(FAREWELL)
    assert world.report.clean


@on_one("asyncio")
async def test_keep_alive_of_sse_starlette_is_replaced(world: World) -> None:
    """sse-starlette forces `Connection: keep-alive`, which must not outlive the process."""
    app = GracefulMiddleware(starlette_feed("sse-starlette", []))
    async with world.lifespan(app):
        drain_now(world)
        await world.until(Phase.DRAINING)
        call = await world.get(app)
    assert call.header("connection") == ["close"]


def test_the_finally_of_a_sync_generator_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync generator is read in a thread; it too is let go of with its stream, as Starlette does
    when a client leaves: its `finally` runs when the collector finds it."""

    unwound: list[str] = []

    def events() -> Iterator[str]:
        try:
            while True:
                yield "data: x\n\n"
        finally:
            unwound.append("sync")

    def endpoint(request: Request) -> Response:
        return StreamingResponse(events(), media_type="text/event-stream")

    app = GracefulMiddleware(Starlette(routes=[Route("/", endpoint)]), linger=0)
    lifecycle = graceful.Lifecycle()
    monkeypatch.setattr(graceful.lifecycle, "_process", lifecycle)

    async def main() -> Call:
        call = Call(app, http())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.run)
            await call.started(4)
            drain_now_of(lifecycle)
            await call.until(lambda: call.over)
        return call

    call = anyio.run(main)
    gc.collect()
    assert call.error is None
    assert call.complete
    assert unwound == ["sync"]


def drain_now_of(lifecycle: graceful.Lifecycle) -> None:
    """Begin to drain without a delay."""
    lifecycle.terminate()
    lifecycle.terminate()


@on_both
async def test_an_error_in_the_clean_up_of_the_app_is_told(world: World) -> None:
    """What goes wrong after the farewell, and isn't its echo, reaches the server's log."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(EVENTS))
        try:
            while True:
                await send(part(b"data: x\n\n"))
                await anyio.sleep(0.5)
        finally:
            raise KeyError("clean-up")

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = await world.call(app, http()).started(2)
    assert isinstance(call.error, KeyError)


# -- policies and declared streams -----------------------------------------------------------


@on_both
async def test_policy_finish(world: World) -> None:
    """A token stream that can't be resumed is finished, and the report says so."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = graceful.current_exchange()
        assert isinstance(exchange, HttpExchange)
        exchange.finish()
        await send(dict(EVENTS))
        for token in b"ABCDE":
            await send(part(b"data: %c\n\n" % token))
            await anyio.sleep(1)
        await send(part(b"", more=False))

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = await world.call(app, http()).started(2)
        drain_now(world)
        await world.turns()
        late = await world.get(app)
        await call.finished()
    assert call.body == late.body == b"".join(b"data: %c\n\n" % t for t in b"ABCDE")
    assert world.report.told == 0
    assert world.report.streams_left_to_finish == 1
    assert world.report.clean


@on_both
async def test_policy_finish_ends_at_the_deadline(world: World) -> None:
    """Policy `finish` has until the drain deadline, like all work."""
    exchanges: list[HttpExchange] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = graceful.current_exchange()
        assert isinstance(exchange, HttpExchange)
        exchange.finish()
        exchanges.append(exchange)
        await feed(*[b"data: x\n\n"] * 100)(scope, receive, send)

    app = GracefulMiddleware(app_of(handler), grace_period=10, propagation_delay=1)
    async with world.lifespan(app):
        call = await world.call(app, http("/tokens")).started(2)
        world.lifecycle.terminate()
        await call.finished()
    assert call.complete  # it was cut between two events
    assert [s.name for s in world.report.cut] == ["GET /tokens"]
    assert world.report.exit_status == 70


def ndjson(**declaration: Any) -> App:
    """Return a watch of JSON lines that declares itself a stream and sends halves of lines."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = graceful.current_exchange()
        assert isinstance(exchange, HttpExchange)
        exchange.declare_stream(**declaration)
        headers = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(20):
            await send(part(b'{"a":'))
            await anyio.sleep(0.1)
            await send(part(b"1}\n"))
            await anyio.sleep(0.1)

    return app_of(handler)


@on_both
async def test_a_declared_stream_with_a_boundary(world: World) -> None:
    """With a boundary, a drain ends the body after a whole record, with the app's own farewell."""
    app = GracefulMiddleware(ndjson(boundary=b"\n", farewell=b'{"moved":true}\n'))
    async with world.lifespan(app):
        call = await world.call(app, http()).started(4)
        drain_now(world)
        await call.finished()
    assert call.body == b'{"a":1}\n{"a":1}\n{"moved":true}\n'
    assert call.complete
    assert world.report.told == 1


@on_both
async def test_a_declared_stream_without_a_boundary(world: World) -> None:
    """Without one, the app sees its client leave and ends the response itself."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["graceful"].declare_stream()
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send(part(b'{"changes":[]}', more=False))

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        drain_now(world)
        await call.finished()
    assert call.body == b'{"changes":[]}'
    assert world.report.clean


@on_both
async def test_a_declared_stream_that_may_finish(world: World) -> None:
    """Policy `finish` can be given with the declaration."""
    app = GracefulMiddleware(ndjson(policy="finish", boundary=b"\n"))
    async with world.lifespan(app):
        call = await world.call(app, http()).started(2)
    assert call.body == b'{"a":1}\n' * 20
    assert world.report.streams_left_to_finish == 1


@on_both
async def test_a_declared_stream_with_a_promised_length(world: World) -> None:
    """A boundary is no licence to end a body short of its content-length."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["graceful"].declare_stream(boundary=b"\n", farewell=b"bye\n")
        start = {**EVENTS, "headers": [(b"content-length", b"15")]}
        await listening(start, b"1\n")(scope, receive, send)

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = await world.call(app, http()).started(2)
        drain_now(world)
        await call.finished()
    assert call.body == b"1\nthe app's end"


@on_both
async def test_a_declaration_in_the_middle_of_a_record(world: World) -> None:
    """What was sent before the declaration counts: the farewell waits for the record's end."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send(part(b"half "))
        scope["state"]["graceful"].declare_stream(boundary=b"\n", farewell=b"bye\n")
        await anyio.sleep(0.5)
        await send(part(b"whole\n"))
        await anyio.sleep_forever()

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = await world.call(app, http()).started(2)
        drain_now(world)
        await call.finished()
    assert call.body == b"half whole\nbye\n"


@on_both
async def test_declaring_an_event_stream_keeps_it_one(world: World) -> None:
    """An SSE endpoint that also declares itself still gets the farewell of SSE, in any order."""

    async def before(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["graceful"].declare_stream()
        await feed(b"data: x\n\n")(scope, receive, send)

    async def after(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(EVENTS))
        await send(part(b"data: x\n\n"))
        scope["state"]["graceful"].declare_stream()
        await anyio.sleep_forever()

    for handler in (before, after):
        app = GracefulMiddleware(app_of(handler))
        async with world.lifespan(app):
            call = await world.call(app, http()).started(2)
        assert call.body == b"data: x\n\n" + FAREWELL


# -- new streams in DRAINING -----------------------------------------------------------------


@on_both
async def test_a_new_stream_in_draining_is_turned_away(world: World) -> None:
    """Status and headers (CORS) as the app sent them, then the farewell and the end at once:
    an EventSource gives up for good on anything but 200."""
    start = {**EVENTS, "headers": [*EVENTS["headers"], (b"access-control-allow-origin", b"*")]}
    app = GracefulMiddleware(feed(b"data: x\n\n", start=start))
    async with world.lifespan(app):
        drain_now(world)
        await world.until(Phase.DRAINING)
        began = world.now
        call = await world.get(app)
        assert world.now - began <= 1
    assert call.status == 200
    assert call.header("access-control-allow-origin") == ["*"]
    assert call.header("connection") == ["close"]
    assert parts_of(call) == [FAREWELL]
    assert call.complete
    assert world.report.told == 1
    assert world.report.clean


@on_both
async def test_a_new_silent_stream_in_draining_keeps_nobody(world: World) -> None:
    """A stream that was turned away and waits for something else is ended a moment later."""
    app = GracefulMiddleware(feed(), linger=0)
    async with world.lifespan(app):
        busy = world.call(app, http())
        await busy.started()
        drain_now(world)
        await world.turns()
        call = world.call(app, http())
        began = world.now
        await call.finished()
    assert world.now - began < 3
    assert call.body == FAREWELL
    assert world.report.clean


@on_both
async def test_a_new_declared_stream_in_draining_is_turned_away(world: World) -> None:
    """A declared stream that comes late is ended after its start, as an SSE stream is."""
    app = GracefulMiddleware(ndjson(boundary=b"\n", farewell=b"bye\n"))
    async with world.lifespan(app):
        drain_now(world)
        await world.until(Phase.DRAINING)
        call = await world.get(app)
    assert call.status == 200
    assert call.body == b"bye\n"
    assert world.report.clean


@on_both
async def test_a_new_long_poll_in_draining_is_turned_away(world: World) -> None:
    """One that declares itself without a boundary sees its client leave."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["graceful"].declare_stream()
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send(part(b"{}", more=False))

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        drain_now(world)
        await world.until(Phase.DRAINING)
        began = world.now
        call = await world.get(app)
        assert world.now == began
    assert call.body == b"{}"
    assert world.report.clean


@on_both
async def test_a_new_stream_in_lame_duck_is_let_in(world: World) -> None:
    """During the propagation delay this process is still as good as any other."""
    app = GracefulMiddleware(feed(b"data: x\n\n"))
    async with world.lifespan(app):
        world.lifecycle.terminate()
        await world.turns()
        call = await world.call(app, http()).started(2)
        await world.turns()
        assert call.body == b"data: x\n\n"
