"""Time that passes only when everything waits."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from graceful.testing import AsgiProcess, FakeClock
from graceful.testing import clock as clock_module
from graceful.testing.clock import NothingLeft, VirtualLoop

from .apps import asgi_app


def test_a_clock_goes_when_it_is_told_to() -> None:
    clock = FakeClock(10)
    assert clock() == 10
    clock.advance(2.5)
    assert clock() == 12.5


def test_time_does_not_run_back() -> None:
    with pytest.raises(ValueError, match=r"advance\(-1\)"):
        FakeClock().advance(-1)


def test_an_hour_passes_in_an_instant() -> None:
    clock = FakeClock(0)
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(asyncio.sleep(3600))
    assert clock() == pytest.approx(3600)


def test_time_stands_still_while_a_thread_works() -> None:
    """What the loop waits for may come from the thread."""
    clock = FakeClock(0)

    async def story() -> None:
        work = asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.05)
        timer = asyncio.create_task(asyncio.sleep(60))
        await work
        assert clock() == 0
        await timer

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(story())
    assert clock() == pytest.approx(60)


def test_a_thread_that_nobody_knows_of_is_waited_for() -> None:
    clock = FakeClock(0)

    async def story() -> None:
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        threading.Thread(target=lambda: loop.call_soon_threadsafe(done.set)).start()
        await done.wait()

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(story())
    assert clock() == 0


def test_a_thread_that_never_comes_back_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a word of why: a test that hangs has none."""
    monkeypatch.setattr(clock_module, "BUSY_LIMIT", 0.2)
    release = threading.Event()

    async def story() -> None:
        await asyncio.get_running_loop().run_in_executor(None, release.wait)

    loop = VirtualLoop(FakeClock(0))
    task = loop.create_task(story())
    try:
        with pytest.raises(NothingLeft, match="has not come back for"):
            loop.run_until_complete(task)
    finally:
        release.set()
        loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def test_a_loop_within_a_loop_is_refused() -> None:
    """In an `async def` test there is one already, and asyncio's own words name no way out."""

    async def story() -> None:
        AsgiProcess(asgi_app())

    with pytest.raises(
        RuntimeError, match="AsgiProcess runs an event loop of its own: use it in a"
    ):
        asyncio.run(story())
