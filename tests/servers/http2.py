"""A small HTTP/2 client of one connection, which keeps all that it is told."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from hyperframe.frame import Frame, GoAwayFrame

from .harness import LIMIT

__all__ = ["ANY_STREAM", "Answer", "Http2Client", "http2"]

ANY_STREAM = 2**31 - 1
"""The last stream of a GOAWAY that lets everything on the wire be served."""


@dataclass
class Answer:
    """What has come of one stream."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    ended: bool = False
    reset: int | None = None
    """The error code of its RST_STREAM."""


class Http2Client:
    """One connection.

    A GOAWAY closes the connection of the `h2` package, in-flight streams and all. It is kept from
    it here, as a client does that finishes what it has begun.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None, upgrade: bool = False) -> None:
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        if tls is not None:
            secure = tls.wrap_socket(self._socket)
            assert secure.selected_alpn_protocol() == "h2"
            self._socket = secure
        self._rest = b""
        self.goaways: list[tuple[int, int]] = []
        """Last stream and error code of each GOAWAY."""
        self.ended: list[set[int]] = []
        """The streams that were over at each GOAWAY."""
        self.answers: dict[int, Answer] = {}
        self.over = False
        """The server has closed the connection."""
        if upgrade:
            self._upgrade()
        else:
            self._h2.initiate_connection()
        self._flush()

    def _upgrade(self) -> None:
        """Begin with HTTP/1 (RFC 7540, 3.2); the answer to what is asked there is of stream 1."""
        pairs = {
            "Host": "localhost",
            "Connection": "Upgrade, HTTP2-Settings",
            "Upgrade": "h2c",
            "HTTP2-Settings": (self._h2.initiate_upgrade_connection() or b"").decode(),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in pairs.items())
        self._socket.sendall(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = self._socket.recv(65536)
            assert data, head
            head += data
        head, _, self._rest = head.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        self.answers[1] = Answer()

    def ask(self, path: str) -> int:
        """Send a GET; returns the number of its stream."""
        stream = self._h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        pairs = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "localhost"}
        self._h2.send_headers(stream, list(pairs.items()), end_stream=True)
        self._flush()
        return stream

    def get(self, path: str) -> Answer:
        """Ask and return the whole answer."""
        return self.answer(self.ask(path))

    def answer(self, stream: int) -> Answer:
        """Read until the stream is over."""
        answer = self.answers[stream]
        while not (answer.ended or answer.reset is not None or self.over):
            self.read()
        return answer

    def read_goaway(self, count: int = 1) -> tuple[int, int]:
        """Read until the server has said its `count`-th GOAWAY."""
        while len(self.goaways) < count:
            assert not self.over, "closed without a GOAWAY"
            self.read()
        return self.goaways[count - 1]

    def read_to_end(self) -> None:
        """Read until the server closes the connection."""
        while not self.over:
            self.read()

    def read(self) -> None:
        """Take in what comes next."""
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self.over = not data
        self._rest += data
        for frame in self._whole_frames():
            for event in self._h2.receive_data(frame):
                self._take(event)
        with contextlib.suppress(OSError):
            self._flush()

    def _whole_frames(self) -> Iterator[bytes]:
        """Yield the frames that have come whole, without the GOAWAYs among them."""
        while len(self._rest) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._rest[:9]))
            if len(self._rest) < 9 + length:
                break
            whole, self._rest = self._rest[: 9 + length], self._rest[9 + length :]
            if isinstance(frame, GoAwayFrame):
                frame.parse_body(memoryview(whole[9:]))
                self.goaways.append((frame.last_stream_id, frame.error_code))
                self.ended.append({stream for stream, its in self.answers.items() if its.ended})
            else:
                yield whole

    def _take(self, event: Event) -> None:
        assert not isinstance(event, ConnectionTerminated)
        if isinstance(event, ResponseReceived):
            answer = self.answers[event.stream_id]
            answer.headers = {str(name): str(value) for name, value in event.headers}
            answer.status = int(answer.headers[":status"])
        elif isinstance(event, DataReceived):
            self.answers[event.stream_id].body += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.answers[event.stream_id].ended = True
        elif isinstance(event, StreamReset):
            self.answers[event.stream_id].reset = int(event.error_code)

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


@contextlib.contextmanager
def http2(
    port: int, tls: ssl.SSLContext | None = None, upgrade: bool = False
) -> Generator[Http2Client]:
    """Return a client for the length of a block; with `tls` it is negotiated (ALPN).

    Args:
        port: of the server.
        tls: None = cleartext.
        upgrade: from an HTTP/1 request; otherwise with prior knowledge.
    """
    client = Http2Client(port, tls, upgrade)
    try:
        yield client
    finally:
        client.close()
