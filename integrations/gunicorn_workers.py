"""gunicorn's workers: one small adapter for each class, found by the class of the worker.

Private names used, each in one line of its adapter: `Worker.alive`, `nr`, `max_requests`, `PIPE`;
sync's `accept`; gthread's `method_queue`, `murder_keepalived`, `set_accept_enabled`, `accept`,
`worker_connections`, `nr_conns`, and `TConn` in its module; gevent's `handle`, `timeout_ctx`,
`server_class`, and `gevent` and `StreamServer` in its module; asgi's `_serve`, `servers`,
`nr_conns`. Tested with gunicorn 27.0.1.

How it fits together
- A worker ends when its `alive` turns false. Where it has a maximum of requests that becomes a
  property of its class, so that to reach it is a reason to retire first, and the end comes when the
  drain is over.
- Workers with an event loop join the lifecycle through their app's lifespan; for the others the
  worker joins itself, in its main thread, before it serves.
- uvicorn's worker is a uvicorn: its own integration finds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from socket import SHUT_RDWR, SHUT_WR, socket
from ssl import SSLSocket
from types import CoroutineType, FrameType
from typing import Any, ClassVar, Final

import anyio
import gunicorn
from gunicorn.workers.base import Worker

from graceful.core.budget import ServerLimit, Timeline
from graceful.core.managing import stop_is_due
from graceful.core.phases import Phase
from graceful.core.traits import traits_named
from graceful.lifecycle import Lifecycle, current
from graceful.listeners import close_when_empty
from graceful.loops import Loop, current_loop
from graceful.members import Member
from graceful.servers import ServerOwner
from graceful.signals import Handler
from graceful.threads import ThreadLoop

from .gunicorn_http2 import blocking_connections, tell_asgi_connections

__all__ = [
    "GunicornWorker",
    "adapter_of",
    "blocks_heartbeat",
    "calls_wsgi",
    "detect",
    "has_threads",
    "is_known",
    "join",
    "leave",
]

CLIENT_CLOSES: Final = 2.0
"""Seconds that a client has to close after a response that says so; gunicorn's own limit."""

A_TURN: Final = 1.0
"""Seconds in which a worker's main thread comes to what it is asked to do, if it comes to it."""

A_MOMENT: Final = 0.02
"""Seconds in which a greenlet that is done is over; between two looks at a worker that begins."""


class GunicornWorker:
    """One worker that serves in its own loop or threads, as the lifecycle sees it."""

    threads: ClassVar = False
    """Requests are served in threads of a pool."""
    blocks_heartbeat: ClassVar = False
    """It gives no sign of life while it serves a request."""
    calls_wsgi: ClassVar = False
    """Each request is a call of its `wsgi`, with environ and start_response."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self.traits = traits_named("gunicorn")
        self.version = gunicorn.__version__
        self.name = f"gunicorn {self.version}"
        self.managed = self.shares_listener = True
        self.development = bool(worker.cfg.reload)
        self.needs_lifespan = False

    @classmethod
    def joins(cls, worker: Any) -> bool:
        """Whether it joins the lifecycle itself; otherwise its app does, in its lifespan."""
        return True

    @classmethod
    def begins(cls, worker: Any, lifecycle: Lifecycle) -> None:
        """The app has been loaded, and the worker's own loop comes next."""

    def limits(self) -> Sequence[ServerLimit]:
        """The arbiter has checked its own."""
        return ()

    def attach(self, owner: ServerOwner) -> None:
        """Nothing of the worker's shutdown is replaced: see `watch_alive`."""

    def detach(self) -> None:
        pass

    def use(self, loop: Loop) -> None:
        """Take `loop` for what must not hold up the worker's own."""

    async def stop_accepting(self) -> None:
        """The worker goes on accepting until it leaves: the listener is everybody's."""

    def has_connections(self) -> bool:
        return True

    def last_call(self, lifecycle: Lifecycle) -> None:
        """The worker's own loop is over; it has nothing left to do."""

    def leave(self) -> None:
        end(self._worker)
        os.write(self._worker.PIPE[1], b"1")  # it may be waiting for a connection


