"""The ASGI shell: `GracefulMiddleware`, outermost around any ASGI app, on any server.

It translates. Whether to refuse, to say close, to say farewell is asked of the core; what an
exchange then does on the wire is in `_asgi_http.py` and `_asgi_websocket.py`; the lifespan protocol
is in `_asgi_lifespan.py`. This file holds construction, membership in the lifecycle, and the hot
path, which is written for speed: one object for a request, no coroutine of its own for a message,
and as few steps as will do, for in a server that is busy it is they that cost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from typing import TYPE_CHECKING, Any, Unpack

from ._arguments import OneOrMore, callables, has_method, hooks
from ._asgi_exchange import NO_SCOPE, AsgiExchange, Farewell, Shell, after_end
from ._asgi_http import HttpExchange, answer
from ._asgi_lifespan import serve_lifespan
from ._asgi_types import App, Receive, Scope, Send
from ._asgi_websocket import WebSocketExchange, turn_away
from .context import HANDLE, exchange_var
from .core.budget import Settings, SettingsError
from .core.farewell import checked_event_name
from .core.inflight import Exchange
from .core.records import Notice
from .driver import Hook
from .lifecycle import Lifecycle, current
from .loops import AsyncioLoop, Loop, current_loop
from .members import Member
from .observers import Observer
from .probes import Check, Probes
from .servers import prepare_server
from .settings import Keywords, load, unknown_variables

if TYPE_CHECKING:
    from .probe_server import ProbeServer

__all__ = ["GracefulMiddleware"]

# A global is found faster than an attribute.
enter_context, leave_context = exchange_var.set, exchange_var.reset
MISSING = Token.MISSING


class GracefulMiddleware:
    """Makes the process of `app` stop gracefully. Wrap it outermost.

    Args:
        app: any ASGI 3 app.
        checks: readiness checks by name; async (or sync, then run in a thread) callables without
            arguments. One that raises, returns False or takes longer than `check_timeout` makes
            readiness 503.
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

    written_at = ""
    """Where the keywords were written, for messages; empty = in a call of the class."""

    def __init__(
        self,
        app: App,
        *,
        checks: Mapping[str, Check] | None = None,
        farewell: Farewell = None,
        sse_event: str = "reconnect",
        on_lame_duck: OneOrMore | None = None,
        on_drain: OneOrMore | None = None,
        on_cleanup: OneOrMore | None = None,
        observers: Sequence[Observer] | None = None,
        **settings: Unpack[Keywords],
    ) -> None:
        self.app = app
        self._has_method = has_method(app)
        self.farewell: Farewell = None
        self.sse_event = sse_event
        self.error: SettingsError | None = None
        """What is wrong with the settings of this app."""
        self._refused: SettingsError | None = None  # by the settings of another app, while it lives
        self._checks = checks or {}
        self._observers: tuple[Observer, ...] = ()
        self._hooks: tuple[Hook, ...] = ()
        self._probes: Probes | None = None
        self._probe_server: ProbeServer | None = None
        self._member: Member | None = None
        self._shell: Shell | None = None
        self._exchange = HttpExchange  # of that shell
        self._live: dict[Exchange, None] = {}
        self._short: type[HttpExchange] | None = None  # while requests may go the short way
        self._looks = True  # at what begins and ends: it is timed, or somebody waits for it
        self._may_be_short = False
        self._state_is_shared = False
        self._following = threading.RLock()
        self._forget: list[Callable[[], None]] = []
        self.settings = Settings()
        self._probe_ends = ""  # the last letters of their paths
        try:
            checked_event_name(sse_event)
            self.farewell = _farewell(farewell)
            self._observers = tuple(callables("observers", observers))
            self._hooks = hooks(lame_duck=on_lame_duck, drain=on_drain, cleanup=on_cleanup)
            self.settings = load(
                settings,
                source=self.written_at or f"{type(self).__name__}(...)",
                base=self.lifecycle.defaults,
            )
            self._probes = Probes(self.settings, self._checks, self.lifecycle)
            self._probe_ends = "".join(path[-1] for path in self._probes.paths)
        except SettingsError as error:
            self.error = error

    @property
    def lifecycle(self) -> Lifecycle:
        """The lifecycle of the process."""
        return current()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The hot path: `_serve` in short, for a process that is SERVING. Each line here is paid by
        # every request; `make bench` holds it to a bar.
        # Nothing may lead from the scope to the exchange: servers' `send` leads to the scope, and
        # a cycle for each request costs a fifth of the throughput in work for the collector.
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        # A first look, the cheapest that no prefix leads astray.
        try:
            may_be_probe = scope["path"][-1] in self._probe_ends
        except IndexError:  # an empty path
            may_be_probe = False
        if may_be_probe and await self._probed(scope, send):
            return
        new_exchange = self._short
        if new_exchange is None:
            await self._serve(scope, receive, send)
            return
        exchange = new_exchange()
        exchange.scope = scope
        exchange._receive = receive
        exchange._send = send
        exchange._first = None
        exchange._last = None
        looks = self._looks
        if looks:
            exchange.began = exchange.shell.clock()
        live = self._live
        live[exchange] = None
        token = enter_context(exchange)
        app: Any = self.app  # a call of what an attribute holds is dearer than one of a name
        try:
            if self._has_method:
                await app.__call__(scope, exchange.receive, exchange.send)
            else:
                await app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            if not exchange.forgives(error):
                raise
        finally:
            # An exchange that is over means nothing where it is found, so only what was there
            # before it has to be put back: the one whose handler has called this app.
            if token.old_value is not MISSING:
                leave_context(token)
            # What follows is `Tracker.end`, in line.
            del live[exchange]
            if looks or self._looks:
                exchange.uncancel()
                shell = exchange.shell
                shell.tracker.ended(exchange, shell.clock())
            # And this is `let_go`.
            exchange._first = exchange._last = None
            exchange.scope = NO_SCOPE
            exchange._receive = exchange._send = after_end

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve any HTTP request, in any phase, on any loop."""
        if within_another(scope):
            await self.app(scope, receive, send)
            return
        shell = self._entered()
        if shell is None:
            await answer(send, 503, self._problem, {"retry-after": "1"})
            return
        scope.setdefault("state", {})["graceful"] = HANDLE
        tracker = shell.tracker
        exchange = HttpExchange.of(shell, scope, receive, send)
        now = shell.clock()
        tracker.begin(exchange, now)
        if not tracker.plain:
            exchange.watch()
            if shell.core.late_request(exchange, now):
                await self._refuse(exchange, send)
                return
        try:
            await self._run(exchange)
        finally:
            exchange.let_go()

    async def _run(self, exchange: AsgiExchange) -> None:
        """Call the app for an exchange that has begun, and end it."""
        shell = exchange.shell
        token = enter_context(exchange)
        try:
            await exchange.run(self.app)
        except BaseException as error:
            if not exchange.forgives(error):
                raise
        finally:
            leave_context(token)
            exchange.uncancel()
            shell.tracker.end(exchange, shell.clock())

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "websocket" and not within_another(scope):
            await self._websocket(scope, receive, send)
        elif kind == "lifespan" and "graceful" in scope:
            self._say_wrapped_twice(scope["graceful"])
            await self.app(scope, receive, send)
        elif kind == "lifespan":
            scope["graceful"] = self
            self._state_is_shared = "state" in scope
            if self._state_is_shared:  # servers copy it into the state of each request
                scope["state"]["graceful"] = HANDLE
            member = self._member
            served = member is not None and member.lifespan and member.loop.is_alive()
            owner = _OneMoreServer(self) if served else self
            await serve_lifespan(owner, scope, receive, send)
        else:  # a kind that is yet to be invented
            await self.app(scope, receive, send)

    def _say_wrapped_twice(self, outer: GracefulMiddleware | Lifecycle) -> None:
        """Say what has no effect because another middleware is wrapped around this one."""
        lost = [str(self.error)] if self.error else self.settings.differences(outer.settings)
        lost += ["checks"] * bool(self._checks) + ["hooks"] * bool(self._hooks)
        lost += ["farewell"] * (self.farewell is not None)
        lost += ["observers"] * bool(self._observers)
        if lost:
            text = (
                "GracefulMiddleware is wrapped around this app twice and the inner one only passes "
                f"on; of no effect: {', '.join(lost)}; keep the outer one and give it these"
            )
            self.lifecycle.publish(Notice(text))

    async def _refuse(self, exchange: HttpExchange, send: Send) -> None:
        """Too late for this request: a 503 now is better than a response cut half-way."""
        try:
            await answer(send, 503, "draining", {"retry-after": "1", **exchange.close_header()})
        finally:
            exchange.shell.tracker.drop(exchange)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        shell = self._entered()
        if shell is None:
            await receive()
            await send({"type": "websocket.close", "code": 1011, "reason": "misconfigured"})
            return
        exchange = WebSocketExchange.of(shell, scope, receive, send)
        if not shell.core.admits_streams:
            await turn_away(exchange)
            return
        shell.tracker.begin(exchange, shell.clock())
        scope.setdefault("state", {})["graceful"] = HANDLE
        await self._run(exchange)

    # -- probes --------------------------------------------------------------------------------

    async def _probed(self, scope: Scope, send: Send) -> bool:
        """Answer a probe; False when this is none, or one that the app answers."""
        if self._probes is None or within_another(scope):
            return False
        probe = self._probes.match(scope["path"], scope.get("root_path", ""))
        if probe is None:
            return False
        shell = self._entered()
        if shell is None and probe == "ready":
            await answer(send, 503, self._problem, {"cache-control": "no-store"})
            return True
        core = shell.core if shell is not None else self.lifecycle.core
        if probe == "ready" and self._probes.leaves_readiness_to_app(core):
            return False
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

    def enter(self, *, lifespan: bool, receive: Receive | None = None) -> SettingsError | None:
        """Join the lifecycle. Returns what is wrong with the settings, if anything."""
        self._refused = None
        if self.error is None:
            try:
                self._join(current_loop(), lifespan, receive)
            except SettingsError as error:
                self._refused = error
        return self.error or self._refused

    @property
    def _problem(self) -> str:
        return str(self.error or self._refused or "")

    def _join(self, loop: Loop, lifespan: bool, receive: Receive | None) -> None:
        lifecycle = self.lifecycle
        self.gone()
        member = Member(self._name(), self.settings, loop, lifespan, self._hooks, receive)
        self._forget = [lifecycle.observe(observer) for observer in self._observers]
        try:
            lifecycle.join(member)
        except SettingsError:
            self._stop_observing()
            raise
        self._member = member
        self._shell = shell = Shell(
            core=lifecycle.core,
            tracker=lifecycle.core.tracker,
            live=lifecycle.core.tracker.live,
            loop=loop,
            clock=lifecycle.clock,
            publish=lifecycle.publish,
            farewell=self.farewell,
            sse_event=self.sse_event,
            traits=member.server.traits,
        )
        self._exchange, self._live = HttpExchange.of_shell(shell), shell.live
        # Without a lifespan each request has to look whether its loop is still the same, without
        # shared state each one has to be given the handle, and on trio each one needs a scope.
        self._may_be_short = lifespan and self._state_is_shared and isinstance(loop, AsyncioLoop)
        shell.tracker.on_turn.append(self._follow_tracker)
        self._follow_tracker()
        for text in unknown_variables():
            lifecycle.say_once(Notice(text))
        self._open_probe_port()

    def _follow_tracker(self) -> None:
        """Open or close the short way, and see whether ends are looked at; from any thread."""
        with self._following:  # who writes last must not have read first
            shell = self._shell
            plain = shell is not None and shell.tracker.plain
            self._short = self._exchange if plain and self._may_be_short else None
            self._looks = shell is None or shell.tracker.timing or not plain

    def _name(self) -> str:
        app: object = self.app
        return f"{type(self).__name__}({type(app).__name__})"

    def _open_probe_port(self) -> None:
        if self.settings.probe_port is not None and self._probes is not None:
            from .probe_server import ProbeServer  # pulls in http.server, which few need

            self._probe_server = ProbeServer(self.settings, self._probes, self.lifecycle)
            self._probe_server.start()

    def started(self) -> None:
        """The app is ready to serve."""
        self.lifecycle.started()

    async def before_shutdown(self) -> None:
        """The server has asked for the end: what is still in flight is drained first."""
        if self._member is not None:
            await self.lifecycle.before_shutdown(self._member)

    def must_speak(self) -> bool:
        """Whether the server takes an app without lifespan as an error."""
        return self._member is not None and self._member.server.needs_lifespan

    def gone(self) -> None:
        """Leave the lifecycle; harmless when not in it."""
        member, self._member = self._member, None
        if member is None:
            return
        if self._probe_server is not None:
            self._probe_server.stop()
            self._probe_server = None
        self.lifecycle.leave(member)
        self._stop_observing()
        shell, self._shell = self._shell, None
        if shell is not None:
            shell.tracker.on_turn.remove(self._follow_tracker)
        self._follow_tracker()
        self._exchange, self._live = HttpExchange, {}

    def _stop_observing(self) -> None:
        for forget in self._forget:
            forget()
        self._forget.clear()


class _OneMoreServer:
    """The lifespan of an app that another server of this process serves already.

    Requests of both are those of the one middleware; what is its own is to start and to stop.
    """

    def __init__(self, middleware: GracefulMiddleware) -> None:
        self.app = middleware.app
        self._middleware = middleware
        self._member: Member | None = None

    def enter(self, *, lifespan: bool, receive: Receive | None = None) -> SettingsError | None:
        name, settings = self._middleware._name(), self._middleware.settings
        member = Member(name, settings, current_loop(), lifespan, (), receive)
        try:
            current().join(member)
        except SettingsError as error:
            return error
        self._member = member
        return None

    def started(self) -> None:
        current().started()

    async def before_shutdown(self) -> None:
        if self._member is not None:
            await current().before_shutdown(self._member)

    def must_speak(self) -> bool:
        return self._member is not None and self._member.server.needs_lifespan

    def gone(self) -> None:
        member, self._member = self._member, None
        if member is not None:
            current().leave(member)


def within_another(scope: Scope) -> bool:
    """Whether a GracefulMiddleware further out has this request already, which then does it all.

    Frameworks copy the scope on the way in, but hand the headers on as they are.
    """
    outer = exchange_var.get()
    if not isinstance(outer, AsgiExchange) or outer not in outer.shell.live:
        return False
    return outer.scope is scope or outer.scope.get("headers", ()) is scope.get("headers")


def _farewell(given: Farewell) -> Farewell:
    if given is None or isinstance(given, str | bytes) or callable(given):
        return given
    raise SettingsError(
        f"farewell = {given!r}: give text, bytes, or a callable that returns one of them or None"
    )


# Now, for an app may be wrapped as late as in its first request.
prepare_server(lambda text: current().say_once(Notice(text)))
