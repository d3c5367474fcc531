"""What HTTP and WebSocket exchanges of the ASGI shell share: their task, their loop, their end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from traceback import clear_frames
from types import FrameType
from typing import Any, Final, Self, cast

from ._asgi_types import App, Message, Receive, Scope, Send
from .context import StreamClosed, exchange_var
from .core.inflight import Exchange, Failed, Tracker
from .core.lifecycle import LifecycleCore
from .core.records import Record
from .core.traits import UNKNOWN, ServerTraits
from .loops import (
    AsyncioLoop,
    Interrupt,
    Loop,
    await_chain,
    format_frames,
    frames_of,
    thread_working_for,
)

__all__ = ["LAST_WORDS", "NO_SCOPE", "AsgiExchange", "Farewell", "Shell", "after_end"]

TRIES: Final = 3
"""Sends after the end of a stream by which its app must have understood."""

LAST_WORDS: Final = 0.25
"""Seconds that a cut gives a client to take what is sent last; one that doesn't read gets none."""

NO_SCOPE: Final[Scope] = {}
"""The scope of an exchange that is over."""


async def after_end(*_: Message) -> Any:
    """The `receive` and `send` of an exchange that is over.

    Raises:
        StreamClosed: always.
    """
    raise StreamClosed("this request is over: its app has returned")


Farewell = str | bytes | Callable[[Any], object] | None


@dataclass(frozen=True, slots=True)
class Shell:
    """What the exchanges of one wrapped app have in common during one life."""

    core: LifecycleCore
    tracker: Tracker
    live: dict[Exchange, None]
    loop: Loop
    clock: Callable[[], float]
    publish: Callable[[Record], None]
    farewell: Farewell
    sse_event: str
    traits: ServerTraits = UNKNOWN


