"""The threaded `grpc.server`: an interceptor, and RPCs whose handlers block a thread.

Names used that are not public, in one line each: `grpc._server._abort` and `_send_response`, and
`_state` and `_rpc_event` of the servicer context. By them a stream is told while its handler
blocks. Tested with grpcio 1.85; where one of them is gone, a stream is told when its handler
yields next.

How it fits together
- The handler's iterator is wrapped: grpc's thread asks for the next message, and finds a farewell
  that is due between two.
- While the handler blocks, its thread can't send, so that another thread may: `_inside` says so,
  under a lock of the RPC.
- What a handler yields after its farewell is dropped by grpc: the RPC is over. Nothing wakes a
  handler that blocks for ever: `context.add_callback` is how gRPC would tell it.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

import grpc

from graceful.context import exchange_var
from graceful.core.inflight import Failed
from graceful.core.records import Fault, Notice
from graceful.lifecycle import current
from graceful.loops import format_frames, frames_of
from graceful.threads import start_work

from .exchange import DRAINING, GrpcExchange, behaviour_of, is_quiet, rewrapped

__all__ = ["ThreadedExchange", "threaded_interceptor", "wrapped_in_threads"]

if TYPE_CHECKING:  # the stubs are generic, grpc's own classes are not
    _Base = grpc.ServerInterceptor[Any, Any]
else:
    _Base = grpc.ServerInterceptor

OVER: Final = object()
"""What is yielded when the status has been sent already: grpc drops it, and the stream is over."""

_counting = threading.Lock()
"""For what the core counts: many threads ask it at once."""


class Names:
    """The private names; see the top of this file."""

    def __init__(self) -> None:
        server: Any = sys.modules.get("grpc._server")
        self.abort: Any = getattr(server, "_abort", None)
        self.send: Any = getattr(server, "_send_response", None)

    def found_in(self, context: Any) -> bool:
        """Whether a status can be sent while the handler of `context` blocks."""
        there = (self.abort, self.send, self.state(context), self.event(context))
        return all(name is not None for name in there)

    @staticmethod
    def state(context: Any) -> Any:
        """Return grpc's state of an RPC."""
        return getattr(context, "_state", None)

    @staticmethod
    def event(context: Any) -> Any:
        """Return the event by which an RPC has begun."""
        return getattr(context, "_rpc_event", None)


def threaded_interceptor(
    farewell: Callable[[GrpcExchange], object] | None = None,
) -> grpc.ServerInterceptor[Any, Any]:
    """Return the interceptor for a threaded `grpc.server`; make it the first one.

    Args:
        farewell: called with the exchange of a stream that is about to be told to reconnect;
            what it returns is sent as the stream's last message. None = none.

    Raises:
        TypeError: `farewell` can't be called, or not by a thread.
    """
    if farewell is not None and not callable(farewell):
        raise TypeError(f"farewell = {farewell!r}: give a callable that returns a message or None")
    if inspect.iscoroutinefunction(farewell):
        raise TypeError(f"farewell = {farewell!r}: a thread can't call coroutines")
    return _Interceptor(farewell)


class _Interceptor(_Base):
    """Puts each handler into an exchange."""

    def __init__(self, farewell: Callable[[GrpcExchange], object] | None) -> None:
        self._farewell = farewell

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        handler = continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or is_quiet(method, behaviour_of(handler)):
            return handler
        return wrapped_in_threads(method, handler, self._farewell)


def wrapped_in_threads(
    method: str, handler: Any, farewell: Callable[[GrpcExchange], object] | None
) -> Any:
    """Return `handler`, which blocks a thread, within an exchange."""
    behaviour = behaviour_of(handler)
    serializer: Callable[[Any], bytes] | None = handler.response_serializer

    def serialize(message: Any) -> Any:
        if message is OVER:
            return b""
        return message if serializer is None else serializer(message)

    def unary(request: Any, context: Any) -> Any:
        with ThreadedExchange(method, context, handler) as exchange:
            return exchange.run(behaviour, request)

    def stream(request: Any, context: Any) -> Any:
        exchange = ThreadedExchange(method, context, handler)
        exchange.words = farewell
        exchange.serialize = serialize
        return exchange.iterate(behaviour, request)

    responds: Any = stream if handler.response_streaming else unary
    return rewrapped(handler, responds, serialize if handler.response_streaming else serializer)