class SyncWorker(GunicornWorker):
    """One request at a time, each on a connection of its own."""

    blocks_heartbeat = calls_wsgi = True

    def attach(self, owner: ServerOwner) -> None:
        """A sibling may have shut the listener down: nobody waits there any more."""
        accept = self._worker.accept

        def accept_if_open(listener: Any) -> None:
            try:
                accept(listener)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    raise BlockingIOError(errno.EAGAIN, "the listener is closed") from error
                raise

        self._worker.accept = accept_if_open

    def has_connections(self) -> bool:
        return False

    def last_call(self, lifecycle: Lifecycle) -> None:
        """Serve who waits, then close the port for all workers.

        A sibling that is busy would hold it open without accepting, and let clients hang.
        """
        for listener in self._worker.sockets if _port_goes(lifecycle) else ():
            with contextlib.suppress(OSError):
                while lifecycle.remaining() > 0:
                    self._worker.accept(listener)
            with contextlib.suppress(OSError):
                listener.shutdown(SHUT_RDWR)


class ThreadWorker(GunicornWorker):
    """gthread: a main thread that accepts and polls, a pool that serves."""

    threads = calls_wsgi = True

    def attach(self, owner: ServerOwner) -> None:
        """The poller may tell of a client and of our request to close at once: that closes first.

        The client has been taken in by then, and there is no listener to accept anybody from.
        """
        self._http2 = blocking_connections(self._worker)
        self._closed = False
        accept = self._worker.accept

        def accept_if_open(listener: Any) -> None:
            if not self._closed:
                accept(listener)

        self._worker.accept = accept_if_open

    def use(self, loop: Loop) -> None:
        """Close connections beside the main thread, once each response says that it does.

        A client may take its time to close, and gunicorn waits for each of them up to 2 s, in the
        thread that serves all the others. By a class, for it costs each request nothing.
        """
        gthread = import_module("gunicorn.workers.gthread")

        class Connection(gthread.TConn):  # type: ignore[misc, name-defined]
            def close(self, graceful: bool = False) -> None:
                # Readiness would say less: a worker that is replaced stays ready.
                serving = current().phase is Phase.SERVING
                plain = not isinstance(self.sock, SSLSocket)  # which asyncio does not read from
                if not (graceful and plain and not serving and _spawn(loop, self.sock)):
                    super().close(graceful)

        gthread.TConn = Connection  # type: ignore[attr-defined]

    async def stop_accepting(self) -> None:
        if self._http2 is not None:
            self._http2.drain()
        loop, closed = current_loop(), anyio.Event()
        self._worker.method_queue.defer(self._close_listeners, lambda: loop.soon(closed.set))
        with anyio.move_on_after(A_TURN):  # before, nobody knows who is still taken in
            await closed.wait()

    def _close_listeners(self, done: Callable[[], object]) -> None:
        """Take in who waits, then close: in the main thread, which owns the poller."""
        worker, poll = self._worker, select.poll()
        for listener in worker.sockets:
            poll.register(listener.fileno(), select.POLLIN)
        while worker._accepting and (waiting := {fd for fd, _ in poll.poll(0)}):
            for listener in worker.sockets:
                if listener.fileno() in waiting:
                    worker.accept(listener)
        worker.worker_connections = 0  # or its loop would accept again
        worker.set_accept_enabled(False)
        self._closed = True
        for listener in worker.sockets:
            listener.close()
        done()

    def has_connections(self) -> bool:
        return bool(self._worker.nr_conns)

    def leave(self) -> None:
        self._worker.method_queue.defer(self._leave)

    def _leave(self) -> None:
        self._worker.murder_keepalived(force=True)  # the linger is over
        end(self._worker)
        if self._http2 is not None:
            self._http2.end()


def _spawn(loop: Loop, sock: socket) -> bool:
    return loop.soon(lambda: loop.spawn(partial(_until_closed, sock)))


async def _until_closed(sock: socket) -> None:
    """Half-close, and close when the client has (RFC 9112 section 9.6), as gunicorn does."""
    loop = asyncio.get_running_loop()
    with sock, contextlib.suppress(OSError, TimeoutError):
        sock.setblocking(False)
        sock.shutdown(SHUT_WR)
        async with asyncio.timeout(CLIENT_CLOSES):
            while await loop.sock_recv(sock, 4096):
                pass


