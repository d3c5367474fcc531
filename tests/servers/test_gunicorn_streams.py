"""An instance with streams that never end is gone soon after they have been told.

How soon, in seconds, is measured by `tests.benchmarks.gunicorn_streams`; here all that counts is
that nobody has waited for a timeout.
"""

from __future__ import annotations

import contextlib

from .contract import goodbye, open_websocket
from .harness import Launcher, launch, settings
from .launchers import (
    GUNICORN_ASGI,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    GUNICORN_UVICORN,
)
from .test_gunicorn_retire import app_of, ask, on

GRACE, KEEP_ALIVE = 60, "50"
PATIENCE = 20.0
"""Seconds far below both, so that whoever is in time has waited for neither."""

QUICK = settings(grace_period=GRACE, propagation_delay=0.5, stream_window=0.5, linger=0.3)


@on(GUNICORN_SYNC, GUNICORN_GTHREAD, GUNICORN_GEVENT, GUNICORN_ASGI, GUNICORN_UVICORN)
def test_a_stream_of_events_that_never_ends(launcher: Launcher) -> None:
    """It is told, its connection is closed, and an idle one is not waited for."""
    with contextlib.ExitStack() as exits:
        more = ("--keep-alive", KEEP_ALIVE)
        server = exits.enter_context(launch(launcher, app_of(launcher), *more, env=QUICK))
        idle = exits.enter_context(contextlib.closing(server.client()))
        assert idle.get("/").status == 200
        stream = exits.enter_context(contextlib.closing(ask(server, "/ticks")))
        stream.read_until(b"\n\n")
        server.terminate()
        assert stream.reply().body.rpartition(b"retry:")[2].endswith(b"\n\n")
        assert stream.at_end()
        assert server.wait(PATIENCE) == 0
        assert idle.at_end()
        assert "SIGKILL" not in server.log.text
        report = server.log.report()
        assert (report["clean"].lower(), report["told"], report["streams_at_drain"]) == (
            *("true", "1"),
            "1",
        )
        assert server.log.events("draining", "drain report") == ["draining", "drain report"]


@on(GUNICORN_ASGI, GUNICORN_UVICORN)
def test_a_websocket_that_nobody_closes(launcher: Launcher) -> None:
    """It gets its message and its close frame."""
    with (
        launch(launcher, app_of(launcher), env=QUICK) as server,
        open_websocket(server, "/talk/text") as talk,
    ):
        server.terminate()
        end = goodbye(talk)
        assert (end.code, len(end.messages)) == (1012, 1)
        assert server.wait(PATIENCE) == 0
        assert "SIGKILL" not in server.log.text
        report = server.log.report()
        assert (report["clean"].lower(), report["told"]) == ("true", "1")
