"""An ASGI app that is stopped in memory: the order of events is that of a real server."""

from __future__ import annotations

import pytest

import graceful
from graceful.core.phases import Phase
from graceful.testing import AsgiProcess, NothingLeft

from .apps import asgi_app


def test_the_whole_choreography_in_order() -> None:
    with AsgiProcess(asgi_app()) as process:
        slow = process.request("GET", "/slow?seconds=7")
        process.advance(1)
        process.sigterm()
        late = process.request("GET", "/slow?seconds=1")
        process.run()
    assert process.events == [
        "lifespan.startup",
        "serving",
        "GET /slow",
        "SIGTERM",
        "lame_duck",
        "GET /slow",
        "GET /slow 200",
        "draining",
        "GET /slow 200",
        "lifespan.shutdown",
        "closing",
        "stopped",
        "exit 0",
    ]
    assert (slow.status, slow.body, slow.complete) == (200, b"done", True)
    assert late.body == b"done"
    assert slow.headers["connection"] == "close"
    assert process.report.clean
    assert process.report.seconds == pytest.approx(6)  # when the request ends, and the linger


def test_readiness_flips_while_serving_goes_on() -> None:
    with AsgiProcess(asgi_app()) as process:
        assert process.request("GET", "/readyz").status == 200
        process.sigterm()
        assert process.request("GET", "/readyz").status == 503
        assert process.request("GET", "/livez").status == 200
        assert process.phase is Phase.LAME_DUCK
        process.until(Phase.DRAINING)
        assert process.now == pytest.approx(5)


def test_streams_are_told_and_never_before_the_delay_is_over() -> None:
    with AsgiProcess(asgi_app()) as process:
        feed, talk = process.request("GET", "/feed"), process.websocket("/talk")
        talk.send_text("hello")
        process.sigterm()
        process.advance(4.9)
        assert not feed.over
        assert talk.close_code is None
        process.run()
    assert b"event: reconnect\n" in feed.body
    assert talk.accepted
    assert talk.messages == ["HELLO"]
    assert talk.close_code == 1012
    assert "retry_after_ms" in talk.close_reason
    assert process.report.told == 2


def test_a_new_websocket_in_the_drain_is_denied() -> None:
    with AsgiProcess(asgi_app()) as process:
        process.request("GET", "/slow?seconds=8")
        process.sigterm()
        process.until(Phase.DRAINING)
        assert not process.websocket("/talk").accepted
        process.run()
    assert "WS /talk 503" in process.events


def test_the_ladder() -> None:
    with AsgiProcess(asgi_app()) as process:
        slow = process.request("GET", "/slow?seconds=100")
        process.sigterm()
        process.sigterm()
        assert process.phase is Phase.DRAINING
        process.sigterm()
        process.run()
    assert slow.status == 503
    assert process.exit_status == 70
    assert process.report.cut[0].name == "GET /slow"


def test_what_outlasts_the_drain_is_cut_at_its_deadline() -> None:
    with AsgiProcess(asgi_app(grace_period=20, propagation_delay=2)) as process:
        process.request("GET", "/slow?seconds=100")
        process.sigterm()
        process.run()
    assert process.report.seconds == pytest.approx(16)  # 20 - 3 for clean-up - 1 of margin
    assert process.exit_status == 70


def test_sync_endpoints_run_in_threads() -> None:
    with AsgiProcess(asgi_app()) as process:
        threaded = process.request("GET", "/threaded")
        process.sigterm()
        process.run()
    assert threaded.body == b"done"


def test_a_client_closes_its_websocket() -> None:
    with AsgiProcess(asgi_app()) as process:
        talk = process.websocket("/talk")
        talk.close()
        assert talk.over
    assert "WS /talk closed by the client" in process.events


def test_an_app_that_fails_keeps_its_error() -> None:
    with AsgiProcess(asgi_app()) as process:
        broken = process.request("GET", "/broken")
        assert broken.status == 500
        assert isinstance(broken.error, ValueError)


def test_a_process_that_nobody_stops_shuts_down_at_the_end() -> None:
    with AsgiProcess(asgi_app()) as process:
        assert process.request("GET", "/slow?seconds=0").status == 200
    assert process.events[-1] == "exit 0"
    assert process.exit_status == 0


def test_waiting_for_what_nobody_has_asked_for_is_an_error() -> None:
    with AsgiProcess(asgi_app()) as process:
        with pytest.raises(NothingLeft, match="call sigterm"):
            process.run()
        with pytest.raises(LookupError, match="the process is serving"):
            _ = process.report


def test_an_app_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(Exception, match="grace_period"),
        AsgiProcess(asgi_app(grace_period=5, propagation_delay=10)),
    ):
        raise AssertionError("it started")


def test_the_own_lifecycle_of_the_tests_is_left_alone() -> None:
    before = graceful.current()
    with AsgiProcess(asgi_app()) as process:
        assert graceful.current() is not before
        process.sigterm()
        process.run()
    assert graceful.current() is before


def test_a_seed_makes_a_stop_repeatable() -> None:
    reasons: list[str] = []
    for seed in (1, 1, 2):
        with AsgiProcess(asgi_app(), seed=seed) as process:
            talk = process.websocket("/talk")
            process.sigterm()
            process.run()
        reasons.append(talk.close_reason)
    assert reasons[0] == reasons[1]
    assert reasons[0] != reasons[2]
