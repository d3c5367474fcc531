"""What probes answer, and that checks cost little, however often somebody asks."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import anyio
import pytest

from graceful.core.budget import Settings, SettingsError
from graceful.core.lifecycle import Cause, LifecycleCore
from graceful.core.phases import Phase
from graceful.core.records import Fault, Notice, Record
from graceful.probes import Answer, Check, Probes

SETTINGS = Settings()


@pytest.fixture(params=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs an async function on a fresh event loop of each kind."""
    return functools.partial(anyio.run, backend=request.param)


class Rig:
    """Probes with a clock that stands still until it is moved, and a core in any phase."""

    def __init__(self, checks: Mapping[str, Check] | None = None, **settings: Any) -> None:
        self.now = 100.0
        self.published: list[Record] = []
        self.settings = replace(SETTINGS, **settings)
        self.probes = Probes(self.settings, checks or {}, self)
        self.core = LifecycleCore(self.settings, lambda: 0.5)
        self.core.phase = Phase.SERVING
        self.told = False

    def clock(self) -> float:
        """Tell the time of the test."""
        return self.now

    def publish(self, record: Record) -> None:
        """Hear a record."""
        self.published.append(record)

    def heed(self) -> None:
        """Hear what the parent has told the instance, if it has."""
        if self.told:
            self.core.climb_to(1, Cause("SIGTERM", signal=True), self.now)

    async def ready(self, method: str = "GET") -> Answer:
        """Ask for readiness."""
        return await self.probes.readiness(self.core, method)

    async def verdict(self) -> dict[str, str] | str:
        """Ask for readiness and return what it says about the checks."""
        body = json.loads((await self.ready()).body)
        return cast("dict[str, str] | str", body.get("checks", body["status"]))


class Pinger:
    """A check that counts its calls and waits until it is told to go on."""

    def __init__(self, result: object = True) -> None:
        self.calls = 0
        self.result = result
        self.gate: anyio.Event | None = None

    async def __call__(self) -> object:
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


async def ok() -> None:
    """Find everything in order."""


# -- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", Phase)
def test_liveness_is_200_in_every_phase(phase: Phase) -> None:
    """A failing liveness probe would have the platform kill the drain."""
    rig = Rig()
    rig.core.phase = phase
    answer = rig.probes.liveness(rig.core)
    assert (answer.status, json.loads(answer.body)) == (
        200,
        {"status": "live", "phase": phase.value},
    )


@pytest.mark.parametrize("phase", Phase)
def test_readiness_is_200_only_while_serving(phase: Phase, run: Callable[..., Any]) -> None:
    """Without checks the phase alone decides."""
    rig = Rig()
    rig.core.phase = phase
    answer: Answer = run(rig.ready)
    ready = phase is Phase.SERVING
    assert answer.status == (200 if ready else 503)
    status = "ready" if ready else "unready"
    assert json.loads(answer.body) == {"status": status, "phase": phase.value}


def test_a_retiring_worker_stays_ready_and_asks_no_check(run: Callable[..., Any]) -> None:
    """Its instance stays, so readiness is 200; its database may be closing already."""
    pinger = Pinger(result=False)
    rig = Rig({"database": pinger})
    rig.core.retire("max_requests", 100.0)
    assert rig.core.phase is Phase.DRAINING
    assert run(rig.ready).status == 200
    assert pinger.calls == 0


def test_the_headers_say_json_that_no_cache_may_keep(run: Callable[..., Any]) -> None:
    """A cached readiness would outlive the instance."""
    answer: Answer = run(Rig().ready)
    assert answer.headers == (
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer.body)).encode()),
        (b"cache-control", b"no-store"),
    )


@pytest.mark.parametrize("path", ["ready", "live"])
def test_head_has_the_headers_of_get_and_no_body(path: str, run: Callable[..., Any]) -> None:
    """HEAD is answered as GET is, less the body."""
    rig = Rig()

    def ask(method: str) -> Answer:
        if path == "ready":
            return cast("Answer", run(rig.ready, method))
        return rig.probes.liveness(rig.core, method)

    assert ask("HEAD") == replace(ask("GET"), body=b"")


def test_other_methods_are_not_allowed_and_run_no_check(run: Callable[..., Any]) -> None:
    """A POST to a probe path is 405 with `Allow`, whatever the phase."""
    pinger = Pinger()
    rig = Rig({"database": pinger})
    for answer in (run(rig.ready, "POST"), rig.probes.liveness(rig.core, "DELETE")):
        assert answer.status == 405
        assert dict(answer.headers)[b"allow"] == b"GET, HEAD"
    assert pinger.calls == 0


