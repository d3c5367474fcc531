"""HTTP/2 connections of hypercorn: told to go elsewhere when the drain begins.

hypercorn alone says GOAWAY only after the last stream of a connection, and closes idle ones without
a word. Here a connection is told twice, as RFC 9113, 6.8 has it: once with the highest stream there
can be, so that what is on the wire is still served, and at the end with the last one that was.
Not before it is idle: clients built on the `h2` package give up what is in flight on a GOAWAY.

Frames are written past hypercorn's own state, by which a connection that has said GOAWAY can't
serve. Private names used: `TCPServer.protocol`, `ProtocolWrapper.protocol`, and of `H2Protocol`
`idle`, `send` and `connection.highest_inbound_stream_id`. Tested with hypercorn 0.18.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from hypercorn.events import RawData, Updated
from hypercorn.protocol.h2 import H2Protocol
from hyperframe.frame import GoAwayFrame

from graceful.lifecycle import Lifecycle
from graceful.loops import await_chain

__all__ = ["go_away_last", "go_away_when_draining"]

ANY_STREAM: Final = 2**31 - 1


async def go_away_when_draining(
    lifecycle: Lifecycle, connections: Callable[[], Sequence[object]]
) -> None:
    """Tell each connection once the drain has begun, those with streams as soon as they are idle.

    Args:
        lifecycle: knows when.
        connections: returns the coroutines that serve one connection each.
    """
    await lifecycle.wait_draining()
    for protocol in _http2(connections()):
        if protocol.idle:
            await protocol.send(_go_away(ANY_STREAM))
        else:
            _tell_when_idle(protocol)


def _tell_when_idle(protocol: Any) -> None:
    send = protocol.send

    async def send_and_tell(event: object) -> None:
        if isinstance(event, Updated) and event.idle:
            protocol.send = send
            await send(_go_away(ANY_STREAM))
        await send(event)

    protocol.send = send_and_tell


async def go_away_last(connections: Sequence[object]) -> None:
    """Tell each connection which stream was its last: newer ones can safely be sent again."""
    for protocol in _http2(connections):
        await protocol.send(_go_away(protocol.connection.highest_inbound_stream_id))


def _go_away(last_stream: int) -> RawData:
    return RawData(data=GoAwayFrame(last_stream_id=last_stream).serialize())


def _http2(connections: Sequence[object]) -> Iterator[Any]:
    """Yield the protocols of those connections that speak HTTP/2."""
    for coroutine in connections:
        for frame in await_chain(coroutine):
            server = frame.f_locals.get("self")
            wrapper = getattr(server, "protocol", None)
            protocol = getattr(wrapper, "protocol", None)
            if isinstance(protocol, H2Protocol):
                yield protocol
                break
