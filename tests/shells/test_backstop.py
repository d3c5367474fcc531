"""The alarm that needs no GIL, each time in a process of its own."""

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

came = []
signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))

def tasks(): return len(os.listdir("/proc/self/task"))
def fds(): return sorted(os.listdir("/proc/self/fd"))
def alarm(): return signal.getitimer(signal.ITIMER_REAL)[0]

def kill_after(seconds):
    "Have another process send SIGTERM, for this one may not be able to."
    subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -TERM {os.getpid()}"])

def until(condition):
    give_up = time.monotonic() + 10
    while not condition() and time.monotonic() < give_up:
        time.sleep(0.01)
    assert condition()

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
assert Backstop(1.5).install()
kill_after(0.3)
hold_gil(30)
""")
    assert done.returncode == -signal.SIGALRM
    assert time.monotonic() - began < 20
    assert "in culprit" in done.stderr
    assert done.stderr.count("most recent call first") == 3


def test_the_gil_is_released_in_time() -> None:
    """When Python gets to run after all, it learns how long ago the signal came, and no alarm is
    left; the Python handler has been called as always."""
    succeeds("""
backstop = Backstop(10)
assert backstop.install()
kill_after(0.2)
hold_gil(1.2)
until(lambda: came)
held = backstop.held()
assert 0.2 < held < 5, held
again = backstop.disarm()
assert 0.2 < again < 5, again
assert alarm() == 0
assert came == [signal.SIGTERM]
""")


def test_a_signal_that_python_sees_at_once() -> None:
    """The ordinary case: it was just now, the alarm is stopped, and the process lives on."""
    succeeds("""
backstop = Backstop(2)
assert backstop.install()
assert backstop.held() == backstop.disarm() == 0
signal.raise_signal(signal.SIGTERM)
until(lambda: came)
assert backstop.disarm() < 1
assert alarm() == 0
time.sleep(2.5)
""")


def test_a_second_signal() -> None:
    """After the first one Python runs, and the watchdog is armed: no second alarm is set."""
    succeeds("""
backstop = Backstop(1)
assert backstop.install()
for _ in range(3):
    signal.raise_signal(signal.SIGTERM)
    backstop.disarm()
    assert alarm() == 0
until(lambda: len(came) == 3)
time.sleep(1.5)
""")


def test_nothing_is_left_behind() -> None:
    """Installed and taken back many times, it leaves no thread, descriptor, alarm or handler."""
    succeeds("""
handler = signal.getsignal(signal.SIGTERM)
before = tasks(), fds()
for _ in range(20):
    backstop = Backstop(5)
    assert backstop.install()
    assert backstop.installed
    backstop.uninstall()
    backstop.uninstall()
    assert not backstop.installed
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
    backstop = Backstop(1)
    assert backstop.install()
    signal.raise_signal(signal.SIGTERM)
    backstop.uninstall()
    assert alarm() == 0
until(lambda: len(came) == 5)
time.sleep(1.5)
""")


def test_a_handler_that_was_set_later_stays() -> None:
    """Whatever Python has noted for SIGTERM at the end is what the signal calls."""
    succeeds("""
backstop = Backstop(5)
assert backstop.install()
later = []
signal.signal(signal.SIGTERM, lambda number, frame: later.append(number))
backstop.uninstall()
signal.raise_signal(signal.SIGTERM)
until(lambda: later == [signal.SIGTERM])
assert not came
""")


def test_a_default_action_stays() -> None:
    """With the default action restored before, SIGTERM ends the process as it always did."""
    done = run("""
backstop = Backstop(5)
assert backstop.install()
signal.signal(signal.SIGTERM, signal.SIG_DFL)
backstop.uninstall()
signal.raise_signal(signal.SIGTERM)
""")
    assert done.returncode == -signal.SIGTERM


@pytest.mark.parametrize("handler", ["lambda *_: None", "signal.SIG_IGN"])
def test_a_program_that_uses_sigalrm(handler: str) -> None:
    """Where the program has an alarm of its own, ours would be in its way: not installed."""
    succeeds(f"""
signal.signal(signal.SIGALRM, {handler})
before = fds()
backstop = Backstop(5)
assert not backstop.install()
assert not backstop.installed
assert fds() == before
assert backstop.held() == backstop.disarm() == 0
backstop.uninstall()
""")


def test_less_than_a_second() -> None:
    """alarm(2) knows whole seconds only; with less than one it is not installed."""
    assert not Backstop(0.99).install()
    assert Backstop(1.99).seconds == 1


def test_other_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the process goes without, as every other one does."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not Backstop(30).install()


def test_without_a_stderr() -> None:
    """A daemon without stderr installs it or does without, but never fails."""
    succeeds("""
sys.__stderr__ = None
backstop = Backstop(5)
backstop.install()
backstop.uninstall()
""")
    done = run("""
sys.stderr.close()
before = fds()
backstop = Backstop(5)
installed = backstop.install()
backstop.uninstall()
assert fds() == before
print(installed)
""")
    assert done.returncode == 0


def test_a_fork_does_not_inherit_it() -> None:
    """A child of the process has neither the alarm nor our end of the pipe to worry about."""
    succeeds("""
backstop = Backstop(1)
assert backstop.install()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.2)"])
child.send_signal(signal.SIGTERM)
assert child.wait() == -signal.SIGTERM
assert not came
assert alarm() == 0
""")