# -- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "root_path", "kind"),
    [
        ("/readyz", "", "ready"),
        ("/livez", "", "live"),
        ("/", "", None),
        ("/readyz/", "", None),
        ("/a/readyz", "", None),
        ("/api/readyz", "/api", "ready"),
        ("/api/livez", "/api/", "live"),
        ("/readyz", "/api", "ready"),
        ("/readyz", "/", "ready"),
        ("/apireadyz", "/api", None),
        ("/api/v1/readyz", "/api", None),
    ],
)
def test_paths_are_matched_after_the_root_path(path: str, root_path: str, kind: str | None) -> None:
    """A probe path is matched whole, less the prefix under which the app is mounted."""
    assert Rig().probes.match(path, root_path) == kind


def test_a_path_set_to_none_is_no_probe() -> None:
    """Each probe can be switched off, and moved."""
    probes = Rig(readiness_path=None, liveness_path="/healthz").probes
    assert probes.paths == {"/healthz"}
    assert probes.match("/readyz") is None
    assert probes.match("/healthz") == "live"
    assert Rig(readiness_path=None, liveness_path=None).probes.paths == frozenset()


# -- checks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [None, True, 0, "", "anything"])
def test_a_check_is_ok_unless_it_says_false(result: object, run: Callable[..., Any]) -> None:
    """Anything but False and an exception counts as fine."""
    assert run(Rig({"database": Pinger(result)}).verdict) == "ready"


def test_a_failing_check_makes_the_app_unready_and_is_named(run: Callable[..., Any]) -> None:
    """All checks are listed; why one failed goes to the observers, never into the body."""
    rig = Rig(
        {"database": Pinger(ValueError("password=secret")), "cache": ok, "queue": Pinger(False)}
    )
    answer: Answer = run(rig.ready)
    assert answer.status == 503
    assert json.loads(answer.body) == {
        "status": "unready",
        "phase": "serving",
        "checks": {"database": "failed", "cache": "ok", "queue": "failed"},
    }
    assert rig.published == [
        Fault("readiness check 'database'", "ValueError: password=secret"),
        Fault("readiness check 'queue'", "returned False"),
    ]


def test_a_slow_check_times_out_and_the_others_count(run: Callable[..., Any]) -> None:
    """Each check has its own limit, and a slow one is said to be slow."""
    rig = Rig({"slow": anyio.sleep_forever, "cache": ok}, check_timeout=0.25)
    assert run(rig.verdict) == {"slow": "timeout", "cache": "ok"}
    assert rig.published == [Fault("readiness check 'slow'", "no answer within 0.25 s")]


def test_a_check_that_raises_timeout_error_itself_has_failed(run: Callable[..., Any]) -> None:
    """A time-out of the driver's own is a failure with its own text."""
    rig = Rig({"database": Pinger(TimeoutError("connect"))})
    assert run(rig.verdict) == {"database": "failed"}
    assert rig.published == [Fault("readiness check 'database'", "TimeoutError: connect")]


def test_long_error_texts_are_shortened(run: Callable[..., Any]) -> None:
    """A driver that quotes a whole query fills no log."""
    rig = Rig({"database": Pinger(ValueError("x" * 5000))})
    run(rig.ready)
    (fault,) = rig.published
    assert isinstance(fault, Fault)
    assert len(fault.error) == 200


def test_checks_run_side_by_side(run: Callable[..., Any]) -> None:
    """Checks that can only finish together do finish."""

    async def main() -> dict[str, str] | str:
        first, second = anyio.Event(), anyio.Event()

        async def one() -> None:
            first.set()
            await second.wait()

        async def two() -> None:
            second.set()
            await first.wait()

        return await Rig({"one": one, "two": two}).verdict()

    assert run(main) == "ready"


def test_a_check_that_is_cancelled_from_inside_has_failed() -> None:
    """A check that awaits a cancelled task leaves the probe with an answer."""

    async def cancelled() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    rig = Rig({"database": cancelled})
    assert asyncio.run(rig.verdict()) == {"database": "failed"}
    assert rig.published == [Fault("readiness check 'database'", "was cancelled")]


@pytest.mark.parametrize("result", [True, False])
def test_a_signal_while_checks_run_is_what_counts(result: bool, run: Callable[..., Any]) -> None:
    """Once the phase has moved on it is the whole answer, whatever the checks say."""
    rig = Rig()

    async def terminated() -> object:
        rig.core.climb("SIGTERM", 100.0)
        return result

    rig.probes = Probes(rig.settings, {"database": terminated}, rig)
    answer: Answer = run(rig.ready)
    assert json.loads(answer.body) == {"status": "unready", "phase": "lame_duck"}


