"""The last line: gone before SIGKILL whatever blocks, each time in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import pytest

from graceful.watchdog import EXIT_CUT, Watchdog

HEAD = """
import logging, sys, threading, time
from graceful.watchdog import Watchdog

log = logging.getLogger("t")
handler = logging.StreamHandler()
log.addHandler(handler)

def armed(seconds=0.3, margin=1.0, log_report=lambda: log.error("LOGGED REPORT")):
    watchdog = Watchdog(log_report, lambda: "PLAIN REPORT\\n")
    watchdog.arm(time.monotonic() + seconds, margin)
    return watchdog
"""

FOREVER = "time.sleep(60)"


@dataclass
class Ended:
    """How a process ended."""

    status: int
    stdout: str
    stderr: str
    seconds: float


def run(code: str) -> Ended:
    """Run `code` after HEAD in a process of its own."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code], capture_output=True, text=True, timeout=30, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def test_leaves_at_the_deadline() -> None:
    """A process that hangs is gone at the deadline with status 70, its report logged once."""
    ended = run(f"armed()\n{FOREVER}")
    assert ended.status == EXIT_CUT == 70
    assert ended.stderr == "LOGGED REPORT\n"
    assert ended.seconds < 20


def test_leaves_while_python_is_busy() -> None:
    """A loop that never waits can't keep it."""
    assert run("armed()\nwhile True: pass").status == 70


def test_a_held_logging_lock() -> None:
    """When logging hangs on a lock that somebody holds, the report goes to stderr bare."""
    ended = run(f"handler.acquire()\nthreading.Thread(target=armed).start()\n{FOREVER}")
    assert ended.status == 70
    assert ended.stderr == "PLAIN REPORT\n"


def test_a_report_that_raises() -> None:
    """The same when making the report fails."""
    ended = run(f"armed(log_report=lambda: 1 / 0)\n{FOREVER}")
    assert ended.status == 70
    assert ended.stderr.endswith("PLAIN REPORT\n")


def test_a_full_log_pipe() -> None:
    """A pipe that nobody reads keeps neither the report nor the exit."""
    code = """
import fcntl, os
flags = fcntl.fcntl(2, fcntl.F_GETFL)
fcntl.fcntl(2, fcntl.F_SETFL, flags | os.O_NONBLOCK)
try:
    while True:
        os.write(2, b"x" * 4096)
except BlockingIOError:
    fcntl.fcntl(2, fcntl.F_SETFL, flags)
armed()
log.error("blocks for ever")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + code], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.wait(20) == 70
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("closed", ["sys.stderr.close()", "import os; os.close(2)"])
def test_without_a_stderr(closed: str) -> None:
    """A daemon that has closed its stderr leaves all the same."""
    assert run(f"{closed}\narmed(log_report=lambda: None)\n{FOREVER}").status == 70


def test_stderr_is_a_socket() -> None:
    """Under systemd stderr is a socket of the journal, which can't be opened anew."""
    ours, theirs = socket.socketpair()
    code = f"handler.acquire()\nthreading.Thread(target=armed).start()\n{FOREVER}"
    with ours, theirs:
        process = subprocess.Popen([sys.executable, "-c", HEAD + code], stderr=theirs.fileno())
        assert process.wait(20) == 70
        assert ours.recv(100) == b"PLAIN REPORT\n"


def test_a_deadline_that_moves() -> None:
    """A later order can bring the end nearer, never put it off."""
    ended = run(f"w = armed(60)\nw.arm(time.monotonic() + 0.2, 1)\n{FOREVER}")
    assert ended.status == 70
    ended = run(f"w = armed(0.2)\nw.arm(time.monotonic() + 60, 1)\n{FOREVER}")
    assert ended.status == 70


def test_a_deadline_that_has_passed() -> None:
    """Armed too late, it leaves at once."""
    assert run(f"armed(-5)\n{FOREVER}").status == 70


def test_never_armed() -> None:
    """Without a signal there is nothing to stand down from."""
    watchdog = Watchdog(lambda: None, lambda: "")
    watchdog.stand_down(clean=True, limit=0.5)
    assert "graceful-exit" not in [t.name for t in threading.enumerate()]


def test_a_program_that_lives_on_after_a_clean_stop() -> None:
    """A program that embedded a server is left alone when that has stopped cleanly."""
    ended = run("""
w = armed(0.3)
w.stand_down(clean=True, limit=0.5)
time.sleep(1.5)
print("alive")
sys.exit(3)
""")
    assert (ended.status, ended.stdout, ended.stderr) == (3, "alive\n", "")


def test_a_thread_that_hangs_after_a_clean_stop() -> None:
    """The interpreter waits at its end for threads that are not daemons; the watchdog doesn't."""
    ended = run(f"""
w = armed(1)
w.stand_down(clean=True, limit=0.5)
threading.Thread(target=lambda: {FOREVER}).start()
""")
    assert ended.status == 70
    assert "held by threads that are not daemons: Thread-1" in ended.stderr
    assert ended.seconds < 20


def test_a_clean_stop_that_ends_at_once() -> None:
    """A process that can end by itself does, with its own status, before the deadline."""
    ended = run("w = armed(60)\nw.stand_down(clean=True, limit=0.5)\nsys.exit(0)")
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.seconds < 20


def test_an_unclean_stop_that_hangs() -> None:
    """After an unclean stop, what was cut may hold the exit: it is not waited for."""
    ended = run(f"w = armed(60)\nw.stand_down(clean=False, limit=0.5)\n{FOREVER}")
    assert ended.status == 70
    assert ended.stderr == ""  # it was reported before
    assert ended.seconds < 20


def test_the_backstop_behind_it() -> None:
    """When even the exit's own thread can't run, faulthandler leaves, with the stacks."""
    ended = run("""
import ctypes
armed(0.2, margin=0.5)
time.sleep(0.05)
ctypes.PyDLL(None).usleep(20_000_000)  # holds the GIL
""")
    assert ended.status == 1
    assert "Timeout" in ended.stderr
    assert "most recent call first" in ended.stderr
    assert ended.seconds < 15