class AsgiExchange(Exchange):
    """One call of the app."""

    # Set by the middleware itself, attribute by attribute: a call of `__init__` for each request
    # would cost as much as all of them.
    __slots__ = ("_receive", "_send", "scope")
    shell: Shell
    scope: Scope
    _receive: Receive
    _send: Send

    farewell_due = False
    ended = False
    """We have ended the response or the WebSocket; the app's sends fail from here on."""
    _refused = 0
    cancelled = False
    """We have cancelled the app's task."""
    _scoped: Interrupt | None = None
    _receiving: Interrupt | None = None

    @classmethod
    def of(cls, shell: Shell, scope: Scope, receive: Receive, send: Send) -> Self:
        """Return a new exchange for one call of the app."""
        exchange = cls()
        exchange.shell = shell
        exchange.scope = scope
        exchange._receive = receive
        exchange._send = send
        return exchange

    # -- for handlers --------------------------------------------------------------------

    @property
    def retry_after_ms(self) -> int:
        """Milliseconds that this client is told to wait; drawn once for each exchange."""
        drawn: int | None = self.__dict__.get("_retry_after_ms")
        if drawn is None:
            drawn = self.__dict__["_retry_after_ms"] = self.shell.core.retry_delay_ms()
        return drawn

    # -- for the driver: from any thread ---------------------------------------------------

    def start_farewell(self, failed: Failed) -> None:
        self.farewell_due = True
        self._start(self.farewell, failed)

    def start_cut(self, failed: Failed) -> None:
        self._start(self.cut_short, failed)

    def end_app(self) -> None:
        self.shell.loop.soon(self._end_app)

    def _start(self, action: Callable[[], Awaitable[None]], failed: Failed) -> None:
        async def guarded() -> None:
            try:
                await action()
            except Exception as error:
                failed(self, error)
                self._end_app()

        loop = self.shell.loop
        loop.soon(lambda: loop.spawn(guarded))

    # -- on the loop -----------------------------------------------------------------------

    async def farewell(self) -> None:
        """Tell the client to reconnect and end the stream cleanly."""
        raise NotImplementedError

    async def cut_short(self) -> None:
        """End it by force."""
        raise NotImplementedError

    def receive(self) -> Awaitable[Message]:
        """What the app calls instead of the server's `receive`."""
        raise NotImplementedError

    def send(self, message: Message) -> Awaitable[None]:
        """What the app calls instead of the server's `send`."""
        raise NotImplementedError

    async def run(self, app: App) -> None:
        """Call the app, in a scope of its own where a task can't be cancelled by itself (trio)."""
        if isinstance(self.shell.loop, AsyncioLoop):
            await app(self.scope, self.receive, self.send)
            return
        self._scoped = self.shell.loop.interrupt()
        with self._scoped:
            await app(self.scope, self.receive, self.send)

    def _end_app(self) -> None:
        """Cancel the app's call, if it still runs."""
        if self not in self.shell.core.tracker.live:
            return
        if self._scoped is not None:
            self._scoped.fire()
        elif (task := self._task()) is not None and not task.done():
            self.cancelled = True
            task.cancel("graceful: the drain is over")

    def _interrupt_receive(self) -> None:
        """Make a pending `receive` of the app's return a disconnect."""
        if self._receiving is not None:
            self._receiving.fire()

    def forgives(self, error: BaseException) -> bool:
        """Whether `error` is only the echo of what we did to the app."""
        if isinstance(error, asyncio.CancelledError):
            return self.uncancel()
        if not (self.ended and _is_closed(error)):
            return False
        _let_go(error)
        return True

    def uncancel(self) -> bool:
        """Take our cancellation back from the task; False if somebody else has cancelled it too.

        Also where the app has swallowed it: the server may go on using its task.
        """
        if not self.cancelled:
            return False
        self.cancelled = False
        task = asyncio.current_task()
        return task is not None and task.uncancel() <= 0

    def _end(self) -> None:
        """From here on the app's sends fail."""
        self.ended = True

    def told_now(self) -> None:
        """The farewell is on its way to the client."""
        self.shell.core.told(self, self.shell.clock())

    def _refused_send(self) -> None:
        """The app sends after the end. Once is how it learns of it; a loop of it is ignorance."""
        self._refused += 1
        self.unwinding = self._refused <= TRIES

    # -- for reports -------------------------------------------------------------------------

    def describe(self) -> dict[str, str]:
        scope = self.scope
        client = scope.get("client")
        return {
            "method": scope.get("method", "WEBSOCKET"),
            "path": scope.get("path", ""),
            "client": f"{client[0]}:{client[1]}" if client else "",
        }

    def stack(self) -> str:
        return format_frames(self._frames())

    def _frames(self) -> list[FrameType]:
        thread = thread_working_for(lambda context: context.get(exchange_var) is self)
        for top in sys._current_frames().values():
            running = frames_of(top)
            for index, frame in enumerate(running):
                if self._is_called_by(frame):  # it is being executed at this moment
                    return running[index:] + thread
        task = self._task()
        return (await_chain(task.get_coro()) if task is not None else []) + thread

    def _task(self) -> asyncio.Task[Any] | None:
        """Return the task that runs the middleware's call for this exchange.

        Looked for only when it must be cancelled or named: to note it down for each request would
        be the dearest line of the hot path.
        """
        tasks = self.shell.loop.tasks() if "_found" not in self.__dict__ else ()
        for task in tasks:
            for frame in await_chain(task.get_coro()):
                exchange = _exchange_of(frame)
                if exchange is not None:
                    exchange.__dict__["_found"] = task
        found: asyncio.Task[Any] | None = self.__dict__.get("_found")
        return found

    def _is_called_by(self, frame: FrameType) -> bool:
        return _exchange_of(frame) is self


def _exchange_of(frame: FrameType) -> AsgiExchange | None:
    """Return the exchange that `frame` serves, if it is a call of the middleware."""
    if frame.f_globals.get("__name__") != "graceful.asgi":
        return None
    exchange = frame.f_locals.get("exchange")
    return exchange if isinstance(exchange, AsgiExchange) else None


def _is_closed(error: BaseException) -> bool:
    if parts := _parts(error):
        return all(map(_is_closed, parts))
    # Frameworks translate it: ClientDisconnect and WebSocketDisconnect of Starlette and Litestar.
    return isinstance(error, StreamClosed) or type(error).__name__.endswith("Disconnect")


def _parts(error: BaseException) -> Sequence[BaseException]:
    """Return the exceptions of a group, nothing for any other."""
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).exceptions
    return ()


def _let_go(error: BaseException) -> None:
    """Clear the frames that `error` has passed through.

    A generator of the app's, left at its `yield`, hangs on them; its `finally` should run now and
    not when the collector finds the cycle.
    """
    found = [error]  # grows while it is read; contexts may form a ring
    for one in found:
        clear_frames(one.__traceback__)
        context = () if one.__context__ is None else (one.__context__,)
        found += [part for part in (*_parts(one), *context) if part not in found]