class GeventWorker(GunicornWorker):
    """gevent: a main greenlet that sleeps, one for each connection."""

    calls_wsgi = True

    def attach(self, owner: ServerOwner) -> None:
        """Know the connections, and whether each waits for a request; wake the main greenlet.

        It looks once a second whether it is still `alive`, and then once a second whether they are
        gone. An idle one it would leave open for as long as `keepalive` is.
        """
        worker, gevent = self._worker, import_module("gevent")
        import_module("gevent.threadpool")  # not in the stop, when a thread of ours gets a hub
        self._http2 = blocking_connections(worker)
        self._gevent: Any = gevent
        self._serving: dict[Any, Any] = {}  # greenlets, with the limit of their last wait
        self._leaves = import_module("gevent.event").Event()
        self._loop = gevent.get_hub().loop
        handle, timeout_ctx, serving = worker.handle, worker.timeout_ctx, self._serving

        def handle_known(*connection: Any) -> None:
            serving[gevent.getcurrent()] = None
            try:
                handle(*connection)
            finally:
                serving.pop(gevent.getcurrent(), None)

        def known_timeout() -> Any:
            limit = serving[gevent.getcurrent()] = timeout_ctx()
            return limit

        worker.handle, worker.timeout_ctx = handle_known, known_timeout
        ggevent: Any = import_module("gunicorn.workers.ggevent")
        ggevent.gevent = _WithSleep(gevent, self._sleep)
        self._servers: list[Any] = []
        if worker.server_class is None:
            ggevent.StreamServer = self._remembered(ggevent.StreamServer)
        else:
            worker.server_class = self._remembered(worker.server_class)

    def _remembered(self, kind: Any) -> Any:
        """Return gevent's class of servers, one whose servers we know."""
        servers = self._servers

        def start(server: Any) -> None:
            servers.append(server)
            kind.start(server)

        return type(kind.__name__, (kind,), {"start": start})

    def _sleep(self, seconds: float) -> None:
        if not self._leaves.is_set():
            self._leaves.wait(seconds)
        elif self._serving:
            self._gevent.joinall(list(self._serving), seconds)
        else:
            self._gevent.sleep(min(seconds, A_MOMENT))

    async def stop_accepting(self) -> None:
        """Where siblings accept: a client that came here now might be refused for its lateness."""
        if self._http2 is not None:
            self._http2.drain()
        board = current().board
        if board is None or board.port_goes:
            return
        loop, stopped = current_loop(), anyio.Event()
        stop = partial(self._stop_servers, lambda: loop.soon(stopped.set))
        self._loop.run_callback_threadsafe(self._gevent.spawn, stop)
        with anyio.move_on_after(A_TURN):
            await stopped.wait()

    def _stop_servers(self, done: Callable[[], object]) -> None:
        """In a greenlet. The listeners stay open: who has just been accepted asks for their names.

        Its greenlet has done so, and is known, a moment later.
        """
        for server in self._servers:
            server.stop_accepting()
        self._gevent.sleep(A_MOMENT)
        done()

    def has_connections(self) -> bool:
        return bool(self._serving)

    def leave(self) -> None:
        self._loop.run_callback_threadsafe(self._leave)

    def _leave(self) -> None:
        end(self._worker)
        if self._http2 is not None:
            self._http2.end()
        self._leaves.set()
        for greenlet, limit in list(self._serving.items()):
            if limit is not None and limit.pending:  # it is idle, and the linger is over
                self._loop.run_callback(greenlet.throw, limit)


class _WithSleep:
    """The module `gevent` with a `sleep` of ours."""

    def __init__(self, gevent: Any, sleep: Callable[[float], None]) -> None:
        self._gevent = gevent
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gevent, name)


