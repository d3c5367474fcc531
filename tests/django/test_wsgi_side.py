"""Requests that come over WSGI: Django's test client, and its handler as a server calls it."""

from __future__ import annotations

import gc
import json
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.core.signals import request_finished
from django.test import Client, override_settings

import graceful
from graceful._wsgi_exchange import WsgiExchange
from graceful.context import exchange_var
from graceful.core.inflight import Exchange
from graceful.core.phases import Phase
from graceful.integrations.django.conf import Configuration
from graceful.integrations.django.wsgi_side import WsgiSide
from graceful.lifecycle import Lifecycle
from graceful.wsgi import GracefulMiddleware as WsgiMiddleware

from .urls import closed, meanwhile

FAREWELL = b"event: reconnect\n"


class Wrapper(FileWrapper):
    """The file wrapper of a server that is not built on wsgiref's handlers."""


def start(path: str, handler: Any = None, **more: Any) -> tuple[str, dict[str, str], Any]:
    """Call a handler of Django's, a new one if none is given.

    Returns status, headers and the body that is to be closed.
    """
    environ: dict[str, Any] = {"PATH_INFO": path, "HTTP_HOST": "example.org"}
    setup_testing_defaults(environ)
    environ |= {"wsgi.file_wrapper": Wrapper, "SERVER_SOFTWARE": "a server", **more}
    answer: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        answer[:] = [status, dict(headers)]

    called: Any = handler or WSGIHandler()
    body = called(environ, start_response)
    return answer[0], answer[1], body


def ignored(exchange: Exchange, error: Exception) -> None:
    """Is told of a farewell that went wrong."""


def client(**defaults: Any) -> Any:
    """Return Django's test client, whose answers have types of many kinds."""
    return Client(**defaults)


def begin_drain(lifecycle: Lifecycle) -> None:
    """Take the steps of a stop by hand; nobody drives."""
    with lifecycle._lock:
        now = lifecycle.clock()
        lifecycle.core.shutdown("a test", now)
        for exchange in tuple(lifecycle.tracker.live):
            exchange.watch()


def test_probes_are_answered_before_hosts_are_looked_at(lifecycle: Lifecycle) -> None:
    """A kubelet sends the pod's IP as Host; everything else of an unknown host is refused."""
    browser = client(HTTP_HOST="10.1.2.3:8000")
    ready = browser.get("/readyz")
    assert (ready.status_code, json.loads(ready.content)["status"]) == (200, "ready")
    assert ready["Cache-Control"] == "no-store"
    assert ready["Content-Type"] == "application/json"
    assert browser.get("/livez").status_code == 200
    assert browser.head("/readyz").content == b""
    assert browser.post("/readyz").status_code == 405
    assert browser.get("/quick-sync").status_code == 400


def test_readiness_flips_and_liveness_does_not(lifecycle: Lifecycle) -> None:
    """From the first moment of a stop."""
    browser = client()
    assert browser.get("/readyz").status_code == 200
    begin_drain(lifecycle)
    assert browser.get("/readyz").status_code == 503
    assert browser.get("/livez").status_code == 200


def test_a_request_is_in_flight_until_its_response_is_closed(lifecycle: Lifecycle) -> None:
    """Nothing is left behind by any kind of response."""
    browser = client()
    assert browser.get("/quick-sync").content == b"1"
    assert browser.get("/quick").content == b"1"
    assert browser.get("/stream").getvalue() == b"abc"
    assert browser.get("/file").getvalue().startswith(b'"""Views')
    with pytest.raises(LookupError):
        browser.get("/fails")
    assert len(lifecycle.tracker) == 0
    assert lifecycle.tracker.served == 5
    _, _, body = start("/stream")
    assert len(lifecycle.tracker) == 1
    assert b"".join(body) == b"abc"
    assert len(lifecycle.tracker) == 1
    body.close()
    assert len(lifecycle.tracker) == 0


def test_a_file_keeps_its_fast_path(lifecycle: Lifecycle) -> None:
    """The server gets its own wrapper, and the request is over when that is closed."""
    _, _, body = start("/file")
    assert type(body) is Wrapper
    gc.collect()  # the response itself is held by nobody
    assert len(lifecycle.tracker) == 1
    body.close()
    assert body.filelike.closed
    assert len(lifecycle.tracker) == 0


