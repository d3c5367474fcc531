"""The event loop of code that has none: its thread, its end, and both under gevent's patching."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import anyio
import pytest

from graceful import threads
from graceful.threads import ThreadLoop, start_daemon

LIMIT = 20.0


@pytest.fixture
def loop() -> Iterator[ThreadLoop]:
    loop = ThreadLoop()
    yield loop
    loop.close()
    assert names() == []


def names() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("graceful-loop")]


def test_a_loop_with_nothing_to_run_has_no_thread(loop: ThreadLoop) -> None:
    """A worker that is never told to stop pays nothing, and is alive all the same."""
    assert loop.is_alive()
    assert not loop.is_current()
    assert list(loop.tasks()) == []
    assert names() == []


def test_callbacks_and_jobs_run_on_its_thread(loop: ThreadLoop) -> None:
    """Whoever asks; a job is a task that may wait."""
    said: SimpleQueue[object] = SimpleQueue()

    async def job() -> None:
        await anyio.sleep(0.001)
        said.put(("job", loop.is_current(), len(list(loop.tasks()))))

    def callback() -> None:
        said.put(("callback", threading.current_thread().name))
        loop.spawn(job)

    assert loop.soon(callback)
    assert said.get(timeout=LIMIT) == ("callback", "graceful-loop")
    assert said.get(timeout=LIMIT) == ("job", True, 1)
    assert not loop.is_current()


def test_an_interrupt_ends_a_block_there(loop: ThreadLoop) -> None:
    """As on any asyncio loop."""
    said: SimpleQueue[str] = SimpleQueue()

    async def job() -> None:
        interrupt = loop.interrupt()
        asyncio.get_running_loop().call_soon(interrupt.fire)
        with interrupt:
            await anyio.sleep_forever()
        said.put("over")

    loop.soon(lambda: loop.spawn(job))
    assert said.get(timeout=LIMIT) == "over"


def test_closing_cancels_and_is_final() -> None:
    """What runs is cancelled, the thread is over, and nothing can be given to it any more."""
    loop, said = ThreadLoop(), SimpleQueue[str]()

    async def job() -> None:
        said.put("begun")
        try:
            await anyio.sleep_forever()
        finally:
            said.put("cancelled")

    loop.soon(lambda: loop.spawn(job))
    assert said.get(timeout=LIMIT) == "begun"
    loop.close()
    loop.close()
    assert said.get(timeout=LIMIT) == "cancelled"
    assert names() == []
    assert not loop.is_alive()
    assert not loop.soon(lambda: said.put("never"))


def test_it_can_be_closed_from_its_own_thread(loop: ThreadLoop) -> None:
    """The end of a life may be found on it."""
    said: SimpleQueue[str] = SimpleQueue()

    def end() -> None:
        loop.close()
        said.put("closed")

    loop.soon(end)
    assert said.get(timeout=LIMIT) == "closed"
    for thread in threading.enumerate():
        if thread.name == "graceful-loop":
            thread.join(LIMIT)


def test_many_threads_start_one_thread(loop: ThreadLoop) -> None:
    """The first callbacks may come from everywhere at once."""
    said: SimpleQueue[str] = SimpleQueue()
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait(LIMIT)
        loop.soon(lambda: said.put(threading.current_thread().name))

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for thread in askers:
        thread.start()
    assert {said.get(timeout=LIMIT) for _ in askers} == {"graceful-loop"}
    assert names() == ["graceful-loop"]
    for thread in askers:
        thread.join(LIMIT)


UNDER_GEVENT = """
from gevent import monkey
monkey.patch_all()
import asyncio, gc, time
import anyio, gevent
from gevent.threading import get_ident
from graceful.threads import ThreadLoop, original

native_ident = original("_thread", "get_ident")
here, said, began = native_ident(), [], time.monotonic()
loop = ThreadLoop()

async def job():
    said.append("elsewhere" if native_ident() != here else "in the hub")
    for _ in range(3):
        await anyio.sleep(0.05)
        said.append("paced")

def greenlet():
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        said.append("no loop in greenlets")

assert loop.soon(lambda: loop.spawn(job))
while len(said) < 2:
    original("time", "sleep")(0.01)  # blocks the hub
assert said[:2] == ["elsewhere", "paced"], said
gevent.spawn(greenlet).join()
while said.count("paced") < 3:
    time.sleep(0.01)
loop.close()
assert not loop.soon(print)
print(said.count("no loop in greenlets"))
hubs = [each for each in gc.get_objects() if isinstance(each, gevent.hub.Hub)]
print(sum(hub.loop is not None for hub in hubs))
"""


def test_under_gevent_it_is_a_thread_of_the_system() -> None:
    """It runs while the hub is blocked, and greenlets don't take its loop for theirs."""
    command = [sys.executable, "-W", "error", "-c", UNDER_GEVENT]
    result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    said = "1\n1\n"  # a greenlet, and the hub of the main thread
    assert (result.returncode, result.stdout, result.stderr) == (0, said, "")


def test_who_starts_a_thread_can_wait_for_its_end() -> None:
    """Also twice; the thread itself does not."""
    goes, said = threading.Event(), SimpleQueue[bool]()

    def run() -> None:
        goes.wait(LIMIT)
        said.put(has_ended())

    has_ended = start_daemon(run, "waited-for")
    goes.set()
    assert has_ended()
    assert has_ended()
    assert said.get(timeout=LIMIT) is False


def test_a_thread_that_goes_on_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a daemon: the process ends without it."""
    monkeypatch.setattr(threads, "LAST_TURN", 0.01)
    goes = threading.Event()
    has_ended = start_daemon(lambda: goes.wait(LIMIT), "goes-on")
    assert not has_ended()
    goes.set()
    monkeypatch.setattr(threads, "LAST_TURN", LIMIT)
    assert has_ended()
