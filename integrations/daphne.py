"""daphne: its app joins when the reactor starts, and the reactor stops only when it has drained.

daphne cancels every app in the moment of SIGTERM, asks no app to start or to shut down, and drops
the reason of a close. Here that is made good with names that Twisted and daphne document or use
from one module to the next, and one that begins with an underscore:

- of Twisted's reactor: `run`, `stop`, `running`, `callWhenRunning`, `callLater`, `getDelayedCalls`,
  `getReaders`, `getWriters`, `addSystemEventTrigger`; `doRead` and `stopListening` of a port;
  `persistent` of a `twisted.web.http.HTTPChannel`;
- of daphne: `Server.application`, `connections`, `application_checker`, `signal_handlers`;
  `handle_reply` of `WebRequest` and `WebSocketProtocol`, `_response_started` of the former; of
  autobahn's protocol `sendCloseFrame`.

Tested with daphne 4.2, Twisted 26.10 and autobahn 26.10. Where a name is gone daphne stops in its
own way, after the drain.

How it fits together
- When `graceful.asgi` is imported, by daphne's app, `reactor.run` is replaced (`prepare`): the app
  joins in the first turn of the reactor, and the exit status is that of the drain. An app that
  Starlette wraps with its first request gets one, for liveness.
- `reactor.stop` is what Twisted's own handlers, daphne, and apps call; replaced, it drains first.
- `Server` is found behind the call by which it looks after its apps every second.
- The shutdown of the reactor cancels what is left, and waits for the clean-up hooks.
- An app is called when its request has arrived in full, and is over before its answer has been
  sent. A hold keeps the process meanwhile; Twisted tells nobody, so it is looked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import daphne
from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.server import Server
from daphne.ws_protocol import WebSocketProtocol
from twisted.internet import reactor as installed
from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.python.threadable import isInIOThread

from graceful._wrapped import is_wrapped_later, outermost
from graceful.asgi import GracefulMiddleware
from graceful.core.budget import ServerLimit, SettingsError
from graceful.core.farewell import SERVICE_RESTART
from graceful.core.inflight import Hold
from graceful.core.traits import traits_named
from graceful.lifecycle import current
from graceful.listeners import EMPTY_PASSES, EMPTY_WITHIN
from graceful.servers import ServerOwner
from graceful.signals import Handler

__all__ = ["DaphneServer", "detect", "prepare"]

reactor: Any = installed

LOOKS: Final = 0.02
"""Seconds between two looks at what only Twisted knows, in a drain."""

WAITING: Final = "what daphne has not received or sent yet"
"""The name of the hold, as reports have it."""

FIRST_REQUEST: Final = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/livez",
    "raw_path": b"/livez",
    "query_string": b"",
    "root_path": "",
    "headers": (),
    "client": None,
    "server": None,
}
"""What an app is asked for that is not wrapped yet."""

Reply = Callable[[Any, dict[str, Any]], None]


# -- the start -----------------------------------------------------------------------------------


def prepare() -> None:
    """Have the app join when the reactor starts; called before daphne runs it, also twice."""
    if reactor.running or "run" in vars(reactor):
        return
    original = reactor.run

    def run(*arguments: Any, **options: Any) -> None:
        start = _Start()
        reactor.callWhenRunning(reactor.callLater, 0, start.join)
        original(*arguments, **options)
        if start.problem is not None:
            sys.exit(f"graceful: {start.problem}")
        if current().exit_status:
            sys.exit(current().exit_status)

    reactor.run = run


class _Start:
    """The first turn of the reactor."""

    problem: SettingsError | None = None

    def join(self) -> None:
        """Have the app take part, unless nobody has wrapped it."""
        server = _running_server()
        if server is None or current().loop is not None:
            return
        app = outermost(server.application, GracefulMiddleware)
        if app is not None:
            self._entered(app.enter(lifespan=False))
            if self.problem is None:
                app.started()
        elif is_wrapped_later(server.application, GracefulMiddleware):
            self._asking = asyncio.ensure_future(self._ask(server.application))

    def _entered(self, problem: SettingsError | None) -> None:
        self.problem = problem
        if problem is not None:
            reactor.stop()

    async def _ask(self, application: Any) -> None:
        await _ask(application)
        app = outermost(application, GracefulMiddleware)
        self._entered(app.error if app is not None else None)


async def _ask(app: Any) -> None:
    """Make a request, with which `app` is wrapped; whatever comes of it."""
    asked = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        return asked.pop() if asked else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        pass

    with contextlib.suppress(Exception):
        await app(dict(FIRST_REQUEST), receive, send)


def _running_server() -> Any:
    """Return the server that looks after its apps in this reactor."""
    for call in reactor.getDelayedCalls():
        owner = getattr(call.func, "__self__", None)
        if isinstance(owner, Server):
            return owner
    return None


def detect(handler: Handler, receive: object = None) -> DaphneServer | None:
    """Return the server whose reactor runs the caller, if one does.

    Args:
        handler: not needed.
        receive: not needed.
    """
    running = reactor.running and isInIOThread()  # type: ignore[no-untyped-call]
    server = _running_server() if running else None
    return DaphneServer(server) if server is not None else None


# -- the stop ------------------------------------------------------------------------------------


class DaphneServer:
    """One `daphne.server.Server`, as the lifecycle sees it."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._owner: ServerOwner | None = None
        self._stop: Callable[[], None] = reactor.stop
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._replies: list[tuple[type, Any]] = []
        self._hold: Hold | None = None
        self._left = False
        self.traits = traits_named("daphne")
        if hasattr(WebSocketProtocol, "sendCloseFrame"):  # or 4012, without a reason
            self.traits = replace(self.traits, close_codes="all")
        self.version: str = daphne.__version__
        self.name = f"daphne {self.version}"
        self.development = not server.signal_handlers  # Django's reloader has them
        self.managed = self.shares_listener = self.needs_lifespan = False

    def limits(self) -> Sequence[ServerLimit]:
        """None that a stop begins.

        `--http-timeout` counts from each request, `--application-close-timeout` from the moment in
        which a client has left.
        """
        return ()

    def attach(self, owner: ServerOwner) -> None:
        self._owner = owner
        reactor.stop = self._drain_and_stop
        reactor.addSystemEventTrigger("before", "shutdown", self._gone)
        if self.traits.close_codes == "all":
            self._replace_reply(WebSocketProtocol, _with_our_close)
        self._replace_reply(WebRequest, _with_an_end)

    def detach(self) -> None:
        vars(reactor).pop("stop", None)
        for protocol, original in self._replies:
            protocol.handle_reply = original  # type: ignore[attr-defined]
        self._replies.clear()

    def _replace_reply(self, protocol: Any, better: Callable[[Reply], Reply]) -> None:
        self._replies.append((protocol, protocol.handle_reply))
        protocol.handle_reply = better(protocol.handle_reply)

    def _drain_and_stop(self) -> None:
        """What is called for `reactor.stop`: Twisted's handlers, daphne, apps."""
        self._once("drain", self._drain)

    async def _drain(self) -> None:
        assert self._owner is not None
        await self._owner.stop("daphne is shutting down")
        self.leave()

    def _once(self, name: str, job: Callable[[], Any]) -> asyncio.Task[Any]:
        if name not in self._tasks:
            self._tasks[name] = asyncio.ensure_future(job())
        return self._tasks[name]

    def _gone(self) -> Any:
        """The reactor shuts down and has cancelled all apps: clean up, report."""
        if self._owner is None:
            return None
        task: Any = self._once("gone", self._owner.server_gone)
        return Deferred[int].fromFuture(task)

    async def stop_accepting(self) -> None:
        closed: list[Any] = []
        for port in self._ports():
            reactor.callLater(0, _empty, port)  # and right after it, in the same turn, the close
            closed.append(port.stopListening())
        loop = asyncio.get_running_loop()
        for each in filter(None, closed):
            await each.asFuture(loop)
        self._once("watch", self._watch)

    def _ports(self) -> Iterator[Any]:
        for reader in reactor.getReaders():
            if isinstance(reader, tcp.Port) and _serves_http(reader.factory):
                yield reader

    def has_connections(self) -> bool:
        both = (*reactor.getReaders(), *reactor.getWriters())
        return any(isinstance(each, tcp.Server) for each in both)

    async def _watch(self) -> None:
        """Keep the process for requests that arrive and answers that leave.

        And close the connections of those that were left without an end: daphne never would.
        """
        while not self._left:
            if not self._busy():
                self._let_go()
            elif self._hold is None:
                self._hold = current().hold(WAITING)
            await asyncio.sleep(LOOKS)

    def _busy(self) -> bool:
        states: set[str] = set()
        for protocol, details in tuple(self._server.connections.items()):
            states.add(state := _state(protocol, details))
            if state == "abandoned":
                protocol.loseConnection()
        sending = any(isinstance(each, tcp.Server) for each in reactor.getWriters())
        return sending or bool(states & {"arriving", "failed"})

    def _let_go(self) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            current().release(hold)

    def leave(self) -> None:
        self._once("leave", self._leave)

    async def _leave(self) -> None:
        assert self._owner is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._owner.drain_left()):
                while self._busy():  # noqa: ASYNC110 - Twisted has no event for it
                    await asyncio.sleep(LOOKS)
        self._left = True
        self._let_go()
        with contextlib.suppress(ReactorNotRunning):
            self._stop()


