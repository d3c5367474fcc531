"""gunicorn's arbiter: `install(globals(), …)` in the configuration file gives it the choreography.

The arbiter alone knows whether the instance goes away or one worker is replaced. On its first
SIGTERM it writes that on the board, which every worker reads at once, and goes on: it reaps,
respawns and answers for the port until the propagation delay is over; only then does its own stop
begin. Everything else that ends a worker (HUP, TTOU, a maximum of requests) is a retirement.

Hooks are added when the arbiter has read its configuration, so it does not matter whether the
user's own stand before or after `install`.

Private names used: `Arbiter.setup`, `handle_term`, `handle_int`, `handle_quit`, `wait_for_signals`,
`SIG_QUEUE`, `reexec_pid`, `systemd`. Tested with gunicorn 27.0.1.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any, Final, Unpack

import gunicorn
from gunicorn.arbiter import Arbiter

from graceful.board import Board, Order, Slot
from graceful.core.budget import Settings, SettingsError
from graceful.core.lifecycle import Cause
from graceful.core.managed import worker_findings
from graceful.core.phases import Phase
from graceful.core.records import DrainReport, ExchangeCut, Fault, Notice, Started, Straggler
from graceful.lifecycle import Lifecycle, current
from graceful.settings import Keywords, load, unknown_variables

from . import gunicorn_workers as workers

__all__ = ["install"]

INSTALLED: Final = "graceful_installed"
"""Name in the configuration's namespace by which a second `install` is noticed."""

GUNICORNS_OWN: Final = 30
"""gunicorn's default of `graceful_timeout`: taken for 'left alone'."""


def install(namespace: MutableMapping[str, Any], **settings: Unpack[Keywords]) -> None:
    """Give the arbiter that reads this configuration a graceful stop.

    Args:
        namespace: `globals()` of the configuration file.
        settings: as of the middleware, which takes them from here. `GRACEFUL_*` beat them.

    What is wrong is one line on stderr and ends the start with status 1; while a running arbiter
    reloads its configuration it is a line in the log, and the settings stay as they were.
    """
    lifecycle = current()
    where = str(namespace.get("__file__", "gunicorn's configuration"))
    try:
        if INSTALLED in namespace:
            raise SettingsError(f"{where} installs graceful twice; keep one install(...)")
        chosen = load(settings, source=f"install(...) in {where}")
    except SettingsError as error:
        _refuse(lifecycle, str(error))
        return
    namespace[INSTALLED] = True
    lifecycle.defaults = chosen
    if lifecycle.board is None:
        lifecycle.board = Board()
        _add_hooks_when_read(lifecycle)


def _refuse(lifecycle: Lifecycle, text: str) -> None:
    """Before the arbiter runs an error ends it; in a reload it is told, and nothing changes."""
    if lifecycle.phase is not Phase.STARTING:
        lifecycle.tell(Notice(f"{text}; that stays as it was"))
        return
    print(f"graceful: {text}", file=sys.stderr)
    sys.exit(1)


def _add_hooks_when_read(lifecycle: Lifecycle) -> None:
    """Have each arbiter of this process get our hooks whenever it has read its configuration."""
    original, last_class = Arbiter.setup, ""

    def setup(self: Arbiter, app: Any) -> None:
        nonlocal last_class
        _check_worker_class(app.cfg, lifecycle, last_class)
        last_class = app.cfg.settings["worker_class"].get()
        add_hooks(app.cfg, lifecycle)
        original(self, app)

    Arbiter.setup = setup  # type: ignore[method-assign]


def _check_worker_class(cfg: Any, lifecycle: Lifecycle, last: str) -> None:
    """Have a class that can't be loaded end the start with one line, and no arbiter that runs."""
    given = cfg.settings["worker_class"].get()
    try:
        cfg.worker_class  # noqa: B018 - it is loaded when it is asked for
    except Exception as error:
        last_line = str(error).strip(" ]\n").rpartition("\n")[2]
        _refuse(lifecycle, f"worker_class = {given!r} can't be loaded: {last_line}")
        cfg.set("worker_class", last)


