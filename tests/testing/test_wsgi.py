"""A WSGI app that is stopped in memory."""

from __future__ import annotations

from graceful.core.phases import Phase
from graceful.testing import WsgiProcess

from .apps import wsgi_app


def test_the_whole_choreography_in_order() -> None:
    with WsgiProcess(wsgi_app()) as process:
        page = process.request("GET", "/")
        process.sigterm()
        assert process.request("GET", "/readyz").finish().status == 503
        process.until(Phase.DRAINING)
        assert page.finish().body == b"data: 1\n\n"
        process.run()
    assert process.events == [
        "serving",
        "GET /",
        "SIGTERM",
        "lame_duck",
        "GET /readyz",
        "GET /readyz 503",
        "draining",
        "GET / 200",
        "closing",
        "stopped",
        "exit 0",
    ]


def test_a_stream_is_told_at_its_next_event() -> None:
    with WsgiProcess(wsgi_app()) as process:
        feed = process.request("GET", "/feed")
        feed.next()
        process.sigterm()
        process.until(Phase.DRAINING)
        process.advance(5)
        feed.finish()
        process.run()
    assert feed.headers["content-type"] == "text/event-stream"
    assert b"event: reconnect\n" in feed.body
    assert process.report.told == 1


def test_a_request_that_never_ends_is_cut() -> None:
    with WsgiProcess(wsgi_app()) as process:
        page = process.request("GET", "/")
        process.sigterm()
        process.run()
        page.close()
    assert process.exit_status == 70
    assert process.report.cut[0].name == "GET /"


def test_settings_are_those_of_the_app() -> None:
    with WsgiProcess(wsgi_app(propagation_delay=2)) as process:
        process.sigterm()
        process.until(Phase.DRAINING)
        assert process.now == 2
