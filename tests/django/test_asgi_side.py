"""Requests that come over ASGI: Django's own handler, called as a server calls it."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.test import override_settings

from graceful._asgi_types import App
from graceful.asgi import GracefulMiddleware as AsgiMiddleware
from graceful.core.phases import Phase
from graceful.core.records import ExchangeCut, Notice
from tests.shells.harness import Call, FakeServer, JumpingSelector, World, http, on_one

from .project import OURS
from .urls import closed, entered, released

FAREWELL = b"event: reconnect\n"

pytestmark = [
    # What Django says of every file, and of every other sync iterator.
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators"),
    # Django leaves the body of a request open when a response fails.
    pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def ask(world: World, app: App, path: str, **more: Any) -> Call:
    """Begin a request for a host that the project knows."""
    headers = [(b"host", b"example.org")]
    path, _, query = path.partition("?")
    more = {"headers": headers, "query_string": query.encode(), **more}
    return world.call(app, http(path, **more))


async def get(world: World, app: App, path: str, **more: Any) -> Call:
    """Make a request and return when it is over."""
    return await ask(world, app, path, **more).finished()


def sync_only(get_response: Any) -> Any:
    """A middleware as many are: Django then runs everything outside of it in a thread."""
    return get_response


sync_only.async_capable = False  # type: ignore[attr-defined]

ASYNC = [OURS, "django.middleware.common.CommonMiddleware"]
IN_THREAD = [OURS, f"{__name__}.sync_only"]

on_both_paths = pytest.mark.parametrize("middleware", [ASYNC, IN_THREAD], ids=["async", "thread"])


async def in_flight(world: World, count: int = 1) -> None:
    """Return when that many requests have come as far as the middleware."""
    while len(world.lifecycle.tracker) < count:
        await anyio.lowlevel.checkpoint()


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition` holds; looks seldom, for each jump of time waits for threads."""
    while not condition():  # noqa: ASYNC110 - virtual time
        await anyio.sleep(1)


async def drain_begins(world: World) -> None:
    """Return when the process is DRAINING."""
    await until(lambda: world.is_in(Phase.DRAINING))


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Django goes through threads, which know nothing of virtual time."""
    monkeypatch.setattr(JumpingSelector, "patience", 0.05)
    yield
    gc.collect()  # what Django leaves open is warned of here, and not in the next test


@pytest.fixture
def app(middleware: list[str]) -> Any:
    """Django's ASGI application with this MIDDLEWARE."""
    with override_settings(MIDDLEWARE=middleware):
        yield ASGIHandler()


@pytest.fixture
def middleware() -> list[str]:
    """What is in MIDDLEWARE where a test does not say."""
    return ASYNC


# -- probes --------------------------------------------------------------------------------------


@on_both_paths
@on_one("asyncio")
async def test_probes_are_answered_before_hosts_are_looked_at(world: World, app: App) -> None:
    """A kubelet sends the pod's IP as Host; everything else of an unknown host is refused."""
    headers = [(b"host", b"10.1.2.3:8000")]
    ready = await get(world, app, "/readyz", headers=headers)
    assert (ready.status, json.loads(ready.body)) == (200, {"status": "ready", "phase": "serving"})
    assert ready.header("cache-control") == ["no-store"]
    assert (await get(world, app, "/livez", headers=headers)).status == 200
    assert (await get(world, app, "/readyz", headers=headers, method="HEAD")).body == b""
    assert (await get(world, app, "/readyz", headers=headers, method="POST")).status == 405
    assert (await get(world, app, "/readyz/", headers=headers)).status in (400, 404)


@on_both_paths
@on_one("asyncio")
async def test_a_mounted_project_answers_below_its_prefix(world: World, app: App) -> None:
    """The prefix is taken off."""
    assert (await get(world, app, "/shop/readyz", root_path="/shop")).status == 200


