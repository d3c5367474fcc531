"""The Channels example on daphne, as its docstring says first; on uvicorn with the others."""

from __future__ import annotations

import contextlib

from tests.servers.contract import echoed, goodbye, open_websocket
from tests.servers.harness import ASKED, launch, settings
from tests.servers.launchers_daphne import DAPHNE


def test_it_answers_and_stops() -> None:
    """Unready at once, farewells after the delay, exit status 0."""
    env = ASKED | settings(stream_window=0.3, linger=0.3)
    with (
        launch(DAPHNE, "examples.channels_app:app", env=env) as server,
        open_websocket(server, "/ws") as websocket,
        contextlib.closing(server.client()) as events,
    ):
        assert server.get("/").body == b"hello\n"
        assert server.get("/readyz").status == 200
        assert echoed(websocket, "hello")
        events.ask("GET", "/events")
        events.read_until(b"\n\n")
        server.terminate()
        server.log.wait_event("lame duck")
        assert (server.get("/readyz").status, server.get("/").status) == (503, 200)
        end = goodbye(websocket)
        assert (end.code, end.messages) == (1012, ['{"type": "reconnect"}'])
        assert b"event: reconnect\n" in events.reply().body
        assert server.wait() == 0
        assert "Traceback" not in server.log.text
