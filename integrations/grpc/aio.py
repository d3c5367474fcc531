"""`grpc.aio`: an interceptor, and RPCs whose handlers are coroutines.

Public names only: `grpc.aio.ServerInterceptor`, and `abort`, `write` and `trailing_metadata` of the
servicer context. Tested with grpcio 1.85.

How it fits together
- Each handler runs within `AioExchange.run`. Async generators are iterated there and written from
  there, so that one lock guards all writes of an RPC: a farewell comes between two messages.
- A farewell sends the status and then cancels the handler, which is how gRPC tells handlers that
  their RPC is over.
- Once its handler has returned, grpc frees the call: nothing may be sent then.
- Sync handlers, which `grpc.aio` runs in threads, are those of `threaded.py`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import anyio
import grpc
import grpc.aio

from graceful.context import StreamClosed, exchange_var
from graceful.core.inflight import Failed
from graceful.core.records import Fault
from graceful.driver import call
from graceful.loops import (
    AsyncioLoop,
    await_chain,
    format_frames,
    thread_working_for,
)

from .exchange import CUT, DRAINING, GrpcExchange, behaviour_of, is_quiet, rewrapped
from .threaded import wrapped_in_threads

__all__ = ["FAREWELL_LIMIT", "AioExchange", "Farewell", "interceptor"]

if TYPE_CHECKING:  # the stubs are generic, grpc's own classes are not
    _Base = grpc.aio.ServerInterceptor[Any, Any]
else:
    _Base = grpc.aio.ServerInterceptor

FAREWELL_LIMIT: Final = 1.0
"""Seconds that the user's farewell may take."""

Farewell = Callable[[GrpcExchange], object]


def interceptor(farewell: Farewell | None = None) -> grpc.aio.ServerInterceptor[Any, Any]:
    """Return the interceptor for a `grpc.aio.server`; make it the first one.

    Args:
        farewell: called with the exchange of a stream that is about to be told to reconnect;
            what it returns (sync or async) is sent as the stream's last message. None = none.

    Raises:
        TypeError: `farewell` can't be called.
    """
    return _Interceptor(checked(farewell))


def checked(farewell: Farewell | None) -> Farewell | None:
    """Return `farewell`, which is a callable or None."""
    if farewell is None or callable(farewell):
        return farewell
    raise TypeError(f"farewell = {farewell!r}: give a callable that returns a message or None")


class _Interceptor(_Base):
    """Puts each handler into an exchange."""

    def __init__(self, farewell: Farewell | None) -> None:
        self._farewell = farewell
        self._loop: AsyncioLoop | None = None

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method: str = handler_call_details.method
        behaviour = behaviour_of(handler)
        if is_quiet(method, behaviour):
            return handler
        generates = inspect.isasyncgenfunction(behaviour)
        if not (generates or inspect.iscoroutinefunction(behaviour)):
            return wrapped_in_threads(method, handler, self._farewell)
        if self._loop is None or not self._loop.is_current():
            self._loop = AsyncioLoop(asyncio.get_running_loop())
        loop = self._loop

        async def run(request: Any, context: Any) -> Any:
            exchange = AioExchange(method, context, handler)
            exchange.loop = loop
            exchange.words = self._farewell if handler.response_streaming else None
            return await exchange.run(behaviour, request, generates=generates)

        return rewrapped(handler, run, handler.response_serializer)


