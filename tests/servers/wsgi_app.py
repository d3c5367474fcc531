"""A WSGI app for tests of servers: each kind of exchange, which says on stderr how it ended."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import graceful
from graceful.threads import original
from graceful.wsgi import GracefulMiddleware


def mark(text: str) -> None:
    """Tell the test something, in order."""
    os.write(2, f"@ {os.getpid()} {text}\n".encode())


def slow() -> Iterator[bytes]:
    """An answer that begins only when the drain has begun."""
    mark("slow begins")
    while not graceful.draining():
        time.sleep(0.01)
    time.sleep(0.2)
    yield b"slow but whole\n"


def trickle() -> Iterator[bytes]:
    """A long answer that is no stream: it must be whole."""
    yield b"first\n"
    while not graceful.draining():
        time.sleep(0.01)
    time.sleep(0.2)
    yield b"last\n"


def stuck() -> Iterator[bytes]:
    """An answer that never comes."""
    mark("stuck begins")
    while True:
        time.sleep(0.05)
    yield b""


def blocked() -> NoReturn:
    """A handler that never comes to an answer."""
    mark("blocked begins")
    while True:
        time.sleep(0.05)


def wedged() -> Iterator[bytes]:
    """A request that keeps the worker from everything else, for ever, gevent's hub included."""
    mark("wedged begins")
    while True:
        original("time", "sleep")(60)
    yield b""


def upload(environ: dict[str, Any]) -> Iterator[bytes]:
    """An answer that comes when the client has sent the whole body."""
    length = int(environ["CONTENT_LENGTH"])
    mark("upload begins")
    yield b'{"bytes":%d}' % len(environ["wsgi.input"].read(length))


def ticks() -> Iterator[bytes]:
    """Events, twenty times a second, for ever."""
    try:
        for n in range(10**6):
            yield f"id: {n}\ndata: {n}\n\n".encode()
            time.sleep(0.05)
    finally:
        mark("ticks ended")


def respond(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer by path."""
    path, kind = environ["PATH_INFO"], "text/plain"
    body: Iterable[bytes] = [b"hello\n"]
    if path == "/pid":
        body = [str(os.getpid()).encode()]
    elif path == "/slow":
        body = slow()
    elif path == "/trickle":
        body = trickle()
    elif path == "/stuck":
        body = stuck()
    elif path == "/blocked":
        blocked()
    elif path == "/wedged":
        body = wedged()
    elif path == "/upload":
        body = upload(environ)
    elif path == "/ticks":
        body, kind = ticks(), "text/event-stream"
    start_response("200 OK", [("Content-Type", kind)])
    return body


if os.path.exists(unloadable := os.environ.get("UNLOADABLE", "")):
    mark("loads")
    while os.path.exists(unloadable):
        time.sleep(0.02)
    raise RuntimeError("a new version lies where this one was")

app = GracefulMiddleware(respond)
