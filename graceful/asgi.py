"""The ASGI shell: `GracefulMiddleware`, outermost around any ASGI app, on any server.

It translates. Whether to refuse, to say close, to say farewell is asked of the core; what an
exchange then does on the wire is in `_asgi_http.py` and `_asgi_websocket.py`; the lifespan protocol
is in `_asgi_lifespan.py`. This file holds construction, membership in the lifecycle, and the hot
path, which is written for speed: one object for a request, no coroutine of its own for a message.
"""

from __future__ import annotations

from asyncio import current_task
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ._asgi_exchange import Farewell, Shell
from ._asgi_http import HttpExchange, answer
from ._asgi_lifespan import serve_lifespan
from ._asgi_types import App, Receive, Scope, Send
from ._asgi_websocket import WebSocketExchange, turn_away
from .context import exchange_var
from .core.budget import Settings, SettingsError
from .core.farewell import checked_event_name
from .core.phases import Phase
from .core.records import Notice
from .driver import Hook, HookPhase
from .lifecycle import Lifecycle, Member, current
from .loops import AsyncioLoop, Loop, current_loop
from .observers import Observer
from .probe_server import ProbeServer
from .probes import Probes
from .settings import load, unknown_variables

__all__ = ["GracefulMiddleware"]

OneOrMore = Callable[[], object] | Sequence[Callable[[], object]]

SAMPLE = 1023
"""Look at the latency histogram once in so many (a power of two, less one) requests."""


