"""granian: one of its worker processes, found on the stack that started it.

Private names used: the functions `_spawn_asgi_lifespan_worker`, `_spawn_asgi_worker` and
`_spawn_wsgi_worker` of `granian.server.mp` with their variables `shutdown_event`, `shutdown_glue`,
`sock` and `serve`, the first also with `lifespan_handler` and its `errored`;
`granian._signals.set_sync_signals`; of a `granian.server.mp.MPServer` the attributes
`interrupt_signal`, `workers_kill_timeout`, `reload_on_changes`, `workers`, `runtime_mode`,
`runtime_threads` and `task_impl`. Tested with granian 2.8.

How it fits together
- The parent sends each worker a SIGTERM, on which a worker alone sets its `shutdown_event`: its
  listener, its idle connections and its WebSockets are closed in one instant. Here the lifecycle
  takes the signal, and `leave` sets the event.
- Where workers are forked (the default before Python 3.14) a worker has its parent's stack, and on
  it the parent's settings. Where they are spawned it can read none of them.
- A SIGTERM that comes while the app is being imported calls the parent's handler in the forked
  worker, where it has no effect but a flag (a worker alone would serve on, and its parent wait).
- What accepts connections is Rust and stops together with all else. To stop it early, each
  listener is replaced by a socket that nobody can connect to (`granian_sockets.py`).
- A worker that is replaced (SIGHUP, `--workers-lifetime`, `--workers-max-rss`) is sent the same
  signal as at the end. It tells them apart by its successor, which listens on the port by then.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial, wraps
from types import FrameType
from typing import Any, Final

import anyio
import granian
from granian import _signals
from granian.server.mp import MPServer

from graceful.core.budget import ServerLimit, SettingsError
from graceful.core.records import Notice
from graceful.core.traits import traits_named
from graceful.lifecycle import Lifecycle, current
from graceful.loops import current_loop
from graceful.members import Member
from graceful.servers import ServerOwner, Wrapped
from graceful.signals import HANDLED, Handler
from graceful.threads import ThreadLoop

from .granian_sockets import LOOK_EVERY, close_when_empty, count_alike, listening_on

__all__ = ["GranianWorker", "detect", "prepare"]

SPAWNED: Final = ("_spawn_asgi_lifespan_worker", "_spawn_asgi_worker", "_spawn_wsgi_worker")
"""What a worker runs, by its interface: asgi, asginl, wsgi."""

RUST_TASKS: Final = (
    "granian --task-impl rust: such tasks can't be cancelled, and sync hooks fail in them; what "
    "only waits, WebSockets too, is held to the drain deadline and cut; leave it at asyncio"
)

EARLY: Final = 0.2
"""Seconds in which the event loop has told of a signal that came before it was taken over."""


def detect(handler: Handler, receive: object = None) -> GranianWorker | None:
    """Return the granian worker that this process is, if it is one.

    Args:
        handler: not needed.
        receive: not needed.

    Raises:
        AttributeError: granian has changed what a worker runs.
    """
    for frame in _stack():
        code = frame.f_code
        if code.co_name in SPAWNED and frame.f_globals.get("__name__") == MPServer.__module__:
            for name in ("shutdown_event", "shutdown_glue", "sock", "serve"):
                if name not in code.co_varnames + code.co_cellvars:
                    raise AttributeError(f"{code.co_name} has no variable {name}")
            return GranianWorker(frame, _parent())
    return None


def _stack() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _parent() -> Any:
    """Return the parent as it was when it forked this process; None where it has not forked it.

    What its handlers of signals did since then they did to this copy.
    """
    owners = (frame.f_locals.get("self") for frame in _stack())
    return next((owner for owner in owners if isinstance(owner, MPServer)), None)


def prepare(app: Wrapped) -> None:
    """Have `app` join in the main thread of a WSGI worker, before it serves: it has no lifespan.

    Called while granian imports the app.

    Raises:
        AttributeError: granian has no such moment any more.
    """
    original: Any = _signals.set_sync_signals

    @wraps(original)
    def set_sync_signals() -> Any:
        event = original()
        parent = _parent()
        if parent is not None and parent.interrupt_signal:
            sys.exit(0)  # told to stop while the app was imported, and nothing has been served
        try:
            _join(app, current())
        except SettingsError as error:
            sys.exit(f"graceful: {error}")
        return event

    _signals.set_sync_signals = set_sync_signals


def _join(app: Wrapped, lifecycle: Lifecycle) -> None:
    """Begin the life of this worker: with the first app that it serves, with the others as guests.

    Raises:
        SettingsError: the settings are wrong.
    """
    if app.error is not None:
        raise app.error
    if lifecycle.loop is None:
        lifecycle.join(Member("granian", app.settings, ThreadLoop(), lifespan=True))
    app.enter()
    lifecycle.started()


class GranianWorker:
    """One worker process, as the lifecycle sees it.

    Args:
        frame: the function that the worker runs from its start to its end.
        parent: the parent, as it was when it forked this process; None = it was not forked.
    """

    def __init__(self, frame: FrameType, parent: Any) -> None:
        self._frame = frame
        self._parent = parent
        self._owner: ServerOwner | None = None
        self._left = False
        address = frame.f_locals["sock"][0]  # None: a Unix socket, which the parent holds, too
        self._address: tuple[str, int] | None = address and address.__getstate__()[:2]
        self.traits = traits_named("granian")
        self.version = granian.__version__
        self.name = f"granian {self.version}"
        self.managed = True
        self.shares_listener = self._address is None or sys.platform != "linux"
        self.development = parent is not None and bool(parent.reload_on_changes)
        self.needs_lifespan = False

    def limits(self) -> Sequence[ServerLimit]:
        """What the parent gives its workers, where it can be read."""
        if self._parent is None:
            return ()
        seconds = self._parent.workers_kill_timeout or None
        return (ServerLimit("granian --workers-kill-timeout", seconds, "at_signal"),)

    # -- signals ---------------------------------------------------------------------------------

    def attach(self, owner: ServerOwner) -> None:
        self._owner = owner
        if self._parent is not None and self._parent.task_impl == "rust":
            current().say_once(Notice(RUST_TASKS))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # WSGI: plain handlers, which are chained
            return
        self._take_from(loop)

    def _take_from(self, loop: asyncio.AbstractEventLoop) -> None:
        """An event loop goes on calling its handler beside any other, so it gets another one.

        A signal that has come already is still on its way through the loop.
        """
        early = [True]

        def pass_on(number: signal.Signals) -> None:
            handler = signal.getsignal(number)
            if early and callable(handler):
                handler(number, None)

        for number in HANDLED:
            loop.add_signal_handler(number, pass_on, number)
        loop.call_later(EARLY, early.clear)

    def told_early(self) -> bool:
        """Whether the signal came while the app was imported: it called the parent's handler."""
        return self._parent is not None and bool(self._parent.interrupt_signal)

    def detach(self) -> None:
        """Nothing is given back: the process ends with its server."""

    def is_replaced(self) -> bool:
        """Whether a successor listens on the port already: more do than there are workers."""
        return self._parent is not None and self._listening() > self._expected()

    def _listening(self) -> int:
        return max(map(count_alike, self._listeners()), default=0)

    def _expected(self) -> int:
        each = self._parent.runtime_threads if self._parent.runtime_mode == "st" else 1
        return int(self._parent.workers * each)

    def _listeners(self) -> list[int]:
        return listening_on(*self._address) if self._address else []

    # -- the end ---------------------------------------------------------------------------------

    async def stop_accepting(self) -> None:
        """Also for a drain that has begun when the app was ready and granian not yet."""
        while "serve" not in self._frame.f_locals:  # noqa: ASYNC110 - nothing tells of it
            await anyio.sleep(LOOK_EVERY)
        if not self.shares_listener:
            await close_when_empty(self._listeners())

    def has_connections(self) -> bool:
        return True

    def leave(self) -> None:
        if self._left:
            return
        self._left = True  # the event holds one `set`; a third would wait for ever
        loop, gone = current_loop(), anyio.Event()
        worker = self._frame.f_locals
        worker["shutdown_event"].add_cb(partial(loop.soon, gone.set))
        worker["shutdown_event"].set()
        loop.spawn(partial(self._end, gone, worker["shutdown_glue"]))

    async def _end(self, gone: anyio.Event, end: Callable[[], object]) -> None:
        """Have the worker end when its connections are gone, but not wait for them too long.

        What is left is flushing; a worker alone would wait for a client that doesn't read.
        """
        assert self._owner is not None
        with anyio.move_on_after(self._owner.drain_left()):
            await gone.wait()
        if not self._asks_to_shut_down():
            await self._owner.server_gone()
        end()

    def _asks_to_shut_down(self) -> bool:
        """Whether the app will see lifespan.shutdown, with which the lifecycle ends.

        Not with `asginl`, nor where the app had no answer to lifespan.startup, as Django's.
        """
        protocol = self._frame.f_locals.get("lifespan_handler")
        return protocol is not None and not getattr(protocol, "errored", False)
