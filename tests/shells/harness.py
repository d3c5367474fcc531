"""A world for one test: a lifecycle of its own, time that only passes when everything waits, and a
stand-in for the server that calls the app as the ASGI specification says.

`on_both` runs a test on asyncio and on trio in virtual time, so a stop of thirty seconds takes
milliseconds, happens in the same order each time, and no test sleeps to be safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import selectors
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
import trio.testing

import graceful.lifecycle
from graceful._asgi_types import App, Message, Scope
from graceful.core.budget import ServerLimit
from graceful.core.phases import Phase
from graceful.core.records import DrainReport, PhaseChanged, Record
from graceful.core.traits import UNKNOWN
from graceful.lifecycle import Lifecycle
from graceful.servers import ServerOwner

__all__ = [
    "Call",
    "FakeServer",
    "JumpingSelector",
    "World",
    "http",
    "on_both",
    "on_one",
    "websocket",
]

R = TypeVar("R")

# -- time ------------------------------------------------------------------------------------


class JumpingSelector(selectors.DefaultSelector):
    """Where asyncio would sleep, time jumps to when it would have woken."""

    jumped = 1000.0
    patience = 0.0
    """Seconds in which a thread may have something to say before time jumps."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        patience = self.patience if timeout else timeout
        ready = super().select(patience)
        if not ready and timeout is not None and timeout > 0:
            self.jumped += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time, as `trio.testing.MockClock` makes a trio run."""

    def __init__(self) -> None:
        self._virtual = JumpingSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.jumped


class Draw:
    """Where the process would draw lots; it can be set, and begins in the middle."""

    value = 0.5

    def __call__(self) -> float:
        return self.value


# -- the server ------------------------------------------------------------------------------


def http(
    path: str = "/",
    *,
    method: str = "GET",
    http_version: str = "1.1",
    root_path: str = "",
    spec_version: str = "2.3",
    **more: Any,
) -> dict[str, Any]:
    """Return the scope of a request, as uvicorn makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec_version},
        "http_version": http_version,
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"secret=1",
        "root_path": root_path,
        "headers": [(b"host", b"localhost")],
        "client": ("10.0.0.7", 50000),
        "server": ("127.0.0.1", 8000),
        **more,
    }


def websocket(path: str = "/ws", *, denial: bool = True, **more: Any) -> dict[str, Any]:
    """Return the scope of a WebSocket; `denial`: the server can answer it with a response."""
    scope = http(path, **more)
    del scope["method"]
    scope |= {"type": "websocket", "scheme": "ws", "subprotocols": []}
    if denial:
        scope["extensions"] = {"websocket.http.response": {}}
    return scope


