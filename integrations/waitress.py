"""waitress: `serve`, which runs it in waitress's own threads and stops it gracefully.

    from graceful.integrations.waitress import serve
    serve(app, listen="0.0.0.0:8080", threads=16)

`waitress-serve` and `waitress.serve` have no handler for SIGTERM: it ends their process at once,
whatever a middleware would like. The options are those of `waitress.serve`.

Names used that waitress documents: `create_server` and its `map`. Others, in one line each:
`wasyncore.loop` and `dispatcher.close`, `trigger.pull_trigger`, `handle_accept`, `handle_close`,
`HTTPChannel.requests`, `request`, `total_outbufs_len`, `ThreadedTaskDispatcher.shutdown`. Tested
with waitress 3.0; where one of them is gone, the app is served in the plain way.

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
from importlib.metadata import version
from typing import Any, Final

import waitress
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer, create_server
from waitress.task import ThreadedTaskDispatcher
from waitress.trigger import trigger

from graceful._wrapped import outermost
from graceful.core.budget import ServerLimit
from graceful.core.inflight import Hold
from graceful.core.records import Notice
from graceful.core.traits import traits_named
from graceful.lifecycle import Lifecycle, Member, current
from graceful.servers import ServerOwner
from graceful.signals import Handler
from graceful.threads import ThreadLoop
from graceful.wsgi import App, GracefulMiddleware

__all__ = ["WaitressServer", "detect", "serve"]

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
    middleware = outermost(app, GracefulMiddleware)
    if middleware is None:
        app = middleware = GracefulMiddleware(app)
        lifecycle.say_once(Notice("serve() was given an app without GracefulMiddleware: wrapped"))
    missing = [name for owner, name in NAMES if not hasattr(owner, name)]
    if missing:
        lifecycle.say_once(
            Notice(
                f"the installed waitress has no {', '.join(missing)}: it serves in its own way, "
                "and SIGTERM ends it at once"
            )
        )
        waitress.serve(app, **options)
        return
    sockets: dict[int, Any] = {}
    server = WaitressServer(create_server(app, map=sockets, **options), sockets)
    try:
        member = server.join(lifecycle, middleware)
    except ValueError as error:  # the settings
        wasyncore.close_all(sockets)
        sys.exit(f"graceful: {error}")
    try:
        server.run()
    finally:
        lifecycle.clean_up_now(member)
        lifecycle.leave(member)
        middleware.leave()
        server.close()
    if lifecycle.exit_status:
        sys.exit(lifecycle.exit_status)


def detect(handler: Handler, receive: object = None) -> WaitressServer | None:
    """Return the server that `serve` runs; nobody could find it behind a handler.

    Args:
        handler: not needed.
        receive: the server itself, as `WaitressServer.join` gives it.
    """
    return receive if isinstance(receive, WaitressServer) else None


class WaitressServer:
    """The servers, one for each address, and connections of one `waitress.create_server`."""

    def __init__(self, server: Any, sockets: dict[int, Any]) -> None:
        self._server = server
        self._adjustments = server.adj
        self._sockets = sockets
        self._listeners: list[Any] = [s for s in sockets.values() if isinstance(s, BaseWSGIServer)]
        self._owner: ServerOwner | None = None
        self._lifecycle = current()
        self._thread = ThreadLoop()  # where the drain is driven
        self._hold: Hold | None = None
        self._stopping = False
        self._leaves_at: float | None = None
        self.traits = traits_named("waitress")
        self.version = version("waitress")
        self.name = f"waitress {self.version}"
        self.managed = self.shares_listener = self.development = self.needs_lifespan = False

    def join(self, lifecycle: Lifecycle, middleware: GracefulMiddleware) -> Member:
        """Take part in the lifecycle of this process, with the settings of `middleware`.

        Raises:
            SettingsError: they are wrong.
        """
        if middleware.error is not None:
            raise middleware.error
        self._lifecycle = lifecycle
        member = Member("waitress", middleware.settings, self._thread, True, receive=self)
        lifecycle.join(member)
        self._server.print_listen("Serving on http://{}:{}")
        middleware.enter()
        lifecycle.started()
        return member

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

    def close(self) -> None:
        """End the thread of the drain."""
        self._thread.close()

    # -- in the main thread ------------------------------------------------------------------

    def run(self) -> None:
        """Run waitress's loop until `leave`."""
        while self._sockets:
            wasyncore.loop(
                self._turn(), self._adjustments.asyncore_use_poll, self._sockets, count=1
            )
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
        for _ in range(self._adjustments.backlog):  # without descriptors it would never be empty
            waiting = {fd for fd, _ in poll.poll(0)}
            if not waiting:
                break
            for listener in self._listeners:
                if listener.socket.fileno() in waiting:
                    listener.handle_accept()
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
