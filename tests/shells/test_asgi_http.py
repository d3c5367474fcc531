"""Ordinary requests through the ASGI shell: tracking, `Connection: close`, late ones, cuts."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

import graceful
from graceful._asgi_types import Message, Receive, Scope, Send
from graceful.asgi import GracefulMiddleware
from graceful.core.inflight import BATCH, SAMPLE
from graceful.core.phases import Phase
from graceful.core.records import ExchangeCut

from .apps import OK, app_of, hello, part, script, slow
from .harness import World, http, on_both, on_one

# -- tracking --------------------------------------------------------------------------------


class AnObject:
    """An app as frameworks make them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)


FORMS = [hello, AnObject(), AnObject().__call__, partial(hello)]


@pytest.mark.parametrize("form", FORMS, ids=["function", "object", "method", "partial"])
@on_both
async def test_an_app_may_be_anything_that_can_be_called(world: World, form: Any) -> None:
    """The middleware calls some of them in a shorter way."""
    app = GracefulMiddleware(form)
    async with world.lifespan(app):
        for _ in range(2):
            call = await world.get(app)
            assert call.error is None
            assert call.sent[-1]["body"] == b"ok"


@on_both
async def test_the_method_of_an_app_may_be_replaced_while_it_runs(world: World) -> None:
    """As those do who measure: the middleware calls what is there, and keeps none."""
    asked: list[str] = []

    class Framework(AnObject):
        pass

    async def measured(self: AnObject, scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await hello(scope, receive, send)

    app = GracefulMiddleware(Framework())
    async with world.lifespan(app):
        await world.get(app, "/first")
        Framework.__call__ = measured  # type: ignore[method-assign]
        await world.get(app, "/second")
    assert asked == ["/second"]


@on_both
async def test_in_flight_until_the_call_returns(world: World) -> None:
    """An exchange is in flight from the call of the app to its return, and no longer."""
    app = GracefulMiddleware(slow(5))
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        assert len(world.lifecycle.tracker) == 1
        await call.finished()
        assert len(world.lifecycle.tracker) == 0
        assert world.lifecycle.tracker.served == 1


@on_both
async def test_background_tasks_are_in_flight(world: World) -> None:
    """A background task of Starlette's belongs to its exchange, and the drain waits for it."""
    done: list[str] = []

    async def background() -> None:
        await anyio.sleep(8)
        done.append("background")

    def endpoint(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(background))

    app = GracefulMiddleware(Starlette(routes=[Route("/", endpoint)]))
    async with world.lifespan(app):
        call = await world.call(app, http()).started(2)
        assert call.complete
        assert len(world.lifecycle.tracker) == 1
    assert done == ["background"]
    assert call.error is None
    assert world.report.clean


@on_both
async def test_an_app_that_raises(world: World) -> None:
    """What the app raises goes on to the server, and its exchange is over."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError("the app's own")

    app = GracefulMiddleware(app_of(broken))
    async with world.lifespan(app):
        with pytest.raises(ZeroDivisionError, match="the app's own"):
            await world.get(app)
        assert len(world.lifecycle.tracker) == 0


@on_both
async def test_an_app_that_raises_while_draining(world: World) -> None:
    """A drain does not take an error of the app's for an echo of its own doing."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(3)
        raise ConnectionResetError("the database")

    app = GracefulMiddleware(app_of(broken))
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
    assert isinstance(call.error, ConnectionResetError)


@on_both
async def test_a_client_that_vanishes_mid_response(world: World) -> None:
    """A `send` that raises reaches the app as it is; the exchange is over and the drain goes on."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(OK))
        await send(part(b"half"))

    async def gone(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise BrokenPipeError("client gone")

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        call = world.call(app, http())
        call.on_send = gone
        with pytest.raises(BrokenPipeError):
            await call.finished()
        assert len(world.lifecycle.tracker) == 0


# -- Connection: close -----------------------------------------------------------------------


async def ask(world: World, app: GracefulMiddleware, **scope: Any) -> list[str]:
    """Return the `Connection` header of one response."""
    return (await world.get(app, **scope)).header("connection")


@on_both
async def test_close_by_phase(world: World) -> None:
    """SERVING says nothing about the connection, lame duck more and more, DRAINING always."""
    app = GracefulMiddleware(app_of(hello), propagation_delay=10)
    async with world.lifespan(app):
        world.draw.value = 0.0
        assert await ask(world, app) == []

        world.lifecycle.terminate()
        await anyio.sleep(3)
        world.draw.value = 0.29
        assert await ask(world, app) == ["close"]
        world.draw.value = 0.31
        assert await ask(world, app) == []

        world.draw.value = 0.99
        await anyio.sleep(8)
        assert world.is_in(Phase.DRAINING)
        assert await ask(world, app) == ["close"]


@on_both
async def test_close_of_a_response_that_starts_after_the_flip(world: World) -> None:
    """What counts is the phase in which the response starts, not the one of the request."""
    app = GracefulMiddleware(slow(8))
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        world.lifecycle.terminate()
        await call.finished()
    assert call.header("connection") == ["close"]


@on_both
@pytest.mark.parametrize("name", [b"connection", b"Connection"])
async def test_close_replaces_the_header_of_the_app(world: World, name: bytes) -> None:
    """sse-starlette sets keep-alive; two contradicting headers would be worse than one."""
    start: Message = {**OK, "headers": [(name, b"keep-alive"), (b"x-app", b"1")]}
    app = GracefulMiddleware(script(start, part(b"ok", more=False)))
    async with world.lifespan(app):
        world.lifecycle.terminate()
        world.lifecycle.terminate()
        await world.until(Phase.DRAINING)
        call = await world.get(app)
    assert call.header("connection") == ["close"]
    assert call.header("x-app") == ["1"]


@on_both
@pytest.mark.parametrize("version", ["2", "3", "2.0"])
async def test_http_2_has_no_connection_header(world: World, version: str) -> None:
    """`Connection` is forbidden in HTTP/2 and 3, for responses of the app's and of our own."""
    app = GracefulMiddleware(slow(1))
    async with world.lifespan(app):
        await world.get(app, http_version=version)
        world.lifecycle.terminate()
        world.lifecycle.terminate()
        await world.until(Phase.DRAINING)
        assert await ask(world, app, http_version=version) == []
        world.lifecycle.terminate()
        await world.turns()
        refused = await world.get(app, http_version=version)
    assert refused.status == 503
    assert refused.header("connection") == []


# -- late requests ---------------------------------------------------------------------------


@on_both
async def test_late_requests_by_remaining_time(world: World) -> None:
    """In DRAINING a request is served while its usual time is left, then refused at once."""
    app = GracefulMiddleware(slow(4), grace_period=30, propagation_delay=5)
    async with world.lifespan(app):
        for _ in range(3):
            await world.get(app)
        busy = world.call(app, http("/busy"))
        await world.turns()
        world.lifecycle.terminate()
        world.lifecycle.terminate()
        await world.until(Phase.DRAINING)
        assert (await world.get(app)).status == 200
        await busy.finished()
        await anyio.sleep(world.lifecycle.remaining() - 2)

        began = world.now
        late = await world.get(app)
        assert world.now == began
    assert late.status == 503
    assert late.header("retry-after") == ["1"]
    assert late.header("connection") == ["close"]
    assert late.header("content-length") == [str(len(late.body))]
    assert world.report.late_refused == 1


@on_both
async def test_the_end_of_a_refusal_wakes_the_drain(world: World) -> None:
    """A refusal that a slow client takes its time to read is the last thing the drain waits for."""
    app = GracefulMiddleware(slow(4), linger=0)
    async with world.lifespan(app):
        await world.get(app)
        world.call(app, http("/busy"))
        await world.turns()
        world.lifecycle.terminate()
        world.lifecycle.terminate()
        await world.turns()
        refused = world.call(app, http())

        async def read_slowly(message: Message) -> None:
            await anyio.sleep(6)

        refused.on_send = read_slowly
        world.lifecycle.core.late_request = lambda exchange, now: object()  # type: ignore[method-assign,assignment,return-value]
        begun = world.now
    assert world.now - begun == pytest.approx(12)


@on_one("asyncio")
async def test_each_probe_has_a_sample_timed(world: World) -> None:
    """Of a process that has served a full batch, so that what it knows does not grow old."""
    app = GracefulMiddleware(app_of(hello))
    async with world.lifespan(app):
        for served, path in ((BATCH, "/readyz"), (BATCH + SAMPLE, "/livez")):
            for _ in range(BATCH + 1):
                await world.get(app)
            assert world.lifecycle.tracker.served == served
            await world.get(app, path)
        await world.get(app)
        assert world.lifecycle.tracker.served == BATCH + SAMPLE + 1


async def slow_where_asked(scope: Scope, receive: Receive, send: Send) -> None:
    """Takes four seconds for one path, a minute for another, and no time for others."""
    await anyio.sleep({"/slow": 4, "/hung": 60}.get(scope["path"], 0))
    await hello(scope, receive, send)


@on_both
async def test_a_busy_process_is_done_when_its_last_request_is(world: World) -> None:
    """Only a sample of its requests is timed, but a drain waits for the end of each."""
    app = GracefulMiddleware(app_of(slow_where_asked), linger=0)
    async with world.lifespan(app):
        for _ in range(BATCH + 1):
            await world.get(app)
        assert not world.lifecycle.tracker.timing
        world.call(app, http("/slow"))
        await world.turns()
        world.lifecycle.terminate()
        world.lifecycle.terminate()
        begun = world.now
    assert world.now - begun == pytest.approx(4, abs=0.1)


@on_one("asyncio")
async def test_a_sample_is_of_what_begins(world: World) -> None:
    """Or the slow ones, which end when it is full already, would seldom be in it."""
    app = GracefulMiddleware(app_of(slow_where_asked))
    tracker = world.lifecycle.tracker
    async with world.lifespan(app):
        for _ in range(BATCH):
            await world.get(app)
        before = world.call(app, http("/slow"))
        await anyio.sleep(1)
        await world.get(app, "/livez")
        within = world.call(app, http("/slow"))
        await world.turns()
        for _ in range(SAMPLE):
            await world.get(app)
        assert (tracker.timing, tracker.latency.total) == (False, BATCH + SAMPLE)
        await before.finished()
        assert tracker.latency.total == BATCH + SAMPLE
        await within.finished()
        assert tracker.latency.total == BATCH + SAMPLE + 1
        assert (tracker.latency.quantile(1) or 0) > 3


@on_one("asyncio")
@pytest.mark.parametrize("probed", [False, True])
async def test_what_is_cut_in_a_busy_process_is_as_old_as_is_known(
    world: World, probed: bool
) -> None:
    """Its clock is read for a sample only; probes date the rest, or else the signal does."""
    app = GracefulMiddleware(app_of(slow_where_asked), grace_period=10)
    async with world.lifespan(app):
        for _ in range(BATCH):
            await world.get(app)
        world.call(app, http("/hung"))
        await anyio.sleep(0.5)
        if probed:
            await world.get(app, "/readyz")
        await anyio.sleep(0.5)
        world.lifecycle.terminate()
    (told,) = world.told(ExchangeCut)
    (cut,) = told.stragglers
    assert cut.older
    assert cut.age - told.after == pytest.approx(0.5 if probed else 0, abs=0.1)
    assert world.report.served == 0


@on_both
async def test_a_busy_process_that_has_recovered_is_as_it_was(world: World) -> None:
    """It times a full batch again, and a drain that comes later hears of each end."""
    app = GracefulMiddleware(app_of(slow_where_asked), linger=0)
    async with world.lifespan(app):
        for recovers in (True, False):
            for _ in range(BATCH):
                assert world.lifecycle.tracker.timing
                await world.get(app)
            assert not world.lifecycle.tracker.timing
            world.call(app, http("/slow"))
            await world.turns()
            world.lifecycle.lame_duck()
            assert world.lifecycle.tracker.timing
            if recovers:
                world.lifecycle.recover()
        world.lifecycle.terminate()
        world.lifecycle.terminate()
        begun = world.now
    assert world.now - begun == pytest.approx(4, abs=0.1)


@on_one("asyncio")
async def test_threads_that_turn_the_phase_at_once(world: World) -> None:
    """Who is late with an older word does not open the short way again."""
    tracker = world.lifecycle.tracker
    other = threading.Thread(target=tracker.serving, args=(False,))

    class Late(GracefulMiddleware):
        """Another thread ends SERVING just before this one writes down that it has begun."""

        def __setattr__(self, name: str, value: object) -> None:
            if name == "_short" and value is not None and not other.ident:
                other.start()
                other.join(0.5)  # all it needs, unless it waits for us
            super().__setattr__(name, value)

    app = Late(hello)
    async with world.lifespan(app):
        other.join()
        assert not tracker.plain
        assert (app._short, app._looks) == (None, True)


# -- messages are passed on ------------------------------------------------------------------


def phases() -> list[Any]:
    """Both ways in which a message can go: unwatched while SERVING, and watched afterwards."""
    return [pytest.param(False, id="serving"), pytest.param(True, id="draining")]


async def enter(world: World, draining: bool) -> None:
    """Go to the phase that the test is about."""
    if draining:
        world.lifecycle.terminate()
        world.lifecycle.terminate()
        await world.until(Phase.DRAINING)


@on_both
@pytest.mark.parametrize("draining", phases())
async def test_messages_that_it_does_not_know_are_passed_on(world: World, draining: bool) -> None:
    """Trailers, pathsend, early hints, debug and what is yet to be invented arrive unchanged."""
    messages: list[Message] = [
        {"type": "http.response.debug", "info": {"template": "x"}},
        {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]},
        {"type": "http.response.start", "status": 200, "headers": [], "trailers": True},
        part(b"a"),
        {"type": "http.response.zerocopysend", "file": 3},
        part(b"b", more=False),
        {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False},
        {"type": "http.response.yet.to.be.invented"},
    ]
    app = GracefulMiddleware(script(*[dict(m) for m in messages]))
    async with world.lifespan(app):
        await enter(world, draining)
        call = await world.get(app)
    if draining:
        messages[2]["headers"] = [(b"connection", b"close")]
    assert call.sent == messages


