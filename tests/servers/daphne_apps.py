"""What daphne may be given, and a daphne that nobody has tried."""

from __future__ import annotations

import threading
from importlib import import_module
from socket import create_connection, socket
from typing import Any

import daphne
from starlette.applications import Starlette
from starlette.middleware import Middleware

import graceful
from graceful.asgi import GracefulMiddleware

from .contract_app import mark


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Answer by path; knows nothing of lifespans."""
    assert scope["type"] == "http"
    while (await receive()).get("more_body", False):
        pass
    if scope["path"] == "/fails":
        raise ValueError("as it happens")
    if scope["path"] == "/fails-late":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half\n", "more_body": True})
        await graceful.wait_draining()
        raise ValueError("as it happens")
    if scope["path"] == "/stop":
        reactor: Any = import_module("twisted.internet.reactor")
        reactor.stop()
    body = b"x" * 32 * 2**20 if scope["path"] == "/large" else b"hello\n"
    length = str(len(body)).encode()
    headers = [(b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = GracefulMiddleware(bare, on_lame_duck=lambda: mark("hook lame duck"))
wrong_later = Starlette(middleware=[Middleware(GracefulMiddleware, grace_period=1)])
wrong = GracefulMiddleware(bare, propagation_delay=50, grace_period=30)


async def connect() -> None:
    """Queue up at the port of this process, without letting it take a turn meanwhile."""

    def ask(late: socket) -> None:
        late.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        mark(f"late: {late.recv(100).partition(bytes([13]))[0].decode()}")

    for _ in range(3):
        late = create_connection(server["address"])
        threading.Thread(target=ask, args=(late,)).start()


async def noting(scope: Any, receive: Any, send: Any) -> None:
    """Note where this server listens."""
    server["address"] = tuple(scope["server"])
    await bare(scope, receive, send)


server: dict[str, Any] = {}
connecting = GracefulMiddleware(noting, on_drain=connect)


def __getattr__(name: str) -> object:
    if name == "newer":  # the app of a process whose daphne nobody has tried
        daphne.__version__ = "9.1"
        return app
    raise AttributeError(name)
