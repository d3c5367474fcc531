"""hypercorn: found by the tasks that run its `worker_serve`, on asyncio, uvloop and trio.

Public names used: `serve(shutdown_trigger=…)`; `Config.graceful_timeout`, `shutdown_timeout`,
`use_reloader`, `workers`, `bind`. Private names: `raise_shutdown` and `worker_serve` of
`hypercorn.asyncio.run` and `hypercorn.trio.run`, with the variables `config`, `context`,
`lifespan`, `shutdown_trigger`, and `servers`, `server_tasks` (asyncio) or `listeners`,
`server_nursery` (trio); `terminate` and `terminated` of the context; `lifespan.wait_for_shutdown`;
`utils.check_multiprocess_shutdown_event`. Tested with hypercorn 0.18.

How it fits together
- hypercorn stops when one of two events comes: its trigger (a signal, the parent's word, the user's
  own) or `context.terminate` (`--max-requests`). It waits for each in a `raise_shutdown`, which is
  replaced by one that lets it go on only when the drain is over; `leave` sets `terminate`.
- A parent, which the default of one worker has, too, tells its workers by an event, not by a
  signal. It is passed on as the signal that it stands for. When the first worker has ended, the
  parent sends the others a SIGTERM, which would be another rung, or the end: it is not heard.
- Under trio the listeners close with the first thing that hypercorn does. It is held right there,
  at `context.terminated.set`, while connections go on, and let go on when the drain is over.
- The `wait_closed` of Python 3.12.1 and newer waits for connections for ever: hypercorn finds no
  server left to wait for, and its `graceful_timeout` begins at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial, wraps
from importlib.metadata import version
from types import FrameType, ModuleType
from typing import Any, Final, cast

import anyio
from anyio.lowlevel import checkpoint
from hypercorn import utils

from graceful.core.budget import ServerLimit
from graceful.core.traits import traits_named
from graceful.lifecycle import current
from graceful.listeners import close_when_empty, shut_down, until_empty
from graceful.loops import await_chain, current_loop
from graceful.servers import ServerOwner
from graceful.signals import HANDLED, Handler, in_main_thread
from graceful.threads import start_daemon

from .hypercorn_http2 import go_away_last, go_away_when_draining

__all__ = ["HypercornServer", "detect", "prepare", "shutdown_trigger"]

Event = Callable[[], Awaitable[object]]

LOOPS: Final = {
    "hypercorn.asyncio.run": ("servers", "server_tasks"),
    "hypercorn.trio.run": ("listeners", "server_nursery"),
}
"""Where hypercorn serves, and what it calls its listeners and its connections there."""

LISTENERS: Final = {listeners for listeners, _ in LOOPS.values()}

COMMON: Final = ("config", "context", "lifespan", "shutdown_trigger")

KEY: Final = "graceful"
"""The attribute of hypercorn's lifespan by which its server is found again."""

EARLY: Final = 0.25
"""Seconds after which a signal that hypercorn has heard and we haven't came before our start."""

ASKED_EVERY: Final = 0.1
"""Seconds after which a worker asks again whether its parent stops; hypercorn's own are the same.
"""


# -- finding it ----------------------------------------------------------------------------------


def detect(handler: Handler, receive: object = None) -> HypercornServer | None:
    """Return the hypercorn that runs the caller's event loop, if one does.

    Args:
        handler: not needed.
        receive: a bound method of the lifespan of the server that asks the app to start.

    Raises:
        AttributeError: hypercorn has changed what it serves with.
    """
    modules = {sys.modules[name]: names for name, names in LOOPS.items() if name in sys.modules}
    running = list(_running(list(modules)))
    lifespan = getattr(receive, "__self__", None)
    frames = [f for f in running if lifespan is f.f_locals.get("lifespan")] or running
    if not frames:
        return None
    for module, names in modules.items():
        if module.worker_serve.__code__ is frames[0].f_code:
            _require(module, (*COMMON, *names))
            _replace_raise_shutdown(module)
    return (OnTrio if "server_nursery" in frames[0].f_code.co_varnames else OnAsyncio)(frames[0])