@on_both_paths
@on_one("asyncio")
async def test_readiness_flips_and_liveness_does_not(
    world: World, app: App, middleware: list[str]
) -> None:
    """The first thing that a stop does; requests go on being served."""
    assert (await get(world, app, "/readyz")).status == 200
    world.lifecycle.terminate()
    assert (await get(world, app, "/readyz")).status == 503
    assert (await get(world, app, "/livez")).status == 200
    assert (await get(world, app, "/quick")).body == b"1"


@on_both_paths
@on_one("asyncio")
async def test_checks_of_the_settings_are_asked(world: World, middleware: list[str]) -> None:
    """A dotted path is as good as a callable; a check that fails makes readiness 503."""
    checks = {"here": f"{__name__}.unwell"}
    with override_settings(GRACEFUL={"checks": checks}, MIDDLEWARE=middleware):
        reply = await get(world, ASGIHandler(), "/readyz")
    assert reply.status == 503
    assert json.loads(reply.body)["checks"] == {"here": "failed"}


def unwell() -> bool:
    """A readiness check that fails."""
    return False


@on_one("asyncio")
async def test_a_project_with_its_own_readiness_is_asked_while_serving(world: World) -> None:
    """`readiness_mode` wrap: here there is none, which is a 404; from the flip on it is ours."""
    with override_settings(GRACEFUL={"readiness_mode": "wrap"}, MIDDLEWARE=ASYNC):
        app = ASGIHandler()
    assert (await get(world, app, "/readyz")).status == 404
    world.lifecycle.terminate()
    assert (await get(world, app, "/readyz")).status == 503


# -- in flight -----------------------------------------------------------------------------------


@on_both_paths
@on_one("asyncio")
async def test_a_request_is_in_flight_until_its_response_is_closed(world: World, app: App) -> None:
    """Nothing is left behind, and what it took counts as a duration of requests here."""
    for path in ("/quick", "/quick-sync"):
        reply = await get(world, app, path)
        assert (reply.body, reply.header("connection")) == (b"1", [])
    assert (await get(world, app, "/stream")).body == b"abc"
    assert (await get(world, app, "/file")).body.startswith(b'"""Views')
    assert (await get(world, app, "/fails")).status == 500
    assert len(world.lifecycle.tracker) == 0
    assert world.lifecycle.tracker.served == 5


@on_both_paths
@on_one("asyncio")
async def test_a_stream_that_breaks_or_loses_its_client_is_over(world: World, app: App) -> None:
    """Django closes neither response then."""
    call = ask(world, app, "/breaks")
    await call.until(lambda: call.over)
    assert isinstance(call.error, LookupError)
    call.error = None
    left = await ask(world, app, "/events").started(2)
    left.put({"type": "http.disconnect"})
    await left.finished()
    gone = ask(world, app, "/slow?seconds=500")
    await in_flight(world)
    gone.put({"type": "http.disconnect"})
    await gone.finished()
    assert len(world.lifecycle.tracker) == 0


@on_both_paths
@on_one("asyncio")
async def test_a_drain_waits_for_requests_and_says_close(world: World, app: App) -> None:
    """What is in flight is finished; its response tells the client to connect elsewhere."""
    await get(world, app, "/quick")
    slow = ask(world, app, "/slow?seconds=20")
    await in_flight(world)
    world.lifecycle.terminate()
    await drain_begins(world)
    late = await get(world, app, "/quick")
    assert (late.body, late.header("connection")) == (b"2", ["close"])
    h2 = await get(world, app, "/quick", http_version="2")
    assert (h2.body, h2.header("connection")) == (b"2", [])
    await slow.finished()
    assert (slow.body, slow.header("connection")) == (b"done", ["close"])
    await drain_begins(world)
    assert not world.told(ExchangeCut)


@on_one("asyncio")
async def test_a_late_request_is_refused_when_nothing_is_left_for_it(
    world: World, app: App
) -> None:
    """A 503 at once is better than a response that is cut half-way."""
    await get(world, app, "/slow?seconds=20")
    held = ask(world, app, "/slow?seconds=500")
    await in_flight(world)
    world.lifecycle.terminate()
    await drain_begins(world)
    await anyio.sleep(10)
    reply = await get(world, app, "/quick")
    assert (reply.status, reply.body) == (503, b"draining")
    assert (reply.header("connection"), reply.header("retry-after")) == (["close"], ["1"])
    assert len(world.lifecycle.tracker) == 1
    await held.finished()
    assert world.lifecycle.core.tally.late_refused == 1