class Call:
    """One call of an app. `sent` is what the app has sent to the server, in order."""

    def __init__(self, app: App, scope: Scope) -> None:
        self.app = app
        self.scope = scope
        self.sent: list[Message] = []
        self.error: BaseException | None = None
        self.over = False
        self.cancelled = False
        self.on_send: Callable[[Message], Awaitable[None]] | None = None
        """What else the server does with a message, for clients that are slow or gone."""
        self._inbox: list[Message] = []
        self._changed = anyio.Event()
        if scope["type"] == "http":
            self._inbox.append({"type": "http.request", "body": b"", "more_body": False})
        elif scope["type"] == "websocket":
            self._inbox.append({"type": "websocket.connect"})

    async def run(self) -> None:
        """Call the app. What it raises is kept in `error`, as a server would log it."""
        try:
            await self.app(self.scope, self._receive, self._send)
        except Exception as error:
            self.error = error
        except BaseException:
            self.cancelled = True
            raise
        finally:
            self.over = True
            self._tell()

    def put(self, *messages: Message) -> None:
        """Give the app messages to receive."""
        self._inbox += messages
        self._tell()

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when `condition` holds."""
        while not condition():
            await self._changed.wait()

    async def finished(self) -> Call:
        """Return when the call is over; raise what it raised."""
        await self.until(lambda: self.over)
        if self.error is not None:
            raise self.error
        return self

    async def started(self, sends: int = 1) -> Call:
        """Return when the app has sent that many messages."""
        await self.until(lambda: len(self.sent) >= sends or self.over)
        return self

    async def _receive(self) -> Message:
        await anyio.lowlevel.checkpoint()
        while not self._inbox:
            await self._changed.wait()
        return self._inbox.pop(0)

    async def _send(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":  # as servers do, which read it once
            message = {**message, "headers": list(message.get("headers", ()))}
        self.sent.append(message)
        self._tell()
        if self.on_send is not None:
            await self.on_send(message)

    def _tell(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    # what came of it

    @property
    def types(self) -> list[str]:
        """The types of all messages, in order."""
        return [message["type"] for message in self.sent]

    @property
    def status(self) -> int:
        """The status of the response."""
        return next(int(m["status"]) for m in self.sent if m["type"].endswith("response.start"))

    def header(self, name: str) -> list[str]:
        """Return all values of a response header."""
        start = next(m for m in self.sent if m["type"].endswith("response.start"))
        return [v.decode() for k, v in start["headers"] if k.lower() == name.encode()]

    @property
    def body(self) -> bytes:
        """Everything that was sent of the body."""
        return b"".join(bytes(m.get("body", b"")) for m in self.sent if m["type"].endswith(".body"))

    @property
    def complete(self) -> bool:
        """Whether the body was ended, and ended once."""
        ends = [not m.get("more_body", False) for m in self.sent if m["type"].endswith(".body")]
        return ends.count(True) == 1 and ends[-1]


class FakeServer:
    """A server with an integration; it notes what it was asked to do."""

    traits = UNKNOWN
    version = "1.0"
    managed = False
    shares_listener = False
    development = False
    needs_lifespan = False

    def __init__(self, name: str = "test server 1.0") -> None:
        self.name = name
        self.log: list[str] = []
        self.connections = False
        self.limit_list: Sequence[ServerLimit] = ()
        self.owner: ServerOwner | None = None

    @property
    def lifecycle(self) -> ServerOwner:
        """What the server was attached to."""
        assert self.owner is not None
        return self.owner

    def limits(self) -> Sequence[ServerLimit]:
        return self.limit_list

    def attach(self, owner: ServerOwner) -> None:
        self.owner = owner
        self.log.append("attach")

    def detach(self) -> None:
        self.owner = None
        self.log.append("detach")

    async def stop_accepting(self) -> None:
        self.log.append("stop accepting")

    def has_connections(self) -> bool:
        return self.connections

    def leave(self) -> None:
        self.log.append("leave")


# -- the world -------------------------------------------------------------------------------


class World:
    """A process of its own for one test."""

    def __init__(self, lifecycle: Lifecycle, draw: Draw, tasks: anyio.abc.TaskGroup) -> None:
        self.lifecycle = lifecycle
        self.draw = draw
        self.server: FakeServer | None = None
        self.records: list[Record] = []
        self.state: dict[str, Any] | None = None
        self._tasks = tasks
        self._left: list[Call] = []
        lifecycle.observe(self.records.append)

    @property
    def now(self) -> float:
        """Seconds on the lifecycle's clock."""
        return self.lifecycle.clock()

    @property
    def phase(self) -> Phase:
        """Where the process is in its life."""
        return self.lifecycle.phase

    def is_in(self, phase: Phase) -> bool:
        """Whether the process is in `phase`; a call, for checkers take a property for constant."""
        return self.phase is phase

    def call(self, app: App, scope: Scope) -> Call:
        """Call `app` in a task of its own, as a server does for each request."""
        if self.state is not None and scope["type"] != "lifespan":
            scope["state"] = dict(self.state)
        call = Call(app, scope)
        self._tasks.start_soon(call.run)
        return call

    async def get(self, app: App, path: str = "/", **scope: Any) -> Call:
        """Make a request and return when it is over."""
        return await self.call(app, http(path, **scope)).finished()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: App, *, state: bool = True) -> AsyncGenerator[Call]:
        """Start `app` up, and shut it down at the end of the block."""
        scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        if state:
            scope["state"] = self.state = {}
        call = self.call(app, scope)
        call.put({"type": "lifespan.startup"})
        await call.started(1)
        try:
            yield call
        finally:
            if not call.over:
                call.put({"type": "lifespan.shutdown"})
                with anyio.CancelScope(shield=True):
                    await call.until(lambda: call.over)
            self.state = None

    async def turns(self, count: int = 30) -> None:
        """Let everything run that can, without time passing."""
        for _ in range(count):
            await anyio.lowlevel.checkpoint()

    async def until(self, phase: Phase) -> None:
        """Return when the process is in `phase`."""
        while self.phase is not phase:  # noqa: ASYNC110 - virtual time
            await anyio.sleep(0.01)

    def told(self, kind: type[R]) -> list[R]:
        """Return the records of one kind that observers were told."""
        return [record for record in self.records if isinstance(record, kind)]

    @property
    def phases(self) -> list[Phase]:
        """The phases that were told of, in order."""
        return [record.new for record in self.told(PhaseChanged)]

    @property
    def report(self) -> DrainReport:
        """The only drain report."""
        (report,) = self.told(DrainReport)
        return report