class GracefulMiddleware:
    """Makes the process of `app` stop gracefully. Wrap it outermost.

    Args:
        app: any ASGI 3 app.
        checks: readiness checks by name; async (or sync, then run in a thread) callables without
            arguments. One that raises, returns False or exceeds `check_timeout` makes readiness 503.
        farewell: what a WebSocket client is sent before the close: text, bytes, or a callable that
            gets the exchange and returns one of them or None. None = only the close frame.
        sse_event: name of the last event of an SSE stream.
        on_lame_duck, on_drain, on_cleanup: hooks, sync or async, one or several, run in order.
        observers: callables that get each record (`graceful.core.records`) beside the log.
        settings: the rows of `graceful.core.budget.SETTINGS` by name, in seconds where they are
            times. `GRACEFUL_*` environment variables beat them.

    A mistake in the settings does not raise here: frameworks build middleware inside the lifespan
    call, where servers take an exception for 'no lifespan'. It fails the start-up instead, and
    where there is no lifespan, readiness and every request.
    """

    def __init__(
        self,
        app: App,
        *,
        checks: Mapping[str, Callable[[], Awaitable[object]]] | None = None,
        farewell: Farewell = None,
        sse_event: str = "reconnect",
        on_lame_duck: OneOrMore = (),
        on_drain: OneOrMore = (),
        on_cleanup: OneOrMore = (),
        observers: Sequence[Observer] = (),
        **settings: Any,
    ) -> None:
        self.app = app
        self.farewell = farewell
        self.sse_event = sse_event
        self.error: SettingsError | None = None
        self._checks = checks or {}
        self._observers = tuple(observers)
        self._hooks = (
            _hooks("lame_duck", on_lame_duck)
            + _hooks("drain", on_drain)
            + _hooks("cleanup", on_cleanup)
        )
        self._probes: Probes | None = None
        self._probe_server: ProbeServer | None = None
        self._member: Member | None = None
        self._shell: Shell | None = None
        self._may_have_moved = True
        self._on_asyncio = True
        self._forget: list[Callable[[], None]] = []
        self._others: dict[str, App] = {"websocket": self._websocket, "lifespan": self._lifespan}
        self.settings = Settings()
        self._probe_paths: frozenset[str] = frozenset()
        try:
            checked_event_name(sse_event)
            self.settings = load(settings, source=f"{type(self).__name__}(...)")
            self._probes = Probes(
                self.settings, self._checks, self.lifecycle.publish, self.lifecycle.clock
            )
            self._probe_paths = self._probes.paths
        except SettingsError as error:
            self.error = error

    @property
    def lifecycle(self) -> Lifecycle:
        """The lifecycle of the process."""
        return current()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if "graceful" in scope or (kind != "http" and kind not in self._others):
            # Wrapped twice by mistake: the outer one does it all. Or a kind yet to be invented.
            await self.app(scope, receive, send)
            return
        if kind != "http":
            await self._others[kind](scope, receive, send)
            return
        path = scope["path"]
        if path in self._probe_paths or scope.get("root_path"):
            probe = self._probe_at(path, scope.get("root_path", ""))
            if probe is not None and await self._answer_probe(probe, scope, send):
                return
        shell = self._shell
        if shell is None or self._may_have_moved:
            shell = self._entered()
            if shell is None:
                await answer(send, 503, str(self.error), {"retry-after": "1"})
                return
        core, clock = shell.core, shell.clock
        tracker = core.tracker
        exchange = HttpExchange(shell, scope, receive, send)
        tracker.begin(exchange, clock())
        if core.phase is not Phase.SERVING and core.late_request(exchange, exchange.began):
            await self._refuse(exchange, send)
            return
        scope["graceful"] = exchange
        if "state" in scope:
            scope["state"]["graceful"] = exchange
        else:
            scope["state"] = {"graceful": exchange}
        token = exchange_var.set(exchange)
        try:
            if self._on_asyncio:
                exchange.task = current_task()
                await self.app(scope, exchange.receive, exchange.send)
            else:
                await exchange.run_scoped(self.app)
        except BaseException as error:
            if not exchange.forgives(error):
                raise
        finally:
            exchange_var.reset(token)
            tracker.end(exchange, clock())
            if not tracker.served & SAMPLE:
                self.lifecycle.check_budget()

    async def _refuse(self, exchange: HttpExchange, send: Send) -> None:
        """Too late for this request: a 503 now is better than a response cut half-way."""
        try:
            await answer(send, 503, "draining", {"retry-after": "1", **exchange.close_header()})
        finally:
            exchange.shell.core.tracker.live.pop(exchange, None)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        shell = self._shell
        if shell is None or self._may_have_moved:
            shell = self._entered()
        if shell is None:
            await receive()
            await send({"type": "websocket.close", "code": 1011, "reason": "misconfigured"})
            return
        exchange = WebSocketExchange(shell, scope, receive, send)
        if not shell.core.admits_streams:
            await turn_away(exchange)
            return
        tracker = shell.core.tracker
        tracker.begin(exchange, shell.clock())
        scope["graceful"] = exchange
        scope.setdefault("state", {})["graceful"] = exchange
        token = exchange_var.set(exchange)
        try:
            if self._on_asyncio:
                exchange.task = current_task()
                await self.app(scope, exchange.receive, exchange.send)
            else:
                await exchange.run_scoped(self.app)
        except BaseException as error:
            if not exchange.forgives(error):
                raise
        finally:
            exchange_var.reset(token)
            tracker.end(exchange, shell.clock())

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["graceful"] = self
        await serve_lifespan(self, scope, receive, send)

    # -- probes --------------------------------------------------------------------------------

    def _probe_at(self, path: str, root_path: str) -> str | None:
        return self._probes.match(path, root_path) if self._probes is not None else None

    async def _answer_probe(self, probe: str, scope: Scope, send: Send) -> bool:
        """Answer a probe; False when it is the app's to answer."""
        if self._shell is None or self._may_have_moved:
            self._entered()
        if self.error is not None and probe == "ready":
            await answer(send, 503, str(self.error), {"cache-control": "no-store"})
            return True
        core = self._shell.core if self._shell is not None else self.lifecycle.core
        if probe == "ready" and self.settings.readiness_mode == "wrap" and core.ready:
            return False
        assert self._probes is not None
        method = scope.get("method", "GET")
        if probe == "ready":
            reply = await self._probes.readiness(core, method)
        else:
            reply = self._probes.liveness(core, method)
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": list(reply.headers)}
        )
        await send({"type": "http.response.body", "body": reply.body})
        return True

    # -- membership in the lifecycle -----------------------------------------------------------

    def _entered(self) -> Shell | None:
        """Make sure that this app takes part, on the loop that runs now; None after an error."""
        if self.error is not None:
            return None
        member = self._member
        if member is None or not (member.lifespan or member.loop.is_current()):
            if self.enter(lifespan=False) is not None:
                return None
            self.started()
        return self._shell

    def enter(self, *, lifespan: bool) -> str | None:
        """Join the lifecycle. Returns what is wrong with the settings, if anything."""
        if self.error is None:
            try:
                self._join(current_loop(), lifespan)
            except SettingsError as error:
                if lifespan:
                    return str(error)
                self.error = error
        return str(self.error) if self.error is not None else None

    def _join(self, loop: Loop, lifespan: bool) -> None:
        lifecycle = self.lifecycle
        self.gone()
        member = Member(self._name(), self.settings, loop, lifespan)
        lifecycle.join(member)
        self._member = member
        self._may_have_moved = not lifespan
        self._on_asyncio = isinstance(loop, AsyncioLoop)
        self._shell = Shell(
            lifecycle.core, loop, lifecycle.clock, lifecycle.publish, self.farewell, self.sse_event
        )
        lifecycle.hooks += self._hooks
        self._forget = [lifecycle.observe(observer) for observer in self._observers]
        for text in unknown_variables():
            lifecycle.publish(Notice(text))
        self._open_probe_port()

    def _name(self) -> str:
        app: object = self.app
        return f"{type(self).__name__}({type(app).__name__})"

    def _open_probe_port(self) -> None:
        if self.settings.probe_port is not None and self._probes is not None:
            self._probe_server = ProbeServer(self.settings, self._probes, self.lifecycle)
            self._probe_server.start()

    def started(self) -> None:
        """The app is ready to serve."""
        self.lifecycle.started()

    async def before_shutdown(self) -> None:
        """The server has asked for the end: what is still in flight is drained first."""
        if self._member is not None and self.lifecycle.is_last(self._member):
            await self.lifecycle.stop("lifespan.shutdown")
            await self.lifecycle.clean_up()

    def must_speak(self) -> bool:
        """Whether the server takes an app without lifespan as an error."""
        return self.lifecycle.server.needs_lifespan

    def gone(self) -> None:
        """Leave the lifecycle; harmless when not in it."""
        member, self._member = self._member, None
        if member is None:
            return
        if self._probe_server is not None:
            self._probe_server.stop()
            self._probe_server = None
        self.lifecycle.leave(member)
        for forget in self._forget:
            forget()
        self._shell = None


def _hooks(phase: HookPhase, given: OneOrMore) -> list[Hook]:
    return [Hook(phase, hook) for hook in ([given] if callable(given) else given)]
