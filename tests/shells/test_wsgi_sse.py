"""Server-sent events and declared streams through the WSGI shell: where a farewell may land."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import graceful
from graceful.core.phases import Phase
from graceful.core.records import DrainReport
from graceful.wsgi import App

from .wsgi_harness import EVENTS, FAREWELL, OK, Call, Process, app_of

StartResponse = Callable[..., Callable[[bytes], object]]
LIMIT = 20.0


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    process = Process(monkeypatch)
    yield process
    process.end()


class Feed:
    """A body of parts that notices its end."""

    def __init__(self, *parts: bytes) -> None:
        self.left = list(parts)
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self.left:
            raise StopIteration
        return self.left.pop(0)

    def close(self) -> None:
        self.closed = True


# -- where a farewell may land ---------------------------------------------------------------


def test_a_stream_ends_at_the_next_boundary(process: Process) -> None:
    """After the event that is under way, with the farewell; then the app's iterable is closed."""
    feed = Feed(b"data: 1\n\n", b"data: ", b"2\n\n", b"data: 3\n\n")
    call = Call(process.wrap(app_of(feed, EVENTS)))
    assert call.next() == b"data: 1\n\n"
    assert call.next() == b"data: "
    process.drain()
    process.drive()
    assert call.next() == b"2\n\n"
    assert call.next() == FAREWELL
    with pytest.raises(StopIteration):
        call.next()
    with pytest.raises(StopIteration):
        call.next()
    assert not feed.closed
    call.close()
    assert feed.closed
    assert feed.left == [b"data: 3\n\n"]
    assert process.lifecycle.core.tally.told == 1
    assert process.in_flight == 0


@pytest.mark.parametrize("sent", [0, 1, 2, 3])
def test_a_stream_at_a_boundary_needs_no_next_event(process: Process, sent: int) -> None:
    """Its app is not asked again: the generator might be silent for an hour."""
    feed = Feed(*[b"data: 1\n\n"] * 5)
    call = Call(process.wrap(app_of(feed, EVENTS)))
    for _ in range(sent):
        call.next()
    process.drain()
    process.drive()
    assert call.next() == FAREWELL
    call.finish()
    assert len(feed.left) == 5 - sent
    assert feed.closed


def test_an_encoded_stream_ends_between_two_parts(process: Process) -> None:
    """Nothing can be added to it; its client redials when it ends."""
    feed = Feed(b"\x1f1", b"\x1f2", b"\x1f3")
    call = Call(process.wrap(app_of(feed, [*EVENTS, ("Content-Encoding", "gzip")])))
    call.next()
    process.drain()
    process.drive()
    assert call.rest() == b""
    call.close()
    assert feed.closed
    assert process.lifecycle.core.tally.told == 1


def test_a_promised_length_is_kept(process: Process) -> None:
    """A body with a Content-Length is finished, whatever its type."""
    feed = Feed(b"data: 1\n\n", b"data: 2\n\n")
    call = Call(process.wrap(app_of(feed, [*EVENTS, ("Content-Length", "18")])))
    call.next()
    process.drain()
    process.drive()
    assert call.finish().text == b"data: 1\n\ndata: 2\n\n"


def test_ordinary_bodies_are_left_alone(process: Process) -> None:
    """A download in parts is no stream."""
    feed = Feed(b"1\n\n", b"2\n\n", b"3\n\n")
    call = Call(process.wrap(app_of(feed, [("Content-Type", "text/csv")])))
    call.next()
    call.next()
    process.drain()
    process.drive()
    assert call.finish().text == b"1\n\n2\n\n3\n\n"
    assert process.lifecycle.core.tally.told == 0
    assert process.lifecycle.tracker.served == 1


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_a_new_stream_is_turned_away(process: Process, name: str) -> None:
    """Status and headers as the app sent them, the farewell, the end; its generator never runs."""
    feed = Feed(b"data: 1\n\n")
    headers = [(name, "text/event-stream"), ("Access-Control-Allow-Origin", "*")]
    app = process.wrap(app_of(feed, headers))
    Call(app).finish()
    feed.closed, feed.left = False, [b"data: 1\n\n"]
    process.drain()
    call = Call(app).finish()
    assert call.status == "200 OK"
    assert call.begun[0][1] == [*headers, ("Connection", "close")]
    assert call.text == FAREWELL
    assert feed.left
    assert feed.closed
    assert process.in_flight == 0


def test_a_stream_that_begins_late_is_turned_away(process: Process) -> None:
    """An app that is a generator has given an event when it is known for a stream."""
    closed: list[bool] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", EVENTS)
        try:
            yield b"data: half "
            yield b"of it\n\n"
        finally:
            closed.append(True)

    wrapped = process.wrap(app)
    assert Call(wrapped).finish().text == b"data: half of it\n\n"
    process.drain()
    assert Call(wrapped).finish().text == FAREWELL
    assert len(closed) == 2


