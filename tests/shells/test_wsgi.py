"""Ordinary requests through the WSGI shell: tracking to the close, probes, close, refusals."""

from __future__ import annotations

import gc
import http.client
import io
import json
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

import graceful
from graceful.core.inflight import BATCH, SAMPLE
from graceful.core.phases import Phase
from graceful.core.records import Fault, Notice
from graceful.wsgi import GracefulMiddleware

from .wsgi_harness import EVENTS, FAREWELL, OK, Call, Process, app_of, environ_of

StartResponse = Callable[..., Callable[[bytes], object]]


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    process = Process(monkeypatch)
    yield process
    process.end()


# -- tracked to the close --------------------------------------------------------------------


class Body:
    """An iterable with a close, as frameworks return it."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = iter(parts)
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.parts)

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("body", [[b"hello"], (b"hel", b"lo"), [b"he", b"llo"], iter([b"hello"])])
def test_a_response_is_in_flight_until_it_is_closed(process: Process, body: Any) -> None:
    """Not only until the app has returned, nor until the last part was asked for."""
    app = process.wrap(app_of(body))
    call = Call(app)
    assert process.in_flight == 1
    assert call.rest() == b"hello"
    assert process.in_flight == 1
    call.close()
    assert process.in_flight == 0
    assert process.lifecycle.tracker.served == 1
    call.close()
    assert process.lifecycle.tracker.served == 1
    assert process.phases == []  # nothing that would be worth a word
    assert process.phase is Phase.SERVING


class AnObject:
    """An app as frameworks make them."""

    def __call__(self, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        start("200 OK", [])
        return [b"hello"]


FORMS = [app_of([b"hello"]), AnObject(), AnObject().__call__, partial(app_of([b"hello"]))]


@pytest.mark.parametrize("form", FORMS, ids=["function", "object", "method", "partial"])
def test_an_app_may_be_anything_that_can_be_called(process: Process, form: Any) -> None:
    """The middleware calls some of them in a shorter way."""
    app = process.wrap(form)
    assert [Call(app).finish().text for _ in range(2)] == [b"hello"] * 2


def test_the_method_of_an_app_may_be_replaced_while_it_runs(process: Process) -> None:
    """As those do who measure: the middleware calls what is there, and keeps none."""

    class Framework(AnObject):
        pass

    def measured(self: AnObject, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        start("200 OK", [])
        return [b"measured"]

    app = process.wrap(Framework())
    assert Call(app).finish().text == b"hello"
    Framework.__call__ = measured  # type: ignore[method-assign]
    assert Call(app).finish().text == b"measured"


def test_the_body_of_the_app_is_closed_once(process: Process) -> None:
    """Also when the client went away half-way."""
    body = Body(b"1", b"2")
    call = Call(process.wrap(app_of(body)))
    call.next()
    call.close()
    assert (body.closed, process.in_flight) == (1, 0)


def test_a_close_that_raises_ends_it_all_the_same(process: Process) -> None:
    """The error is the server's to log."""
    body = Body()
    body.close = lambda: 1 // 0  # type: ignore[method-assign, assignment]
    call = Call(process.wrap(app_of(body)))
    with pytest.raises(ZeroDivisionError):
        call.finish()
    assert process.in_flight == 0


@pytest.mark.parametrize(("parts", "length"), [([b"hello"], 1), ([b"a", b"b"], None)])
def test_servers_learn_that_a_body_is_one_block(
    process: Process, parts: list[bytes], length: int | None
) -> None:
    """They make its length the Content-Length; others have no len() at all, as waitress asks."""
    body = Call(process.wrap(app_of(parts))).body
    assert (len(body) if hasattr(body, "__len__") else None) == length  # type: ignore[arg-type]
    assert body


def test_a_promised_length_is_iterated_by_the_server_alone(process: Process) -> None:
    """Nothing could end such a body before its time, so nobody looks at its parts."""
    body = Body(b"hello")
    call = Call(process.wrap(app_of(body)))
    assert iter(call.body) is body
    assert iter(Call(process.wrap(app_of(Body(b"1"), EVENTS))).body) is not body
    assert call.finish().text == b"hello"
    assert body.closed == 1


