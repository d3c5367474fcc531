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

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python itself asks, to copy it for example
            raise AttributeError(name)
        return getattr(self._exchange(), name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._exchange(), name, value)

    @staticmethod
    def _exchange() -> Exchange:
        exchange = current_exchange()
        if exchange is None:
            raise LookupError("no request is being served in this context")
        return exchange


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
        self._held: list[tuple[Lifecycle, Hold]] = []  # it may be entered again while it is held

    def __enter__(self) -> hold:
        lifecycle = current()
        self._held.append((lifecycle, lifecycle.hold(self._name)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lifecycle, held = self._held.pop()
        lifecycle.release(held)

    async def __aenter__(self) -> hold:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)