def test_a_head_request_is_no_stream(process: Process) -> None:
    """It has no body that could hold anybody up."""
    app = process.wrap(app_of([], EVENTS))
    Call(app).finish()
    process.drain()
    assert Call(app, REQUEST_METHOD="HEAD").finish().text == b""
    assert process.lifecycle.core.tally.told == 0


def test_events_of_the_old_kind(process: Process) -> None:
    """An app that pushes its events learns by an error that the stream is over."""
    said: list[str] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", EVENTS)
        try:
            for number in range(5):
                write(b"data: %d\n" % number)
                if number == 2:
                    process.drain()
                    process.drive()
                write(b"\n")
        finally:
            said.append("over")
        return []

    wrapped = process.wrap(app)
    call = Call(wrapped).finish()
    assert call.text == b"data: 0\n\ndata: 1\n\ndata: 2\n\n" + FAREWELL
    assert Call(wrapped).finish().text == FAREWELL
    assert said == ["over", "over"]
    assert process.in_flight == 0


def test_the_name_of_the_event_can_be_set(process: Process) -> None:
    """And clients find their delay in it."""
    app = process.wrap(app_of([b"data: 1\n\n"], EVENTS), sse_event="bye")
    Call(app).finish()
    process.drain()
    lines = Call(app).finish().text.decode().splitlines()
    assert lines[1] == "event: bye"
    assert json.loads(lines[2].removeprefix("data: ")) == {"retry_after_ms": 500}


def event_of(lines: list[int], eol: bytes) -> bytes:
    """Return an event of some lines, with ends of line as a server may choose them."""
    return b"".join(b"data: %d" % n + eol for n in lines) + eol