def add_hooks(cfg: Any, lifecycle: Lifecycle) -> None:
    """Put our hooks around the user's, and the timeout of the arbiter's stop into the budget."""
    settings = lifecycle.defaults
    assert settings is not None
    try:
        wanted = arbiter_timeout(settings, cfg.graceful_timeout)
    except SettingsError as error:
        _refuse(lifecycle, str(error))
        wanted = cfg.graceful_timeout
    cfg.set("graceful_timeout", wanted)
    users = {name: getattr(cfg, name) for name in HOOKS}
    if lifecycle.phase is Phase.SERVING:  # a reload
        lifecycle.core.settings = settings
        tell_findings(cfg, lifecycle)

    def when_ready(server: Any) -> None:
        users["when_ready"](server)
        vars(server)[INSTANCE] = Instance(server, lifecycle)

    def on_exit(server: Any) -> None:
        if INSTANCE in vars(server):
            vars(server)[INSTANCE].report()
        _guarded(lifecycle, users["on_exit"], server)

    def post_worker_init(worker: Any) -> None:
        users["post_worker_init"](worker)
        _begin_worker(worker, lifecycle)

    def worker_exit(server: Any, worker: Any) -> None:
        workers.leave(getattr(worker, MEMBER, None), lifecycle)
        _guarded(lifecycle, users["worker_exit"], server, worker)

    def worker_abort(worker: Any) -> None:
        _name_what_is_stuck(lifecycle)
        _guarded(lifecycle, users["worker_abort"], worker)

    for hook in (when_ready, on_exit, post_worker_init, worker_exit, worker_abort):
        cfg.set(hook.__name__, hook)


HOOKS: Final = ("when_ready", "on_exit", "post_worker_init", "worker_exit", "worker_abort")

INSTANCE: Final = "graceful_instance"
"""Attribute of an arbiter: its `Instance`, which outlives the configurations."""

MEMBER: Final = "graceful_member"
"""Attribute of a worker: how it takes part in the lifecycle."""


def _guarded(lifecycle: Lifecycle, hook: Callable[..., object], *arguments: object) -> None:
    """Run a hook of the user's that must not stop the shutdown."""
    try:
        hook(*arguments)
    except Exception as error:
        name = getattr(hook, "__qualname__", repr(hook))
        lifecycle.tell(Fault(f"gunicorn's hook {name}", f"{type(error).__name__}: {error}"))


def tell_findings(cfg: Any, lifecycle: Lifecycle) -> None:
    """Tell what of gunicorn's own settings works against the budget."""
    findings = worker_findings(
        lifecycle.core.settings,
        blocks_heartbeat=cfg.worker_class_str == "sync",
        workers=cfg.workers,
        timeout=cfg.timeout,
        max_requests=cfg.max_requests,
        max_requests_jitter=cfg.max_requests_jitter,
    )
    for text in findings:
        lifecycle.tell(Notice(text))


def arbiter_timeout(settings: Settings, given: int) -> int:
    """Return the seconds of gunicorn's `graceful_timeout`, which begins when the delay is over.

    Raises:
        SettingsError: what the user has given would cut requests that the budget lets finish.
    """
    needed = settings.drain + settings.cleanup_timeout
    left = settings.grace_period - settings.pre_stop - settings.propagation_delay
    if given == GUNICORNS_OWN:
        return math.ceil(left - settings.exit_margin / 2)
    if given < needed:
        raise SettingsError(
            f"gunicorn's graceful_timeout = {given} s would kill workers before drain_timeout "
            f"{settings.drain:g} + cleanup_timeout {settings.cleanup_timeout:g} = {needed:g} s "
            f"are over; leave graceful_timeout out (it becomes {math.ceil(left)}), or lower "
            "drain_timeout"
        )
    return given


