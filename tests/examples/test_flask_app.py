"""The Flask example answers, and ends its streams, on the plainest server that there is.

Under gunicorn it is started by the tests of that server.
"""

from __future__ import annotations

import http.client
import runpy
import threading
from collections.abc import Iterator
from contextlib import closing
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

import graceful.lifecycle
from graceful.core.phases import Phase
from graceful.lifecycle import Lifecycle
from graceful.wsgi import GracefulMiddleware

LIMIT = 20.0


class Server(ThreadingMixIn, WSGIServer):
    """wsgiref's, with a thread for each connection."""

    daemon_threads = True


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def lifecycle(monkeypatch: pytest.MonkeyPatch) -> Lifecycle:
    lifecycle = Lifecycle()
    monkeypatch.setattr(graceful.lifecycle, "_process", lifecycle)
    monkeypatch.setenv("GRACEFUL_PROPAGATION_DELAY", "0.2")
    return lifecycle


@pytest.fixture
def port(lifecycle: Lifecycle) -> Iterator[int]:
    app = runpy.run_module("examples.flask_app")["app"]
    with make_server("127.0.0.1", 0, app, Server, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(LIMIT)
    assert isinstance(app.wsgi_app, GracefulMiddleware)
    app.wsgi_app.leave()


def ask(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Make one request and return status and body."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)) as connection:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()


def test_it_answers(port: int) -> None:
    """Each kind of request, and the probes."""
    assert ask(port, "GET", "/") == (200, b"hello\n")
    assert ask(port, "GET", "/slow?seconds=0.01") == (200, b"done\n")
    assert ask(port, "POST", "/echo", b"once") == (200, b"once")
    assert ask(port, "GET", "/readyz")[0] == 200
    assert ask(port, "GET", "/livez")[0] == 200


def test_it_stops(port: int, lifecycle: Lifecycle) -> None:
    """Unready at once, a farewell for the stream, the slow request whole."""
    answers: list[tuple[int, bytes]] = []

    def wait(path: str) -> None:
        answers.append(ask(port, "GET", path))

    paths = ("/slow?seconds=0.6", "/events")
    threads = [threading.Thread(target=wait, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    while len(lifecycle.tracker.streams()) < 1 or len(lifecycle.tracker) < 2:
        threads[0].join(0.001)
    lifecycle.terminate()
    assert ask(port, "GET", "/readyz")[0] == 503
    assert ask(port, "GET", "/") == (200, b"hello\n")
    for thread in threads:
        thread.join(LIMIT)
    slow, stream = sorted(answers, key=lambda answer: len(answer[1]))
    assert slow == (200, b"done\n")
    assert stream[0] == 200
    assert stream[1].startswith(b'id: 1\ndata: {"n": 1}\n\n')
    assert b"event: reconnect\n" in stream[1]
    assert lifecycle.phase in (Phase.DRAINING, Phase.CLOSING)