def prepare() -> None:
    """Replace what hypercorn will wait in before it does: an app without lifespan joins later.

    What is missing then is said when an app joins.
    """
    for name in LOOPS:
        module = sys.modules.get(name)
        if module is not None and hasattr(module, "raise_shutdown"):
            _replace_raise_shutdown(module)


def _require(module: ModuleType, names: Sequence[str]) -> None:
    """Raise AttributeError unless hypercorn has the names that this needs."""
    module.raise_shutdown  # noqa: B018 - an AttributeError says that it is gone
    utils.check_multiprocess_shutdown_event  # noqa: B018
    code = module.worker_serve.__code__
    for name in names:
        if name not in code.co_varnames + code.co_cellvars:
            raise AttributeError(f"{module.__name__}.worker_serve has no variable {name}")


def _running(modules: Sequence[ModuleType]) -> Iterator[FrameType]:
    """Yield the frames of the servers that run on this loop."""
    codes = [module.worker_serve.__code__ for module in modules]
    for coroutine in _coroutines():
        for frame in await_chain(coroutine):
            if frame.f_code in codes:
                yield frame


def _coroutines() -> Iterator[object]:
    """Yield what all tasks run (asyncio), or this task and those that it is a child of (trio)."""
    try:
        yield from (task.get_coro() for task in asyncio.all_tasks())
    except RuntimeError:
        import trio

        task: Any = trio.lowlevel.current_task()
        while task is not None:
            yield task.coro
            task = task.parent_nursery and task.parent_nursery.parent_task


def _replace_raise_shutdown(module: Any) -> None:
    """Have hypercorn ask the server, if one is attached, before it begins to shut down."""
    original = module.raise_shutdown
    if hasattr(original, "__wrapped__"):
        return

    @wraps(original)
    async def raise_shutdown(event: Event) -> None:
        frame = next((f for f in _running([module]) if _waits_for(f, event)), None)
        if (server := _attached_to(frame)) is not None:
            server.listens()
        await event()
        if (server := _attached_to(frame)) is not None:
            await server.asked(event)
        await original(checkpoint)

    module.raise_shutdown = raise_shutdown


def _attached_to(frame: FrameType | None) -> HypercornServer | None:
    if frame is None:
        return None
    return cast("dict[str, Any]", vars(frame.f_locals["lifespan"])).get(KEY)


def _waits_for(frame: FrameType, event: Event) -> bool:
    variables = frame.f_locals
    ends = variables["context"].terminate
    return variables["shutdown_trigger"] is event or getattr(event, "__self__", None) is ends


# -- the server ----------------------------------------------------------------------------------


