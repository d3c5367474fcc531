"""gunicorn's arbiter: `install(globals(), …)` in the configuration file gives it the choreography.

Hooks are added when the arbiter has read its configuration, so it does not matter whether the
user's own stand before or after `install`. What the arbiter does then is `gunicorn_arbiter.py`'s,
what its workers do `gunicorn_workers.py`'s, and how its settings are judged `gunicorn_config.py`'s.

Private names used: `Arbiter.setup`. Tested with gunicorn 27.0.1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any, Final, Unpack

from gunicorn.arbiter import Arbiter

from graceful._arguments import has_method
from graceful.board import Board
from graceful.core.budget import SettingsError
from graceful.core.phases import Phase
from graceful.core.records import Fault, Notice
from graceful.lifecycle import Lifecycle, current
from graceful.settings import Binding, Keywords, load
from graceful.wsgi import GracefulMiddleware as WsgiMiddleware

from . import gunicorn_workers as workers
from .gunicorn_abort import say_when_aborted
from .gunicorn_arbiter import Instance
from .gunicorn_config import note_what_is_given, take_from_budget, tell_findings
from .gunicorn_dirty import wait_for_the_parent

__all__ = ["install"]

INSTALLED: Final = "graceful_installed"
"""Name in the configuration's namespace by which a second `install` is noticed."""


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
        note_what_is_given()
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
        if lifecycle.phase is Phase.SERVING and app.callable is not None:
            _keep_settings(lifecycle)
        _check_worker_class(app.cfg, lifecycle, last_class)
        last_class = app.cfg.settings["worker_class"].get()
        add_hooks(app.cfg, lifecycle)
        original(self, app)

    Arbiter.setup = setup  # type: ignore[method-assign]


def _keep_settings(lifecycle: Lifecycle) -> None:
    """An app that was loaded before the fork is not loaded again, and has the settings of then."""
    before, asked = lifecycle.core.settings, lifecycle.defaults
    assert asked is not None
    names = asked.differences(before)
    if names:
        changed = ", ".join(f"{n} {getattr(before, n)!r}, not {getattr(asked, n)!r}" for n in names)
        lifecycle.tell(
            Notice(
                f"preload_app: the app is loaded once and keeps its settings ({changed}); restart, "
                "or replace the arbiter (USR2), to change them"
            )
        )
    lifecycle.defaults = before


def _check_worker_class(cfg: Any, lifecycle: Lifecycle, last: str) -> None:
    """Have a class that can't be loaded end the start with one line, and no arbiter that runs."""
    wanted = cfg.settings["worker_class"].get()
    try:
        cfg.worker_class  # noqa: B018 - it is loaded when it is asked for
    except Exception as error:
        last_line = str(error).strip(" ]\n").rpartition("\n")[2]
        _refuse(lifecycle, f"worker_class = {wanted!r} can't be loaded: {last_line}")
        cfg.set("worker_class", last)


def add_hooks(cfg: Any, lifecycle: Lifecycle) -> None:
    """Put our hooks around the user's, and the timeout of the arbiter's stop into the budget."""
    settings, board = lifecycle.defaults, lifecycle.board
    assert settings is not None
    assert board is not None
    try:
        take_from_budget(cfg, settings)
    except SettingsError as error:
        _refuse(lifecycle, str(error))
    users = {name: getattr(cfg, name) for name in HOOKS}
    if lifecycle.phase is Phase.SERVING:  # a reload
        lifecycle.core.settings = settings
        tell_findings(cfg, lifecycle)

    def when_ready(server: Any) -> None:
        users["when_ready"](server)
        vars(server)[INSTANCE] = Instance(server, lifecycle)

    def on_reload(server: Any) -> None:
        _guarded(lifecycle, users["on_reload"], server)

    def on_exit(server: Any) -> None:
        if INSTANCE in vars(server):
            vars(server)[INSTANCE].report()
        _guarded(lifecycle, users["on_exit"], server)

    def post_fork(server: Any, worker: Any) -> None:
        if board.has_served:
            lifecycle.defaults = Binding.of(settings, partial(_follow, lifecycle, board))
        users["post_fork"](server, worker)

    def post_worker_init(worker: Any) -> None:
        users["post_worker_init"](worker)
        _begin_worker(worker, lifecycle)
        say_when_aborted(lifecycle, cfg.timeout)
        board.serves()

    def worker_exit(server: Any, worker: Any) -> None:
        workers.leave(getattr(worker, MEMBER, None), lifecycle)
        _guarded(lifecycle, users["worker_exit"], server, worker)

    def worker_abort(worker: Any) -> None:
        _guarded(lifecycle, users["worker_abort"], worker)

    def on_dirty_starting(arbiter: Any) -> None:
        wait_for_the_parent(arbiter, board)
        users["on_dirty_starting"](arbiter)

    def dirty_worker_init(worker: Any) -> None:
        wait_for_the_parent(worker, board)
        users["dirty_worker_init"](worker)

    for hook in (
        *(when_ready, on_reload, on_exit, post_fork, post_worker_init, worker_exit, worker_abort),
        *(on_dirty_starting, dirty_worker_init),
    ):
        cfg.set(hook.__name__, hook)


HOOKS: Final = (
    *("when_ready", "on_reload", "on_exit"),
    *("post_fork", "post_worker_init", "worker_exit", "worker_abort"),
    *("on_dirty_starting", "dirty_worker_init"),
)

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


def _follow(lifecycle: Lifecycle, board: Board, contradiction: str) -> None:
    """The app of a worker contradicts `install`, whose settings hold: a running instance goes on.

    To end the worker, as at the start, would end the arbiter and all that it serves.
    """
    if board.first_to_say():
        lifecycle.say_once(
            Notice(f"{contradiction}; until then install(...) holds for all workers")
        )


def _raise_what_is_wrong(worker: Any, lifecycle: Lifecycle) -> None:
    """Raise what is wrong with the settings of the app.

    A running instance is not ended by what only its own app's framework knows (Django, after a
    reload): the new workers say 503, and what is wrong is in the log.
    """
    if lifecycle.problem is not None and lifecycle.board and not lifecycle.board.has_served:
        raise lifecycle.problem
    outermost = getattr(worker, "wsgi", None)
    for app in (outermost, getattr(outermost, "wsgi_app", None)):
        if isinstance(error := getattr(app, "error", None), SettingsError):
            raise error


def _begin_worker(worker: Any, lifecycle: Lifecycle) -> None:
    try:
        _raise_what_is_wrong(worker, lifecycle)
        setattr(worker, MEMBER, workers.join(worker, lifecycle))
    except SettingsError as error:
        print(f"graceful: {error}", file=sys.stderr)
        sys.exit(Arbiter.WORKER_BOOT_ERROR)
    if workers.calls_wsgi(type(worker)) and has_method(worker.wsgi):
        worker.wsgi = _by_method(worker.wsgi)


def _by_method(app: Any) -> Callable[..., Any]:
    """Return what calls `app` without the detour through C that a call of an object is."""
    if isinstance(app, WsgiMiddleware):
        return app.__call__

    def call(environ: object, start_response: object) -> Any:
        return app.__call__(environ, start_response)  # looked up each time: others patch it

    return call
