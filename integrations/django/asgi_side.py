"""Requests of ASGI servers: the ASGI shell's own exchange, with Django's response for a wire.

The exchange sends ASGI messages; here they go into an outbox, from where they are put into the
response (`Connection: close`) and into its stream (the farewell). What is decided, and when, is
the shell's and the core's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import FrameType
from typing import Any, Final

from asgiref.sync import async_to_sync
from django.core.exceptions import RequestAborted
from django.http import HttpResponse

from graceful._asgi_exchange import Shell
from graceful._asgi_http import HttpExchange
from graceful._asgi_types import Message
from graceful.asgi import GracefulMiddleware as AsgiMiddleware
from graceful.asgi import within_another
from graceful.context import StreamClosed, exchange_var
from graceful.probes import Answer

from .conf import SOURCE, Configuration
from .responses import end_with, plain_text, whole

__all__ = ["AsgiSide"]

Request = Any
Response = Any

STARTED: Final[Message] = {"type": "http.response.start", "headers": []}
"""What an ordinary response has begun with, as far as anybody will ask."""


class AsgiSide(AsgiMiddleware):
    """The ASGI shell, called with Django's requests instead of with scopes."""

    written_at = SOURCE

    def __init__(
        self, configuration: Configuration, get_response: Callable[[Request], Any]
    ) -> None:
        keywords: dict[str, Any] = dict(configuration.keywords)
        super().__init__(_no_app, **configuration.options, **keywords)
        self._get_response = get_response
        self._said_outer = False

    def _name(self) -> str:
        return "Django"

    # -- on the event loop ------------------------------------------------------------------

    async def serve(self, request: Request) -> Response:
        """Serve one request on the async path."""
        scope = request.scope
        if within_another(scope):
            return await self._pass_on(request)
        shell = self._entered()
        probe = await self._probe(request, shell)
        if probe is not None:
            return probe
        if shell is None:
            return self._misconfigured()
        exchange = DjangoExchange(shell, scope)
        if (refused := exchange.refusal()) is not None:
            return refused
        exchange.runs_in(asyncio.current_task())
        token = exchange_var.set(exchange)
        try:
            response = await self._get_response(request)
        except BaseException as error:
            if not exchange.forgives(error):
                exchange.over()
                raise
            response = exchange.last_words()
        finally:
            exchange_var.reset(token)
        return exchange.carry(response)

    async def _probe(self, request: Request, shell: Shell | None) -> Response | None:
        kind = self._probes.match(request.path_info) if self._probes is not None else None
        if kind is None or self._probes is None:
            return None
        if shell is None and kind == "ready":
            return self._misconfigured()
        core = shell.core if shell is not None else self.lifecycle.core
        if kind == "live":
            return _translated(self._probes.liveness(core, request.method))
        if self._probes.leaves_readiness_to_app(core):
            return None
        return _translated(await self._probes.readiness(core, request.method))

    def _misconfigured(self) -> Response:
        return plain_text(503, self._problem, {"Retry-After": "1", "Cache-Control": "no-store"})

    async def _pass_on(self, request: Request) -> Response:
        self._say_outer()
        return await self._get_response(request)

    def _say_outer(self) -> None:
        if not self._said_outer:
            self._said_outer = True
            self._say_wrapped_twice(self.lifecycle)

    # -- in a thread ------------------------------------------------------------------------

    def serve_in_thread(self, request: Request) -> Response:
        """Serve one request of an ASGI server in the thread of a sync middleware further in."""
        if within_another(request.scope):
            self._say_outer()
            return self._get_response(request)
        shell = self._shell_from_thread()
        if self._probes is not None and self._probes.match(request.path_info) is not None:
            probe = async_to_sync(self._probe)(request, shell)
            if probe is not None:
                return probe
        if shell is None:
            return self._misconfigured()
        exchange = DjangoExchange(shell, request.scope)
        if (refused := exchange.refusal()) is not None:
            return refused
        token = exchange_var.set(exchange)
        try:
            response = self._get_response(request)
        except BaseException:
            exchange.over()
            raise
        finally:
            exchange_var.reset(token)
        return exchange.carry(response)

    def _shell_from_thread(self) -> Shell | None:
        member = self._member
        if member is not None and member.loop.is_alive():
            return self._shell

        async def enter() -> Shell | None:
            return self._entered()

        return async_to_sync(enter)()