class HypercornServer:
    """One `worker_serve`, as the lifecycle sees it.

    Args:
        frame: that of the running function.
    """

    def __init__(self, frame: FrameType) -> None:
        self._frame = frame
        self._config = frame.f_locals["config"]
        self._lifespan = frame.f_locals["lifespan"]
        self._owner: ServerOwner | None = None
        self._loop = current_loop()
        self._may_go_on = anyio.Event()
        self._left = anyio.Event()
        self._listens = anyio.Event()
        if not LISTENERS.isdisjoint(frame.f_locals):  # the app has joined at a request
            self._listens.set()
        self._timeout = self._config.graceful_timeout
        trigger = getattr(frame.f_locals["shutdown_trigger"], "func", None)
        self._obeys_parent = trigger is utils.check_multiprocess_shutdown_event
        self.traits = traits_named("hypercorn")
        self.version = version("hypercorn")
        self.name = f"hypercorn {self.version}"
        self.managed = self._obeys_parent
        # A parent takes a worker that doesn't end with 0 for a reason to stop all others.
        self._own_exit_status = not self._obeys_parent
        # One worker alone accepts: its parent holds the listener, too, but only to close it.
        self._siblings = self._obeys_parent and self._config.workers > 1
        self.shares_listener = self._siblings or self._is_lent()
        self.development = bool(self._config.use_reloader)
        self.needs_lifespan = False

    def _is_lent(self) -> bool:
        """Whether the listener is somebody else's, or one that no successor could use again."""
        kept = ("fd://", "unix:") if self._obeys_parent else ("fd://",)
        return any(bind.startswith(kept) for bind in self._config.bind + self._config.insecure_bind)

    def limits(self) -> Sequence[ServerLimit]:
        return (
            ServerLimit("hypercorn --graceful-timeout", self._timeout, "after_drain"),
            ServerLimit("hypercorn shutdown_timeout", self._config.shutdown_timeout, "at_clean_up"),
        )

    def attach(self, owner: ServerOwner) -> None:
        self._owner = owner
        original = self._lifespan.wait_for_shutdown

        async def wait_for_shutdown() -> None:
            await original()
            status = await owner.server_gone()
            if status and self._own_exit_status:
                raise SystemExit(status)

        vars(self._lifespan).update({KEY: self, "wait_for_shutdown": wait_for_shutdown})
        self._loop.spawn(partial(go_away_when_draining, current(), self._connections))
        if self._obeys_parent:
            self._loop.soon(partial(start_daemon, self._listen_to_parent, "graceful-parent"))

    def _listen_to_parent(self) -> None:
        """Hear the parent although the loop is blocked. Its event can only be asked.

        To wait for it would hang the parent when this process is killed meanwhile.
        """
        (event, _) = self._frame.f_locals["shutdown_trigger"].args
        while self._owner is not None and not event.is_set():
            time.sleep(ASKED_EVERY)
        self._repeat_signal()

    def detach(self) -> None:
        self._owner = None
        vars(self._lifespan).pop(KEY, None)
        self._config.graceful_timeout = self._timeout

    def listens(self) -> None:
        """hypercorn has all its listeners, and begins to wait for the reason to stop."""
        self._listens.set()

    # -- hypercorn begins to stop ------------------------------------------------------------------

    async def asked(self, event: Event) -> None:
        """hypercorn's `event` has come: return when it may begin its own shutdown."""
        if event is self._frame.f_locals["shutdown_trigger"]:
            await self._triggered()
        elif not self._may_go_on.is_set():
            # Its successor is started only when it has ended: until then clients wait in the queue.
            self.shares_listener = self.shares_listener or self._obeys_parent
            self._stop("hypercorn --max-requests", retires=self._obeys_parent)
        await self._may_go_on.wait()
        self._before_shutdown()

    async def _triggered(self) -> None:
        """By its parent, by a signal that was caught here as well, or by what the user gave it."""
        if self._obeys_parent:
            self._repeat_signal()
            if self._siblings and current().board is None:
                signal.signal(signal.SIGTERM, _not_heard)
            return
        await anyio.sleep(EARLY)
        if self._was_told():
            return
        if "signal_event" in self._frame.f_locals:
            self._repeat_signal()
        else:
            self._stop("its shutdown_trigger", retires=False)

    def _repeat_signal(self) -> None:
        """Tell the lifecycle what hypercorn has been told by other means."""
        if not self._was_told():
            os.kill(os.getpid(), signal.SIGTERM)  # interrupts the main thread, whoever calls

    def _was_told(self) -> bool:
        """Whether a stop is under way; when nobody is attached, there is nobody to tell."""
        return self._owner is None or not math.isinf(self._owner.drain_left())

    def _stop(self, cause: str, *, retires: bool) -> None:
        async def stop() -> None:
            assert self._owner is not None
            await self._owner.stop(cause, retires=retires)
            self.leave()

        self._loop.spawn(stop)

    def _before_shutdown(self) -> None:
        """The last that happens before hypercorn begins to shut down."""

    # -- what the lifecycle asks for ---------------------------------------------------------------

    async def stop_accepting(self) -> None:
        """Also for a drain that has begun between the start of the app and that of the listeners.

        What is closed before hypercorn has opened it would be open for good.
        """
        await self._listens.wait()
        await self._close_listeners()

    async def _close_listeners(self) -> None:
        raise NotImplementedError

    def _refuses_for_all(self) -> bool:
        """The listener closes. Returns whether it is to be shut down for all who hold it."""
        assert self._owner is not None
        last = self._owner.accepts_no_more()
        return last or (self._obeys_parent and not self.shares_listener)

    def has_connections(self) -> bool:
        return bool(self._connections())

    def _connections(self) -> list[object]:
        """Return the coroutines that serve one connection each."""
        raise NotImplementedError

    def leave(self) -> None:
        assert self._owner is not None
        # What is left now is flushing.
        left = min(self._timeout, self._owner.drain_left())
        self._loop.soon(partial(self._loop.spawn, partial(self._leave, left)))

    async def _leave(self, left: float) -> None:
        await go_away_last(self._connections())
        self._config.graceful_timeout = left
        self._left.set()
        await self._go_on()

    async def _go_on(self) -> None:
        """Have hypercorn begin its own shutdown."""
        self._may_go_on.set()
        context = self._frame.f_locals.get("context")
        if context is not None:
            await context.terminate.set()


