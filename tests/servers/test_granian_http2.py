"""granian on HTTP/2: what a stop looks like to a client that keeps one connection all along."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded
from h2.exceptions import ProtocolError

from .contract import APP
from .harness import ASKED, LIMIT, Client, Launcher, launch, settings
from .launchers_granian import GRANIAN

BEFORE, LAME_DUCK, STREAM, DRAINING = 1, 5, 3, 7
"""Streams of the connection, in the order in which a client numbers them."""


@dataclass
class Answer:
    """One answer, as far as it has come."""

    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    ended: bool = False


class Http2Client:
    """One connection, with prior knowledge."""

    def __init__(self, client: Client) -> None:
        self._socket = client.socket
        self._socket.settimeout(LIMIT)
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._flush()
        self.answers: dict[int, Answer] = {}
        self.terminated = False

    def ask(self, path: str) -> int:
        """Open a stream with a GET; returns its number."""
        stream = self._h2.get_next_available_stream_id()
        head = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "test")]
        self._h2.send_headers(stream, head, end_stream=True)
        self._flush()
        self.answers[stream] = Answer()
        return stream

    def get(self, path: str) -> Answer:
        """Ask and wait for the whole answer."""
        answer = self.answers[self.ask(path)]
        self.read_until(lambda: answer.ended)
        return answer

    def read_until(self, enough: Callable[[], bool]) -> None:
        """Read events until it is enough, or until the server has closed the connection."""
        while not enough() and (data := self._socket.recv(65536)):
            with contextlib.suppress(ProtocolError):  # for h2 the connection is over after GOAWAY
                for event in self._h2.receive_data(data):
                    self._on(event)
            self._flush()

    def _on(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.terminated = True
        answer = self.answers.get(getattr(event, "stream_id", 0) or 0, Answer())
        if isinstance(event, ResponseReceived):
            answer.headers = {str(name): str(value) for name, value in event.headers or ()}
        elif isinstance(event, DataReceived):
            answer.body += event.data or b""
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        elif isinstance(event, StreamEnded):
            answer.ended = True

    def _flush(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(self._h2.data_to_send())


@pytest.fixture(scope="module", params=["auto", "2"])
def stop(request: pytest.FixtureRequest) -> Generator[Http2Client]:
    """One stop, watched on one connection; `--http auto` and `--http 2`."""
    launcher: Launcher = GRANIAN
    env = ASKED | settings(linger=1.5, stream_window=0.2)
    with (
        launch(launcher, APP, "--http", request.param, env=env, serving=False) as server,
        contextlib.ExitStack() as exits,
    ):
        server.await_port()
        server.log.wait_event("serving")
        server.await_listening()
        client = Http2Client(exits.enter_context(contextlib.closing(server.client())))
        client.get("/")
        stream = client.answers[client.ask("/ticks")]
        client.read_until(lambda: b"\n\n" in stream.body)
        server.terminate()
        server.log.wait_event("lame duck")
        client.get("/readyz")
        server.log.wait_event("draining")
        client.get("/")
        client.read_until(lambda: client.terminated)
        client.read_until(lambda: False)
        assert server.wait() == 0
        yield client


def test_no_answer_speaks_of_the_connection(stop: Http2Client) -> None:
    """HTTP/2 forbids the header, in every phase."""
    for answer in stop.answers.values():
        assert answer.ended
        assert "connection" not in answer.headers


def test_requests_are_answered_to_the_end(stop: Http2Client) -> None:
    """Before, in the lame duck, where readiness is 503, and in the drain."""
    statuses = {number: answer.headers[":status"] for number, answer in stop.answers.items()}
    assert statuses == {BEFORE: "200", STREAM: "200", LAME_DUCK: "503", DRAINING: "200"}


def test_an_event_stream_is_told_and_ended(stop: Http2Client) -> None:
    """By its own end, not by that of the connection."""
    assert b"event: reconnect\n" in stop.answers[STREAM].body


def test_the_connection_is_ended_by_goaway(stop: Http2Client) -> None:
    """When all that has been asked is answered."""
    assert stop.terminated