def _begin_worker(worker: Any, lifecycle: Lifecycle) -> None:
    try:
        outermost = getattr(worker, "wsgi", None)
        for app in (outermost, getattr(outermost, "wsgi_app", None)):
            if isinstance(error := getattr(app, "error", None), SettingsError):
                raise error
        vars(worker)[MEMBER] = workers.join(worker, lifecycle)
    except LookupError as unknown:
        lifecycle.say_once(
            Notice(
                f"worker class {unknown} is unknown to graceful: its workers end as gunicorn alone "
                "ends them, after the propagation delay"
            )
        )
    except SettingsError as error:
        print(f"graceful: {error}", file=sys.stderr)
        sys.exit(Arbiter.WORKER_BOOT_ERROR)


def _name_what_is_stuck(lifecycle: Lifecycle) -> None:
    """The arbiter aborts a worker that has not answered for `timeout` seconds: say why."""
    now = lifecycle.clock()
    stuck = lifecycle.core.stragglers(now, stacks=True)
    if stuck:
        lifecycle.publish(ExchangeCut(tuple(stuck), 0.0))


class Instance:
    """The arbiter and all its workers: climbs the ladder, tells the workers, writes the report."""

    def __init__(self, server: Any, lifecycle: Lifecycle) -> None:
        self._server = server
        self._lifecycle = lifecycle
        self._core = lifecycle.core
        self._stopping = False
        self._signalled: float | None = None
        assert lifecycle.board is not None
        assert lifecycle.defaults is not None
        self._board: Board = lifecycle.board
        self._core.settings = lifecycle.defaults
        if server.systemd:
            self._board.keeps_port()
        self._term = server.handle_term
        self._wait = server.wait_for_signals
        server.handle_term = self.handle_term
        server.wait_for_signals = self.wait_for_signals
        for name in ("int", "quit"):
            self._wrap_quick(name)
        server.SIG_QUEUE = _Queue(server.SIG_QUEUE, self.arrived, self.third)
        self._say_started()

    def _wrap_quick(self, name: str) -> None:
        original = getattr(self._server, f"handle_{name}")

        def handle() -> None:
            self._climb(3, f"SIG{name.upper()}")
            original()

        setattr(self._server, f"handle_{name}", handle)

    def _say_started(self) -> None:
        lifecycle, settings = self._lifecycle, self._core.settings
        lifecycle.tell(self._core.started(lifecycle.clock()))
        in_force = settings.values() | {"drain_timeout": settings.drain}
        lifecycle.tell(
            Started(in_force, dict(settings.sources), f"gunicorn {gunicorn.__version__}")
        )
        for text in unknown_variables():
            lifecycle.tell(Notice(text))
        tell_findings(self._server.cfg, lifecycle)

    # -- the ladder ----------------------------------------------------------------------------

    def arrived(self, number: object) -> None:
        """A signal has come; in signal context, so no lock and no word.

        Its handler is called when the arbiter's loop gets to it, which a reload keeps for as long
        as an old worker takes. The workers must not go on saying 200 until then.
        """
        first = self._signalled is None and not self._core.rung
        if first and number == signal.SIGTERM and not self._server.reexec_pid:
            self._signalled = time.monotonic()
            self._board.climb(Order(self._first_rung(), self._signalled, "SIGTERM"))

    def _first_rung(self) -> int:
        """Return 2 where systemd holds the socket: who is started next serves what comes now."""
        return 2 if self._server.systemd else 1

    def handle_term(self) -> None:
        """What the arbiter does on SIGTERM, of which the last one is our own."""
        if self._server.reexec_pid:
            # A new arbiter serves the port: this one's workers are replaced, and no more.
            self._board.retires("SIGUSR2")
            self._stop()
        timeline = self._core.timeline
        if self._core.rung == 1 and timeline and self._lifecycle.clock() >= timeline.delay_ends:
            self._lifecycle.tell(self._core.delay_over(self._lifecycle.clock()))
            self._stop()
        self._climb(2 if self._core.rung else self._first_rung(), "SIGTERM")
        if self._core.rung > 1 or not self._core.settings.propagation_delay:
            self._lifecycle.tell(self._core.delay_over(self._lifecycle.clock()))
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._term()  # raises StopIteration, which ends the arbiter's loop

    def third(self, number: object) -> object:
        """A signal while the arbiter waits for its workers: SIGTERM means a quick stop then."""
        if not self._stopping or number != signal.SIGTERM:
            return number
        self._climb(3, "SIGTERM")
        return signal.SIGQUIT

    def _climb(self, rung: int, cause: str) -> None:
        lifecycle, now = self._lifecycle, time.monotonic()
        at = now if self._core.rung or self._signalled is None else self._signalled
        climbed = self._core.climb_to(rung, Cause(cause, signal=True), at)
        self._board.climb(Order(rung, now, cause))
        for record in climbed or ():
            lifecycle.tell(record)

    def wait_for_signals(self, timeout: float = 1.0) -> list[Any]:
        """Wait no longer than the propagation delay, whose end counts as another SIGTERM."""
        timeline = self._core.timeline
        if self._core.rung != 1 or timeline is None:
            return list(self._wait(timeout=timeout))
        left = max(0.0, timeline.delay_ends - self._lifecycle.clock())
        signals = list(self._wait(timeout=min(timeout, left)))
        over = self._lifecycle.clock() >= timeline.delay_ends
        return [*signals, signal.SIGTERM] if over and signal.SIGTERM not in signals else signals

    # -- the report ------------------------------------------------------------------------------

    def report(self) -> None:
        """All workers are gone: say how it went, once, for all of them."""
        if self._core.cause is None:
            return
        now = self._lifecycle.clock()
        self._lifecycle.tell(self._core.drained(now))
        self._lifecycle.tell(self._core.closed(now))
        self._lifecycle.tell(summed(self._core.report(now), list(self._board.slots())))


