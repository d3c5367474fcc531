"""What a probe is answered: status, headers and body. Shells only translate.

Rules of this file
- A probe path is public and is asked often, so it must be no lever on what a check asks: checks of
  one event loop run once for all who ask at the same time, and the outcome is kept for a second.
- No text of an exception goes into a body. It goes to the observers, once for each change.
- Nothing is bound to an event loop that may be gone: test suites start one app on many loops.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, Protocol, cast

import anyio
from anyio.lowlevel import RunVar

from .core.budget import Settings, SettingsError
from .core.lifecycle import LifecycleCore
from .core.phases import Phase
from .core.records import Fault, Notice, Record
from .loops import Loop, current_loop
from .threads import original, start_work, wait_for

__all__ = ["Answer", "Check", "Probes"]

Check = Callable[[], object]
"""Readiness of one thing the app needs: async or sync; False or an exception means unready."""

KEPT_FOR: Final = 1.0
"""Seconds for which an outcome is kept: no prober of the field asks more often than each second."""

LONGEST_ERROR: Final = 200
"""Characters of an exception's text that are reported: some drivers put whole queries there."""


class Owner(Protocol):
    """Whose probes they are: the lifecycle of the process."""

    @property
    def clock(self) -> Callable[[], float]: ...

    def publish(self, record: Record) -> None:
        """Hear that a check begins to fail, or has recovered."""

    def heed(self) -> None:
        """Take note of what a parent has told the whole instance."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP response."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def answer(status: int, body: Mapping[str, object], method: str = "GET") -> Answer:
    """Return `body` as JSON that no cache keeps; 405 for a method that a probe doesn't have."""
    allow: tuple[tuple[bytes, bytes], ...] = ()
    if method not in ("GET", "HEAD"):
        status, body, allow = 405, {"status": "method not allowed"}, ((b"allow", b"GET, HEAD"),)
    content = json.dumps(body, separators=(",", ":")).encode()
    headers = (
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
        *allow,
    )
    return Answer(status, headers, b"" if method == "HEAD" else content)


class Probes:
    """The probes of one app.

    Args:
        checks: what readiness depends on beside the phase, by name.
        owner: the lifecycle.

    Raises:
        SettingsError: `checks` is no mapping of names to callables without arguments.
    """

    def __init__(
        self,
        settings: Settings,
        checks: Mapping[str, Check],
        owner: Owner,
    ) -> None:
        self._checks = _validated(checks)
        self._limit = settings.check_timeout
        self._wraps = settings.readiness_mode == "wrap"
        self._owner = owner
        self._kinds: dict[str, Literal["ready", "live"]] = {}
        if settings.readiness_path is not None:
            self._kinds[settings.readiness_path] = "ready"
        if settings.liveness_path is not None:
            self._kinds[settings.liveness_path] = "live"
        self.paths: frozenset[str] = frozenset(self._kinds)
        """For the hot paths: no others are a probe's, but for a prefix."""
        self._rounds: RunVar[_Rounds] = RunVar("graceful readiness checks")

    def match(self, path: str, root_path: str = "") -> Literal["ready", "live"] | None:
        """Return which probe `path` is, after the prefix under which the app is mounted."""
        if root_path and path.startswith(root_path):
            path = path[len(root_path.rstrip("/")) :]
        return self._kinds.get(path)

    def liveness(self, core: LifecycleCore, method: str = "GET") -> Answer:
        """Answer 200 in every phase: a liveness probe that fails would kill the drain."""
        core.tracker.probed(self._owner.clock())
        return answer(200, {"status": "live", "phase": core.phase.value}, method)

    def leaves_readiness_to_app(self, core: LifecycleCore) -> bool:
        """Whether the app's own endpoint answers: `readiness_mode` says so, while ready."""
        return self._wraps and self._ready(core)

    def runs_checks(self, core: LifecycleCore, method: str = "GET") -> bool:
        """Whether `readiness` would need the event loop, and may wait."""
        asked = method in ("GET", "HEAD") and bool(self._checks)
        return asked and self._ready(core) and core.phase is Phase.SERVING

    def readiness_by_phase(self, core: LifecycleCore, method: str = "GET") -> Answer:
        """Answer what the phase says; from any thread, without waiting."""
        ready = self._ready(core)
        body = {"status": "ready" if ready else "unready", "phase": core.phase.value}
        return answer(200 if ready else 503, body, method)

    def _ready(self, core: LifecycleCore) -> bool:
        """Ask the parent's word first: once the instance has flipped no worker says 200.

        Each question has some requests timed, so that what is known of them does not grow old.
        """
        self._owner.heed()
        core.tracker.probed(self._owner.clock())
        return core.ready

    async def readiness(self, core: LifecycleCore, method: str = "GET") -> Answer:
        """Answer what the phase and, while serving, the checks say."""
        if not self.runs_checks(core, method):
            return self.readiness_by_phase(core, method)
        outcome = await self._outcome()
        if not core.ready or all(result == "ok" for result in outcome.values()):
            return self.readiness_by_phase(core, method)  # it may have changed while checks ran
        body = {"status": "unready", "phase": core.phase.value, "checks": outcome}
        return answer(503, body, method)

    def readiness_from_thread(self, core: LifecycleCore, loop: Loop, method: str) -> Answer:
        """As `readiness`, for servers without an event loop; the checks run on `loop`."""
        if not self.runs_checks(core, method):
            return self.readiness_by_phase(core, method)
        box: Any = original("queue", "SimpleQueue")()

        async def ask() -> None:
            box.put(await self.readiness(core, method))

        if not loop.soon(lambda: loop.spawn(ask)):
            return self.readiness_by_phase(core, method)
        reply: Answer = wait_for(box.get)  # each check has its time limit
        return reply

    # -- one run for all who ask ---------------------------------------------------------

    async def _outcome(self) -> dict[str, str]:
        rounds = self._own_rounds()
        while self._owner.clock() - rounds.ended >= KEPT_FOR:
            if rounds.over is None:
                await self._run_round(rounds)
            else:
                # Should the one who runs it be cancelled, the first of us to wake takes over.
                await rounds.over.wait()
        return rounds.outcome

    def _own_rounds(self) -> _Rounds:
        rounds = self._rounds.get(None)
        if rounds is None:
            rounds = _Rounds()
            self._rounds.set(rounds)
        return rounds

    async def _run_round(self, rounds: _Rounds) -> None:
        rounds.over = over = anyio.Event()
        results: dict[str, _Result] = {}
        try:
            async with anyio.create_task_group() as tasks:
                for name in self._checks:
                    tasks.start_soon(self._run_check, name, rounds, results)
            # A check whose task is cancelled by its own doing leaves no result.
            lost = _Result("failed", "was cancelled")
            self._settle(rounds, {name: results.get(name, lost) for name in self._checks})
        finally:
            rounds.over = None
            over.set()

    def _settle(self, rounds: _Rounds, results: dict[str, _Result]) -> None:
        """Keep the outcome, and tell the observers what has changed."""
        rounds.outcome = {name: result.word for name, result in results.items()}
        rounds.ended = self._owner.clock()
        for name, result in results.items():
            if result.word != "ok" and name not in rounds.failing:
                rounds.failing.add(name)
                self._owner.publish(Fault(f"readiness check {name!r}", result.error))
            elif result.word == "ok" and name in rounds.failing:
                rounds.failing.remove(name)
                self._owner.publish(Notice(f"readiness check {name!r} is ok again", level="info"))

    async def _run_check(self, name: str, rounds: _Rounds, results: dict[str, _Result]) -> None:
        late = _Result("timeout", f"no answer within {self._limit:g} s")
        with anyio.move_on_after(self._limit) as scope:
            results[name] = await _ask(self._checks[name], name, rounds.hanging, late)
        if scope.cancelled_caught:
            results[name] = late


