"""HTTP/2 connections of gunicorn's workers: told to go elsewhere in the drain.

gunicorn alone reads from an idle connection of a gthread or gevent worker for as long as its
`keepalive` is, also when the worker ends, which is then killed for it; and it closes those that it
does close without a GOAWAY, or with one that denies every stream. Here a connection is told twice,
as RFC 9113, 6.8 has it: once with the highest stream there can be, so that what is on the wire is
still served, and at the end with the last one that was. Not before it is idle: clients built on the
`h2` package give up what is in flight on a GOAWAY. And not before the worker stops accepting, which
it does when what was in flight at the begin of the drain is over: who goes may come back to it.

Private names used: of both kinds of connection `h2_conn` and `streams`; of `HTTP2ServerConnection`
also `sock`, `idle_timeout`, `pending_requests` and `_deferred_events`; of asgi's also `writer`, and
`_h2_conn`, which `ASGIProtocol._handle_http2_connection` sets. Tested with gunicorn 27.0.1; where
one is gone, connections end as gunicorn ends them, and a warning says so.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Iterator
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from graceful.loops import await_chain

__all__ = ["BlockingConnections", "blocking_connections", "tell_asgi_connections"]

ANY_STREAM: Final = 2**31 - 1

BLOCKING: Final = {
    "h2_conn",
    "streams",
    "sock",
    "idle_timeout",
    "pending_requests",
    "_deferred_events",
}
"""What a connection of a thread or greenlet has to have."""

ASYNC: Final = {"h2_conn", "streams", "writer"}
"""What one of the ASGI worker has to have."""


def _speaks(worker: Any) -> bool:
    """Whether `worker` is configured to speak HTTP/2 at all."""
    return "h2" in getattr(worker.cfg, "http_protocols", ())


def _has(worker: Any, makes: Any, names: set[str]) -> bool:
    """Whether a connection is made with all `names` by the function; say so where it is not."""
    missing = sorted(names.difference(makes.__code__.co_names))
    if missing:
        worker.log.warning(
            "HTTP/2 connections are not told to go: this gunicorn's have no %s", ", ".join(missing)
        )
    return not missing


def _go_away() -> bytes:
    from hyperframe.frame import GoAwayFrame

    return GoAwayFrame(last_stream_id=ANY_STREAM).serialize()


# -- threads and greenlets -----------------------------------------------------------------------


def blocking_connections(worker: Any) -> BlockingConnections | None:
    """Take over how gthread and gevent wait on idle connections; None = none are to be expected."""
    if not _speaks(worker):
        return None
    from gunicorn.http2.connection import HTTP2ServerConnection

    if not _has(worker, HTTP2ServerConnection.__init__, BLOCKING):
        return None
    return BlockingConnections(HTTP2ServerConnection)


class BlockingConnections:
    """The connections of a worker; each is written to only by the thread that serves it."""

    def __init__(self, kind: Any) -> None:
        self._receive = kind.receive_data
        self._drain, self._end = os.pipe(), os.pipe()
        self._told: WeakSet[Any] = WeakSet()

        def receive_data(connection: Any, data: bytes | None = None) -> Any:
            return self.receive(connection, data)

        kind.receive_data = receive_data

    def drain(self) -> None:
        """Have every connection told to go, those with streams as soon as they are idle."""
        os.write(self._drain[1], b"1")

    def end(self) -> None:
        """Have every idle connection closed."""
        os.write(self._end[1], b"1")

    def receive(self, connection: Any, data: bytes | None) -> Any:
        """Return new requests; in place of `HTTP2ServerConnection.receive_data`."""
        queued = connection.pending_requests or connection._deferred_events
        if data == b"":  # gunicorn asks for what is queued, and takes it for the client's end
            return self._receive(connection) if queued else []
        idle = data is None and not queued and not connection.streams
        if idle and not self._client_speaks(connection):
            connection.close(last_stream_id=connection.h2_conn.highest_inbound_stream_id)
            return []
        return self._receive(connection, data)

    def _client_speaks(self, connection: Any) -> bool:
        """Wait for the client; False = for too long, or to the end."""
        sock, limit = connection.sock, connection.idle_timeout
        pending = getattr(sock, "pending", None)  # what TLS has read already
        poll = select.poll()  # gevent replaces it
        for fd in (sock.fileno(), self._end[0]):
            poll.register(fd, select.POLLIN)
        if connection not in self._told:
            poll.register(self._drain[0], select.POLLIN)
        while not (pending is not None and pending()):
            ready = {fd for fd, _ in poll.poll(limit and limit * 1000)}
            if sock.fileno() in ready:
                return True
            if not ready or self._end[0] in ready:
                return False
            self._told.add(connection)
            poll.unregister(self._drain[0])
            sock.sendall(_go_away())
        return True


# -- the event loop ------------------------------------------------------------------------------


def tell_asgi_connections(worker: Any) -> None:
    """Tell the connections of an ASGI worker; to be called on its loop when it stops accepting."""
    if not _speaks(worker):
        return
    from gunicorn.asgi.protocol import ASGIProtocol
    from gunicorn.http2.async_connection import AsyncHTTP2Connection

    serve: Any = getattr(ASGIProtocol, "_handle_http2_connection", ASGIProtocol.__init__)
    made = _has(worker, AsyncHTTP2Connection.__init__, ASYNC)
    if not (made and _has(worker, serve, {"_h2_conn"})):
        return
    for connection in set(_asgi_connections(ASGIProtocol)):
        connection.close = partial(_close, connection, connection.close)
        if connection.streams:
            clean_up = connection.cleanup_stream
            connection.cleanup_stream = partial(_tell_when_idle, connection, clean_up)
        else:
            connection.writer.write(_go_away())


def _asgi_connections(kind: type) -> Iterator[Any]:
    """Yield the connections of this loop, from the tasks that serve them and their streams."""
    for task in asyncio.all_tasks():
        for frame in await_chain(task.get_coro()):
            served_by = frame.f_locals.get("self")
            connection = getattr(served_by, "_h2_conn", None)
            if isinstance(served_by, kind) and connection is not None and not connection.is_closed:
                yield connection


def _tell_when_idle(connection: Any, clean_up: Any, stream: int) -> None:
    clean_up(stream)
    if not connection.streams and not connection.is_closed:
        connection.cleanup_stream = clean_up
        connection.writer.write(_go_away())


async def _close(
    connection: Any, close: Any, error_code: int = 0, last_stream_id: int | None = None
) -> None:
    if last_stream_id is None:
        last_stream_id = connection.h2_conn.highest_inbound_stream_id
    await close(error_code, last_stream_id)