class AsgiWorker(GunicornWorker):
    """gunicorn's own ASGI worker."""

    @classmethod
    def joins(cls, worker: Any) -> bool:
        return False

    @classmethod
    def begins(cls, worker: Any, lifecycle: Lifecycle) -> None:
        """Hear, once it serves, of a SIGTERM that came before.

        In the first moment a worker has its arbiter's handlers, and uvloop (0.23) forgets what
        comes before it runs. An app with a lifespan has joined by then, and follows the board.
        """
        if not worker.servers:
            worker.loop.call_later(A_MOMENT, cls.begins, worker, lifecycle)
        elif not lifecycle.servers and _is_told(worker, lifecycle):
            worker.handle_exit_signal()

    def attach(self, owner: ServerOwner) -> None:
        # asyncio would go on calling the worker's handler beside any other.
        self._worker.loop.remove_signal_handler(signal.SIGTERM)

    async def stop_accepting(self) -> None:
        await close_when_empty(self._worker.servers)
        tell_asgi_connections(self._worker)

    def has_connections(self) -> bool:
        return bool(self._worker.nr_conns)

    def leave(self) -> None:
        self._worker.loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        # What is still connected is idle: the worker alone would wait for it until it is killed.
        self._worker.nr_conns = 0
        end(self._worker)
        for task in asyncio.all_tasks(self._worker.loop):
            if _served_by(task) is self._worker:
                task.cancel()  # ends the second that its heartbeat sleeps


class OtherWorker(GunicornWorker):
    """A class that nobody adapts: it ends as on a SIGTERM of its arbiter's."""

    @classmethod
    def joins(cls, worker: Any) -> bool:
        app = worker.wsgi
        called = app if inspect.isfunction(app) else type(app).__call__
        return not inspect.iscoroutinefunction(called)  # an ASGI app joins in its lifespan

    def leave(self) -> None:
        try:
            self._worker.handle_exit(signal.SIGTERM, None)
        finally:
            super().leave()


ADAPTERS: Final = (
    ("gunicorn.workers.gasgi", "ASGIWorker", AsgiWorker),
    ("gunicorn.workers.gthread", "ThreadWorker", ThreadWorker),
    ("gunicorn.workers.ggevent", "GeventWorker", GeventWorker),
    ("gunicorn.workers.sync", "SyncWorker", SyncWorker),
    ("uvicorn_worker._workers", "UvicornWorker", None),
    ("uvicorn.workers", "UvicornWorker", None),
)
"""Module and name of a worker class, and who adapts it; None = its server is found by itself."""


def adapter_of(worker: Worker) -> type[GunicornWorker] | None:
    """Return who adapts `worker`; None = its server is found by itself."""
    row = _row_of(type(worker))
    return OtherWorker if row is None else row[2]


def is_known(kind: type) -> bool:
    """Whether a worker class is, or is built on, one of those that somebody adapts."""
    return _row_of(kind) is not None


def has_threads(kind: type) -> bool:
    """Whether workers of this class serve in a pool of threads."""
    adapter = _adapter_for(kind)
    return adapter is not None and adapter.threads


def blocks_heartbeat(kind: type) -> bool:
    """Whether workers of this class give no sign of life while they serve a request."""
    adapter = _adapter_for(kind)
    return adapter is not None and adapter.blocks_heartbeat


def calls_wsgi(kind: type) -> bool:
    """Whether workers of this class call their `wsgi` with environ and start_response."""
    adapter = _adapter_for(kind)
    return adapter is not None and adapter.calls_wsgi


def _adapter_for(kind: type) -> type[GunicornWorker] | None:
    row = _row_of(kind)
    return None if row is None else row[2]


def _row_of(kind: type) -> tuple[str, str, type[GunicornWorker] | None] | None:
    for ancestor in kind.__mro__:
        for row in ADAPTERS:
            if (ancestor.__module__, ancestor.__name__) == row[:2]:
                return row
    return None


def detect(handler: Handler, receive: object = None) -> GunicornWorker | None:
    """Return the worker that runs the caller, if `install` has made its arbiter known.

    Args:
        handler: what SIGTERM calls: a bound method of the worker, unless an event loop owns it.
        receive: not needed.
    """
    if current().board is None:
        return None
    worker = getattr(handler, "__self__", None)
    if not isinstance(worker, Worker):
        worker = next(_workers_of_loop(), None)
    adapter = adapter_of(worker) if worker is not None else None
    return adapter(worker) if adapter is not None else None


