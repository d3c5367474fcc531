"""What RPCs of both kinds of server share: what they are, what they are called, what is said.

How an RPC is ended differs between coroutines and threads and is in `aio.py` and `threaded.py`.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote

import grpc

from graceful.core.inflight import Exchange, Policy
from graceful.core.lifecycle import LifecycleCore
from graceful.lifecycle import Lifecycle, current

__all__ = [
    "CUT",
    "DRAINING",
    "HEALTH",
    "PUSHBACK",
    "GrpcExchange",
    "is_quiet",
    "rewrapped",
    "with_pushback",
]

PUSHBACK: Final = "grpc-retry-pushback-ms"
"""Trailing metadata by which a server says when to retry (gRFC A6)."""

HEALTH: Final = "/grpc.health.v1.Health/"
"""Probes are never tracked, and a watch must not be told to go elsewhere."""

DRAINING: Final = "draining; connect to another server"
CUT: Final = "cut at the drain deadline"

Metadata = tuple[tuple[str, str | bytes], ...]


class GrpcExchange(Exchange):
    """One RPC."""

    kind = "grpc"

    ended = False
    """We have sent the status; what the handler still sends goes nowhere."""
    over = False
    """The handler has returned: grpc does the rest, and nobody else may touch the call."""
    farewell_due = False

    def __init__(self, method: str, context: Any, handler: Any) -> None:
        self.lifecycle: Lifecycle = current()
        self.core: LifecycleCore = self.lifecycle.core
        self.began = 0.0
        self.method = method
        """As gRPC writes it: /package.Service/Method."""
        self.context = context
        """The servicer context."""
        self._streams = bool(handler.request_streaming or handler.response_streaming)
        self._retry_after_ms: int | None = None
        if handler.request_streaming and not handler.response_streaming:
            self.policy = "finish"  # an upload: half of one is worth nothing

    # -- for handlers --------------------------------------------------------------------

    @property
    def is_stream(self) -> bool:
        return self._streams

    def declare_stream(
        self,
        policy: Policy = "reconnect",
        *,
        boundary: bytes | None = None,
        farewell: bytes = b"",
    ) -> None:
        """Declare that this RPC is a long-lived one, such as a unary long poll.

        Args:
            policy: `reconnect`, or `finish` for one that can't be resumed.
            boundary: of no meaning here: messages have their own.
            farewell: likewise; see `interceptor`.
        """
        self._streams = True
        self.policy = policy
        if self.core.turns_away(self):
            self.start_farewell(lambda exchange, error: None)

    @property
    def retry_after_ms(self) -> int:
        """Milliseconds that this client is told to wait; drawn once for each RPC."""
        if self._retry_after_ms is None:
            self._retry_after_ms = self.core.retry_delay_ms()
        return self._retry_after_ms

    # -- for the shells --------------------------------------------------------------------

    def turned_away(self, now: float) -> bool:
        """Whether this RPC, which has just come, is not served any more."""
        if self.core.traits.ready:
            return False
        if self.is_stream:
            return not self.core.admits_streams
        return self.core.late_request(self, now) is not None

    def trailing(self) -> Metadata:
        """Return the trailing metadata of a farewell: the handler's own and the delay."""
        return with_pushback(self.context, self.retry_after_ms)

    # -- for reports -------------------------------------------------------------------------

    def describe(self) -> dict[str, str]:
        return {"method": "GRPC", "path": self.method, "client": peer_name(self.context.peer())}


def with_pushback(context: Any, delay_ms: int) -> Metadata:
    """Return the trailing metadata that `context` has, and the delay."""
    trailing = getattr(context, "trailing_metadata", tuple)  # sync handlers on aio have none
    own: Any = (trailing() or ()) if callable(trailing) else ()
    kept = tuple((key, value) for key, value in own if key != PUSHBACK)
    return (*kept, (PUSHBACK, str(delay_ms)))


def peer_name(peer: str) -> str:
    """Return a client as other reports name it: address and port."""
    scheme, _, rest = unquote(peer).partition(":")
    return rest if scheme in ("ipv4", "ipv6") else peer


def is_quiet(method: str, behaviour: Any) -> bool:
    """Whether an RPC is none of a drain's business.

    Handlers with `experimental_non_blocking`, as the health service's, return long before their
    RPC is over: there would be no end to wait for.
    """
    return method.startswith(HEALTH) or bool(getattr(behaviour, "experimental_non_blocking", False))


def rewrapped(handler: Any, behaviour: Any, serializer: Any) -> Any:
    """Return a handler like `handler` that does `behaviour`."""
    make = MAKERS[bool(handler.request_streaming), bool(handler.response_streaming)]
    return make(
        behaviour,
        request_deserializer=handler.request_deserializer,
        response_serializer=serializer,
    )


def behaviour_of(handler: Any) -> Any:
    """Return what `handler` does."""
    names = {
        (False, False): handler.unary_unary,
        (False, True): handler.unary_stream,
        (True, False): handler.stream_unary,
        (True, True): handler.stream_stream,
    }
    return names[bool(handler.request_streaming), bool(handler.response_streaming)]


MAKERS: Final[dict[tuple[bool, bool], Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""By (request_streaming, response_streaming)."""
