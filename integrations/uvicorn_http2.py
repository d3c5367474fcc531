"""HTTP/2 connections of uvicorn (`--http zttp --http2`): told to go in the drain.

uvicorn alone says GOAWAY when it closes a connection, and answers 503 to whoever has not known
before. Here a connection is told twice, as RFC 9113, 6.8 has it: once with the highest stream there
can be, so that what is on the wire is still served, and at the end, by uvicorn, with the last one
that was. Not before it is idle: clients built on the `h2` package give up what is in flight on a
GOAWAY.

The frame is written past zttp's own state, which knows only of the last one. Names used of the
connection: `cycles`, `transport` and `on_stream_closed`. Tested with uvicorn 0.54 and zttp 0.0.35;
where one is gone, connections end as uvicorn ends them, and a warning says so.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

__all__ = ["tell_connections"]

GO_AWAY: Final = b"\0\0\x08\x07\0\0\0\0\0" + b"\x7f\xff\xff\xff" + b"\0\0\0\0"
"""8 bytes of type GOAWAY on stream 0: any stream may still be served, and no error."""

NAMES: Final = ("cycles", "transport", "on_stream_closed")


def tell_connections(connections: Iterable[object]) -> None:
    """Tell those that speak HTTP/2; to be called on their loop when it stops accepting."""
    module = sys.modules.get("uvicorn.protocols.http.zttp_h2_impl")
    kind = getattr(module, "ZttpH2Protocol", ())
    told = [connection for connection in connections if isinstance(connection, kind)]
    missing = {name for name in NAMES for connection in told if not hasattr(connection, name)}
    if missing:
        logging.getLogger("uvicorn.error").warning(
            "HTTP/2 connections are not told to go: this uvicorn's have no %s",
            ", ".join(sorted(missing)),
        )
        return
    for connection in told:
        _tell(connection)


def _tell(connection: Any) -> None:
    if not connection.cycles:
        connection.transport.write(GO_AWAY)
        return
    closed = connection.on_stream_closed
    connection.on_stream_closed = partial(_tell_when_idle, connection, closed)


def _tell_when_idle(connection: Any, closed: Any) -> None:
    if not connection.cycles and not connection.transport.is_closing():
        connection.on_stream_closed = closed
        connection.transport.write(GO_AWAY)
    closed()
