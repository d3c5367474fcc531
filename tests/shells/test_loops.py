"""The two kinds of event loop behind one interface: every promise of `Loop` is kept by both."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from graceful._trio import TrioInterrupt
from graceful.loops import (
    AsyncioInterrupt,
    Interrupt,
    Loop,
    await_chain,
    current_loop,
    format_frames,
    thread_working_for,
)

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


@pytest.fixture(params=["asyncio", "asyncio+uvloop", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs an async function on a fresh event loop of each kind."""
    backend, _, uvloop = request.param.partition("+")
    if uvloop:
        pytest.importorskip("uvloop")
    options = {"use_uvloop": True} if uvloop else {}
    return functools.partial(anyio.run, backend=backend, backend_options=options)


@pytest.fixture
def crashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """What the logger `graceful` is told."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", records.append)
    logger = logging.getLogger("graceful")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


async def settled(condition: Callable[[], object]) -> None:
    """Let other tasks run until `condition` holds."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.lowlevel.checkpoint()


# -- reaching a loop -------------------------------------------------------------------------


def test_no_loop_is_an_error() -> None:
    """Outside any loop there is nothing to find."""
    with pytest.raises(RuntimeError):
        current_loop()


def test_no_loop_is_an_error_without_trio_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that has never imported trio is not made to."""
    monkeypatch.delitem(sys.modules, "trio")
    with pytest.raises(RuntimeError, match="no running event loop"):
        current_loop()
    assert "trio" not in sys.modules


def test_the_running_loop_is_found(run: Run) -> None:
    """The loop has the name of its library, is current in itself and nowhere else."""

    async def main() -> tuple[str, list[bool]]:
        loop = current_loop()
        elsewhere: list[bool] = []
        thread = threading.Thread(target=lambda: elsewhere.append(loop.is_current()))
        thread.start()
        thread.join()
        return loop.name, [loop.is_current(), loop.is_alive(), *elsewhere]

    name, facts = run(main)
    assert name in ("asyncio", "trio")
    assert facts == [True, True, False]


def test_another_loop_is_not_the_current_one(run: Run) -> None:
    """A loop that is over is neither alive nor current, and says that it can't be reached."""

    async def find() -> Loop:
        return current_loop()

    old: Loop = run(find)

    async def main() -> list[bool]:
        return [old.is_current(), old.is_alive(), old.soon(lambda: None)]

    assert run(main) == [False, False, False]
    assert not old.is_current()


def test_soon_runs_on_the_loop_from_another_thread(run: Run) -> None:
    """A thread wakes a loop that waits, and the callback runs in the loop's thread."""

    async def main() -> list[threading.Thread]:
        loop, woken, threads = current_loop(), anyio.Event(), list[threading.Thread]()

        def callback() -> None:
            threads.append(threading.current_thread())
            woken.set()

        thread = threading.Thread(target=loop.soon, args=(callback,))
        thread.start()
        with anyio.fail_after(10):
            await woken.wait()
        thread.join()
        return threads

    assert run(main) == [threading.current_thread()]


def test_soon_runs_on_the_loop_from_a_signal_handler(run: Run) -> None:
    """A handler, which may run between any two bytecodes, wakes its own loop."""

    async def main() -> None:
        loop, woken = current_loop(), anyio.Event()

        def handle(number: int, frame: FrameType | None) -> None:
            loop.soon(woken.set)

        old = signal.signal(signal.SIGUSR1, handle)
        try:
            signal.raise_signal(signal.SIGUSR1)
            with anyio.fail_after(10):
                await woken.wait()
        finally:
            signal.signal(signal.SIGUSR1, old)

    run(main)


def test_a_callback_that_raises_ends_nothing(
    run: Run, crashes: list[logging.LogRecord], caplog: pytest.LogCaptureFixture
) -> None:
    """The loop goes on, and the failure is in the log."""

    async def main() -> None:
        loop, done = current_loop(), anyio.Event()

        def fail() -> None:
            raise ValueError("callback")

        loop.soon(fail)
        loop.soon(done.set)
        with anyio.fail_after(10):
            await done.wait()

    run(main)
    infos = [record.exc_info for record in caplog.records]
    assert "ValueError('callback')" in [repr(info[1]) for info in infos if info]


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


def test_spawn_starts_a_task_of_its_own(run: Run) -> None:
    """The job runs beside its caller, in a copy of the caller's context."""

    async def main() -> list[str]:
        heard, go = list[str](), anyio.Event()

        async def job() -> None:
            await go.wait()
            heard.append(VARIABLE.get())
            VARIABLE.set("changed by the job")

        VARIABLE.set("set by the caller")
        current_loop().spawn(job)
        go.set()
        await settled(lambda: heard)
        return [*heard, VARIABLE.get()]

    assert run(main) == ["set by the caller", "set by the caller"]


