"""uvicorn: found behind its own signal handler, stopped through its public `should_exit`.

Public names used: `uvicorn.Server` with `config`, `servers`, `server_state.connections`,
`should_exit` and `shutdown`; `Config.timeout_graceful_shutdown`, `should_reload`, `lifespan`,
`loaded_app`; the `app` of `ProxyHeadersMiddleware`, which uvicorn puts around it.
Tested with uvicorn 0.54.

How it fits together
- SIGTERM sets nothing of uvicorn's: its `should_exit` would close every idle connection and
  WebSocket in one instant. The lifecycle serves the delay, drains, and then `leave` sets it.
- `Server.shutdown` is replaced on the instance, so that a stop that uvicorn begins by itself
  (`limit_max_requests`, `should_exit = True`) drains first, and so that the exit status is ours.
- uvicorn calls an object of its own that calls the app, an object again. From its start on they are
  called by their methods (`has_method` says why), which wins back a part of what we cost.
- The exit status is 0 or 70, for the signal is not replayed: uvicorn alone ends with -15 after a
  clean drain.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator, Sequence
from socket import socket
from types import CoroutineType, FrameType
from typing import Any

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.server import Server

from graceful._arguments import has_method
from graceful.asgi import GracefulMiddleware
from graceful.core.budget import ServerLimit
from graceful.core.traits import traits_named
from graceful.listeners import close_when_empty
from graceful.servers import ServerOwner
from graceful.signals import Handler

from .uvicorn_http2 import tell_connections

__all__ = ["UvicornServer", "detect"]


def detect(handler: Handler, receive: object = None) -> UvicornServer | None:
    """Return the uvicorn server that runs the caller's event loop, if one does.

    Args:
        handler: what SIGTERM calls: uvicorn's is a bound method of the server. A server in a
            thread has no handler, and of several in one process it is the last one's.
        receive: a bound method of the lifespan of the server that asks the app to start.
    """
    running = list(_servers_of_loop())
    lifespan = getattr(receive, "__self__", None)
    for server in running:
        if lifespan is not None and getattr(server, "lifespan", None) is lifespan:
            return UvicornServer(server)
    behind = getattr(handler, "__self__", None)
    if isinstance(behind, Server):
        return UvicornServer(behind)
    return UvicornServer(running[0]) if running else None


def _servers_of_loop() -> Iterator[Server]:
    """Yield the servers whose `serve` is being awaited on this loop."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # trio
        return
    for task in tasks:
        coroutine: object = task.get_coro()
        while isinstance(coroutine, CoroutineType):
            frame: FrameType | None = coroutine.cr_frame
            if frame is not None and frame.f_code is Server.serve.__code__:
                yield frame.f_locals["self"]
            coroutine = coroutine.cr_await


def _by_method(app: Any) -> Any:
    """Return what calls `app` by its method.

    That of a framework is looked up each time, for whoever measures calls may replace it late.
    """
    if isinstance(app, ProxyHeadersMiddleware | GracefulMiddleware):
        return app.__call__

    def call(scope: Any, receive: Any, send: Any) -> Any:
        return app.__call__(scope, receive, send)

    return call


class UvicornServer:
    """One `uvicorn.Server`, as the lifecycle sees it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._config = server.config
        self._timeout = server.config.timeout_graceful_shutdown
        self._owner: ServerOwner | None = None
        self._called: list[tuple[Any, str, object]] = []  # by method: where, and the objects
        self.traits = traits_named("uvicorn")
        self.version = uvicorn.__version__
        self.name = f"uvicorn {self.version}"
        parent = multiprocessing.parent_process() is not None
        self.development = bool(self._config.should_reload)
        self.managed = parent
        self.shares_listener = parent
        self.needs_lifespan = self._config.lifespan == "on"

    def limits(self) -> Sequence[ServerLimit]:
        name = "uvicorn --timeout-graceful-shutdown"
        return (ServerLimit(name, self._timeout, "after_drain"),)

    def attach(self, owner: ServerOwner) -> None:
        original = self._server.shutdown
        self._owner = owner

        async def shutdown(sockets: list[socket] | None = None) -> None:
            await owner.stop("uvicorn is shutting down", retires=self.shares_listener)
            # What is left now is flushing; uvicorn alone would wait for a stuck task for ever and
            # never get to lifespan.shutdown.
            left: Any = min(self._timeout or float("inf"), owner.drain_left())
            self._config.timeout_graceful_shutdown = left
            await original(sockets=sockets)
            self._config.timeout_graceful_shutdown = self._timeout
            status = await owner.server_gone()
            if status:
                raise SystemExit(status)

        self._server.shutdown = shutdown  # type: ignore[method-assign]
        self._call_methods()

    def detach(self) -> None:
        vars(self._server).pop("shutdown", None)
        self._call_objects()

    def _call_methods(self) -> None:
        """Have connections, which are yet to come, call methods on the way to the middleware."""
        loaded: Any = getattr(self._config, "loaded_app", None)
        places: list[tuple[Any, str]] = [(self._config, "loaded_app")]
        if isinstance(loaded, ProxyHeadersMiddleware):  # whose app is called as we call it
            places.append((loaded, "app"))
        for holder, name in places:
            app = getattr(holder, name, None)
            if has_method(app):
                self._called.append((holder, name, app))
                setattr(holder, name, _by_method(app))

    def _call_objects(self) -> None:
        while self._called:
            setattr(*self._called.pop())

    async def stop_accepting(self) -> None:
        assert self._owner is not None
        await close_when_empty(getattr(self._server, "servers", ()), self._owner.accepts_no_more)
        tell_connections(self._server.server_state.connections)

    def has_connections(self) -> bool:
        return bool(self._server.server_state.connections)

    def leave(self) -> None:
        self._server.should_exit = True