class _Queue:
    """The arbiter's queue of signals: seen as they come, and as they are taken."""

    def __init__(
        self, queue: Any, arrived: Callable[[object], None], seen: Callable[[object], object]
    ) -> None:
        self._queue = queue
        self._arrived = arrived
        self._seen = seen

    def put_nowait(self, number: object) -> None:
        self._arrived(number)
        self._queue.put_nowait(number)

    def get(self, block: bool = True, timeout: float | None = None) -> object:
        return self._seen(self._queue.get(block=block, timeout=timeout))

    def get_nowait(self) -> object:
        return self._seen(self._queue.get_nowait())


def summed(report: DrainReport, slots: list[Slot]) -> DrainReport:
    """Return the report of the instance: that of the arbiter with the numbers of all workers."""

    def total(name: str) -> int:
        return int(sum(getattr(slot, name) for slot in slots))

    def longest(name: str) -> float | None:
        found = max((getattr(slot, name) for slot in slots), default=-1)
        return None if found < 0 else found

    cut = tuple(_cut_by(slots))
    last, short = longest("last_request_after"), any(slot.too_short for slot in slots)
    return replace(
        report,
        in_flight_at_signal=total("in_flight"),
        served=total("served"),
        late_refused=total("late_refused"),
        streams_at_drain=total("streams"),
        told=total("told"),
        streams_left_to_finish=total("finishing"),
        farewells_failed=total("farewells_failed"),
        last_request_after=last,
        delay_too_short=short,
        p50=longest("p50"),
        p99=longest("p99"),
        clean=not cut,
        cut=cut,
        warnings=(*report.warnings, *_too_short(last, report.propagation_delay, short=short)),
    )


def _cut_by(slots: list[Slot]) -> list[Straggler]:
    """Name each worker that has cut something, or was killed before it could tell."""
    found: list[Straggler] = []
    for slot in slots:
        if slot.cut:
            found += [_straggler(slot, "cut, see above")] * int(slot.cut)
        elif not slot.reported and slot.in_flight:
            found.append(_straggler(slot, f"killed with up to {slot.in_flight:.0f} in flight"))
    return found


def _straggler(slot: Slot, text: str) -> Straggler:
    return Straggler("worker", f"{slot.pid:.0f}: {text}", "", 0.0, "draining")


def _too_short(last: float | None, delay: float, *, short: bool) -> list[str]:
    if not short or last is None:
        return []
    return [
        f"last request {last:.1f} s after readiness flipped; propagation_delay is {delay:g} s: "
        "the balancer had not moved, raise it"
    ]