def test_spawn_works_from_a_callback(run: Run) -> None:
    """A signal handler starts a job in two steps: to the loop, then as a task."""

    async def main() -> None:
        loop, ran = current_loop(), anyio.Event()

        async def job() -> None:
            ran.set()

        loop.soon(lambda: loop.spawn(job))
        with anyio.fail_after(10):
            await ran.wait()

    run(main)


def test_a_job_that_fails_is_logged_and_ends_nothing(
    run: Run, crashes: list[logging.LogRecord]
) -> None:
    """Nobody awaits a job, so the log is the only one to tell."""

    async def main() -> None:
        async def job() -> None:
            raise ValueError("job")

        current_loop().spawn(job)
        await settled(lambda: crashes)

    run(main)
    (record,) = crashes
    assert record.exc_info is not None
    assert repr(record.exc_info[1]) == "ValueError('job')"


def test_a_job_that_is_left_over_ends_with_its_loop(
    run: Run, crashes: list[logging.LogRecord]
) -> None:
    """A loop cancels what is left when it ends, and that is no failure."""
    ended: list[str] = []

    async def main() -> None:
        started = anyio.Event()

        async def job() -> None:
            started.set()
            try:
                await anyio.sleep_forever()
            finally:
                ended.append("ended")

        current_loop().spawn(job)
        await started.wait()

    run(main)
    assert ended == ["ended"]
    assert crashes == []


def test_tasks_are_known_on_asyncio_only() -> None:
    """asyncio lists its tasks; trio has none that could be cancelled one by one."""

    async def main() -> int:
        return len(list(current_loop().tasks()))

    assert anyio.run(main) == 1
    assert anyio.run(main, backend="trio") == 0


# -- interrupts ------------------------------------------------------------------------------


async def fire_when_blocked(interrupt: Interrupt) -> None:
    """Fire once every other task waits for something."""
    await anyio.wait_all_tasks_blocked()
    interrupt.fire()


def test_fire_ends_the_block_as_if_it_had_returned(run: Run) -> None:
    """What follows the block runs, waits included, and nobody sees a cancellation."""

    async def main() -> list[str]:
        seen: list[str] = []
        async with anyio.create_task_group() as tasks:
            interrupt = current_loop().interrupt()
            tasks.start_soon(fire_when_blocked, interrupt)
            with interrupt:
                try:
                    await anyio.sleep_forever()
                finally:
                    seen.append("clean-up")
                seen.append("never")
            seen.append("after")
            await anyio.lowlevel.checkpoint()
            assert interrupt.fired
        return [*seen, "end"]

    assert run(main) == ["clean-up", "after", "end"]


def test_fire_before_and_after_the_block_is_nothing(run: Run) -> None:
    """An interrupt counts only while its block is entered."""

    async def main() -> list[bool]:
        interrupt = current_loop().interrupt()
        fired: list[bool] = []
        interrupt.fire()
        fired.append(interrupt.fired)
        with interrupt:
            await anyio.lowlevel.checkpoint()
            fired.append(interrupt.fired)
        interrupt.fire()
        fired.append(interrupt.fired)
        await anyio.lowlevel.checkpoint()
        return fired

    assert run(main) == [False, False, False]


def test_fire_from_inside_does_not_reach_what_follows_the_block(run: Run) -> None:
    """A block that fires its own interrupt and ends without waiting leaves no cancellation."""

    async def main() -> str:
        interrupt = current_loop().interrupt()
        with interrupt:
            interrupt.fire()
        assert interrupt.fired
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        return "undisturbed"

    assert run(main) == "undisturbed"


def test_fire_from_inside_ends_the_next_wait_of_the_block(run: Run) -> None:
    """A block that fires its own interrupt and then waits is over."""

    async def main() -> str:
        interrupt = current_loop().interrupt()
        with interrupt:
            interrupt.fire()
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
        return "over"

    assert run(main) == "over"


def test_firing_twice_is_firing_once(run: Run) -> None:
    """A second call adds no second cancellation that would go unanswered."""

    async def main() -> str:
        async with anyio.create_task_group() as tasks:
            interrupt = current_loop().interrupt()
            tasks.start_soon(fire_when_blocked, interrupt)
            tasks.start_soon(fire_when_blocked, interrupt)
            with interrupt:
                await anyio.sleep_forever()
            await anyio.lowlevel.checkpoint()
        return "over"

    assert run(main) == "over"