def _serves_http(factory: Any) -> bool:
    """Whether `factory` is daphne's, also behind TLS."""
    return isinstance(getattr(factory, "wrappedFactory", factory), HTTPFactory)


def _empty(port: Any) -> None:
    """Take in who waits in the accept queue; without free descriptors nobody can be."""
    if not port.connected:
        return
    poll = select.poll()
    poll.register(port.fileno(), select.POLLIN)
    give_up = time.monotonic() + EMPTY_WITHIN
    for _ in range(EMPTY_PASSES):
        if not poll.poll(0) or time.monotonic() > give_up:
            break
        port.doRead()


def _state(protocol: Any, details: dict[str, Any]) -> str:
    """Return what becomes of one entry of `Server.connections`: "" is the app's business."""
    if "disconnected" in details or not isinstance(protocol, WebRequest):
        return ""
    if protocol.application_queue is None:  # half a head is none: the rest may never come
        return "arriving" if protocol.content is not None else ""
    app = details.get("application_instance")
    if app is not None and not app.done():
        return ""
    failed = app is not None and not app.cancelled() and app.exception() is not None
    # daphne answers for one that has failed within a second, unless there is an answer already.
    started = getattr(protocol, "_response_started", protocol.startedWriting)
    return "failed" if failed and not started else "abandoned"


# -- replies -------------------------------------------------------------------------------------


def _with_our_close(original: Reply) -> Reply:
    """Let a WebSocket be closed with 1012 and a reason; apps of autobahn's may not say so."""

    def handle_reply(self: Any, message: dict[str, Any]) -> None:
        ours = message.get("code") == SERVICE_RESTART and self.state == self.STATE_OPEN
        if ours and message["type"] == "websocket.close":
            self.sendCloseFrame(SERVICE_RESTART, message.get("reason", "").encode())
        else:
            original(self, message)

    return handle_reply


def _with_an_end(original: Reply) -> Reply:
    """Close a connection after a response that says so; Twisted asks only what the client said."""

    def handle_reply(self: Any, message: dict[str, Any]) -> None:
        starts = message["type"] == "http.response.start"
        if starts and (b"connection", b"close") in message.get("headers", ()):
            with contextlib.suppress(AttributeError):  # the client has left
                self.channel.persistent = False
        original(self, message)

    return handle_reply
