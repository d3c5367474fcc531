"""The WSGI shell: `GracefulMiddleware`, outermost around any WSGI app, on any server.

It translates. Whether to refuse, to say close, to say farewell is asked of the core; what an
exchange then does with its response is in `_wsgi_exchange.py`, and how servers differ in
`_wsgi_servers.py`. This file holds construction, membership in the lifecycle, and the hot path,
which is written for speed: one object for a request and its body.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from ._arguments import OneOrMore, callables, has_method, hooks
from ._wsgi_exchange import (
    NO_PARTS,
    Environ,
    Headers,
    OneBlock,
    Shell,
    StartResponse,
    WsgiExchange,
    response_headers,
)
from .context import exchange_var
from .core.budget import Settings, SettingsError
from .core.farewell import checked_event_name
from .core.inflight import Exchange
from .core.phases import Phase
from .core.records import Notice
from .core.traits import traits_of_wsgi
from .driver import Hook
from .lifecycle import Lifecycle, current
from .loops import Loop
from .members import Member
from .observers import Observer
from .probes import Answer, Check, Probes
from .servers import prepare
from .settings import Keywords, load, unknown_variables
from .threads import ThreadLoop

if TYPE_CHECKING:
    from .probe_server import ProbeServer

__all__ = ["GracefulMiddleware"]

App = Callable[[Environ, StartResponse], Iterable[bytes]]

# A global is found faster than an attribute.
enter_context, get_exchange = exchange_var.set, exchange_var.get

REASONS = {200: "200 OK", 405: "405 Method Not Allowed", 503: "503 Service Unavailable"}


class GracefulMiddleware:
    """Makes the process of `app` stop gracefully. Wrap it outermost.

    Args:
        app: any WSGI app.
        checks: readiness checks by name; callables without arguments, sync or async. One that
            raises, returns False or takes longer than `check_timeout` makes readiness 503.
        sse_event: name of the last event of an SSE stream.
        on_lame_duck, on_drain, on_cleanup: hooks, sync or async, one or several, run in order.
        observers: callables that get each record (`graceful.core.records`) beside the log.
        settings: the rows of `graceful.core.budget.SETTINGS` by name, in seconds where they are
            times. `GRACEFUL_*` environment variables beat them.

    A mistake in the settings does not raise here, where it could end up as a server that respawns
    its workers for ever: readiness and every request say it instead.
    """

    def __init__(
        self,
        app: App,
        *,
        checks: Mapping[str, Check] | None = None,
        sse_event: str = "reconnect",
        on_lame_duck: OneOrMore | None = None,
        on_drain: OneOrMore | None = None,
        on_cleanup: OneOrMore | None = None,
        observers: Sequence[Observer] | None = None,
        **settings: Unpack[Keywords],
    ) -> None:
        self.app = app
        self._has_method = has_method(app)
        self.sse_event = sse_event
        self.error: SettingsError | None = None
        """What is wrong with the settings of this app."""
        self._refused: SettingsError | None = None  # by the settings of another app, while it lives
        self._observers: tuple[Observer, ...] = ()
        self._hooks: tuple[Hook, ...] = ()
        self._probes: Probes | None = None
        self._probe_server: ProbeServer | None = None
        self._member: Member | None = None
        self._shell: Shell | None = None
        self._joining = threading.Lock()
        self._forget: list[Callable[[], None]] = []
        self.settings = Settings()
        self._probe_paths: frozenset[str] = frozenset()
        self._probe_ends = ""  # the last letters of their paths
        try:
            checked_event_name(sse_event)
            self._observers = tuple(callables("observers", observers))
            self._hooks = hooks(lame_duck=on_lame_duck, drain=on_drain, cleanup=on_cleanup)
            self.settings = load(
                settings, source=f"{type(self).__name__}(...)", base=self.lifecycle.defaults
            )
            self._probes = Probes(self.settings, checks or {}, self.lifecycle)
            self._probe_paths = self._probes.paths
            self._probe_ends = "".join(path[-1] for path in self._probe_paths)
        except SettingsError as error:
            self.error = error
        prepare(self, lambda text: self.lifecycle.say_once(Notice(text)))

    @property
    def lifecycle(self) -> Lifecycle:
        """The lifecycle of the process."""
        return current()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # The hot path. Each line here is paid by every request; `make bench` holds it to a bar.
        outer = get_exchange()
        if outer is not None:
            outer = _if_alive(outer)
            if outer is not None and _has_already(outer, environ):
                return self.app(environ, start_response)
            if outer is not None:
                outer.watch()  # the two may be iterated by turns
        # A first look, the cheapest there is.
        try:
            may_be_probe = environ["PATH_INFO"][-1] in self._probe_ends
        except (KeyError, IndexError):  # both are allowed for an empty path
            may_be_probe = False
        if may_be_probe:
            answered = self._probed(environ, start_response)
            if answered is not None:
                return answered
        shell = self._shell
        if shell is None or not shell.tracker.plain:  # it may be that of a life that is over
            shell = self._entered(environ)
            if shell is None:
                return _refuse(start_response, self._problem, [])
        exchange = WsgiExchange()
        exchange.shell = shell
        exchange.environ = environ
        exchange._start = start_response
        exchange._headers = None
        exchange._parts = NO_PARTS
        exchange._first = None
        exchange._plain = True
        clock = shell.clock
        exchange.began = clock()
        shell.live[exchange] = None
        # Asked after the line above: the driver, in its thread, turns the two the other way round.
        if outer is not None or not shell.tracker.plain:
            exchange._plain = False
            if exchange.is_too_late(exchange.began):
                shell.tracker.drop(exchange)
                return _refuse(start_response, "draining", exchange.close_headers())
        exchange._token = enter_context(exchange)
        app: Any = self.app  # a call of what an attribute holds is dearer than one of a name
        try:
            if self._has_method:
                body: Iterable[bytes] = app.__call__(environ, exchange.start_response)
            else:
                body = app(environ, exchange.start_response)
            exchange._body = body
            kind: type = body.__class__
            if kind is list and (exchange._plain or not exchange.farewell_due):
                if shell.counts_blocks and len(body) == 1:  # type: ignore[arg-type]
                    exchange.__class__ = OneBlock
                return exchange
            if kind not in shell.no_files and exchange.is_file(kind):
                return body
            try:
                exchange._parts = iter(body)
            except TypeError:
                if hasattr(body, "__iter__"):
                    raise
                raise _no_body(body) from None
        except BaseException as error:
            answer = self._failed(exchange, error, start_response)
            if answer is None:
                raise
            return answer
        return exchange

    def _failed(
        self, exchange: WsgiExchange, error: BaseException, start_response: StartResponse
    ) -> Iterable[bytes] | None:
        """Return the answer to an `error` of the app that is our doing; None = it is its own."""
        exchange.abandon()
        if exchange.forgives(error):
            return ()
        if exchange.is_cut_by(error):
            return _refuse(start_response, "draining", exchange.close_headers())
        return None

    # -- probes --------------------------------------------------------------------------------

    def _probed(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes] | None:
        """Answer a probe; None when this is none, or one that the app answers."""
        if self._probes is None:
            return None
        probe = self._probes.match(environ["PATH_INFO"])
        if probe is None:
            return None
        shell = self._entered(environ)
        if shell is None and probe == "ready":
            return _refuse(start_response, self._problem, [("Cache-Control", "no-store")])
        core = shell.core if shell is not None else self.lifecycle.core
        if probe == "ready" and self._probes.leaves_readiness_to_app(core):
            return None
        method = environ.get("REQUEST_METHOD", "GET")
        if probe == "ready":
            assert shell is not None
            reply = self._probes.readiness_from_thread(core, shell.loop, method)
        else:
            reply = self._probes.liveness(core, method)
        return _answer(start_response, reply)

    # -- membership in the lifecycle -----------------------------------------------------------

    def enter(self) -> bool:
        """Join the lifecycle before the first request does it. False when settings are wrong."""
        return self._entered({}) is not None

    def _entered(self, environ: Environ) -> Shell | None:
        """Make sure that this app takes part; None when its settings are wrong."""
        if self.error is not None:
            return None
        with self._joining:
            shell, lifecycle = self._shell, self.lifecycle
            if shell is None or lifecycle.core is not shell.core:
                try:
                    self._shell = shell = self._join(lifecycle, environ)
                    self._refused = None
                except SettingsError as error:
                    self._refused = error
                    return None
        return shell

    @property
    def _problem(self) -> str:
        return str(self.error or self._refused or "")

    def _join(self, lifecycle: Lifecycle, environ: Environ) -> Shell:
        if lifecycle.phase in (Phase.DRAINING, Phase.CLOSING):
            # A worker's first request may be its last: nothing can be joined any more.
            return self._new_shell(lifecycle, lifecycle.loop or ThreadLoop(), environ)
        loop = lifecycle.loop or ThreadLoop()  # under gunicorn the worker has one
        member = Member(self._name(), self.settings, loop, False, self._hooks, guest=True)
        self._forget = [lifecycle.observe(observer) for observer in self._observers]
        try:
            lifecycle.join(member)
        except SettingsError:
            self._stop_observing()
            raise
        self._member = member
        for text in unknown_variables():
            lifecycle.say_once(Notice(text))
        lifecycle.started()
        if self.settings.probe_port is not None and self._probes is not None:
            from .probe_server import ProbeServer  # pulls in http.server, which few need

            self._probe_server = ProbeServer(self.settings, self._probes, lifecycle)
            self._probe_server.start()
        return self._new_shell(lifecycle, loop, environ)

    def _new_shell(self, lifecycle: Lifecycle, loop: Loop, environ: Environ) -> Shell:
        tracker = lifecycle.core.tracker
        server = traits_of_wsgi(str(environ.get("SERVER_SOFTWARE", "")))
        return Shell(
            lifecycle=lifecycle,
            core=lifecycle.core,
            tracker=tracker,
            live=tracker.live,
            loop=loop,
            clock=lifecycle.clock,
            sse_event=self.sse_event,
            lock=threading.RLock(),
            no_files=set(),
            counts_blocks=server.counts_blocks,
        )

    def _name(self) -> str:
        app: object = self.app
        return f"{type(self).__name__}({type(app).__name__})"

    def leave(self) -> None:
        """Leave the lifecycle; harmless when not in it. For programs that go on without the app."""
        with self._joining:
            member, self._member = self._member, None
            self._shell = None
        if member is None:
            return
        if self._probe_server is not None:
            self._probe_server.stop()
            self._probe_server = None
        lifecycle = self.lifecycle
        lifecycle.leave(member)
        self._stop_observing()
        if isinstance(member.loop, ThreadLoop) and lifecycle.loop is None:
            member.loop.close()

    def _stop_observing(self) -> None:
        for forget in self._forget:
            forget()
        self._forget.clear()


def _if_alive(outer: Exchange) -> Exchange | None:
    return outer if outer in current().tracker.live else None


def _has_already(outer: Exchange, environ: Environ) -> bool:
    """Whether a GracefulMiddleware further out has this request already, which then does it all.

    A handler may also call the app with a request of its own, as some batch endpoints do.
    """
    return not isinstance(outer, WsgiExchange) or outer.has_same_request(environ)


def _no_body(body: object) -> TypeError:
    return TypeError(f"the WSGI app returned {type(body).__name__}, not an iterable of bytes")


def _refuse(start_response: StartResponse, text: str, more: Headers) -> Iterable[bytes]:
    body = text.encode()
    headers = response_headers(body, {"Retry-After": "1"})
    start_response(REASONS[503], headers + more)
    return [body]


def _answer(start_response: StartResponse, reply: Answer) -> Iterable[bytes]:
    headers = [(k.decode("latin-1").title(), v.decode("latin-1")) for k, v in reply.headers]
    start_response(REASONS[reply.status], headers)
    return [reply.body]