@on_both
@pytest.mark.parametrize("draining", phases())
async def test_pathsend_ends_a_response(world: World, draining: bool) -> None:
    """A body that the server reads from a file by itself is a body."""
    app = GracefulMiddleware(
        script(dict(OK), {"type": "http.response.pathsend", "path": "/etc/hostname"})
    )
    async with world.lifespan(app):
        await enter(world, draining)
        call = await world.get(app)
    assert call.types == ["http.response.start", "http.response.pathsend"]
    assert call.status == 200


@on_both
@pytest.mark.parametrize("draining", phases())
async def test_a_start_without_headers(world: World, draining: bool) -> None:
    """`headers` is optional in the specification."""
    app = GracefulMiddleware(
        script({"type": "http.response.start", "status": 204}, part(b"", more=False))
    )
    async with world.lifespan(app):
        await enter(world, draining)
        call = await world.get(app)
    assert call.status == 204
    assert call.header("connection") == (["close"] if draining else [])


@on_both
@pytest.mark.parametrize("draining", phases())
async def test_headers_as_an_iterator(world: World, draining: bool) -> None:
    """An iterator of headers, which can be read only once, reaches the server whole."""
    headers = [(b"content-type", b"text/plain"), (b"x-app", b"1")]

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": iter(headers)})
        await send(part(b"ok", more=False))

    app = GracefulMiddleware(app_of(handler))
    async with world.lifespan(app):
        await enter(world, draining)
        call = await world.get(app)
    assert call.header("x-app") == ["1"]
    assert call.header("content-type") == ["text/plain"]