@on_one("asyncio")
async def test_what_is_left_at_the_deadline_is_cut(world: World, app: App) -> None:
    """A response that has not begun becomes a 503; it is named with where it was."""
    await get(world, app, "/quick")
    slow = ask(world, app, "/slow?seconds=500")
    stubborn = ask(world, app, "/stubborn")
    await in_flight(world, 2)
    world.lifecycle.terminate()
    await slow.finished()
    await stubborn.finished()
    assert (slow.status, slow.body) == (503, b"cut at the drain deadline")
    assert (stubborn.status, stubborn.body) == (200, b"all the same")
    (cut,) = world.told(ExchangeCut)
    assert [straggler.name for straggler in cut.stragglers] == ["GET /slow", "GET /stubborn"]
    assert "asyncio.sleep" in cut.stragglers[0].stack
    assert cut.stragglers[0].client == "10.0.0.7:50000"
    assert len(world.lifecycle.tracker) == 0


@on_one("asyncio")
async def test_a_view_in_a_thread_is_named_with_its_stack(world: World, app: App) -> None:
    """It can't be cut, but whoever reads the log learns where it hangs."""
    entered.clear()
    released.clear()
    await get(world, app, "/quick")
    call = ask(world, app, "/waits")
    while not entered.is_set():
        await anyio.lowlevel.checkpoint()
    for _ in range(3):
        world.lifecycle.terminate()
    await until(lambda: world.told(ExchangeCut))
    released.set()
    await call.until(lambda: call.over)
    (cut,) = world.told(ExchangeCut)
    assert "released.wait(10)" in cut.stragglers[0].stack


# -- streams -------------------------------------------------------------------------------------


@on_both_paths
@on_one("asyncio")
async def test_a_silent_stream_is_told_now(world: World, app: App) -> None:
    """It stands between two events, so it needs no next one; its generator is ended."""
    closed.clear()
    call = await ask(world, app, "/events").started(2)
    began = world.now
    world.lifecycle.terminate()
    await call.finished()
    assert call.body.startswith(b"data: 1\n\nretry: ")
    assert FAREWELL in call.body
    assert call.complete
    assert 5 <= world.now - began < 15
    assert closed == ["async"]
    assert world.lifecycle.core.tally.told == 1
    assert len(world.lifecycle.tracker) == 0


@on_one("asyncio")
async def test_a_farewell_waits_for_the_end_of_an_event(world: World, app: App) -> None:
    """Nothing lands inside one."""
    with override_settings(GRACEFUL={"propagation_delay": 0.5, "stream_window": 0}):
        app = ASGIHandler()
    call = await ask(world, app, "/halves").started(2)
    world.lifecycle.terminate()
    await call.finished()
    event, _, farewell = call.body.partition(b"\n\n")
    assert event == b"data: 1"
    assert farewell.startswith(b"retry: ")
    assert farewell.count(b"\n\n") == 1
    assert call.complete


@on_one("asyncio")
async def test_a_stream_whose_client_is_slow_is_told_next(world: World, app: App) -> None:
    """The app stands at its `yield` then; it is closed there, and what it has said is sent."""
    closed.clear()
    with override_settings(GRACEFUL={"stream_window": 0}):
        app = ASGIHandler()
    taken = anyio.Event()

    async def third_is_slow(message: Any) -> None:
        if message.get("body") == b"data: 2\n\n":
            await taken.wait()

    call = ask(world, app, "/chatty")
    call.on_send = third_is_slow
    await call.started(3)
    world.lifecycle.terminate()
    world.lifecycle.terminate()
    while not world.lifecycle.core.tally.told:
        await anyio.lowlevel.checkpoint()
    taken.set()
    await call.finished()
    assert call.body.startswith(b"data: 1\n\ndata: 2\n\nretry: ")
    assert call.body.count(b"data: ") == 3
    assert call.complete
    gc.collect()
    await anyio.sleep(0.1)
    assert closed == ["async"]