def test_a_file_goes_out_the_fast_way_and_is_tracked(process: Process) -> None:
    """The server gets its own wrapper, and the request is over when it closes that."""
    file = io.BytesIO(b"hello")
    wrapper = FileWrapper(file)
    app = process.wrap(app_of(wrapper))
    call = Call(app, where={"wsgi.file_wrapper": FileWrapper})
    assert call.body is wrapper
    assert call.rest() == b"hello"
    assert process.in_flight == 1
    call.close()
    assert process.in_flight == 0
    assert file.closed


def test_a_wrapper_that_cannot_be_told_is_sent_the_slow_way(process: Process) -> None:
    """What has no attributes of its own is wrapped like any other iterable."""

    class Slotted:
        __slots__ = ("closed", "file")

        def __init__(self, file: io.BytesIO) -> None:
            self.file = file

        def __iter__(self) -> Iterator[bytes]:
            return iter(self.file)

        def close(self) -> None:
            self.file.close()

    wrapper = Slotted(io.BytesIO(b"hello"))
    call = Call(process.wrap(app_of(wrapper)), where={"wsgi.file_wrapper": Slotted})
    assert call.body is not wrapper
    assert call.finish().text == b"hello"
    assert wrapper.file.closed
    assert process.in_flight == 0


def identity(file: Any) -> Any:
    return file


def test_a_wrapper_that_is_a_function_is_none_to_us(process: Process) -> None:
    """uWSGI's is; its result is sent like any other iterable."""
    app = process.wrap(app_of([b"hello"]))
    assert Call(app, where={"wsgi.file_wrapper": identity}).finish().text == b"hello"
    app = process.wrap(app_of(iter([b"hello"])))
    assert Call(app, where={"wsgi.file_wrapper": identity}).finish().text == b"hello"