@on_both
async def test_scopes_that_it_does_not_know_are_passed_on(world: World) -> None:
    """A kind of scope that is yet to be invented gets the server's own callables."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    wrapped = GracefulMiddleware(app)
    scope: Scope = {"type": "carrier-pigeon"}

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        pass

    await wrapped(scope, receive, send)
    assert seen == [({"type": "carrier-pigeon"}, receive, send)]
    assert seen[0][1] is receive


@on_both
async def test_request_bodies_are_passed_on(world: World) -> None:
    """The app reads the parts of a request body and then the disconnect, in that order."""
    read: list[Message] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        read.extend([await receive() for _ in range(4)])
        await send(dict(OK))
        await send(part(b"ok", more=False))

    app = GracefulMiddleware(app_of(handler))
    messages: list[Message] = [
        {"type": "http.request", "body": b"", "more_body": True},
        {"type": "http.request", "body": b"x", "more_body": True},
        {"type": "http.request", "body": b"y"},
        {"type": "http.disconnect"},
    ]
    async with world.lifespan(app):
        call = world.call(app, http(method="POST"))
        call._inbox.clear()
        call.put(*[dict(m) for m in messages])
        await call.finished()
    assert read == messages


# -- the drain deadline ----------------------------------------------------------------------

SHORT: dict[str, Any] = {"grace_period": 10, "propagation_delay": 1, "linger": 0}


@on_both
async def test_a_response_not_yet_started_becomes_a_503(world: World) -> None:
    """At the drain deadline a request without a response is told to come again elsewhere."""
    app = GracefulMiddleware(slow(60), **SHORT)
    async with world.lifespan(app):
        call = world.call(app, http("/slow\nfake log line"))
        await world.turns()
        world.lifecycle.terminate()
        began = world.now
        await call.finished()
        assert world.now - began == pytest.approx(6)
    assert call.status == 503
    assert call.header("retry-after") == ["1"]
    assert call.header("connection") == ["close"]
    assert call.complete
    assert not world.report.clean
    assert world.report.exit_status == 70
    (cut,) = world.report.cut
    assert cut.name == r"GET /slow\nfake log line"
    assert cut.client == "10.0.0.7:50000"
    assert "secret" not in cut.name
    (told,) = world.told(ExchangeCut)
    assert told.stragglers == (cut,)


@on_one("asyncio")
async def test_the_report_shows_where_a_straggler_waits(world: World) -> None:
    """The stack of a straggler is that of its task, from the middleware down to what it awaits."""
    app = GracefulMiddleware(slow(60), **SHORT)
    async with world.lifespan(app):
        call = world.call(app, http("/slow"))
        await world.turns()
        world.lifecycle.terminate()
        await call.finished()
    (cut,) = world.report.cut
    assert "apps.py" in cut.stack
    assert "in handler" in cut.stack
    assert "await anyio.sleep(seconds)" in cut.stack


@on_both
async def test_a_started_response_is_ended_by_force(world: World) -> None:
    """A download that is cut is left incomplete, so that its client can tell."""
    unwound: list[str] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send(part(b"x" * 10))
                await anyio.sleep(1)
        finally:
            unwound.append("finally")

    app = GracefulMiddleware(app_of(handler), **SHORT)
    async with world.lifespan(app):
        call = world.call(app, http("/download"))
        await world.turns()
        world.lifecycle.terminate()
        await call.finished()
    assert unwound == ["finally"]
    assert call.types.count("http.response.start") == 1
    assert not call.complete
    assert world.report.exit_status == 70


@on_both
async def test_nothing_is_cut_that_is_over_in_time(world: World) -> None:
    """Work that ends a moment before the deadline is whole, and the stop is clean."""
    app = GracefulMiddleware(slow(5.9), **SHORT)
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        world.lifecycle.terminate()
    assert call.body == b"ok"
    assert call.error is None
    assert world.report.clean
    assert world.report.exit_status == 0


@on_both
async def test_an_early_hint_is_no_response(world: World) -> None:
    """After an early hint the response has not started: at the deadline it can still be a 503."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        await anyio.sleep(60)

    app = GracefulMiddleware(app_of(handler), **SHORT)
    async with world.lifespan(app):
        call = world.call(app, http())
        await world.turns()
        world.lifecycle.terminate()
        await call.finished()
    assert call.status == 503