class ThreadedExchange(GrpcExchange):
    """One RPC whose handler blocks a thread."""

    words: Callable[[GrpcExchange], object] | None = None
    serialize: Callable[[Any], Any]
    _inside = False
    """Its thread is in code of the user's that makes a message: it sends nothing."""
    _last_words: Any = None
    """What the user's farewell has returned, until it is sent."""
    _asked = False
    _is_sent = False
    _thread = 0

    def __init__(self, method: str, context: Any, handler: Any) -> None:
        super().__init__(method, context, handler)
        self._lock = threading.Lock()
        self._run_in = copy_context()
        self._names = Names()

    def begin(self) -> None:
        """Be in flight; or, when it is too late for it, turn it away by grpc's exception.

        It is so until its handler has returned and grpc has sent all of it.
        """
        self._thread = threading.get_ident()
        with _counting:
            now = self.lifecycle.clock()
            away = self.turned_away(now)
            if not away:
                self.core.tracker.begin(self, now)
        if away:
            self._abort()
        self._run_in.run(exchange_var.set, self)
        # The context of a sync handler on aio has callbacks as well, but calls only a few of them.
        if not (hasattr(self.context, "is_active") and self.context.add_callback(self._sent)):
            self._is_sent = True

    def end(self) -> None:
        """The handler has returned. A second time changes nothing."""
        self.over = True
        self._end_if_both()

    def _sent(self) -> None:
        self._is_sent = True
        self._end_if_both()

    def _end_if_both(self) -> None:
        if self.over and self._is_sent:
            with _counting:
                self.core.tracker.end(self, self.lifecycle.clock())

    def __enter__(self) -> ThreadedExchange:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def run(self, behaviour: Callable[[Any, Any], Any], request: Any) -> Any:
        """Do what a handler with one response does."""
        return self._run_in.run(behaviour, request, self.context)

    def iterate(self, behaviour: Callable[[Any, Any], Any], request: Any) -> Iterator[Any]:
        """Do what a handler with many responses does, from the first that is asked for."""
        self.begin()
        messages: Iterator[Any] = iter(())
        try:
            messages = iter(self.run(behaviour, request))
            while True:
                with self._lock:
                    due = self.farewell_due
                    self._inside = not due
                if due:
                    yield from self._say_farewell(messages)
                message = self._next(messages)
                if message is OVER and not self.ended:
                    return
                yield message
        finally:
            self._close(messages)
            self.end()

    def _next(self, messages: Iterator[Any]) -> Any:
        """Return the next message, `OVER` when there is none or the stream has been ended."""
        self._thread = threading.get_ident()
        try:
            message = self._run_in.run(next, messages, OVER)
        except Exception as error:
            with self._lock:
                self._inside = False
            if not self.ended:
                raise
            self._fault(f"handler of {self.method} after its farewell", error)
            return OVER
        with self._lock:
            self._inside = False
        return OVER if self.ended else message

    # -- the farewell, by its own thread ---------------------------------------------------------

    def _say_farewell(self, messages: Iterator[Any]) -> Iterator[Any]:
        """Yield the last message, then end the RPC."""
        self._ask()
        if self._last_words is not None:
            yield self._last_words
        self._close(messages)
        self._tell()
        self._abort()

    def _abort(self) -> None:
        """Have grpc send the status: it takes an exception for that."""
        trailing = self.trailing()
        self.context.set_trailing_metadata(trailing)
        self.context.abort(grpc.StatusCode.UNAVAILABLE, DRAINING)

    def _tell(self) -> None:
        self.unwinding = True
        with _counting:
            self.core.told(self, self.lifecycle.clock())

    def _close(self, messages: Iterator[Any]) -> None:
        """Let the handler's generator run its `finally`."""
        close = getattr(messages, "close", None)
        if close is not None:
            try:
                self._run_in.run(close)
            except Exception as error:
                self._fault(f"handler of {self.method} after its farewell", error)

    # -- the driver's side -----------------------------------------------------------------------

    def start_farewell(self, failed: Failed) -> None:
        with self._lock:
            self.farewell_due = True
            blocked = self._inside and not self.over
        if not blocked:
            return
        if not self._names.found_in(self.context):
            current().say_once(
                Notice(
                    "grpc gives no way to end a stream while its sync handler blocks (on grpc.aio, "
                    "or in a version that graceful does not know); it is told when the handler "
                    "yields next"
                )
            )
            return

        def say() -> None:
            try:
                self._say_from_outside()
            except Exception as error:
                if not self.over:  # otherwise its client has gone
                    failed(self, error)

        start_work(say, "graceful-farewell")

    def start_cut(self, failed: Failed) -> None:
        self.farewell_due = True  # a stream still ends with a status, should it wake in time

    def _say_from_outside(self) -> None:
        """Tell the client while the handler blocks, or leave it to its thread that has come back.

        That thread waits for the lock before it passes anything on to grpc.
        """
        self._ask()
        with self._lock:
            if not self._inside or self.over or self.ended:
                return
            state, event = self._names.state(self.context), self._names.event(self.context)
            if self._last_words is not None:
                self._names.send(event, state, self.serialize(self._last_words))
            self.context.set_trailing_metadata(self.trailing())
            self.context.set_code(grpc.StatusCode.UNAVAILABLE)
            self.context.set_details(DRAINING)
            self.ended = True
            with state.condition:
                self._names.abort(state, event.call, grpc.StatusCode.UNAVAILABLE, b"")
        self._tell()

    def _ask(self) -> None:
        """Ask the user's farewell, once; without an answer the status alone has to do."""
        if self.words is None or self._asked:
            return
        self._asked = True
        try:
            self._last_words = self.words(self)
        except Exception as error:
            with _counting:
                first = not self.core.tally.farewells_failed
                self.core.tally.farewells_failed += 1
            if first:  # once: a broken callable fails for every client
                self._fault("farewell", error)

    def _fault(self, what: str, error: Exception) -> None:
        self.lifecycle.publish(Fault(what, f"{type(error).__name__}: {error}"))

    # -- for reports -------------------------------------------------------------------------

    def stack(self) -> str:
        frames = frames_of(sys._current_frames().get(self._thread))
        own = [index for index, frame in enumerate(frames) if self._is_ours(frame)]
        return format_frames(frames[own[-1] + 1 :]) if own else ""

    def _is_ours(self, frame: Any) -> bool:
        return frame.f_code.co_filename == __file__ and frame.f_locals.get("self") is self