EVENT = st.builds(
    event_of,
    st.lists(st.integers(0, 99), max_size=3),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    events=st.lists(EVENT, min_size=1, max_size=6),
    cuts=st.lists(st.integers(1, 200), max_size=12),
    at=st.integers(0, 12),
    written=st.booleans(),
)
@example(events=[b"data: 1\r\n\r\n"], cuts=[10], at=1, written=False)
@example(events=[b"data: 1\n\n"] * 3, cuts=[8, 9, 10], at=1, written=True)
def test_wherever_the_chunks_are_cut(
    monkeypatch: pytest.MonkeyPatch, events: list[bytes], cuts: list[int], at: int, written: bool
) -> None:
    """The client has whole events and then the farewell, or everything when it came too late."""
    process = Process(monkeypatch)
    whole = b"".join(events)
    places = [0, *sorted({cut for cut in cuts if cut < len(whole)}), len(whole)]
    chunks = [whole[a:b] for a, b in pairwise(places)]

    def due(index: int) -> bool:
        if index == at:
            process.drain()
            process.drive()
        return True

    def pushes(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", EVENTS)
        for index, chunk in enumerate(chunks):
            due(index)
            write(chunk)
        return []

    feed = Feed(*chunks)
    call = Call(process.wrap(pushes if written else app_of(feed, EVENTS)))
    for index in range(len(chunks)) if not written else ():
        due(index)
        if call.next() == FAREWELL:
            break
    call.finish()
    process.end()

    ends = [0, *accumulate(map(len, events))]
    if call.text.endswith(FAREWELL):
        sent = call.text.removesuffix(FAREWELL)
        assert whole.startswith(sent)
        # An event that ends in the middle of a chunk is no place to end; CR LF may end early, in
        # which case the client has the event as well.
        assert len(sent) in ends or whole[len(sent) :] == b"\n" or sent.endswith((b"\r", b"\n\n"))
        assert len(sent) >= places[min(at, len(chunks))]
    else:
        assert call.text == whole
        assert at >= len(chunks) or not written
    assert process.in_flight == 0


# -- streams that the app declares -----------------------------------------------------------


def declares(feed: Feed, policy: Any, early: bool, **more: Any) -> App:
    """Return an app that declares its response a stream, early or in its first step."""

    def declare() -> None:
        exchange = graceful.current_exchange()
        assert exchange is not None
        exchange.declare_stream(policy, **more)

    def parts() -> Iterator[bytes]:
        try:
            for index, part in enumerate(feed):
                if index == 0 and not early:
                    declare()
                yield part
        finally:
            feed.close()

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if early:
            declare()
        start_response("200 OK", [("Content-Type", "application/x-ndjson")])
        return parts()

    return app


both = pytest.mark.parametrize("early", [False, True])


@both
def test_a_declared_stream_ends_after_a_record(process: Process, early: bool) -> None:
    """With the app's own last words."""
    feed = Feed(b"1\n2", b"\n", b"3\n", b"4\n")
    app = declares(feed, "reconnect", early, boundary=b"\n", farewell=b"bye\n")
    call = Call(process.wrap(app))
    call.next()
    process.drain()
    process.drive()
    assert call.finish().text == b"1\n2\nbye\n"
    assert feed.closed
    assert process.lifecycle.core.tally.told == 1


@both
def test_without_a_boundary_it_ends_after_what_was_yielded(process: Process, early: bool) -> None:
    """There is no client leaving to be seen on WSGI."""
    feed = Feed(b"1", b"2", b"3")
    call = Call(process.wrap(declares(feed, "reconnect", early)))
    call.next()
    process.drain()
    process.drive()
    assert call.finish().text == b"1"
    assert feed.closed


@both
def test_what_cannot_be_resumed_is_left_to_finish(process: Process, early: bool) -> None:
    """`finish`: a drain waits for it."""
    feed = Feed(b"1\n", b"2\n")
    call = Call(process.wrap(declares(feed, "finish", early, boundary=b"\n")))
    call.next()
    process.drain()
    process.drive()
    assert call.finish().text == b"1\n2\n"
    assert process.lifecycle.core.tally.told == 0


def test_events_that_are_left_to_finish(process: Process) -> None:
    """`exchange.finish()`, for tokens of an answer."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        exchange = graceful.current_exchange()
        assert exchange is not None
        exchange.finish()
        start_response("200 OK", EVENTS)
        return Feed(b"data: a\n\n", b"data: b\n\n")

    wrapped = process.wrap(app)
    call = Call(wrapped)
    call.next()
    process.drain()
    process.drive()
    assert call.finish().text == b"data: a\n\ndata: b\n\n"
    assert Call(wrapped).finish().text == b"data: a\n\ndata: b\n\n"


@both
def test_a_declared_stream_that_comes_late_is_turned_away(process: Process, early: bool) -> None:
    """At its first record at the latest."""
    feed = Feed(b"1\n", b"2\n")
    app = process.wrap(declares(feed, "reconnect", early, boundary=b"\n", farewell=b"bye\n"))
    Call(app).finish()
    process.drain()
    feed.left = [b"1\n", b"2\n"]
    assert Call(app).finish().text in (b"bye\n", b"1\nbye\n")


# -- with the driver -------------------------------------------------------------------------


def test_a_drain_tells_the_streams_and_names_the_silent(process: Process) -> None:
    """One that sends events is told; one that blocks in its thread is named with its stack."""
    free, told = threading.Event(), threading.Event()

    def talking() -> Iterator[bytes]:
        while not free.wait(0.01):
            yield b"data: 1\n\n"

    def wait_for_news() -> None:
        free.wait(LIMIT)

    def silent() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        wait_for_news()

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", EVENTS)
        return talking() if environ["PATH_INFO"] == "/talking" else silent()

    wrapped = process.wrap(
        app,
        grace_period=3,
        propagation_delay=0,
        stream_window=0.2,
        linger=0,
        cleanup_timeout=0,
        drain_timeout=0.6,
        on_drain=told.set,
    )
    calls: dict[str, Call] = {}

    def serve(path: str) -> None:
        calls[path] = Call(wrapped, path)
        calls[path].finish()

    threads = [threading.Thread(target=serve, args=(p,)) for p in ("/talking", "/silent")]
    for thread in threads:
        thread.start()
    while sum(len(call.parts) for call in list(calls.values())) < 4:
        free.wait(0.001)
    process.lifecycle.terminate()
    threads[0].join(LIMIT)
    assert calls["/talking"].text.endswith(b'"retry_after_ms":%d}\n\n' % 50)
    assert b"event: reconnect\n" in calls["/talking"].text
    assert told.wait(LIMIT)
    while not process.lifecycle.core.tally.cut:
        free.wait(0.001)
    (straggler,) = process.lifecycle.core.tally.cut
    assert straggler.name == "GET /silent"
    assert "in wait_for_news" in straggler.stack
    free.set()
    threads[1].join(LIMIT)
    wrapped.leave()
    report = next(r for r in process.records if isinstance(r, DrainReport))
    assert (report.told, report.streams_at_drain, report.clean) == (1, 2, False)
    assert process.phases[-1] is Phase.STOPPED


def test_a_drain_waits_for_what_is_in_flight(process: Process) -> None:
    """And says so in order: lame duck, draining, closing; nothing is cut."""
    free = threading.Event()

    def parts() -> Iterator[bytes]:
        yield b"he"
        free.wait(LIMIT)
        yield b"llo"

    wrapped = process.wrap(
        app_of(parts(), OK), grace_period=10, propagation_delay=0.05, linger=0, stream_window=0.1
    )
    call = Call(wrapped)
    call.next()
    process.lifecycle.terminate()
    while process.phase is not Phase.DRAINING:
        free.wait(0.001)
    free.set()
    assert call.finish().text == b"hello"
    process.end()
    report = next(r for r in process.records if isinstance(r, DrainReport))
    assert (report.clean, report.in_flight_at_signal) == (True, 1)
    order = [Phase.LAME_DUCK, Phase.DRAINING, Phase.CLOSING, Phase.STOPPED]
    assert process.phases == order
