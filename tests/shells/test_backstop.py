"""The alarm that needs no GIL, each time in a process of its own, behind the real wake-up."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from graceful.backstop import Backstop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's aio")

HEAD = """
import ctypes, os, signal, subprocess, sys, threading, time
from graceful.backstop import Backstop
from graceful.wakeup import Wakeup

came = []

def handler(number, frame):
    wakeup.noticed()
    came.append(number)

signal.signal(signal.SIGTERM, handler)

def watch(seconds):
    "Have a backstop in place."
    global wakeup
    backstop = Backstop(seconds)
    wakeup = Wakeup([signal.SIGTERM], backstop)
    wakeup.install()
    return backstop

def tasks(): return len(os.listdir("/proc/self/task"))
def fds(): return sorted(os.listdir("/proc/self/fd"))
def alarm(): return signal.getitimer(signal.ITIMER_REAL)[0]

def kill_after(seconds):
    "Have another process send SIGTERM, for this one may not be able to."
    subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -TERM {os.getpid()}"])

def until(condition):
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)

def culprit(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))

def hold_gil(seconds):
    "Not in the main thread, where the signal itself would interrupt it."
    thread = threading.Thread(target=culprit, args=(seconds,))
    thread.start()
    thread.join()
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` after HEAD in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", HEAD + code], capture_output=True, text=True, timeout=40, check=False
    )


def succeeds(code: str) -> str:
    """Run `code`, which asserts, and return what it has printed."""
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_gil_is_held_in_c() -> None:
    """SIGTERM that comes while C code holds the GIL: the process is ended by SIGALRM, with the
    stack of every thread on stderr, though no Python code could run."""
    began = time.monotonic()
    done = run("""
threading.Thread(target=lambda: time.sleep(60), name="other", daemon=True).start()
assert watch(1.5).watches
kill_after(0.3)
hold_gil(30)
""")
    assert done.returncode == -signal.SIGALRM
    assert time.monotonic() - began < 20
    assert "in culprit" in done.stderr
    # main, other, culprit, and the wake-up's own
    assert done.stderr.count("most recent call first") == 4


def test_the_gil_is_released_in_time() -> None:
    """When Python gets to run after all, it learns how long ago the signal came, and no alarm is
    left; the Python handler has been called as always."""
    succeeds("""
backstop = watch(10)
kill_after(0.2)
hold_gil(1.2)
until(lambda: came)
held = backstop.held()
assert 0.2 < held < 5, held
backstop.disarm()
until(lambda: alarm() == 0)
assert backstop.held() == 0
assert came == [signal.SIGTERM]
""")


def test_a_signal_that_python_sees_at_once() -> None:
    """The ordinary case: it was just now, the alarm is stopped, and the process lives on."""
    succeeds("""
backstop = watch(2)
assert backstop.held() == 0
signal.raise_signal(signal.SIGTERM)
until(lambda: came)
assert backstop.held() < 1
backstop.disarm()
time.sleep(2.5)
""")


def test_a_second_signal() -> None:
    """After the first one Python runs, and the watchdog is armed: no second alarm is set."""
    succeeds("""
backstop = watch(1)
for _ in range(3):
    signal.raise_signal(signal.SIGTERM)
    backstop.disarm()
until(lambda: len(came) == 3)
time.sleep(1.5)
assert alarm() == 0
""")


def test_nothing_is_left_behind() -> None:
    """Installed and taken back many times, it leaves no thread, descriptor, alarm or handler."""
    succeeds("""
before = tasks(), fds()
for _ in range(20):
    assert watch(5).watches
    wakeup.close()
    wakeup.close()
assert alarm() == 0
assert signal.getsignal(signal.SIGTERM) is handler
assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
until(lambda: (tasks(), fds()) == before)
signal.raise_signal(signal.SIGTERM)
until(lambda: came == [signal.SIGTERM])
time.sleep(0.2)
assert alarm() == 0
""")


def test_taken_back_right_after_a_signal() -> None:
    """A signal just before the end leaves no alarm that would go off later."""
    succeeds("""
for _ in range(5):
    watch(1)
    signal.raise_signal(signal.SIGTERM)
    wakeup.close()
    assert alarm() == 0
until(lambda: len(came) == 5)
time.sleep(1.5)
""")


def test_a_handler_that_replaces_ours() -> None:
    """What it does with the signal is its own business: nobody is ended for it, however often it
    comes. When ours is back, it is watched as before."""
    succeeds("""
backstop = watch(1)
theirs = []
signal.signal(signal.SIGTERM, lambda number, frame: theirs.append(number))
for count in 1, 2:
    signal.raise_signal(signal.SIGTERM)
    until(lambda: len(theirs) == count and backstop.watches)
time.sleep(1.5)
signal.signal(signal.SIGTERM, handler)
signal.raise_signal(signal.SIGTERM)
until(alarm)
backstop.disarm()
assert came == [signal.SIGTERM]
""")


def test_another_signal_is_not_meant() -> None:
    """SIGCHLD that Python handles: nobody has asked the process to stop. What comes later is
    watched as before."""
    done = run("""
signal.signal(signal.SIGCHLD, lambda *_: came.append(0))
backstop = watch(1)
for count in 1, 2, 3:
    subprocess.run(["true"])
    until(lambda: len(came) >= count and backstop.watches and not alarm())
time.sleep(1.5)
print("alive", flush=True)
kill_after(0.3)
hold_gil(30)
""")
    assert (done.returncode, done.stdout) == (-signal.SIGALRM, "alive\n")


def test_a_number_without_a_signal() -> None:
    """A child between fork and exec writes into its parent's pipe, too: it asks nobody to stop, and
    the next signal is watched as before."""
    succeeds("""
backstop = watch(4)
os.write(wakeup._pipe[1], bytes([signal.SIGTERM]))
until(alarm)
until(lambda: not backstop.watches)  # it waits for a handler
until(lambda: backstop.watches)
time.sleep(0.2)
assert not alarm() and not came
signal.raise_signal(signal.SIGTERM)
until(alarm)
backstop.disarm()
assert came == [signal.SIGTERM]
""")


def test_an_event_loop_that_takes_signals_itself() -> None:
    """It has a wake-up descriptor, and there is only one: ours takes its place, and whatever comes
    is passed on. In the end it is back."""
    succeeds("""
import asyncio

async def main():
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, heard.set)
    theirs = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(theirs)
    backstop = watch(5)
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(heard.wait(), 10)
        heard.clear()
    wakeup.close()
    assert signal.set_wakeup_fd(theirs) == theirs
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.wait_for(heard.wait(), 10)

asyncio.run(main())
assert signal.set_wakeup_fd(-1) == -1
""")


def test_the_gil_is_held_beside_such_a_loop() -> None:
    """uvloop sets its descriptor as it starts, and reads signals from there only."""
    done = run("""
import uvloop

async def main():
    assert watch(1).watches
    kill_after(0.3)
    hold_gil(30)

uvloop.run(main())
""")
    assert done.returncode == -signal.SIGALRM
    assert "in culprit" in done.stderr


def test_signals_in_the_midst_of_everything() -> None:
    """A signal may come between any two instructions, also while the interpreter changes frames:
    whoever looks through them then (as faulthandler does, on every Python) is lost to SIGSEGV."""
    succeeds("""
import asyncio

watch(5)
kills = f"import os, time\\nfor _ in range(2000): os.kill({os.getpid()}, 15); time.sleep(0.0005)"

async def nothing():
    await asyncio.sleep(0)

async def main():
    killing = subprocess.Popen([sys.executable, "-c", kills])
    while killing.poll() is None:
        await asyncio.gather(*(nothing() for _ in range(10)))
    assert killing.returncode == 0

asyncio.run(main())
assert len(came) > 100
wakeup.close()
assert not alarm()
""")


@pytest.mark.parametrize("handler", ["lambda *_: None", "signal.SIG_IGN"])
def test_a_program_that_uses_sigalrm(handler: str) -> None:
    """Where the program has an alarm of its own, ours would be in its way: not installed."""
    succeeds(f"""
signal.signal(signal.SIGALRM, {handler})
backstop = watch(5)
assert not backstop.watches
signal.raise_signal(signal.SIGTERM)
assert came == [signal.SIGTERM]
backstop.disarm()
assert backstop.held() == 0
wakeup.close()
""")


def test_less_than_a_second() -> None:
    """alarm(2) knows whole seconds only; with less than one it is not installed."""
    assert not Backstop(0.99).install(0)
    assert Backstop(1.99).seconds == 1


def test_other_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the process goes without, as every other one does."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not Backstop(30).install(0)


def test_without_a_stderr() -> None:
    """A daemon without stderr installs it or does without, but never fails."""
    succeeds("""
sys.__stderr__ = None
watch(5)
wakeup.close()
""")
    done = run("""
sys.stderr.close()
before = fds()
watch(5)
wakeup.close()
assert fds() == before
""")
    assert done.returncode == 0


def test_a_fork_does_not_inherit_it() -> None:
    """A child of the process has neither the alarm nor our end of the pipe to worry about."""
    succeeds("""
watch(1)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.2)"])
child.send_signal(signal.SIGTERM)
assert child.wait() == -signal.SIGTERM
assert not came
assert alarm() == 0
""")