@pytest.mark.parametrize("mode", ["own", "wrap"])
@pytest.mark.parametrize("checks", [{}, {"database": ok}])
def test_what_the_parent_has_said_counts_at_once(
    mode: str, checks: Mapping[str, Check], run: Callable[..., Any]
) -> None:
    """Also where the worker has not come to it by itself yet, and in each way to answer."""
    rig = Rig(checks, readiness_mode=mode)
    assert rig.probes.leaves_readiness_to_app(rig.core) == (mode == "wrap")
    assert run(rig.ready).status == 200
    rig.told = True
    answer: Answer = run(rig.ready)
    assert answer.status == 503
    assert json.loads(answer.body) == {"status": "unready", "phase": "lame_duck"}
    assert not rig.probes.leaves_readiness_to_app(rig.core)


def test_who_asks_whether_the_app_answers_hears_the_parent() -> None:
    """In the mode `wrap` that is the first thing to be asked."""
    rig = Rig(readiness_mode="wrap")
    rig.told = True
    assert not rig.probes.leaves_readiness_to_app(rig.core)


def test_a_change_is_told_once_and_so_is_recovery(run: Callable[..., Any]) -> None:
    """Observers hear of a failure when it begins, not each second, and of its end."""
    pinger = Pinger()
    rig = Rig({"database": pinger})

    async def main() -> None:
        for result in (True, False, False, ValueError("x"), True, True, False):
            pinger.result = result
            await rig.ready()
            rig.now += 1.0

    run(main)
    fault = Fault("readiness check 'database'", "returned False")
    assert rig.published == [
        fault,
        Notice("readiness check 'database' is ok again", level="info"),
        fault,
    ]


# -- single-flight and cache -------------------------------------------------------------------


def test_an_outcome_is_kept_for_a_second(run: Callable[..., Any]) -> None:
    """Probes within a second of the last outcome ask nobody."""
    pinger = Pinger()
    rig = Rig({"database": pinger})

    async def main() -> list[int]:
        calls: list[int] = []
        for step in (0.0, 0.5, 0.4999, 0.0001, 0.9999):
            rig.now += step
            await rig.ready()
            calls.append(pinger.calls)
        return calls

    assert run(main) == [1, 1, 1, 2, 2]


def test_probes_at_the_same_time_share_one_run(run: Callable[..., Any]) -> None:
    """A hundred who ask while a check runs get its outcome."""
    pinger = Pinger(False)
    rig = Rig({"database": pinger})

    async def main() -> list[int]:
        pinger.gate = anyio.Event()
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await rig.ready()).status)

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            pinger.gate.set()
        return statuses

    assert run(main) == [503] * 100
    assert pinger.calls == 1


def test_a_cancelled_leader_strands_nobody(run: Callable[..., Any]) -> None:
    """When the one who runs the checks goes away, one of those who wait takes over."""
    pinger = Pinger()
    rig = Rig({"database": pinger})

    async def main() -> list[int]:
        pinger.gate = anyio.Event()
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await rig.ready()).status)

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as leader:
                tasks.start_soon(_cancel_when_blocked, leader, tasks, ask)
                await rig.ready()
            assert leader.cancelled_caught
            await anyio.wait_all_tasks_blocked()
            pinger.gate.set()
        return statuses

    assert run(main) == [200] * 5
    assert pinger.calls == 2


async def _cancel_when_blocked(
    leader: anyio.CancelScope, tasks: Any, ask: Callable[[], Awaitable[None]]
) -> None:
    for _ in range(5):
        tasks.start_soon(ask)
    await anyio.wait_all_tasks_blocked()
    leader.cancel()


def test_each_event_loop_begins_anew() -> None:
    """A test suite that starts its app on loop after loop never meets what an old loop left."""
    pinger = Pinger()
    rig = Rig({"database": pinger})

    async def abandoned() -> None:
        pinger.gate = anyio.Event()
        with anyio.move_on_after(0):
            await rig.ready()

    for result, verdict in ((False, {"database": "failed"}), (True, "ready")):
        for backend in ("asyncio", "trio"):
            anyio.run(abandoned, backend=backend)
            pinger.gate, pinger.result = None, result
            assert anyio.run(rig.verdict, backend=backend) == verdict