@on_one("asyncio")
async def test_an_app_that_raises_at_its_end_ends_all_the_same(world: World, app: App) -> None:
    """Its client has been told, so its error is nobody's."""
    call = await ask(world, app, "/sore-loser").started(2)
    world.lifecycle.terminate()
    await call.finished()
    assert FAREWELL in call.body
    assert call.complete


@on_one("asyncio")
async def test_a_stream_inside_an_event_is_cut_at_the_deadline(world: World, app: App) -> None:
    """Its client sees that the response is not whole."""
    call = await ask(world, app, "/half").started(2)
    world.lifecycle.terminate()
    await call.finished()
    assert (call.body, call.complete) == (b"data: 1\n", False)
    assert [s.name for s in world.lifecycle.core.tally.cut] == ["GET /half"]
    assert len(world.lifecycle.tracker) == 0


@on_both_paths
@on_one("asyncio")
async def test_a_new_stream_in_a_drain_is_sent_away(world: World, app: App) -> None:
    """With its own status and headers: EventSource gives up for good on anything but 200."""
    hold = ask(world, app, "/slow?seconds=20")
    await in_flight(world)
    world.lifecycle.terminate()
    await drain_begins(world)
    call = await get(world, app, "/events")
    assert call.status == 200
    assert call.header("content-type") == ["text/event-stream"]
    assert call.header("connection") == ["close"]
    assert call.body.startswith(b"retry: ")
    assert b"data: 1" not in call.body
    await hold.finished()


@on_one("asyncio")
async def test_a_declared_stream_ends_after_a_whole_record(world: World, app: App) -> None:
    """`current_exchange()` works in views, with the last words that they give."""
    call = await ask(world, app, "/rows").started(2)
    world.lifecycle.terminate()
    await call.finished()
    assert call.body == b'{"n": 1}\n{"moved": true}\n'


@on_one("asyncio")
async def test_a_sync_stream_ends_at_its_next_event(world: World, app: App) -> None:
    """Django reads all of it in a thread before it sends anything; there it is ended, too."""
    closed.clear()
    with override_settings(GRACEFUL={"stream_window": 0}):
        app = ASGIHandler()
    await get(world, app, "/quick")
    call = ask(world, app, "/endless")
    await in_flight(world)
    world.lifecycle.terminate()
    world.lifecycle.terminate()
    await call.finished()
    assert FAREWELL in call.body
    assert closed == ["sync"]


# -- together with others -------------------------------------------------------------------------


@pytest.fixture
def server() -> FakeServer:
    """A server with an integration."""
    return FakeServer()


@on_one("asyncio")
async def test_the_asgi_wrapper_further_out_does_it_all(
    world: World, server: FakeServer, app: App
) -> None:
    """Nothing is counted twice; what stands in the settings of Django is said to be lost."""
    with override_settings(GRACEFUL={"grace_period": 60}):
        app = AsgiMiddleware(ASGIHandler())
    async with world.lifespan(app):
        assert (await get(world, app, "/quick")).body == b"1"
        assert (await get(world, app, "/quick")).body == b"1"
        assert (await get(world, app, "/readyz")).status == 200
        call = await ask(world, app, "/events").started(2)
        assert len(world.lifecycle.tracker) == 1
        world.lifecycle.terminate()
        await call.finished()
        assert FAREWELL in call.body
    (said,) = [n.text for n in world.told(Notice) if "twice" in n.text]
    assert "grace_period" in said


@on_one("asyncio")
async def test_a_server_is_told_to_leave_at_the_end(
    world: World, server: FakeServer, app: App
) -> None:
    """Django knows no lifespan, so the first request joins."""
    await get(world, app, "/readyz")
    world.lifecycle.terminate()
    await drain_begins(world)
    await until(lambda: "leave" in server.log)
    assert server.log == ["attach", "stop accepting", "leave"]
    world.lifecycle._release()  # a lifespan would have said that it is over
