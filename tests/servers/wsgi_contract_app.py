"""The app of the WSGI contract: what a stop can do to requests that run in threads."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator

from flask import Flask, Response

import graceful
from graceful.wsgi import GracefulMiddleware


def mark(text: str) -> None:
    """Leave a line for the test, in one piece."""
    sys.stderr.write(f"@ {os.getpid()} {text}\n")
    sys.stderr.flush()


def hook(phase: str) -> Callable[[], None]:
    """Return a hook that says that it ran."""
    return lambda: mark(f"hook {phase}")


app = Flask(__name__)
app.wsgi_app = GracefulMiddleware(  # type: ignore[method-assign]
    app.wsgi_app,
    on_lame_duck=hook("lame duck"),
    on_drain=hook("drain"),
    on_cleanup=hook("cleanup"),
)


def until_draining() -> None:
    """Wait for the drain, as a sync handler has to."""
    while not graceful.draining():
        time.sleep(0.02)


@app.get("/")
def home() -> str:
    """A quick request."""
    return "hello\n"


@app.get("/pid")
def pid() -> str:
    """Which process answers."""
    return str(os.getpid())


@app.get("/slow")
def slow() -> str:
    """A request that begins to answer only when the drain has begun."""
    mark("slow begins")
    until_draining()
    time.sleep(0.1)
    return "slow but whole\n"


@app.get("/trickle")
def trickle() -> Response:
    """A body in parts, the last of them in the drain."""

    def parts() -> Iterator[str]:
        yield "first\n"
        until_draining()
        yield "last\n"

    return Response(parts(), mimetype="text/plain")


@app.get("/ticks")
def ticks() -> Response:
    """An endless stream of events."""

    def events() -> Iterator[str]:
        try:
            while True:
                yield "data: tick\n\n"
                time.sleep(0.05)
        finally:
            mark("ticks ended")

    return Response(events(), mimetype="text/event-stream")


@app.get("/stuck")
def stuck() -> str:
    """A request that never answers."""
    mark("stuck")
    for_ever()
    return ""


def for_ever() -> None:
    """Where a report should find it."""
    while True:
        time.sleep(0.1)
