"""The trap: what a handler does, in which order signals are delivered, how they are given back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from graceful.signals import HANDLED, SignalTrap, in_main_thread


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Give the handlers of this process back, whatever a test has done to them."""
    before = {number: signal.getsignal(number) for number in (*HANDLED, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Caught:
    """What a trap has delivered; `wait` returns it once there is that much."""

    def __init__(self) -> None:
        self.signals: list[tuple[signal.Signals, float]] = []
        self.threads: set[str] = set()
        self._more = threading.Condition()

    def __call__(self, number: signal.Signals, at: float) -> None:
        with self._more:
            self.signals.append((number, at))
            self.threads.add(threading.current_thread().name)
            self._more.notify()

    def wait(self, count: int) -> list[signal.Signals]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.signals) >= count, 10)
        return [number for number, _ in self.signals]


def test_signals_are_delivered_in_a_thread_in_order() -> None:
    """The handler records; a thread of its own is told, in the order in which they came."""
    caught, ticks = Caught(), iter(range(100))
    trap = SignalTrap(caught, lambda: float(next(ticks)))
    trap.install((signal.SIGTERM, signal.SIGINT, signal.SIGUSR1))
    order = [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGTERM]
    for number in order:
        signal.raise_signal(number)
    assert caught.wait(4) == order
    assert [at for _, at in caught.signals] == [0, 1, 2, 3]
    assert caught.threads == {"graceful-signals"}
    trap.restore()


def test_the_handler_only_records() -> None:
    """While somebody who is told takes his time, the main thread goes on and nothing is lost."""
    let_go, caught = threading.Event(), Caught()

    def slow(number: signal.Signals, at: float) -> None:
        let_go.wait()
        caught(number, at)

    trap = SignalTrap(slow)
    trap.install()
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.signals == []
    let_go.set()
    assert caught.wait(3) == [signal.SIGTERM] * 3
    trap.restore()


def test_a_signal_has_its_effect_while_the_main_thread_is_blocked() -> None:
    """A handler that sleeps in C code without the interpreter doesn't keep the signal back."""
    caught = Caught()
    trap = SignalTrap(caught)
    trap.install()
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    time.sleep(0.5)  # is interrupted for the handler and goes on
    (_, at), *_ = caught.signals
    assert at - began < 0.4
    trap.restore()


def test_what_was_caught_is_delivered_before_the_end() -> None:
    """`restore` delivers what has come before it, ends the thread, and can be called twice."""
    caught = Caught()
    trap = SignalTrap(caught)
    trap.install()
    for _ in range(10):
        signal.raise_signal(signal.SIGTERM)
    trap.restore()
    assert len(caught.signals) == 10
    assert "graceful-signals" not in [t.name for t in threading.enumerate()]
    trap.restore()


def nothing(number: int, frame: object) -> None:
    """A handler of the program's own."""


@pytest.mark.parametrize(
    "handler", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, nothing]
)
def test_previous_handlers_are_given_back(handler: Any) -> None:
    """What was there before comes back: a function, the default, or nothing at all."""
    signal.signal(signal.SIGTERM, handler)
    trap = SignalTrap(Caught())
    trap.install()
    assert signal.getsignal(signal.SIGTERM) == trap.handle
    assert trap.previous[signal.SIGTERM] == handler
    trap.restore()
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_handler_that_was_not_set_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """`getsignal` says None for it; the default is the closest there is."""
    trap = SignalTrap(Caught())
    trap.install()
    trap.previous[signal.SIGTERM] = None
    trap.restore()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_that_has_replaced_ours_stays() -> None:
    """Only what is still ours is given back."""
    trap = SignalTrap(Caught())
    trap.install()

    def theirs(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, theirs)
    trap.restore()
    assert signal.getsignal(signal.SIGTERM) is theirs


def test_no_signal_is_swallowed_after_the_end() -> None:
    """Who has chained our handler still calls it: then it calls what was there before us."""
    called: list[tuple[str, int]] = []
    caught = Caught()

    def before(number: int, frame: object) -> None:
        called.append(("before", number))

    signal.signal(signal.SIGTERM, before)
    trap = SignalTrap(caught)
    trap.install()
    ours = trap.handle

    def theirs(number: int, frame: Any) -> None:
        called.append(("theirs", number))
        ours(number, frame)

    signal.signal(signal.SIGTERM, theirs)
    trap.restore()
    signal.raise_signal(signal.SIGTERM)
    assert called == [("theirs", signal.SIGTERM), ("before", signal.SIGTERM)]
    assert caught.signals == []


@pytest.mark.parametrize(("previous", "status"), [("SIG_DFL", -signal.SIGTERM), ("SIG_IGN", 0)])
def test_the_default_is_not_swallowed_after_the_end(previous: str, status: int) -> None:
    """The same where the default action, or none, was there before us."""
    code = f"""
import signal
from graceful.signals import SignalTrap
signal.signal(signal.SIGTERM, signal.{previous})
trap = SignalTrap(lambda number, at: None)
trap.install()
ours = trap.handle
signal.signal(signal.SIGTERM, lambda number, frame: ours(number, frame))
trap.restore()
signal.raise_signal(signal.SIGTERM)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == status


def test_should_exit_is_there_and_false() -> None:
    """sse-starlette looks for it behind the handler, and ends every stream when it is True."""
    trap = SignalTrap(Caught())
    trap.install()
    handler = signal.getsignal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert getattr(handler, "__self__", None) is trap
    assert trap.should_exit is False
    trap.restore()


def test_only_the_main_thread_can_take_signals() -> None:
    """CPython allows it nowhere else, which callers ask for first."""
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(in_main_thread()))
    thread.start()
    thread.join()
    assert seen == [False]
    assert in_main_thread()


def test_closing_from_its_own_thread() -> None:
    """Who is told of a signal may end the trap at once."""
    done = threading.Event()
    traps: list[SignalTrap] = []

    def end(number: signal.Signals, at: float) -> None:
        traps[0].close()
        done.set()

    traps.append(SignalTrap(end))
    traps[0].install()
    signal.raise_signal(signal.SIGTERM)
    assert done.wait(10)
    traps[0].restore()
