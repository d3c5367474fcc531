"""Channels consumers over a stop, on daphne and on uvicorn."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

import pytest

from .contract import Goodbye, echoed, goodbye, open_websocket
from .harness import LIMIT, Launcher, Log, Reply, launch, settings
from .launchers import UVICORN, UVICORN_H11
from .launchers_daphne import DAPHNE

APP = "tests.servers.channels_app:app"


@dataclass(frozen=True)
class Stop:
    """What was seen of one."""

    log: Log
    status: int
    replies: dict[str, Reply]
    ends: dict[str, Goodbye]


@pytest.fixture(scope="module", params=[DAPHNE, UVICORN, UVICORN_H11], ids=lambda each: each.name)
def stop(request: pytest.FixtureRequest) -> Stop:
    """A stop with a client of each consumer."""
    launcher: Launcher = request.param
    env = settings(propagation_delay=0.3, stream_window=0.3, linger=0.2, grace_period=60)
    with launch(launcher, APP, env=env) as server, contextlib.ExitStack() as exits:
        clients = {
            path: exits.enter_context(contextlib.closing(server.client()))
            for path in ("ticks", "silent", "slow")
        }
        for path, client in clients.items():
            client.ask("GET", f"/{path}")
        for path in ("ticks", "silent"):
            clients[path].read_until(b"\n\n")
        talks = {
            path: exits.enter_context(open_websocket(server, f"/{path}"))
            for path in ("talk", "sync")
        }
        assert all(echoed(talk, "hello") for talk in talks.values())
        server.terminate()
        server.log.wait_event("lame duck")
        assert all(echoed(talk, "still here") for talk in talks.values())
        ends = {path: goodbye(talk) for path, talk in talks.items()}
        replies = {path: client.reply() for path, client in clients.items()}
        return Stop(server.log, server.wait(LIMIT), replies, ends)


@pytest.mark.parametrize("path", ["talk", "sync"])
def test_a_websocket_is_closed_with_a_retry_delay(stop: Stop, path: str) -> None:
    """1012, and in its reason how long this client should wait."""
    assert stop.ends[path].code == 1012
    assert json.loads(stop.ends[path].reason)["retry_after_ms"] > 0


def test_a_consumer_is_disconnected(stop: Stop) -> None:
    """`disconnect(code)` runs once, in an async consumer with a group and in a sync one."""
    assert stop.log.marks("talk") == ["talk disconnected 1012"]
    assert stop.log.marks("sync") == ["sync talk disconnected 1012"]


@pytest.mark.parametrize("path", ["ticks", "silent"])
def test_an_event_stream_ends_with_a_farewell(stop: Stop, path: str) -> None:
    """Whole; and its consumer, which nobody could have told, leaves and is disconnected."""
    reply = stop.replies[path]
    assert reply.complete
    assert b"event: reconnect\n" in reply.body
    assert stop.log.marks(path) == [f"{path} left", f"{path} disconnected"]


def test_an_ordinary_request_finishes(stop: Stop) -> None:
    """The drain waits for it."""
    assert (stop.replies["slow"].status, stop.replies["slow"].body) == (200, b"slow but whole\n")


def test_nothing_is_cut_and_nobody_complains(stop: Stop) -> None:
    """Consumers are left in a way that they know."""
    assert stop.status == 0
    assert (stop.log.report()["clean"].lower(), stop.log.report()["told"]) == ("true", "4")
    noise = "ASGI callable returned without completing"
    lines = [line.text for line in stop.log.lines if noise not in line.text]
    assert not any("Traceback" in text or "ERROR" in text for text in lines)