@on_one("asyncio")
async def test_an_app_that_swallows_cancellation(world: World) -> None:
    """One that goes on after it was cancelled is left behind: the stop has an end all the same."""
    swallowed: list[str] = []

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        while len(swallowed) < 20:
            try:
                await anyio.sleep(5)
            except asyncio.CancelledError:
                swallowed.append("once more")

    app = GracefulMiddleware(app_of(handler), **SHORT)
    async with world.lifespan(app) as lifespan:
        call = world.call(app, http("/stubborn"))
        await world.turns()
        world.lifecycle.terminate()
        began = world.now
    assert lifespan.over
    assert not call.over
    assert swallowed == ["once more"]
    assert world.now - began <= 10
    assert call.status == 503
    assert [s.name for s in world.report.cut] == ["GET /stubborn"]


@on_one("asyncio")
async def test_cancellation_leaves_no_trace_in_the_task_of_the_server(world: World) -> None:
    """A server that calls the app in a task of its own (kept alive) can go on using that task."""
    outcome: list[int] = []

    async def swallows(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep(60)
        except asyncio.CancelledError:
            return

    app = GracefulMiddleware(app_of(swallows), **SHORT)

    async def connection(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        if scope["type"] == "http":
            task = asyncio.current_task()
            assert task is not None
            outcome.append(task.cancelling())

    async with world.lifespan(connection):
        call = world.call(connection, http())
        await world.turns()
        world.lifecycle.terminate()
        await call.finished()
    assert outcome == [0]


@on_one("asyncio")
async def test_a_cancellation_by_the_server_goes_on(world: World) -> None:
    """When the server cancels its own task, the app and the server see that."""
    app = GracefulMiddleware(slow(60), **SHORT)
    async with world.lifespan(app):
        task = asyncio.create_task(app(http(), never, ignore))
        await world.turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(world.lifecycle.tracker) == 0


@on_both
async def test_a_client_that_does_not_read_its_503(world: World) -> None:
    """Last words that can't be sent keep nobody: the app's call is ended all the same."""
    app = GracefulMiddleware(slow(60), **SHORT)

    async def full(message: Message) -> None:
        await anyio.sleep_forever()

    async with world.lifespan(app):
        call = world.call(app, http())
        call.on_send = full
        await world.turns()
        world.lifecycle.terminate()
        began = world.now
        await call.finished()
        assert world.now - began < 6.5


@on_one("asyncio")
async def test_a_cancellation_by_the_server_on_top_of_ours(world: World) -> None:
    """When both cancel, only ours is taken back: the server sees its own."""
    cancelling: list[int] = []

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep(60)
        finally:
            await asyncio.sleep(0.1)  # where the second one comes

    app = GracefulMiddleware(app_of(stubborn), **SHORT)

    async def connection() -> None:
        try:
            await app(http(), never, ignore)
        finally:
            task = asyncio.current_task()
            assert task is not None
            cancelling.append(task.cancelling())

    async with world.lifespan(app):
        task = asyncio.create_task(connection())
        await world.turns()
        world.lifecycle.terminate()
        while not task.cancelling():  # noqa: ASYNC110 - virtual time
            await anyio.sleep(0.01)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert cancelling == [1]


async def never() -> Message:
    """No message comes."""
    await anyio.sleep_forever()
    raise AssertionError


async def ignore(message: Message) -> None:
    """Take any message."""


# -- through Starlette's own layers ----------------------------------------------------------


@on_one("asyncio")  # on trio Starlette leaves that generator to the collector, with a warning
@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_a_download_through_base_http_middleware_is_cut(
    world: World, spec_version: str
) -> None:
    """Starlette's task groups between us and the endpoint don't hide it from the deadline."""
    unwound: list[str] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await anyio.sleep(1)
        finally:
            unwound.append("finally")

    def endpoint(request: Request) -> Response:
        return StreamingResponse(endless())

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            return response

    inner = Starlette(routes=[Route("/", endpoint)])
    inner.add_middleware(Passing)
    app = GracefulMiddleware(inner, **SHORT)
    async with world.lifespan(app):
        call = world.call(app, http(spec_version=spec_version))
        await call.started(3)
        world.lifecycle.terminate()
        await call.finished()
    assert unwound == ["finally"]
    assert world.report.exit_status == 70


@on_both
async def test_exceptions_of_handlers_reach_starlettes_error_middleware(world: World) -> None:
    """Innermost use by `add_middleware`: Starlette answers 500 and passes the error on."""

    def broken(request: Request) -> Response:
        raise KeyError("endpoint")

    inner = Starlette(routes=[Route("/", broken)])
    inner.add_middleware(GracefulMiddleware)
    async with world.lifespan(inner):
        call = world.call(inner, http())
        with pytest.raises(KeyError):
            await call.finished()
    assert call.status == 500


@on_both
async def test_a_mounted_app_is_tracked_with_its_whole_path(world: World) -> None:
    """Wrapped inside a mount, without a lifespan of its own, an exchange has its public path."""
    seen: list[dict[str, str]] = []

    def endpoint(request: Request) -> Response:
        exchange = graceful.current_exchange()
        assert exchange is not None
        seen.append(exchange.describe())
        return PlainTextResponse("ok")

    inner = GracefulMiddleware(Starlette(routes=[Route("/x", endpoint)]))
    outer = Starlette(routes=[Mount("/sub", inner)])
    async with world.lifespan(outer):
        assert (await world.get(outer, "/sub/x")).status == 200
        assert (await world.get(outer, "/sub/readyz")).status == 200
    assert seen == [{"method": "GET", "path": "/sub/x", "client": "10.0.0.7:50000"}]


def test_the_hot_path_holds_no_cycles() -> None:
    """After a request nothing of it waits for the garbage collector."""
    import gc

    async def main() -> int:
        app = GracefulMiddleware(hello)
        await app(http(), never, ignore)
        gc.collect()
        gc.disable()
        try:
            await app(http(), never, ignore)
            before = sys.getrefcount(None)
            del before
            return sum(type(o).__name__ == "HttpExchange" for o in gc.get_objects())
        finally:
            gc.enable()

    assert asyncio.run(main()) == 0
