"""waitress: runs in its own threads as ever, and stops gracefully.

    from graceful.integrations.waitress import serve
    serve(app, listen="0.0.0.0:8080", threads=16)

waitress has no handler for SIGTERM: it ends the process at once, whatever a middleware would like.
So its loop is run here. The options are those of `waitress.serve`. `waitress-serve` does the same
when the app has a `GracefulMiddleware`, for which `waitress.create_server` is replaced (`prepare`).

Names used that waitress documents: `create_server` and its `map`, `serve`. Others, in one line
each: `wasyncore.loop` and `dispatcher.close`, `trigger.pull_trigger`, `handle_accept`,
`handle_close`, `HTTPChannel.requests`, `request`, `total_outbufs_len`,
`ThreadedTaskDispatcher.shutdown`. Tested with waitress 3.0; where one of them is gone, the app is
served in the plain way.

How it fits together
- The main thread runs waitress's loop, and all that touches a connection; the drain is driven in a
  thread of its own and leaves word by waitress's trigger.
- A request is the middleware's only when it has arrived in full and a thread is free for it. Until
  then, and until its answer has been sent, a hold keeps the process.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final

import waitress
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer, create_server
from waitress.task import ThreadedTaskDispatcher
from waitress.trigger import trigger

from graceful._wrapped import outermost
from graceful.core.budget import ServerLimit, SettingsError
from graceful.core.inflight import Hold
from graceful.core.records import Notice
from graceful.core.traits import traits_named
from graceful.lifecycle import current
from graceful.members import Member
from graceful.servers import ServerOwner, Wrapped
from graceful.signals import Handler
from graceful.threads import ThreadLoop
from graceful.wsgi import App, GracefulMiddleware

__all__ = ["WaitressServer", "detect", "prepare", "serve"]

NAMES: Final = (
    (wasyncore, "loop"),
    (wasyncore.dispatcher, "close"),
    (trigger, "pull_trigger"),
    (BaseWSGIServer, "handle_accept"),
    (HTTPChannel, "handle_close"),
    (HTTPChannel, "request"),
    (ThreadedTaskDispatcher, "shutdown"),
)
"""Without these waitress can only be served as it serves itself."""

WAITING: Final = "what waitress has not received, begun or sent yet"
"""The name of the hold, as reports have it."""


def serve(app: App, **options: Any) -> None:
    """Serve `app`, which has a `GracefulMiddleware`, until the process is told to stop.

    Returns when everything has finished; where something was cut after a signal it leaves with
    status 70. Call it in the main thread: signals arrive nowhere else.

    Args:
        app: a WSGI app. One that nobody has wrapped is wrapped with the default settings.
        options: as for `waitress.serve`.

    Raises:
        SystemExit: the settings are wrong, which is said in a line; or something was cut.
    """
    lifecycle = current()
    if outermost(app, GracefulMiddleware) is None:
        app = GracefulMiddleware(app)
        lifecycle.say_once(Notice("serve() was given an app without GracefulMiddleware: wrapped"))
    try:
        _check_names()
    except AttributeError as error:
        lifecycle.say_once(Notice(f"{error}: it serves in its own way; SIGTERM ends it at once"))
        waitress.serve(app, **options)
        return
    server = _graceful_server(app, **options)
    server.print_listen("Serving on http://{}:{}")
    server.run()


def prepare(app: Wrapped) -> None:
    """Have `waitress.serve`, and so `waitress-serve`, run wrapped apps as `serve` does.

    Raises:
        AttributeError: the installed waitress lacks a name.
    """
    _check_names()
    waitress.create_server = _graceful_server  # type: ignore[attr-defined]


def _check_names() -> None:
    missing = [name for owner, name in NAMES if not hasattr(owner, name)]
    if missing:
        raise AttributeError(f"the installed waitress has no {', '.join(missing)}")


def _graceful_server(application: App, **options: Any) -> Any:
    """Return what `create_server` does, made graceful if `application` is wrapped."""
    given: dict[int, Any] | None = options.pop("map", None)
    sockets = {} if given is None else given
    server = create_server(application, map=sockets, **options)
    middleware = outermost(application, GracefulMiddleware)
    return server if middleware is None else WaitressServer(server, sockets, middleware)


def detect(handler: Handler, receive: object = None) -> WaitressServer | None:
    """Return the server that `serve` runs; nobody could find it behind a handler.

    Args:
        handler: not needed.
        receive: the server itself, as its `run` gives it.
    """
    return receive if isinstance(receive, WaitressServer) else None


class WaitressServer:
    """The servers, one for each address, and connections of one `waitress.create_server`."""

    def __init__(
        self, server: Any, sockets: dict[int, Any], middleware: GracefulMiddleware
    ) -> None:
        self._server = server
        self._adjustments = server.adj
        self._sockets = sockets
        self._listeners: list[Any] = [s for s in sockets.values() if isinstance(s, BaseWSGIServer)]
        self._middleware = middleware
        self._lifecycle = current()
        self._owner: ServerOwner | None = None
        self._hold: Hold | None = None
        self._stopping = False
        self._leaves_at: float | None = None
        self.traits = traits_named("waitress")
        self.version = version("waitress")
        self.name = f"waitress {self.version}"
        self.managed = self.shares_listener = self.development = self.needs_lifespan = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)  # for programs that expect waitress's own

    def limits(self) -> Sequence[ServerLimit]:
        """None that would cut: `channel_timeout` is for idle connections."""
        return ()

    def attach(self, owner: ServerOwner) -> None:
        self._owner = owner

    def detach(self) -> None:
        self._owner = None

    async def stop_accepting(self) -> None:
        loop, closed = asyncio.get_running_loop(), asyncio.Event()
        self._soon(self._close_listeners)
        self._soon(lambda: loop.call_soon_threadsafe(closed.set))
        await closed.wait()

    def has_connections(self) -> bool:
        return any(self._channels())

    def leave(self) -> None:
        self._soon(self._leave)

    # -- in the main thread ------------------------------------------------------------------

    def run(self) -> None:
        """Serve with the settings of the middleware, until the process is told to stop.

        Raises:
            SystemExit: the settings are wrong, or something was cut after a signal.
        """
        lifecycle, thread = self._lifecycle, ThreadLoop()
        member = Member("waitress", self._middleware.settings, thread, True, receive=self)
        try:
            if self._middleware.error is not None:
                raise self._middleware.error
            lifecycle.join(member)
        except SettingsError as error:
            wasyncore.close_all(self._sockets)
            sys.exit(f"graceful: {error}")
        try:
            self._middleware.enter()
            lifecycle.started()
            self._run()
        finally:
            lifecycle.clean_up_now(member)
            lifecycle.leave(member)
            self._middleware.leave()
            thread.close()
        if lifecycle.exit_status:
            sys.exit(lifecycle.exit_status)

    def _run(self) -> None:
        """Run waitress's loop until `leave`."""
        with suppress(SystemExit, KeyboardInterrupt):  # as waitress does
            while self._sockets:
                # `select` fails at its 1024 descriptors; in a stop everybody who waits is let in.
                polls = self._stopping or self._adjustments.asyncore_use_poll
                wasyncore.loop(self._turn(), polls, self._sockets, count=1)
                if self._stopping:
                    self._look()
        left = self._owner.drain_left() if self._owner is not None else 0.1
        self._server.task_dispatcher.shutdown(timeout=left)

    def _soon(self, thunk: Callable[[], object]) -> None:
        self._listeners[0].trigger.pull_trigger(thunk)

    def _turn(self) -> float:
        """Return the seconds that the loop may sleep."""
        longest: float = self._adjustments.asyncore_loop_timeout
        if self._leaves_at is None:
            return longest
        return min(longest, max(0.0, self._leaves_at - self._lifecycle.clock()))

    def _close_listeners(self) -> None:
        """Take in who waits, then close. The triggers, by which threads wake the loop, stay."""
        self._stopping = True
        poll = select.poll()
        for listener in self._listeners:
            poll.register(listener.socket.fileno(), select.POLLIN)
        for _ in range(self._adjustments.backlog):
            waiting, connected = {fd for fd, _ in poll.poll(0)}, len(self._sockets)
            for listener in self._listeners:
                if listener.socket.fileno() in waiting:
                    listener.handle_accept()
            if len(self._sockets) == connected:
                break  # nobody waits, or there are no descriptors left
        for listener in self._listeners:
            wasyncore.dispatcher.close(listener)

    def _leave(self) -> None:
        self._stopping = True
        left = self._owner.drain_left() if self._owner is not None else 0.0
        self._leaves_at = self._lifecycle.clock() + left

    def _look(self) -> None:
        """Between two turns of a stop: hold the process for what only waitress knows, or end."""
        busy = {channel for channel in self._channels() if _is_busy(channel)}
        if len(busy) <= len(self._lifecycle.tracker.live):
            self._let_go()
        elif self._hold is None and self._leaves_at is None:
            self._hold = self._lifecycle.hold(WAITING)
        if self._leaves_at is None:
            return
        for channel in set(self._channels()) - busy:
            channel.handle_close()
        if not busy or self._lifecycle.clock() >= self._leaves_at:
            self._let_go()
            wasyncore.close_all(self._sockets)

    def _let_go(self) -> None:
        hold, self._hold = self._hold, None
        if hold is not None:
            self._lifecycle.release(hold)

    def _channels(self) -> Iterator[Any]:
        return (each for each in list(self._sockets.values()) if isinstance(each, HTTPChannel))


def _is_busy(channel: Any) -> bool:
    """Whether a request is being received, served or answered.

    Half a head is none yet: a client may never send the other half.
    """
    arriving = channel.request is not None and channel.request.headers_finished
    return bool(arriving or channel.requests or channel.total_outbufs_len)
