"""Each file of examples/ that is run by uvicorn answers, and stops as it says."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.servers.contract import goodbye, open_websocket
from tests.servers.harness import ASKED, LIMIT, ROOT, ServerProcess, launch, settings
from tests.servers.launchers import UVICORN_H11

EXAMPLES = sorted(
    path.stem for path in (ROOT / "examples").glob("*.py") if "uvicorn" in path.read_text("utf-8")
)

QUICK = ASKED | settings(stream_window=0.3, linger=0.3)


@contextlib.contextmanager
def running(example: str) -> Generator[ServerProcess]:
    """Start one example."""
    with launch(UVICORN_H11, f"examples.{example}:app", env=QUICK) as server:
        yield server


def stream_of(server: ServerProcess, path: str) -> bytes:
    """Read an event stream to its end, over a stop that begins at its first event."""
    with contextlib.closing(server.client()) as client:
        client.ask("GET", path)
        client.read_until(b"\n\n")
        server.terminate()
        reply = client.reply()
    assert reply.complete
    return reply.body


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_answers_and_stops(example: str) -> None:
    """It starts as its docstring says, answers, moves its WebSocket, and exits with 0."""
    text = Path(ROOT / "examples" / f"{example}.py").read_text("utf-8")
    assert f"uvicorn examples.{example}:app" in text
    with running(example) as server, open_websocket(server, "/ws") as websocket:
        assert server.get("/").status == 200
        assert server.get("/readyz").status == 200
        websocket.send("hello")
        while "hello" not in str(websocket.recv(LIMIT)):
            pass
        server.terminate()
        server.log.wait_event("lame duck")
        assert server.get("/readyz").status == 503
        assert server.get("/").status == 200
        assert goodbye(websocket).code == 1012
        assert server.wait() == 0
        assert "Traceback" not in server.log.text


def test_starlette_moves_its_events() -> None:
    """The endless stream of the Starlette example ends with a farewell."""
    with running("starlette_app") as server:
        assert b"event: reconnect\n" in stream_of(server, "/events")
        assert server.wait() == 0


def test_starlette_keeps_its_other_requests() -> None:
    """A request that takes its time and one with a body are answered over a stop."""
    with running("starlette_app") as server, contextlib.closing(server.client()) as client:
        client.ask("GET", "/slow?seconds=1.5")
        with contextlib.closing(server.client()) as other:
            other.ask("POST", "/echo", b"once")
            assert other.reply().body == b"once"
        server.terminate()
        assert client.reply().body == b"done\n"
        assert server.wait() == 0


def test_fastapi_finishes_its_tokens() -> None:
    """The answer that can't be resumed comes whole, and without a farewell."""
    with running("fastapi_app") as server:
        body = stream_of(server, "/tokens")
        assert b"data: a\n\ndata: word\n\n" in body
        assert b"reconnect" not in body
        assert server.wait() == 0


def test_fastapi_moves_its_feed() -> None:
    """The endless one ends with a farewell."""
    with running("fastapi_app") as server:
        assert b"event: reconnect\n" in stream_of(server, "/feed")
        assert server.wait() == 0


def test_fastapi_says_its_farewell() -> None:
    """The fixed farewell message comes before the close frame."""
    with running("fastapi_app") as server, open_websocket(server, "/ws") as websocket:
        server.terminate()
        assert goodbye(websocket).messages == ['{"type": "reconnect"}']
        assert server.wait() == 0