def test_the_wait_is_over_at_the_same_moment(run: Run) -> None:
    """An event and the interrupt in one step of the loop: the block ends, and nothing leaks."""

    async def main() -> str:
        event, interrupt = anyio.Event(), current_loop().interrupt()

        async def both() -> None:
            await anyio.wait_all_tasks_blocked()
            event.set()
            interrupt.fire()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(both)
            with interrupt:
                await event.wait()
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
        return "undisturbed"

    assert run(main) == "undisturbed"


def test_a_block_that_swallows_cancellation_leaves_nothing_behind(run: Run) -> None:
    """An app that catches what interrupts it goes on undisturbed after the block, too."""

    async def main() -> str:
        async with anyio.create_task_group() as tasks:
            interrupt = current_loop().interrupt()
            tasks.start_soon(fire_when_blocked, interrupt)
            with interrupt, suppress(anyio.get_cancelled_exc_class()):
                await anyio.sleep_forever()
            await anyio.lowlevel.checkpoint()
            with anyio.CancelScope():
                await anyio.lowlevel.checkpoint()
        return "undisturbed"

    assert run(main) == "undisturbed"


def test_errors_of_the_block_pass(run: Run) -> None:
    """Only the interruption is swallowed, fired or not."""

    async def main() -> None:
        interrupt = current_loop().interrupt()
        with interrupt:
            raise ValueError("unfired")

    with pytest.raises(ValueError, match="unfired"):
        run(main)

    async def fired() -> None:
        async with anyio.create_task_group() as tasks:
            interrupt = current_loop().interrupt()
            tasks.start_soon(fire_when_blocked, interrupt)
            with interrupt:
                try:
                    await anyio.sleep_forever()
                finally:
                    raise ValueError("fired")

    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="fired")):
        run(fired)


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_a_foreign_cancellation_together_with_ours_goes_on(run: Run, order: str) -> None:
    """Who cancels the whole task while a block is interrupted gets what was asked for."""

    async def main() -> list[str]:
        seen: list[str] = []
        with anyio.CancelScope() as theirs:
            async with anyio.create_task_group() as tasks:
                interrupt = current_loop().interrupt()

                async def both() -> None:
                    await anyio.wait_all_tasks_blocked()
                    steps = [interrupt.fire, theirs.cancel]
                    for step in steps if order == "ours first" else steps[::-1]:
                        step()

                tasks.start_soon(both)
                with interrupt:
                    await anyio.sleep_forever()
                await anyio.sleep_forever()
            seen.append("never")
        return [*seen, f"cancelled: {theirs.cancelled_caught}"]

    assert run(main) == ["cancelled: True"]


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_a_native_cancellation_together_with_ours_goes_on(order: str) -> None:
    """`task.cancel()` in the same step of the loop ends the task and not just the block."""

    async def main() -> None:
        interrupts: list[Interrupt] = []

        async def work() -> None:
            interrupts.append(current_loop().interrupt())
            with interrupts[0]:
                await asyncio.sleep(60)
            raise AssertionError("the cancellation was lost")

        task = asyncio.create_task(work())
        await anyio.wait_all_tasks_blocked()
        steps: list[Callable[[], object]] = [interrupts[0].fire, task.cancel]
        for step in steps if order == "ours first" else steps[::-1]:
            step()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_cancellation_that_was_swallowed_before_is_not_taken_for_a_new_one() -> None:
    """A task that once ignored `cancel()` keeps a count; an interrupt still ends its block only."""

    async def main() -> str:
        interrupts: list[Interrupt] = []

        async def work() -> str:
            with suppress(asyncio.CancelledError):  # without `uncancel`, as old code does
                await asyncio.sleep(60)
            interrupts.append(current_loop().interrupt())
            with interrupts[0]:
                await asyncio.sleep(60)
            return "block ended"

        task = asyncio.create_task(work())
        await anyio.wait_all_tasks_blocked()
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        interrupts[0].fire()
        return await task

    assert asyncio.run(main()) == "block ended"


def test_a_timeout_around_the_block_still_works() -> None:
    """`asyncio.timeout` counts cancellations; ours must not confuse it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        interrupt = current_loop().interrupt()

        async def work() -> None:
            async with asyncio.timeout(60) as limit:
                loop.call_soon(interrupt.fire)
                with interrupt:
                    await asyncio.sleep(60)
                limit.reschedule(loop.time())
                await asyncio.sleep(60)

        with pytest.raises(TimeoutError):
            await work()
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0

    asyncio.run(main())


def test_leaving_a_block_that_was_never_entered_swallows_nothing() -> None:
    """A stray exit answers as an ordinary context manager does."""
    for interrupt in (AsyncioInterrupt(), TrioInterrupt()):
        assert interrupt.__exit__(ValueError, ValueError(), None) is False


# -- stacks ----------------------------------------------------------------------------------


async def innermost() -> None:
    """Wait until cancelled."""
    await anyio.sleep_forever()


async def feed() -> AsyncIterator[int]:
    """Yield once, and then never again, as a quiet SSE stream does."""
    yield 1
    await innermost()


class Custom:
    """An awaitable that is no coroutine."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from innermost().__await__()