class OnAsyncio(HypercornServer):
    """On asyncio or uvloop."""

    async def _close_listeners(self) -> None:
        servers = self._frame.f_locals["servers"]
        await close_when_empty(servers, self._refuses_for_all)
        servers.clear()

    def _connections(self) -> list[object]:
        tasks = self._frame.f_locals.get("server_tasks", ())
        return [task.get_coro() for task in tasks]


class OnTrio(HypercornServer):
    """On trio."""

    def __init__(self, frame: FrameType) -> None:
        super().__init__(frame)
        self._closed = anyio.Event()
        self._own_exit_status = False  # nurseries would make a group of the exit, and a traceback

    async def _close_listeners(self) -> None:
        listeners = self._frame.f_locals["listeners"]
        numbers = [_socket_of(listener).fileno() for listener in listeners]
        copies = [os.dup(number) for number in numbers]
        await until_empty(numbers)
        await self._go_on()
        await self._closed.wait()
        last = self._refuses_for_all()
        for copy in copies:
            if last:
                shut_down(copy)
            os.close(copy)

    def _before_shutdown(self) -> None:
        """Hold hypercorn where its listeners are closed and its connections go on."""
        terminated = self._frame.f_locals["context"].terminated
        original: Callable[[], Awaitable[None]] = terminated.set

        async def closed() -> None:
            self._closed.set()
            await self._left.wait()
            await original()

        terminated.set = closed

    def _connections(self) -> list[object]:
        nursery = self._frame.f_locals.get("server_nursery")
        return [task.coro for task in nursery.child_tasks] if nursery is not None else []


def _socket_of(listener: Any) -> Any:
    return getattr(listener, "transport_listener", listener).socket


def _not_heard(number: int, frame: object) -> None:
    """The parent ends its workers when the first has ended."""


# -- for programs that embed hypercorn -------------------------------------------------------------


def shutdown_trigger() -> Event:
    """Return a trigger for `hypercorn.asyncio.serve` and `hypercorn.trio.serve`.

        await serve(app, config, shutdown_trigger=shutdown_trigger())

    The plain middleware works without. With it SIGTERM and SIGINT end `serve` after the drain also
    on trio, which has no signal handlers of its own, and with a hypercorn that graceful doesn't
    know. Call it in the main thread; elsewhere only `graceful.current().terminate()` stops it.
    """
    waiting: list[tuple[Any, anyio.Event]] = []
    told: list[int] = []

    def handle(number: int, frame: object) -> None:
        told.append(number)
        for loop, event in waiting:
            loop.soon(event.set)

    async def trigger() -> None:
        waiter = (current_loop(), anyio.Event())
        waiting.append(waiter)
        if not told:
            await waiter[1].wait()

    if in_main_thread():
        for number in HANDLED:
            with contextlib.suppress(ValueError):
                signal.signal(number, handle)
    return trigger