class AioExchange(GrpcExchange):
    """One RPC whose handler is a coroutine."""

    loop: AsyncioLoop
    words: Farewell | None = None
    _abort: BaseException | None = None  # what grpc wants to see at the end of an aborted handler
    _task: asyncio.Task[Any] | None = None
    _work: object = None

    # -- the handler's side ------------------------------------------------------------------

    async def run(
        self, behaviour: Callable[[Any, Any], Any], request: Any, *, generates: bool
    ) -> Any:
        """Do what the handler does, and be in flight meanwhile."""
        now = self.lifecycle.clock()
        if self.turned_away(now):
            await self.context.abort(grpc.StatusCode.UNAVAILABLE, DRAINING, self.trailing())
        self._task = asyncio.current_task()
        self.writing = asyncio.Lock()
        self.core.tracker.begin(self, now)
        self.context.add_done_callback(self._done)  # the handler is over, and all has been sent
        exchange_var.set(self)  # grpc gives each RPC a task, and so a context, of its own
        try:
            if generates:
                return await self._write_all(behaviour, request)
            self._work = work = behaviour(request, _Context(self))
            response = await work
            async with self.writing:  # a farewell under way
                self.over = True
            if self._abort is None:
                return response
        except BaseException as error:
            if self._abort is None:
                raise
            self._report(error)
        finally:
            self.over = True
        raise self._abort

    def _done(self, _: object) -> None:
        self.core.tracker.end(self, self.lifecycle.clock())

    async def _write_all(self, behaviour: Callable[[Any, Any], Any], request: Any) -> None:
        """Iterate over an async generator and write what it yields."""
        context = _Context(self)
        self._work = messages = behaviour(request, context)
        async with aclosing(messages):
            async for message in messages:
                await context.write(message)
        async with self.writing:
            self.over = True
        if self._abort is not None:
            raise self._abort

    def _report(self, error: BaseException) -> None:
        """Tell of an error that comes after the end, unless it is only its echo."""
        echo = isinstance(error, (asyncio.CancelledError, StreamClosed)) or error is self._abort
        if not echo and isinstance(error, Exception):
            text = f"{type(error).__name__}: {error}"
            self.lifecycle.publish(Fault(f"handler of {self.method} after its farewell", text))

    # -- the driver's side -------------------------------------------------------------------

    def start_farewell(self, failed: Failed) -> None:
        self._start(self._say_farewell, failed)

    def start_cut(self, failed: Failed) -> None:
        self._start(self._cut_short, failed)

    def end_app(self) -> None:
        self.loop.soon(self._cancel)

    def _start(self, action: Callable[[], Awaitable[None]], failed: Failed) -> None:
        async def guarded() -> None:
            try:
                await action()
            except Exception as error:
                if not self.over:  # otherwise its client has gone
                    failed(self, error)

        self.loop.soon(lambda: self.loop.spawn(guarded))

    async def _say_farewell(self) -> None:
        message = await self._message()
        async with self.writing:
            if self.over or self.ended:
                return
            try:
                if message is not None:
                    await self.context.write(message)
                await self._end(DRAINING)
                self.core.told(self, self.lifecycle.clock())
            finally:
                self._cancel()

    async def _cut_short(self) -> None:
        try:
            if not self.writing.locked():  # by a client that doesn't read, whom nothing reaches
                async with self.writing:
                    if not (self.over or self.ended):
                        await self._end(CUT)
        finally:
            self._cancel()

    async def _end(self, details: str) -> None:
        """Send the status."""
        self.ended = True
        try:
            await self.context.abort(grpc.StatusCode.UNAVAILABLE, details, self.trailing())
        except grpc.aio.AbortError as abort:
            self._abort = abort

    def _cancel(self) -> None:
        if not self.over and self._task is not None:
            self.unwinding = True
            self._task.cancel("graceful: this RPC was told to go elsewhere")

    async def _message(self) -> object:
        """Ask the user's farewell; without an answer the status alone has to do."""
        if self.words is None:
            return None
        try:
            with anyio.fail_after(FAREWELL_LIMIT):
                return await call(self.words, self)
        except TimeoutError:
            self._fault(f"took longer than {FAREWELL_LIMIT:g} s")
        except Exception as error:
            self._fault(f"{type(error).__name__}: {error}")
        return None

    def _fault(self, error: str) -> None:
        if not self.core.tally.farewells_failed:  # once: a broken callable fails for every client
            self.lifecycle.publish(Fault("farewell", error))
        self.core.tally.farewells_failed += 1

    # -- for reports -------------------------------------------------------------------------

    def stack(self) -> str:
        thread = thread_working_for(lambda context: context.get(exchange_var) is self)
        return format_frames(await_chain(self._work) + thread)


class _Context:
    """The servicer context, as the handler sees it."""

    def __init__(self, exchange: AioExchange) -> None:
        self._exchange = exchange
        self._context = exchange.context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: Any) -> None:
        """Write a message, whole, before or after a farewell but never beside it.

        Raises:
            StreamClosed: the client has been told to reconnect.
        """
        exchange = self._exchange
        async with exchange.writing:
            if exchange.ended:
                raise StreamClosed("this RPC was ended: its client has been told to reconnect")
            await self._context.write(message)

    async def abort(self, *arguments: Any, **named: Any) -> None:
        """Send the status, as the handler likes it, unless a farewell was first."""
        exchange = self._exchange
        async with exchange.writing:
            if exchange.ended:
                raise StreamClosed("this RPC was ended: its client has been told to reconnect")
            exchange.over = True
            await self._context.abort(*arguments, **named)

    async def abort_with_status(self, status: Any) -> None:
        """As `abort`."""
        await self.abort(status.code, status.details, status.trailing_metadata)