def test_an_app_that_raises_is_not_in_flight(process: Process) -> None:
    """The server sees the very error, from the call and from the body."""

    def broken(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        Call(process.wrap(broken))
    assert process.in_flight == 0

    def parts() -> Iterator[bytes]:
        yield b"1"
        raise LookupError("in the middle")

    call = Call(process.wrap(app_of(parts())))
    assert call.next() == b"1"
    with pytest.raises(LookupError, match="in the middle"):
        call.next()
    call.close()
    assert process.in_flight == 0


@pytest.mark.parametrize("nothing", [None, 5, object()])
def test_an_app_that_returns_no_iterable(process: Process, nothing: Any) -> None:
    """One clear error, and nothing is left in flight."""
    kind = type(nothing).__name__
    with pytest.raises(TypeError, match=f"the WSGI app returned {kind}, not an iterable of bytes"):
        Call(process.wrap(app_of(nothing)))
    assert process.in_flight == 0


def test_an_iterable_that_fails_keeps_its_own_error(process: Process) -> None:
    """A TypeError of the app's is not taken for ours."""

    class Odd:
        def __iter__(self) -> Iterator[bytes]:
            raise TypeError("odd")

    with pytest.raises(TypeError, match="odd"):
        Call(process.wrap(app_of(Odd())))
    assert process.in_flight == 0


def test_the_protocol_is_the_servers_to_enforce(process: Process) -> None:
    """A response that begins twice, or not at all, is the error that the server makes of it."""

    def twice(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", OK)
        start_response("200 OK", OK)
        return [b"hello"]

    with pytest.raises(AssertionError, match="started twice"):
        Call(process.wrap(twice))
    assert process.in_flight == 0
    call = Call(process.wrap(lambda environ, start_response: [b"hello"]))
    with pytest.raises(AssertionError, match="without a beginning"):
        call.finish()
    assert process.in_flight == 0


def test_an_error_page_replaces_what_was_begun(process: Process) -> None:
    """`start_response` again, with the error, while nothing has been sent."""

    def recovers(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", EVENTS)
        try:
            raise LookupError("late")
        except LookupError:
            start_response("500 Oops", OK, sys.exc_info())
        return iter([b"oops", b"!"])

    call = Call(process.wrap(recovers)).finish()
    assert (call.status, call.text) == ("500 Oops", b"oops!")
    assert process.lifecycle.tracker.served == 1  # an ordinary response, not the stream of before


def test_an_error_after_the_first_bytes_comes_through(process: Process) -> None:
    """The server raises it in `start_response`."""

    def fails(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", OK)
        yield b"he"
        try:
            raise LookupError("too late")
        except LookupError:
            start_response("500 Oops", OK, sys.exc_info())

    call = Call(process.wrap(fails))
    call.next()
    with pytest.raises(LookupError, match="too late"):
        call.next()
    call.close()
    assert process.in_flight == 0


def test_a_response_may_begin_as_late_as_its_first_part(process: Process) -> None:
    """An app that is a generator runs only when it is iterated."""

    def late(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", OK)
        yield b"hello"

    assert Call(process.wrap(late)).finish().text == b"hello"
    process.drain()
    call = Call(process.wrap(late)).finish()
    assert (call.text, call.header("connection")) == (b"hello", ["close"])


def test_write_is_the_servers(process: Process) -> None:
    """Apps of the old kind push their body."""

    def pushes(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", OK)
        write(b"hel")
        return [b"lo"]

    assert Call(process.wrap(pushes)).finish().text == b"hello"


@pytest.mark.parametrize("path", ["/", "/gen", "/readyz", "/livez"])
@pytest.mark.parametrize("drains", [False, True])
def test_the_specification_is_kept(process: Process, path: str, *, drains: bool) -> None:
    """`wsgiref.validate` on both sides of the middleware has no complaint."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"] if environ["PATH_INFO"] == "/" else (b"%d" % n for n in range(3))

    middleware = process.wrap(validator(app))
    if drains:
        Call(middleware).finish()
        process.drain()
    call = Call(validator(middleware), path).finish()
    assert call.status[:3] == ("503" if drains and path == "/readyz" else "200")


def test_nothing_keeps_a_request_alive(process: Process) -> None:
    """Without work for the garbage collector."""
    app = process.wrap(app_of([b"hello"]))
    gc.disable()
    try:
        body: Any = app(environ_of(), Response().start_response)
        alive = weakref.ref(body)
        body.close()
        del body
        assert alive() is None
    finally:
        gc.enable()


# -- what handlers may ask -------------------------------------------------------------------


def test_handlers_find_their_exchange(process: Process) -> None:
    """In the call, in each step of the body and in its clean-up; not after the close."""
    seen: list[object] = []

    def parts() -> Iterator[bytes]:
        try:
            seen.append(graceful.current_exchange())
            yield b"1"
            seen.append(graceful.current_exchange())
            yield b"2"
        finally:
            seen.append(graceful.current_exchange())

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        seen.append(graceful.current_exchange())
        start_response("200 OK", OK)
        return parts()

    Call(process.wrap(app)).finish()
    assert len(seen) == 4
    assert seen[0] is not None
    assert set(map(id, seen)) == {id(seen[0])}
    assert graceful.current_exchange() is None
    assert not graceful.draining()


def test_two_responses_of_one_thread_are_kept_apart(process: Process) -> None:
    """Test clients and some servers go back and forth between them."""

    def parts() -> Iterator[bytes]:
        mine = graceful.current_exchange()
        for _ in range(3):
            assert graceful.current_exchange() is mine
            yield b"."

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", OK)
        return parts()

    wrapped = process.wrap(app)
    one, two = Call(wrapped), Call(wrapped)
    assert process.in_flight == 2
    assert [one.next(), two.next(), one.next(), two.next(), one.rest(), two.rest()]
    one.close()
    two.close()
    assert process.in_flight == 0


def test_a_request_within_a_request_is_one_of_its_own(process: Process) -> None:
    """A batch endpoint calls its app; its own exchange is the current one afterwards."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        mine = graceful.current_exchange()
        text = b"inner"
        if environ["PATH_INFO"] == "/batch":
            text = Call(wrapped).finish().text
            assert process.in_flight == 1
            assert graceful.current_exchange() is mine
        start_response("200 OK", OK)
        return [text]

    wrapped = process.wrap(app)
    assert Call(wrapped, "/batch").finish().text == b"inner"
    assert process.lifecycle.tracker.served == 2
    assert graceful.current_exchange() is None


def test_a_middleware_inside_another_only_passes_on(process: Process) -> None:
    """One request is counted once, and probes are answered outside."""
    inner = process.wrap(app_of([b"hello"]))
    outer = process.wrap(inner)
    call = Call(outer)
    assert process.in_flight == 1
    assert call.finish().text == b"hello"
    assert process.lifecycle.tracker.served == 1


def test_an_app_that_has_served_before_a_fork(process: Process) -> None:
    """In the child it takes part in the child's life, not in what is left of its parent's."""
    app = process.wrap(app_of([b"hello"]))
    Call(app).finish()
    before = process.lifecycle.tracker
    process.lifecycle.forget_in_child()
    call = Call(app)
    assert process.in_flight == 1
    assert process.phase is Phase.SERVING
    call.finish()
    assert (before.served, process.lifecycle.tracker.served) == (1, 1)


def test_threads_are_served_side_by_side(process: Process) -> None:
    """Many requests in many threads leave nothing in flight, and none of the sample is lost."""
    app = process.wrap(app_of([b"hello"]))
    barrier = threading.Barrier(4)

    def serve() -> None:
        barrier.wait(20)
        for _ in range(1000):
            Call(app).finish()

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert process.in_flight == 0
    served = process.lifecycle.tracker.served
    assert BATCH <= served < BATCH + len(threads)  # those that were about to be timed
    assert process.lifecycle.tracker.latency.total == served
    Call(app, "/livez").finish()
    for _ in range(2 * SAMPLE):
        Call(app).finish()
    assert process.lifecycle.tracker.served == served + SAMPLE


def test_what_began_untimed_is_waited_for_in_a_drain(process: Process) -> None:
    """Only a sample is timed, but a drain hears of the end of each."""
    app = process.wrap(app_of([b"hello"]))
    for _ in range(BATCH):
        Call(app).finish()
    assert not process.lifecycle.tracker.timing
    last, heard = Call(app), list[int]()
    process.drain()
    process.lifecycle.tracker.on_end = lambda: heard.append(process.in_flight)
    last.finish()
    assert heard == [0]
    assert process.lifecycle.tracker.served == BATCH + 1


def test_the_collector_may_close_a_response_at_any_time(process: Process) -> None:
    """Also one that was never closed, while the end of another is being counted."""
    app = process.wrap(app_of([b"hello"]))
    forgotten = Call(app)
    process.lifecycle.tracker.on_batch = forgotten.close
    process.lifecycle.lame_duck()
    for _ in range(BATCH):
        Call(app).finish()
    assert process.in_flight == 0


# -- probes ----------------------------------------------------------------------------------


def never(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """No probe gets this far."""
    raise AssertionError("the app was asked")


def test_probes_are_answered_before_the_app(process: Process) -> None:
    """And are no requests that anybody would count."""
    app = process.wrap(never)
    for path, status in (("/readyz", "ready"), ("/livez", "live")):
        call = Call(app, path).finish()
        assert call.status == "200 OK"
        assert json.loads(call.text) == {"status": status, "phase": "serving"}
        assert call.header("cache-control") == ["no-store"]
        assert call.header("content-length") == [str(len(call.text))]
    assert process.lifecycle.tracker.served == 0


def test_readiness_follows_the_phase_and_liveness_does_not(process: Process) -> None:
    """503 from the flip on."""
    app = process.wrap(never)
    Call(app, "/readyz").finish()
    process.drain()
    assert Call(app, "/readyz").finish().status == "503 Service Unavailable"
    assert Call(app, "/livez").finish().status == "200 OK"


def test_other_methods_and_heads(process: Process) -> None:
    """As on ASGI."""
    app = process.wrap(never)
    call = Call(app, "/readyz", REQUEST_METHOD="POST").finish()
    assert (call.status, call.header("allow")) == ("405 Method Not Allowed", ["GET, HEAD"])
    call = Call(app, "/readyz", REQUEST_METHOD="HEAD").finish()
    assert (call.status, call.text) == ("200 OK", b"")


def test_paths_can_be_moved_and_switched_off(process: Process) -> None:
    """None = the app gets it."""
    app = process.wrap(app_of([b"hello"]), readiness_path="/health", liveness_path=None)
    assert b"ready" in Call(app, "/health").finish().text
    assert Call(app, "/livez").finish().text == b"hello"
    assert Call(app, "/readyz").finish().text == b"hello"


def test_paths_that_only_look_like_a_probes(process: Process) -> None:
    """They are the app's, and so is an empty one, which a server may leave out."""
    app = process.wrap(app_of([b"hello"]))
    for path in ("", "/", "/z", "/readyz/z", "/xreadyz"):
        assert Call(app, path).finish().text == b"hello"
    nowhere = environ_of()
    del nowhere["PATH_INFO"]
    body: Any = app(nowhere, Response().start_response)
    assert list(body) == [b"hello"]


def test_an_app_with_its_own_readiness_is_asked_while_ready(process: Process) -> None:
    """`readiness_mode="wrap"`."""
    app = process.wrap(app_of([b"hello"]), readiness_mode="wrap")
    assert Call(app, "/readyz").finish().text == b"hello"
    process.drain()
    assert Call(app, "/readyz").finish().status == "503 Service Unavailable"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_checks_run_whatever_they_are(process: Process, kind: str) -> None:
    """On a loop in a thread, which is started for them; the body names what failed."""
    failing: list[bool] = []

    def sync() -> object:
        return not failing

    async def asynchronous() -> object:
        if failing:
            raise LookupError("secret")
        return None

    check = sync if kind == "sync" else asynchronous
    app = process.wrap(never, checks={"database": check})
    assert Call(app, "/readyz").finish().status == "200 OK"
    process.end()
    failing.append(True)
    app = process.wrap(never, checks={"database": check})
    call = Call(app, "/readyz").finish()
    assert call.status == "503 Service Unavailable"
    assert json.loads(call.text)["checks"] == {"database": "failed"}
    assert b"secret" not in call.text
    assert [r.what for r in process.records if isinstance(r, Fault)] == [
        "readiness check 'database'"
    ]


def test_the_private_port_opens_with_the_first_request(process: Process) -> None:
    """And closes when the app leaves."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    app = process.wrap(app_of([b"hello"]), probe_port=port)
    Call(app).finish()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", "/readyz")
        assert connection.getresponse().status == 200
    app.leave()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 20)


# -- bad settings ----------------------------------------------------------------------------

BAD: list[dict[str, Any]] = [
    {"grace_period": 5},
    {"no_such_setting": 1},
    {"on_drain": "not callable"},
    {"observers": [3]},
    {"sse_event": "two\nlines"},
    {"checks": {"database": 5}},
]


@pytest.mark.parametrize("settings", BAD)
def test_a_mistake_is_answered_to_every_request(process: Process, settings: Any) -> None:
    """503 that names it, for readiness too; liveness goes on, or the container would be killed."""
    app = process.wrap(never, **settings)
    assert app.error is not None
    for path in ("/", "/readyz"):
        call = Call(app, path).finish()
        assert call.status == "503 Service Unavailable"
        assert call.text.decode() == str(app.error)
    assert process.in_flight == 0


def test_apps_that_contradict_each_other(process: Process) -> None:
    """The second is told, by name and values, and works when the first has left."""
    first = process.wrap(app_of([b"hello"]), stream_window=5)
    second = process.wrap(app_of([b"hello"]), stream_window=4)
    assert Call(first).finish().text == b"hello"
    call = Call(second).finish()
    assert call.status == "503 Service Unavailable"
    assert b"stream_window is 5.0 in GracefulMiddleware" in call.text
    assert Call(second, "/readyz").finish().status == "503 Service Unavailable"
    assert Call(second, "/livez").finish().status == "200 OK"
    first.leave()
    assert Call(second).finish().text == b"hello"


def test_a_stray_variable_is_said_once(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no reason to stop."""
    monkeypatch.setenv("GRACEFUL_PERIOD", "3")
    app = process.wrap(app_of([b"hello"]))
    Call(app).finish()
    Call(app).finish()
    assert len([r for r in process.records if isinstance(r, Notice)]) == 1


# -- the end of a connection -----------------------------------------------------------------


class Response:
    """gunicorn's, as far as we know it."""

    def __init__(self) -> None:
        self.must_close = False
        self.headers: list[tuple[str, str]] = []

    def force_close(self) -> None:
        self.must_close = True

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        self.headers = headers
        return self.headers.append


def test_serving_says_nothing_about_the_connection(process: Process) -> None:
    """What the app says stays."""
    kept = [*OK, ("Connection", "keep-alive")]
    call = Call(process.wrap(app_of([b"hello"], kept))).finish()
    assert call.header("connection") == ["keep-alive"]


@pytest.mark.parametrize(("lot", "said"), [(0.0, ["close"]), (0.999, [])])
def test_lame_duck_closes_by_lot(process: Process, lot: float, said: list[str]) -> None:
    """More and more over the delay; drawn for each response."""
    app = process.wrap(app_of([b"hello"]), propagation_delay=5)
    Call(app).finish()
    process.lifecycle.move(process.lifecycle.core.lame_duck)
    process.lot = lot
    assert Call(app).finish().header("connection") == said


def test_draining_always_closes(process: Process) -> None:
    """Whatever the app says itself, also for what had come before."""
    app = process.wrap(app_of([b"hello"], [*OK, ("connection", "keep-alive")]))
    Call(app).finish()
    process.drain()
    assert Call(app).finish().header("connection") == ["close"]


@pytest.mark.parametrize(
    "where",
    [
        {"SERVER_SOFTWARE": "WSGIServer/0.2"},
        {"SERVER_SOFTWARE": "something", "wsgi.file_wrapper": FileWrapper},
        {"SERVER_PROTOCOL": "HTTP/2.0"},
    ],
)
def test_a_server_that_forbids_the_header_never_sees_it(process: Process, where: Any) -> None:
    """wsgiref asserts on it, and HTTP/2 has none; nor in a refusal."""
    app = process.wrap(app_of([b"hello"]))
    Call(app).finish()
    process.drain()
    assert Call(app, where=where).finish().header("connection") == []
    process.lifecycle.move(process.lifecycle.core.drained)
    call = Call(app, where=where).finish()
    assert (call.status, call.header("connection")) == ("503 Service Unavailable", [])


def test_a_stream_that_was_told_keeps_the_connection_that_it_promised(process: Process) -> None:
    """A balancer sends the next request on it at once: closed then, it would be lost."""
    response = Response()
    app = process.wrap(app_of(iter([b"data: 1\n\n"] * 3), EVENTS))
    server = {"SERVER_SOFTWARE": "gunicorn/27.0.1"}
    body = iter(app(environ_of(**server), response.start_response))
    next(body)
    process.drain()
    process.drive()
    assert not response.must_close
    assert next(body) == FAREWELL
    assert not response.must_close


def test_gunicorn_is_asked_through_its_response(process: Process) -> None:
    """It drops the header, and announces keep-alive."""
    app = process.wrap(app_of([b"hello"]))
    Call(app).finish()
    response = Response()
    environ = {"SERVER_SOFTWARE": "gunicorn/27.0.1", "PATH_INFO": "/"}
    with closing(app(dict(environ), response.start_response)):  # type: ignore[type-var]
        assert not response.must_close
    process.drain()
    with closing(app(dict(environ), response.start_response)):  # type: ignore[type-var]
        pass
    assert response.must_close
    assert response.headers == OK
    assert Call(app, SERVER_SOFTWARE="gunicorn/27.0.1").finish().header("connection") == ["close"]


def test_a_late_request_is_served_while_there_is_time(process: Process) -> None:
    """And refused when there is none: 503, to be tried again, on another connection."""
    app = process.wrap(app_of([b"hello"]))
    Call(app).finish()
    process.drain()
    assert Call(app).finish().status == "200 OK"
    process.lifecycle.move(process.lifecycle.core.drained)
    call = Call(app).finish()
    assert call.status == "503 Service Unavailable"
    assert (call.header("retry-after"), call.header("connection")) == (["1"], ["close"])
    assert process.in_flight == 0
    assert process.lifecycle.core.tally.late_refused == 1
    assert process.lifecycle.tracker.served == 2  # how long a refusal took says nothing


# -- membership ------------------------------------------------------------------------------


def test_an_app_may_leave_and_come_back(process: Process) -> None:
    """A test suite serves one app in many lives."""
    app = process.wrap(app_of([b"hello"]))
    for _ in range(2):
        assert Call(app).finish().status == "200 OK"
        assert process.phase is Phase.SERVING
        app.leave()
        app.leave()
    assert process.lifecycle.core.phase is not Phase.SERVING


def test_a_worker_whose_first_request_is_its_last(process: Process) -> None:
    """It comes while the drain of the process is under way, and begins no new life."""
    first, second = process.wrap(app_of([b"hello"])), process.wrap(app_of([b"hello"]))
    Call(first).finish()
    process.drain()
    assert Call(second, "/readyz").finish().status == "503 Service Unavailable"
    call = Call(second).finish()
    assert (call.status, call.header("connection")) == ("200 OK", ["close"])
    assert process.phase is Phase.DRAINING


def test_hooks_and_observers_are_its_own(process: Process) -> None:
    """They come with it and go with it."""
    told: list[object] = []
    app = process.wrap(app_of([b"hello"]), on_drain=lambda: None, observers=[told.append])
    Call(app).finish()
    assert [hook.phase for hook in process.lifecycle.hooks] == ["drain"]
    process.lifecycle.publish(Notice("something"))
    assert told == [Notice("something")]
    app.leave()
    process.lifecycle.publish(Notice("something else"))
    assert len(told) == 1
    assert process.lifecycle.hooks == []


def test_no_signal_is_taken(process: Process) -> None:
    """Nobody could pass it on: the server is not known, and its thread not ours."""
    import signal

    before = signal.getsignal(signal.SIGTERM)
    handled: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: handled.append(number))
    mine = signal.getsignal(signal.SIGTERM)
    try:
        Call(process.wrap(app_of([b"hello"]))).finish()
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("where", ["call", "body", "server"])
def test_a_straggler_is_named_with_the_stack_of_its_thread(process: Process, where: str) -> None:
    """Whether the app hangs in its call or in a step of its body, or the server in its socket."""
    stuck, free = threading.Event(), threading.Event()

    def wait_here() -> None:
        stuck.set()
        free.wait(20)

    def parts() -> Iterator[bytes]:
        if where == "body":
            wait_here()
        yield b"1"

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", OK)
        if where == "call":
            wait_here()
        return parts()

    def serve() -> None:
        call = Call(wrapped, "/caf\xc3\xa9")
        parts = iter(call.body)
        call.parts.append(next(parts))
        if where == "server":
            wait_here()
        call.close()

    wrapped = process.wrap(app)
    thread = threading.Thread(target=serve)
    thread.start()
    assert stuck.wait(20)
    (straggler,) = process.lifecycle.core.stragglers(process.lifecycle.clock(), stacks=True)
    free.set()
    thread.join(20)
    assert (straggler.name, straggler.client) == ("GET /café", "10.0.0.7:50000")
    assert "in wait_here" in straggler.stack
    inner = {"call": "in app", "body": "in parts", "server": "in serve"}[where]
    assert inner in straggler.stack
    assert "secret" not in straggler.stack


def test_the_middleware_stands_for_what_it_wraps(process: Process) -> None:
    """Its settings can be read."""
    app = app_of([b"hello"])
    assert process.wrap(app, grace_period=60).settings.grace_period == 60
    assert GracefulMiddleware(app).app is app
