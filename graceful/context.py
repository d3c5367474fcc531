"""What handlers may ask from anywhere inside a request or a background task: plain functions.

All of it is about the process's own lifecycle and the exchange of the current context.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import Any

from .core.inflight import Exchange, Hold
from .lifecycle import Lifecycle, current

__all__ = [
    "StreamClosed",
    "current_exchange",
    "draining",
    "hold",
    "remaining",
    "wait_draining",
]

exchange_var: ContextVar[Exchange | None] = ContextVar("graceful_exchange", default=None)


class StreamClosed(ConnectionError):
    """The stream was ended by its farewell; the client has been told to reconnect elsewhere.

    An `OSError`, as the ASGI specification asks of a `send` after the client has gone.
    """


def current_exchange() -> Exchange | None:
    """Return the exchange that this code works for, None outside of requests."""
    exchange = exchange_var.get()
    return exchange if exchange is not None and exchange in current().tracker.live else None


class _Handle:
    """`scope["state"]["graceful"]`: whatever is asked of it is asked of the current exchange.

    One object for all requests: servers copy the state of the lifespan into each request's, so it
    costs nothing there.
    """

    def __getattr__(self, name: str) -> Any:
        exchange = current_exchange()
        if exchange is None:
            raise LookupError("no request is being served in this context")
        return getattr(exchange, name)


HANDLE = _Handle()


def draining() -> bool:
    """Whether the drain has begun: long work should come to an end."""
    return current().draining()


def remaining() -> float:
    """Return the seconds left for work: infinite until the process is told to stop."""
    return current().remaining()


async def wait_draining() -> None:
    """Return when the drain begins, on asyncio or trio."""
    await current().wait_draining()


class hold:
    """Keep the process for background work, by name, until the block is left.

    At most until the drain deadline; what is still held then is named in the drain report. Works
    as a sync and as an async context manager, in any thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lifecycle: Lifecycle | None = None
        self._hold: Hold | None = None

    def __enter__(self) -> hold:
        self._lifecycle = current()
        self._hold = self._lifecycle.hold(self._name)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lifecycle is not None and self._hold is not None:
            self._lifecycle.release(self._hold)

    async def __aenter__(self) -> hold:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)