def test_a_response_that_is_dropped_is_over(lifecycle: Lifecycle) -> None:
    """Not every server, and no test client, closes what it never began to send."""
    _, _, body = start("/quick-sync")
    assert len(lifecycle.tracker) == 1
    del body
    assert len(lifecycle.tracker) == 0


def test_a_drain_says_close_where_the_server_allows_it(lifecycle: Lifecycle) -> None:
    """wsgiref, and so runserver, takes the header for an error; HTTP/2 has none."""
    client().get("/quick-sync")
    begin_drain(lifecycle)
    for path in ("/quick-sync", "/stream"):
        assert start(path)[1]["Connection"] == "close"
        assert "Connection" not in start(path, SERVER_SOFTWARE="WSGIServer/0.2")[1]
        assert "Connection" not in start(path, SERVER_PROTOCOL="HTTP/2")[1]


@pytest.fixture
def serving(lifecycle: Lifecycle) -> Any:
    """A handler that has served a request: the next one goes the short way."""
    exchange_var.set(None)  # other tests leave one that is over, which is looked at more closely
    handler = WSGIHandler()
    start("/quick-sync", handler)[2].close()
    return handler


@pytest.fixture
def happens() -> Iterator[list[Callable[[], None]]]:
    """What the view `eventful` does; nothing in other tests."""
    meanwhile.clear()
    yield meanwhile
    meanwhile.clear()


def test_the_short_way_ends_with_the_response(lifecycle: Lifecycle, serving: Any) -> None:
    """Closed, once or twice, or dropped; and nothing is left for the collector."""
    told: list[object] = []

    def finished(**_: object) -> None:
        told.append(None)

    request_finished.connect(finished)
    gc.disable()
    try:
        for closes in (1, 2, 0):
            _, _, body = start("/quick-sync", serving)
            (exchange,) = map(weakref.ref, lifecycle.tracker.live)
            over = body.close
            for _ in range(closes):
                over()
            assert len(lifecycle.tracker) == (closes == 0)
            assert len(told) == (closes > 0)  # Django's own close has done its work
            told.clear()
            del body, over
            assert len(lifecycle.tracker) == 0
            assert exchange() is None
    finally:
        gc.enable()
        request_finished.disconnect(finished)
    assert graceful.current_exchange() is None
    assert lifecycle.tracker.served == 4


@pytest.mark.parametrize("query", ["whole", ""])
def test_a_drain_that_begins_while_a_view_is_at_work(
    lifecycle: Lifecycle, serving: Any, happens: list[Callable[[], None]], query: str
) -> None:
    """Its response says close like those of later requests, and a stream is sent away."""
    happens.append(lambda: begin_drain(lifecycle))
    _, headers, body = start("/eventful", serving, QUERY_STRING=query)
    assert headers["Connection"] == "close"
    assert len(lifecycle.tracker) == 1
    sent = b"".join(body)
    assert sent == b"done" if query else sent.startswith(b"retry: ")
    body.close()
    assert len(lifecycle.tracker) == 0
    assert graceful.current_exchange() is None