async def through_a_coroutine() -> None:
    """Wait in a plain call."""
    await innermost()


async def through_a_generator() -> None:
    """Wait for an async generator's next item."""
    async for _ in feed():
        pass


async def through_anext() -> None:
    """Wait for an async generator's next item, the other way."""
    items = feed()
    await anext(items)
    await anext(items, None)


async def through_aclose() -> None:
    """Wait for an async generator to clean up."""

    async def slow_to_close() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await innermost()

    items: Any = slow_to_close()
    await anext(items)
    await items.aclose()


async def through_an_awaitable() -> None:
    """Wait in an object's `__await__`."""
    await Custom()


@pytest.mark.parametrize(
    "work",
    [
        through_a_coroutine,
        through_a_generator,
        through_anext,
        through_aclose,
        through_an_awaitable,
    ],
)
def test_the_await_chain_reaches_the_innermost_frame(run: Run, work: Callable[[], Any]) -> None:
    """Whatever lies between, the report shows where a task really waits."""

    async def main() -> list[CodeType]:
        coroutine = work()
        codes: list[CodeType] = []

        async def whole() -> None:
            await coroutine

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(whole)
            await anyio.wait_all_tasks_blocked()
            codes += [frame.f_code for frame in await_chain(coroutine)]
            tasks.cancel_scope.cancel()
        return codes

    codes = run(main)
    assert codes[0] is work.__code__
    assert innermost.__code__ in codes


def test_a_task_is_shown_as_a_traceback_without_locals(run: Run) -> None:
    """Files, lines and source, outermost first; what variables hold stays private."""

    async def main() -> str:
        async def handler() -> None:
            secret = "hunter2"
            await innermost()
            del secret

        found, texts = list[object](), list[str]()
        async with anyio.create_task_group() as tasks:

            async def work() -> None:
                found.append(this_task())
                await handler()

            tasks.start_soon(work)
            await anyio.wait_all_tasks_blocked()
            texts.append(format_frames(await_chain(coroutine_of(found[0]))))
            tasks.cancel_scope.cancel()
        return texts[0]

    lines = run(main).splitlines()
    places = [line.split(", in ")[1] for line in lines if line.startswith("  File")]
    assert places[places.index("work") :][:3] == ["work", "handler", "innermost"]
    assert "    await anyio.sleep_forever()" in lines
    assert not any("hunter2" in line for line in lines)


def this_task() -> object:
    """Return the native task that runs."""
    if current_loop().name == "trio":
        return trio.lowlevel.current_task()
    return asyncio.current_task()


def coroutine_of(task: object) -> object:
    """Return what a native task runs."""
    get_coro: Any = getattr(task, "get_coro", lambda: getattr(task, "coro", None))
    return get_coro()


def test_what_is_no_task_has_no_stack() -> None:
    """A report about something unknown is empty rather than an error."""
    assert await_chain(None) == await_chain(object()) == []
    assert format_frames([]) == ""


def test_a_finished_coroutine_has_no_stack(run: Run) -> None:
    """A task that has just ended shows nothing."""
    coroutine = anyio.lowlevel.checkpoint()

    async def main() -> None:
        await coroutine

    run(main)
    assert await_chain(coroutine) == []


def test_the_thread_that_works_for_a_request_is_found_by_its_context(run: Run) -> None:
    """Sync code runs in a pool's thread; the caller's context leads to its stack."""
    release, started = threading.Event(), threading.Event()

    def blocking() -> None:
        started.set()
        release.wait()

    async def main() -> list[CodeType]:
        VARIABLE.set("this request")
        codes: list[CodeType] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, blocking)
            await anyio.to_thread.run_sync(started.wait)
            frames = thread_working_for(lambda context: context.get(VARIABLE) == "this request")
            codes += [frame.f_code for frame in frames]
            release.set()
        return codes

    assert blocking.__code__ in run(main)
    assert thread_working_for(lambda context: False) == []


def test_the_thread_of_asyncio_to_thread_is_found_too() -> None:
    """The standard library's pool keeps the context in another place."""
    release, started = threading.Event(), threading.Event()

    def blocking() -> None:
        started.set()
        release.wait()

    async def main() -> list[CodeType]:
        VARIABLE.set("this request")
        work = asyncio.create_task(asyncio.to_thread(blocking))
        await asyncio.to_thread(started.wait)
        frames = thread_working_for(lambda context: context.get(VARIABLE) == "this request")
        release.set()
        await work
        return [frame.f_code for frame in frames]

    assert blocking.__code__ in asyncio.run(main())