def _workers_of_loop() -> Iterator[Worker]:
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return
    for task in tasks:
        worker = _served_by(task)
        if worker is not None:
            yield worker


def _served_by(task: asyncio.Task[Any]) -> Any:
    """Return the ASGI worker whose `_serve` is what `task` runs."""
    from gunicorn.workers.gasgi import ASGIWorker

    coroutine = task.get_coro()
    serve: Any = ASGIWorker._serve  # type: ignore[attr-defined]
    if isinstance(coroutine, CoroutineType) and coroutine.cr_code is serve.__code__:
        frame: FrameType | None = coroutine.cr_frame
        return frame.f_locals["self"] if frame is not None else None
    return None


# -- the worker's life ---------------------------------------------------------------------------


def join(worker: Any, lifecycle: Lifecycle) -> Member | None:
    """Have `worker` take part in the lifecycle of its process, which is this one.

    Raises:
        SettingsError: its app has settings that contradict those of the arbiter.
    """
    lifecycle.slot = worker.age
    adapter = adapter_of(worker)
    if adapter is None:
        _leave_if_told(worker, lifecycle)
        return None
    watch_alive(worker, lambda: lifecycle.retire("max_requests"))
    adapter.begins(worker, lifecycle)
    if not adapter.joins(worker) or lifecycle.defaults is None:
        return None
    member = Member(type(worker).__name__, lifecycle.defaults, ThreadLoop(), lifespan=True)
    lifecycle.join(member)
    if isinstance(member.server, GunicornWorker):
        member.server.use(member.loop)
    lifecycle.started()
    return member


def _leave_if_told(worker: Any, lifecycle: Lifecycle) -> None:
    """End a worker whose server is found by itself, if its SIGTERM came before it could hear it.

    The server is found with the lifespan of the app, and without one with its first request: one
    that has none would wait for that until it is killed.
    """
    if _is_told(worker, lifecycle):
        sys.exit(0)


def _is_told(worker: Any, lifecycle: Lifecycle) -> bool:
    """Whether the arbiter has sent this worker a SIGTERM, by what it has written before."""
    board, settings = lifecycle.board, lifecycle.defaults
    if board is None or settings is None:
        return False
    order = board.order
    if order is None:
        return bool(board.retiring_at(worker.age))
    return order.rung > 1 or stop_is_due(Timeline.start(settings, order.at), lifecycle.clock())


def leave(member: Member | None, lifecycle: Lifecycle) -> None:
    """The worker is at its end: clean up, and leave its numbers."""
    if member is None:
        lifecycle.finish()
        return
    if isinstance(member.server, GunicornWorker):
        member.server.last_call(lifecycle)
    lifecycle.clean_up_now(member)
    lifecycle.leave(member)
    if isinstance(member.loop, ThreadLoop):
        member.loop.close()


def _port_goes(lifecycle: Lifecycle) -> bool:
    """Whether nobody is to be accepted any more; a worker may also end in the lame duck."""
    return lifecycle.board is not None and lifecycle.board.port_goes and lifecycle.draining()


def watch_alive(worker: Any, stops: Callable[[], None]) -> None:
    """Call `stops` where `worker` would end itself at a maximum of requests; it goes on serving.

    Only where there is one. Nothing here asks for the worker's `__dict__`: once somebody has, the
    interpreter looks each of its attributes up in a dictionary, which costs requests two percent.
    """
    kind: Any = type(worker)
    if getattr(worker, "max_requests", sys.maxsize) == sys.maxsize or not hasattr(worker, "alive"):
        return

    def read(self: Any) -> bool:
        alive: bool = self.graceful_alive
        return alive

    def write(self: Any, value: bool) -> None:
        if not value and self.nr >= self.max_requests and not self.graceful_ends:
            stops()
        else:
            self.graceful_alive = value

    watched = {"alive": property(read, write), "graceful_ends": False}
    worker.graceful_alive = worker.alive
    worker.__class__ = type(kind.__name__, (kind,), watched)


def end(worker: Any) -> None:
    """End `worker` for good."""
    worker.graceful_ends = True
    worker.alive = False