def test_a_drain_that_begins_just_before_a_request_is_counted(
    lifecycle: Lifecycle, serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was let in, and is looked at once more when the driver can see it."""
    begin = WsgiExchange.begin

    def late(*arguments: Any) -> None:
        begin_drain(lifecycle)
        lifecycle.move(lifecycle.core.drained)
        begin(*arguments)

    monkeypatch.setattr(WsgiExchange, "begin", late)
    status, headers, body = start("/quick-sync", serving)
    assert (status[:3], headers["Connection"], b"".join(body)) == ("503", "close", b"draining")
    assert len(lifecycle.tracker) == 0
    assert lifecycle.tracker.served == 1
    assert graceful.current_exchange() is None


def test_a_worker_that_ends_under_its_view(
    lifecycle: Lifecycle, serving: Any, happens: list[Callable[[], None]]
) -> None:
    """gunicorn's sync worker does so by an exit: a 503 when all is cut, and else none of ours."""
    happens.append(sys.exit)
    with pytest.raises(SystemExit):
        start("/eventful", serving)
    assert len(lifecycle.tracker) == 0
    assert graceful.current_exchange() is None

    def cut() -> None:
        begin_drain(lifecycle)
        lifecycle.core.rung = 3

    happens.insert(0, cut)
    status, headers, body = start("/eventful", serving)
    assert (status[:3], headers["Connection"], b"".join(body)) == ("503", "close", b"draining")
    assert [straggler.name for straggler in lifecycle.core.tally.cut] == ["GET /eventful"]
    assert len(lifecycle.tracker) == 0


def test_something_that_is_no_response(lifecycle: Lifecycle) -> None:
    """A middleware further in has forgotten to return it: Django's error, and nothing in flight."""
    exchange_var.set(None)
    side = WsgiSide(Configuration(), lambda request: None)
    for _ in range(2):  # by the long way, and by the short one
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        with pytest.raises(AttributeError):
            side.serve(WSGIRequest(environ))
        assert len(lifecycle.tracker) == 0


def test_an_open_stream_is_told_at_its_next_event(lifecycle: Lifecycle, serving: Any) -> None:
    """With a whole event before it, and the app's generator is closed with the response."""
    closed.clear()
    status, headers, body = start("/endless", serving)
    assert (status, headers["Content-Type"]) == ("200 OK", "text/event-stream")
    parts = iter(body)
    assert next(parts) == b"data: 1\n\n"
    begin_drain(lifecycle)
    ((_, exchange),) = lifecycle.core.farewells()
    exchange.start_farewell(ignored)
    rest = b"".join(parts)
    assert rest.startswith((b"retry: ", b"data: 2\n\nretry: "))
    assert FAREWELL in rest
    assert len(lifecycle.tracker) == 1
    body.close()
    assert closed == ["sync"]
    assert len(lifecycle.tracker) == 0


def test_a_new_stream_in_a_drain_is_sent_away(lifecycle: Lifecycle) -> None:
    """With its own status and headers, for EventSource gives up on anything but 200."""
    client().get("/quick-sync")
    begin_drain(lifecycle)
    status, headers, body = start("/endless")
    assert (status, headers["Connection"]) == ("200 OK", "close")
    assert headers["Content-Type"] == "text/event-stream"
    sent = b"".join(body)
    assert sent.startswith(b"retry: ")
    assert b"data: 1" not in sent


def test_a_late_request_is_refused_when_nothing_is_left_for_it(lifecycle: Lifecycle) -> None:
    """A 503 at once is better than a response that is cut half-way."""
    client().get("/quick-sync")
    begin_drain(lifecycle)
    lifecycle.move(lifecycle.core.drained)
    assert lifecycle.phase is Phase.CLOSING
    status, headers, body = start("/quick-sync")
    assert (status[:3], headers["Retry-After"], headers["Connection"]) == ("503", "1", "close")
    assert b"".join(body) == b"draining"
    assert len(lifecycle.tracker) == 0


def test_the_wsgi_wrapper_further_out_does_it_all(lifecycle: Lifecycle) -> None:
    """Nothing is counted twice."""
    handler: Any = WSGIHandler()
    app = WsgiMiddleware(handler)
    environ: dict[str, Any] = {"PATH_INFO": "/quick-sync", "HTTP_HOST": "example.org"}
    setup_testing_defaults(environ)
    body = app(environ, lambda *_: lambda _: None)
    assert b"".join(body) == b"1"
    assert len(lifecycle.tracker) == 1
    close: Any = body
    close.close()
    assert len(lifecycle.tracker) == 0


def test_settings_that_differ_from_those_in_force_are_an_answer(lifecycle: Lifecycle) -> None:
    """Two handlers of one process share one stop."""
    browser = client()
    assert browser.get("/readyz").status_code == 200
    with override_settings(GRACEFUL={"grace_period": 60}):
        other = client()
        reply = other.get("/readyz")
    assert reply.status_code == 503
    assert b"grace_period" in reply.content