def _options(backend: str) -> tuple[dict[str, Any], Callable[[], float]]:
    if backend == "trio":
        clock = trio.testing.MockClock(autojump_threshold=0)
        return {"clock": clock}, clock.current_time
    loops: list[JumpingLoop] = []

    def new_loop() -> JumpingLoop:
        loops.append(JumpingLoop())
        return loops[-1]

    return {"loop_factory": new_loop}, lambda: loops[-1].time()


def run_world(
    story: Callable[[World], Awaitable[None]],
    backend: str,
    patch: pytest.MonkeyPatch,
    *,
    server: FakeServer | None = None,
) -> World:
    """Run `story` in a new world, and see that it leaves nothing behind in this process."""
    options, clock = _options(backend)
    draw = Draw()
    lifecycle = Lifecycle(clock=clock, draw=draw)
    patch.setattr(graceful.lifecycle, "_process", lifecycle)

    def detect(*_: object) -> FakeServer | None:
        return server

    patch.setattr(graceful.lifecycle, "detect", detect)
    worlds: list[World] = []

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            world = World(lifecycle, draw, tasks)
            world.server = server
            worlds.append(world)
            await story(world)
            tasks.cancel_scope.cancel()

    before = _handlers()
    anyio.run(run, backend=backend, backend_options=options)
    lifecycle._release()  # what a world without a lifespan can't know the end of
    assert _handlers() == before
    assert not [t.name for t in threading.enumerate() if t.name.startswith("graceful")]
    return worlds[0]


def _handlers() -> Mapping[signal.Signals, object]:
    return {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}


def on_both(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test, whose first argument is the world, on asyncio and on trio."""
    return _on(("asyncio", "trio"), test)


def on_one(backend: str) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Run an async test on one backend only."""
    return lambda test: _on((backend,), test)


def _on(backends: Iterable[str], test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    signature = inspect.signature(test)
    extra = [p for name, p in signature.parameters.items() if name != "world"]
    ours = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        for name in ("backend", "monkeypatch")
        if name not in {p.name for p in extra}
    ]

    @functools.wraps(test)
    def wrapper(**given: Any) -> None:
        backend = given["backend"] if "backend" in signature.parameters else given.pop("backend")
        patch = given["monkeypatch"]
        if "monkeypatch" not in signature.parameters:
            del given["monkeypatch"]
        served = given.get("server")
        run_world(lambda world: test(world, **given), backend, patch, server=served)

    del wrapper.__wrapped__
    vars(wrapper)["__signature__"] = signature.replace(parameters=[*ours, *extra])
    parametrize = pytest.mark.parametrize("backend", list(backends))
    marked: Callable[..., None] = parametrize(wrapper)
    return marked