@dataclass(frozen=True, slots=True)
class _Result:
    word: Literal["ok", "failed", "timeout"]
    error: str = ""


@dataclass(slots=True)
class _Rounds:
    """The checks of one event loop: the last outcome, and the run that is under way."""

    outcome: dict[str, str] = field(default_factory=dict[str, str])
    ended: float = -math.inf
    over: anyio.Event | None = None
    failing: set[str] = field(default_factory=set[str])
    """Those whose failure has been told."""
    hanging: set[str] = field(default_factory=set[str])
    """Sync checks whose thread has not come back yet."""


async def _ask(check: Check, name: str, hanging: set[str], late: _Result) -> _Result:
    try:
        if inspect.iscoroutinefunction(check) or inspect.iscoroutinefunction(
            getattr(check, "__call__", None)  # noqa: B004 - asks how it is defined, not whether
        ):
            value = check()
        elif name in hanging:
            return late  # one thread waits for it already; a second would not come back either
        else:
            value = await _in_thread(check, name, hanging)
        if inspect.isawaitable(value):
            value = await value
    except Exception as error:
        return _Result("failed", f"{type(error).__name__}: {error}"[:LONGEST_ERROR])
    return _Result("failed", "returned False") if value is False else _Result("ok")


async def _in_thread(check: Check, name: str, hanging: set[str]) -> object:
    """Run a sync check where it can hang without holding anything.

    A thread of its own, not anyio's: those are shared with the app's endpoints, which may have
    taken all of them, and on asyncio the interpreter would wait for one that hangs.
    """
    loop, done, future = current_loop(), anyio.Event(), Future[object]()

    def run() -> None:
        try:
            future.set_result(check())
        except Exception as error:
            future.set_exception(error)
        except BaseException as error:  # sys.exit() in a check must not end the server
            future.set_exception(RuntimeError(repr(error)))
        hanging.discard(name)
        loop.soon(done.set)

    hanging.add(name)
    start_work(partial(copy_context().run, run), f"graceful-check-{name}")
    await done.wait()
    return future.result()


# -- bad input -------------------------------------------------------------------------------


def _validated(checks: object) -> dict[str, Check]:
    if not isinstance(checks, Mapping):
        raise SettingsError(
            f"checks = {checks!r}: give a mapping of names to functions, "
            'such as {"database": ping_database}'
        )
    entries = cast("Mapping[object, object]", checks)
    return {_name(key): _function(key, value) for key, value in entries.items()}


def _name(key: object) -> str:
    if not isinstance(key, str) or not key:
        raise SettingsError(f"checks has the name {key!r}: give each check a name of text")
    return key


def _function(key: object, value: object) -> Check:
    if inspect.iscoroutine(value):
        value.close()  # it is never awaited, and need not say so as well
        raise SettingsError(
            f"checks[{key!r}] is a coroutine: give the function itself, without calling it"
        )
    if not callable(value):
        raise SettingsError(f"checks[{key!r}] = {value!r}: give a function, sync or async")
    if not _takes_no_arguments(value):
        raise SettingsError(
            f"checks[{key!r}] = {value!r} needs arguments: give a function without any, "
            "such as functools.partial(check, pool)"
        )
    return value


def _takes_no_arguments(function: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C: there is no way to know
        return True
    try:
        signature.bind()
    except TypeError:
        return False
    return True