def test_a_leader_whose_loop_died_strands_nobody() -> None:
    """A loop that is dropped in the middle of a run leaves no lock behind."""
    pinger = Pinger()
    rig = Rig({"database": pinger})
    loop = asyncio.new_event_loop()

    async def begin() -> asyncio.Task[Answer]:
        pinger.gate = anyio.Event()
        task = asyncio.create_task(rig.ready())
        await anyio.wait_all_tasks_blocked()
        return task

    task = loop.run_until_complete(begin())
    pinger.gate = None
    assert anyio.run(rig.verdict) == "ready"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


# -- sync checks -------------------------------------------------------------------------------


def test_a_sync_check_runs_in_a_thread(run: Callable[..., Any]) -> None:
    """Blocking code may be given as it is, and fails as other checks do."""
    threads: list[threading.Thread] = []

    def fine() -> None:
        threads.append(threading.current_thread())

    def broken() -> bool:
        raise OSError("no route")

    def leaving() -> None:
        raise SystemExit(3)

    rig = Rig({"fine": fine, "broken": broken, "leaving": leaving})
    assert run(rig.verdict) == {"fine": "ok", "broken": "failed", "leaving": "failed"}
    assert threads[0] is not threading.main_thread()
    assert rig.published == [
        Fault("readiness check 'broken'", "OSError: no route"),
        Fault("readiness check 'leaving'", "RuntimeError: SystemExit(3)"),
    ]


@pytest.mark.parametrize("make", [lambda: ok, lambda: functools.partial(ok), lambda: lambda: ok()])
def test_async_checks_of_every_shape(make: Callable[[], Check], run: Callable[..., Any]) -> None:
    """Functions, partials and lambdas that return a coroutine all count as async."""
    assert run(Rig({"database": make()}).verdict) == "ready"


def test_a_hanging_sync_check_holds_one_thread_and_nothing_else(run: Callable[..., Any]) -> None:
    """The probe answers in time, and asks no second thread to hang beside the first."""
    release, calls = threading.Event(), list[str]()

    def hang() -> None:
        calls.append(threading.current_thread().name)
        release.wait()

    rig = Rig({"database": hang}, check_timeout=0.1)

    async def main() -> None:
        for _ in range(3):
            assert await rig.verdict() == {"database": "timeout"}
            rig.now += 1.0
        assert calls == ["graceful-check-database"]
        (thread,) = [t for t in threading.enumerate() if t.name == calls[0]]
        assert thread.daemon
        release.set()
        thread.join()
        give_up = time.monotonic() + 10
        while await rig.verdict() != "ready":  # the next thread may take long to start
            assert time.monotonic() < give_up
            rig.now += 1.0

    run(main)


def test_a_hanging_sync_check_outlives_its_loop_in_silence(run: Callable[..., Any]) -> None:
    """A thread that comes back when its loop is gone bothers nobody."""
    release, threads = threading.Event(), list[threading.Thread]()

    def hang() -> None:
        threads.append(threading.current_thread())
        release.wait()

    assert run(Rig({"database": hang}, check_timeout=0.25).verdict) == {"database": "timeout"}
    release.set()
    threads[0].join()


# -- bad input -----------------------------------------------------------------------------------


async def needs_a_pool(pool: object) -> None:
    """Stand for a check that was given without what it needs."""


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ([ok], "checks = .*give a mapping"),
        ({1: ok}, "checks has the name 1"),
        ({"": ok}, "checks has the name ''"),
        ({"database": "ping"}, r"checks\['database'\] = 'ping': give a function"),
        ({"fine": ok, "database": None}, r"checks\['database'\] = None"),
        ({"database": needs_a_pool}, r"checks\['database'\] = .* needs arguments"),
    ],
)
def test_bad_checks_are_refused_by_name(checks: Any, message: str) -> None:
    """The error names the entry and what to give instead."""
    with pytest.raises(SettingsError, match=message):
        Rig(checks)


def test_a_coroutine_instead_of_a_function_is_refused() -> None:
    """`checks={"database": ping()}` is the usual slip; it leaves no 'never awaited' warning."""
    with pytest.raises(SettingsError, match="is a coroutine: give the function itself"):
        Rig({"database": ok()})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]


def test_a_callable_without_a_signature_is_trusted(run: Callable[..., Any]) -> None:
    """What is written in C may not say what it takes."""

    class Opaque:
        __signature__ = "none"

        async def __call__(self) -> None: ...

    assert run(Rig({"database": Opaque()}).verdict) == "ready"
