"""One request on WSGI, and the iterable that the server gets for it: the two are one object.

The server's thread runs all of it: `start_response`, each step of the iterable, `close`. The driver
only leaves word (`farewell_due`), which the server's thread finds when it asks for the next part of
the body. Nothing can interrupt an app that blocks in its thread; such a one is named at the end.

An ordinary response passes untouched: a list is iterated by the server itself, and the first part
of anything else is only noted down. Whether it is a stream is looked at with the second part, or
when the process serves no more.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Token
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Final

from ._wsgi_servers import announces_close
from .context import StreamClosed, exchange_var
from .core.farewell import EventBoundary, can_inject, event_stream, sse_farewell
from .core.inflight import Exchange, Failed, Policy, Tracker
from .core.lifecycle import LifecycleCore
from .lifecycle import Lifecycle
from .loops import Loop, format_frames, frames_of

__all__ = [
    "NO_PARTS",
    "Environ",
    "Headers",
    "Shell",
    "StartResponse",
    "WsgiExchange",
    "response_headers",
]

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]

ANYWHERE: Final = b""
"""A boundary that each part of the body ends with."""

MANY_TYPES: Final = 64
"""Types to remember; an app that makes a new one for each response must not fill the memory."""

NO_PARTS: Final[Iterator[bytes]] = iter(())
enter_context, get_exchange = exchange_var.set, exchange_var.get
leave_context = exchange_var.reset


@dataclass(frozen=True, slots=True)
class Shell:
    """What the exchanges of one wrapped app have in common during one life."""

    lifecycle: Lifecycle
    core: LifecycleCore
    tracker: Tracker
    live: dict[Exchange, None]
    loop: Loop
    clock: Callable[[], float]
    sse_event: str
    lock: Any
    """For what the core counts: here many threads ask it at once."""
    no_files: set[type]
    """Types of bodies that are known for no file wrappers."""
    counts_blocks: bool
    """The server asks for `len(body)`."""


class WsgiExchange(Exchange):
    """One call of the app and the body that it returned, until the server has closed that."""

    # Set by the middleware itself, attribute by attribute: a call of `__init__` for each request
    # would cost as much as all of them.
    __slots__ = (
        "_body",
        "_first",
        "_headers",
        "_parts",
        "_plain",
        "_start",
        "_token",
        "_write",
        "began",
        "environ",
        "shell",
    )
    shell: Shell
    environ: Environ
    _start: StartResponse
    """The server's `start_response`."""
    _write: Write
    """What it has returned; set when the app has called it."""
    _headers: Headers | None
    """How the response began."""
    _body: Any
    """What the app has returned."""
    _parts: Iterator[bytes]
    """Iterates over the body; `NO_PARTS` = a list, which needs nobody."""
    _token: Token[Exchange | None]
    """What was current before: the exchange whose handler has called the app, or none."""
    _first: bytes | None
    """The first part, until somebody has looked at it; None = nothing has been sent."""
    _plain: bool
    """Nobody looks at its parts yet: the process is SERVING."""

    farewell_due = False
    ended = False
    """We have ended the body; the app's iterable is not asked again."""
    _recognised = False
    _boundary: EventBoundary | None = None  # of a stream that can be ended with a farewell
    _last_words: bytes | None = None  # of a declared stream; None = an SSE farewell

    def begin(self, shell: Shell, environ: Environ, start_response: StartResponse) -> None:
        """Begin one call of the app: this is in flight and current from here on.

        The middleware's hot path has the same in line, without the call.
        """
        self.shell = shell
        self.environ = environ
        self._start = start_response
        self._headers = None
        self._parts = NO_PARTS
        self._first = None
        self._plain = True
        clock = shell.clock
        self.began = clock()
        shell.live[self] = None
        self._token = enter_context(self)

    def take(self, body: Iterable[bytes]) -> None:
        """The app has returned `body`, which is iterated over by way of this."""
        self._body = body
        self._parts = iter(body)

    def withdraw(self) -> None:
        """It has begun for nothing: somebody else serves this request."""
        self.shell.tracker.drop(self)
        leave_context(self._token)

    # -- for handlers --------------------------------------------------------------------

    def declare_stream(
        self,
        policy: Policy = "reconnect",
        *,
        boundary: bytes | None = None,
        farewell: bytes = b"",
    ) -> None:
        """Declare that this response is a long-lived one (an NDJSON watch, a long poll).

        Args:
            policy: `reconnect`, or `finish` for one that can't be resumed.
            boundary: what ends a record, such as a line feed. A drain ends the body after a whole
                record; without it, after what the app has yielded last.
            farewell: bytes sent last, after a whole record.
        """
        self._plain = False
        if self.kind == "http":
            self.kind = "stream"
        self.policy = policy
        self._boundary = EventBoundary(boundary or ANYWHERE)
        self._boundary.clean = self._first is None  # or if its bytes say so
        self._last_words = farewell if boundary else b""
        self._recognised = False
        if self.shell.core.turns_away(self):
            self.farewell_due = True

    @property
    def retry_after_ms(self) -> int:
        """Milliseconds that this client is told to wait; drawn once for each exchange."""
        drawn: int | None = self.__dict__.get("_retry_after_ms")
        if drawn is None:
            drawn = self.__dict__["_retry_after_ms"] = self.shell.core.retry_delay_ms()
        return drawn

    # -- the app's side --------------------------------------------------------------------

    def start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Write:
        """What the app calls instead of the server's `start_response`."""
        self._headers = headers
        if not self.shell.tracker.plain:
            headers = self._start_late(headers)
        if exc_info is None:
            start = self._start
            self._write = start(status, headers)
            return self
        try:
            self._recognised = False
            self._write = self._start(status, headers, exc_info)
        finally:
            exc_info = None  # as the specification asks: no cycle through the traceback
        return self

    def _start_late(self, headers: Headers) -> Headers:
        shell = self.shell
        if self._is_http_1() and shell.core.closes_connection(shell.clock()):
            headers = announces_close(self.environ, self._start, headers)
        if self.is_stream and shell.core.turns_away(self):
            self.farewell_due = True
        return headers

    def _is_http_1(self) -> bool:
        protocol: str = self.environ.get("SERVER_PROTOCOL", "HTTP/1.1")
        return protocol.startswith("HTTP/1")

    def __call__(self, data: bytes) -> None:
        """What the app calls instead of the server's `write`, if it does.

        Not as a method, which would have to be bound for each response that never asks for it.
        """
        if self.ended:
            raise StreamClosed("this response was ended: its client has been told to go elsewhere")
        if not self._recognised:
            self._recognise()
        boundary = self._boundary
        if boundary is None:
            self._write(data)
            return
        if not self._may_end():  # a new stream is turned away before its first event
            self._first = b""
            self._write(data)
            boundary.feed(data)
        if self._may_end() and (last := self._farewell()):
            self._write(last)

    def is_file(self, kind: type) -> bool:
        """Whether the server gets the very object, of type `kind`, that the app has returned.

        It is then a file in the server's own wrapper, and tells us when it is closed.
        """
        wrapper = self.environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and issubclass(kind, wrapper):
            return self._closes_with_its_file()
        if len(self.shell.no_files) < MANY_TYPES:
            self.shell.no_files.add(kind)
        return False

    def has_same_request(self, environ: Environ) -> bool:
        """Whether `environ` is this request's, or a copy that some middleware has made of it."""
        given = environ.get("wsgi.input")
        same = given is not None and given is self.environ.get("wsgi.input")
        return environ is self.environ or same

    def _closes_with_its_file(self) -> bool:
        body = self._body
        inner = getattr(body, "close", None)

        def close() -> None:
            try:
                if inner is not None:
                    inner()
            finally:
                self.abandon()

        try:
            vars(body)["close"] = close
        except TypeError:
            return False
        return True

    def is_too_late(self, now: float) -> bool:
        """Whether this request, which comes when the process serves no more, is to be refused."""
        with self.shell.lock:
            return self.shell.core.late_request(self, now) is not None

    def close_headers(self) -> Headers:
        """Have the connection closed after a response of ours; the headers that say so."""
        return announces_close(self.environ, self._start, []) if self._is_http_1() else []

    def forgives(self, error: BaseException) -> bool:
        """Whether `error` is only the echo of what we did to the app."""
        return self.ended and isinstance(error, StreamClosed)

    def is_cut_by(self, error: BaseException) -> bool:
        """Whether the server ends the app's work because everything is cut: that is a 503, no 500.

        A worker that serves in its main thread does so by an exit, out of a handler of a signal. It
        may come before this process has heard why; its parent has written it down before.
        """
        if not isinstance(error, SystemExit) or self.started:
            return False
        shell = self.shell
        order = shell.lifecycle.board.order if shell.lifecycle.board is not None else None
        if max(shell.core.rung, order.rung if order is not None else 0) < 3:
            return False
        if not self.cut:  # the driver has not come to it
            self.cut = True
            shell.core.tally.cut.append(shell.core.straggler(self, shell.clock(), stacks=False))
        return True

    # -- the server's side -------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        if self._parts is NO_PARTS:
            return iter(self._body)
        if self._plain and self._headers is not None:
            if get_exchange() is not self:  # another thread may iterate than has called
                enter_context(self)
            for name, _ in self._headers:
                if name == "Content-Length":  # a body that nobody could end before its time
                    return self._parts
        return self

    def __next__(self) -> bytes:
        if not self._plain:
            return self._next_watched()
        part = next(self._parts)  # most bodies end with one, so the second is asked for unseen, too
        if self._first is None:
            self._first = part
            return part
        self._recognise()  # a body in parts: it may be a stream of events
        if self._boundary is not None:
            self._boundary.feed(part)
        return part

    def close(self) -> None:
        """The server is done with the response, whatever came of it. Twice changes nothing."""
        shell = self.shell
        try:
            if self._parts is not NO_PARTS:
                close = getattr(self._body, "close", None)
                if close is not None:
                    close()
        finally:
            # What follows is `Tracker.end`, in line.
            try:
                del shell.live[self]
            except KeyError:
                pass
            else:
                if self._plain or get_exchange() is self:
                    try:
                        leave_context(self._token)
                    except ValueError:  # this context is another thread's, or a copy
                        before = self._token.old_value
                        enter_context(None if before is Token.MISSING else before)
                tracker = shell.tracker
                if tracker.timing:
                    with shell.lock:
                        tracker.time(self, shell.clock())
                if (on_end := tracker.on_end) is not None:
                    on_end()

    def abandon(self) -> None:
        """It is over before the server has got a body to close."""
        self._parts = NO_PARTS
        self.close()

    def _next_watched(self) -> bytes:
        if get_exchange() is not self:  # the server may go back and forth between two responses
            enter_context(self)
        if not self._recognised:
            self._recognise()
        if self._may_end():
            return self._last_part()
        part = next(self._parts)
        if not self._recognised:  # an app may start its response as late as here
            self._recognise()
            if self._may_end():
                return self._last_part()
        if self._first is None:
            self._first = b""
        if self._boundary is not None and isinstance(part, bytes):
            self._boundary.feed(part)
        return part

    def _may_end(self) -> bool:
        """Whether the body is over, or is to be ended and can be now."""
        boundary = self._boundary
        due = self.farewell_due and boundary is not None and boundary.clean
        return self.ended or due

    def _last_part(self) -> bytes:
        if not self.ended and (last := self._farewell()):
            return last
        raise StopIteration

    def _farewell(self) -> bytes:
        """End the body, which is at a boundary. Returns what is to be sent last, if anything.

        The connection goes on until the linger is over: the headers have said so, and a balancer
        may have sent the next request on it already.
        """
        self.ended = True
        self.told_now()
        if self._last_words is not None:
            return self._last_words
        return sse_farewell(self.shell.sse_event, self.retry_after_ms)

    # -- what kind of exchange this is ---------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether the response has begun."""
        return self._headers is not None

    @property
    def is_stream(self) -> bool:  # changes nothing: threads ask, too
        return self.kind != "http" or (self._headers is not None and self._announces(self._headers))

    def watch(self) -> None:
        self._plain = False
        if self._headers is not None and self._announces(self._headers):
            self.kind = "sse"  # for reports, should it stay silent

    def _announces(self, headers: Headers) -> bool:
        """Whether the response that begins with `headers` is a stream of events."""
        return self.environ.get("REQUEST_METHOD") != "HEAD" and event_stream(_lower(headers))

    def _recognise(self) -> None:
        """See what the response is, and whether we may end it; once it has begun."""
        headers = self._headers
        if headers is None:
            return
        self._recognised = True
        self._plain = False
        lower = _lower(headers)
        if self._announces(headers):
            self.kind = "sse"
            self._boundary = self._boundary or EventBoundary()
        if self._boundary is not None and not can_inject(lower):
            # Nothing can be added, but only a promised length forbids to end between two parts.
            promised = any(name == b"content-length" for name, _ in lower)
            self._boundary = None if promised else EventBoundary(ANYWHERE)
            self._last_words = b""
        if self._boundary is not None and self._first:
            self._boundary.feed(self._first)
        if self._first:
            self._first = b""

    # -- for the driver: from any thread ---------------------------------------------------

    def start_farewell(self, failed: Failed) -> None:
        self.farewell_due = True

    def start_cut(self, failed: Failed) -> None:
        self.farewell_due = True  # a stream still ends cleanly, should it wake in time

    def told_now(self) -> None:
        """The farewell is on its way to the client."""
        shell = self.shell
        with shell.lock:
            shell.core.told(self, shell.clock())

    # -- for reports -------------------------------------------------------------------------

    def describe(self) -> dict[str, str]:
        environ = self.environ
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        client = environ.get("REMOTE_ADDR", "")
        if client and environ.get("REMOTE_PORT"):
            client = f"{client}:{environ['REMOTE_PORT']}"
        return {
            "method": environ.get("REQUEST_METHOD", ""),
            "path": path.encode("latin-1", "replace").decode("utf-8", "replace"),
            "client": client,
        }

    def stack(self) -> str:
        """Return the stack of the thread or greenlet that serves it, without locals."""
        for top in _running():
            frames = frames_of(top)
            for index, frame in enumerate(frames):
                if self._is_served_by(frame):
                    return format_frames(frames[index:])
        return ""

    def _is_served_by(self, frame: FrameType) -> bool:
        """Whether `frame` is the app's generator, or somebody's who has the body at hand."""
        ours: list[object] = [self]
        if self._parts is not NO_PARTS:
            ours += [self._parts, self._body]
        if getattr(self._parts, "gi_frame", None) is frame:
            return True
        return any(value is one for value in frame.f_locals.values() for one in ours)


class OneBlock(WsgiExchange):
    """A response of one block, whose length is that of the body, as servers know."""

    __slots__ = ()

    def __len__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        return True


def _running() -> Iterable[FrameType]:
    """Yield the innermost frame of each thread, then of each greenlet that waits."""
    yield from sys._current_frames().values()
    if "greenlet" in sys.modules:
        greenlet = sys.modules["greenlet"].greenlet
        for found in gc.get_objects():
            # Not isinstance: that asks a weak proxy, whose object may be gone.
            if issubclass(type(found), greenlet) and found.gr_frame is not None:
                yield found.gr_frame


def _lower(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return `headers` as the core reads them."""
    return [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers]


def response_headers(body: bytes, more: Mapping[str, str]) -> Headers:
    """Return the headers of a plain-text response of ours."""
    fixed = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
    return [*fixed.items(), *more.items()]