class DjangoExchange(HttpExchange):
    """One request, in flight until its response is closed."""

    __slots__ = ("outbox", "task")

    def __init__(self, shell: Shell, scope: dict[str, Any]) -> None:
        self.shell = shell
        self.scope = scope
        self.outbox: list[Message] = []
        self.task: asyncio.Task[Any] | None = None
        self._first = self._last = None
        shell.tracker.begin(self, shell.clock())
        if not shell.tracker.plain:
            self.watch()

    async def _send(self, message: Message) -> None:
        # A method, for a bound one in the slot would be a cycle for each request.
        self.outbox.append(message)

    # -- what the side asks ----------------------------------------------------------------

    def refusal(self) -> Response | None:
        """Return the answer to a request that has come too late; it is over with that."""
        shell = self.shell
        if shell.tracker.plain or not shell.core.late_request(self, shell.clock()):
            return None
        shell.tracker.drop(self)
        return plain_text(503, "draining", {"Retry-After": "1", **self.close_header()})

    def runs_in(self, task: asyncio.Task[Any] | None) -> None:
        """Take note of the task for this request; after an error nobody closes a response."""
        self.task = task
        if task is not None:
            task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        closes_later = _is_of_django_5(task) and not task.cancelled() and task.exception() is None
        if not closes_later:
            self.over()

    def over(self) -> None:
        """The response has been closed; from any thread. A second time changes nothing."""
        self.shell.tracker.end(self, self.shell.clock())

    def last_words(self) -> Response:
        """Return what a cut has left for a request without a response."""
        sent, self.outbox = self.outbox, []
        return whole(sent) or plain_text(503, "cut at the drain deadline", self.close_header())

    def carry(self, response: Response) -> Response:
        """Have the response go through this exchange, as far as it needs to."""
        if self.ended:  # cut, and answered all the same
            self.uncancel()
            self.outbox.clear()
            if response.streaming:
                response.close()
                response = self.last_words()
        elif response.streaming:
            self._carry_stream(response)
        else:
            if self._says_close():
                response["Connection"] = "close"
            self._first = STARTED
        end_with(response, self.over)
        return response

    def _carry_stream(self, response: Response) -> None:
        headers = [(k.lower().encode(), str(v).encode("latin-1")) for k, v in response.items()]
        start = {"type": "http.response.start", "headers": headers}
        _finish(self.send(start))
        if (b"connection", b"close") in self.outbox.pop(0)["headers"]:
            response["Connection"] = "close"
        if getattr(response, "file_to_stream", None) is not None:
            return  # a file is no stream of events, and keeps its fast path
        parts = response.streaming_content
        if response.is_async:
            response.streaming_content = _AsyncParts(self, parts)
        else:
            response.streaming_content = _parts(self, parts)

    def take(self, part: bytes) -> None:
        """Pass on one part of the stream, and the farewell after it if it is due."""
        _finish(self.send({"type": "http.response.body", "body": part, "more_body": True}))

    def complete(self) -> None:
        """The stream has come to its own end."""
        self._complete = True

    @property
    def gone(self) -> bool:
        """Whether the stream has been ended, so that nothing more of the app's is sent."""
        return self._gone or self.ended

    # -- for reports and cuts ------------------------------------------------------------------

    def _task(self) -> asyncio.Task[Any] | None:
        return self.task

    def _is_called_by(self, frame: FrameType) -> bool:
        ours = frame.f_globals.get("__name__") == __name__
        return ours and frame.f_locals.get("exchange") is self


class _AsyncParts:
    """The stream of an app, part by part; a farewell ends it without the next one."""

    def __init__(self, exchange: DjangoExchange, parts: AsyncIterator[bytes]) -> None:
        self._exchange = exchange
        self._parts = parts

    def __aiter__(self) -> _AsyncParts:
        return self

    async def __anext__(self) -> bytes:
        exchange = self._exchange
        if not exchange.outbox:
            await self._fill(exchange)
        if not exchange.outbox:
            raise StopAsyncIteration
        body: bytes = exchange.outbox.pop(0)["body"]
        return body

    async def _fill(self, exchange: DjangoExchange) -> None:
        if exchange.task is None:  # the response was made in a thread
            exchange.runs_in(asyncio.current_task())
        if not exchange.gone:
            part = await self._next(exchange)
            if part is not None and not exchange.gone:
                exchange.take(part)
        if exchange.gone and not exchange.unwinding:
            exchange.unwinding = True
            await self._close()

    async def _next(self, exchange: DjangoExchange) -> bytes | None:
        interrupt = exchange._receiving = exchange.shell.loop.interrupt()
        token = exchange_var.set(exchange)
        try:
            with interrupt:
                return await anext(self._parts)
        except StopAsyncIteration:
            exchange.complete()
        except asyncio.CancelledError:
            if exchange.uncancel() and not _is_of_django_5(exchange.task):
                raise RequestAborted from None
            raise
        except Exception:
            if not exchange.gone:  # otherwise it is how the app takes its end
                exchange.over()
                raise
        finally:
            exchange_var.reset(token)
            exchange._receiving = None
        return None

    async def _close(self) -> None:
        close: Callable[[], Awaitable[None]] | None = getattr(self._parts, "aclose", None)
        if close is not None:
            await close()


def _is_of_django_5(task: asyncio.Task[Any] | None) -> bool:
    """Whether `task` was made by Django for one response, and takes a cancellation for its end.

    So up to 5.2; since 6.0 views run in the server's task, and `RequestAborted` is what ends them.
    """
    coroutine = task.get_coro() if task is not None else None
    return getattr(coroutine, "__name__", "") == "process_request"


def _parts(exchange: DjangoExchange, parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same for a sync iterator, which can only be ended between two parts."""
    for part in parts:
        if not exchange.gone:
            with contextlib.suppress(StreamClosed):  # ended by the loop this very moment
                exchange.take(part)
        while exchange.outbox:
            yield exchange.outbox.pop(0)["body"]
        if exchange.gone:
            exchange.unwinding = True
            return
    exchange.complete()


def _finish(job: Awaitable[None]) -> None:
    """Run `job`, which only puts something into the outbox, to its end."""
    for _ in job.__await__():
        raise AssertionError("nothing is waited for on the way to the outbox")


def _translated(answer: Answer) -> Response:
    response: Response = HttpResponse(answer.body, status=answer.status)
    for name, value in answer.headers:
        response[name.decode()] = value.decode()
    return response


async def _no_app(scope: object, receive: object, send: object) -> None:
    raise AssertionError("Django's own chain is called")
