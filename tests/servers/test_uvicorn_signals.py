"""The ladder of signals on a real uvicorn: who is signalled, how often, and in which phase."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import time

import pytest

from .contract import APP, goodbye, open_websocket
from .harness import LIMIT, Launcher, ServerProcess, launch, settings
from .launchers import UVICORN, UVICORN_H11, UVICORN_WORKERS

DELAY = 25.0
"""Seconds of propagation delay that no test waits for: all is over before."""

LONG_DELAY = settings(grace_period=60, propagation_delay=DELAY, linger=0.2, stream_window=0.2)

ON_BOTH_LOOPS = pytest.mark.parametrize(
    "launcher", [UVICORN, UVICORN_H11], ids=["uvloop", "asyncio"]
)


def rungs(server: ServerProcess) -> list[tuple[str, str]]:
    """Return the rungs that were climbed, with their causes."""
    told = [line.fields for line in server.log.lines if line.event == "told to stop"]
    return [(each["rung"], each["cause"]) for each in told]


@ON_BOTH_LOOPS
def test_a_second_sigterm_skips_the_delay(launcher: Launcher) -> None:
    """The drain begins at once, and is as gentle as ever."""
    with launch(launcher, APP, env=LONG_DELAY) as server:
        with contextlib.closing(server.client()) as client:
            client.ask("GET", "/slow")
            server.get("/")
            server.terminate()
            server.log.wait_event("lame duck")
            assert server.get("/").status == 200
            server.terminate()
            assert client.reply().body == b"slow but whole\n"
        assert server.wait(DELAY / 2) == 0
        assert rungs(server) == [("1", "SIGTERM"), ("2", "SIGTERM")]


def test_a_third_sigterm_cuts() -> None:
    """What is in flight is told 503 or closed, clean-up runs, and the status says 70."""
    with (
        launch(UVICORN, APP, env=LONG_DELAY) as server,
        contextlib.closing(server.client()) as stuck,
        open_websocket(server, "/held") as held,
    ):
        stuck.ask("GET", "/stuck")
        held.recv(LIMIT)
        for count in (1, 2, 3):
            server.terminate()
            server.log.wait_event("told to stop", count=count)
        assert stuck.reply().status == 503
        assert goodbye(held).code == 1012
        assert server.wait(DELAY / 2) == 70
        assert rungs(server) == [("1", "SIGTERM"), ("2", "SIGTERM"), ("3", "SIGTERM")]
        assert server.log.marks("shutdown") == ["shutdown"]


def test_the_ladder_by_signals_to_the_whole_group() -> None:
    """systemd signals every process of the unit; alone in its group a process climbs each rung."""
    with launch(UVICORN, APP, env=LONG_DELAY) as server:
        with contextlib.closing(server.client()) as stuck:
            stuck.ask("GET", "/stuck")
            server.get("/")
            for count in (1, 2, 3):
                server.signal_group(signal.SIGTERM)
                server.log.wait_event("told to stop", count=count)
            assert stuck.reply().status == 503
        assert server.wait(DELAY / 2) == 70


def test_a_parents_repeat_is_the_same_rung() -> None:
    """Under --workers the group is signalled and the parent passes the signal on: one rung."""
    with launch(UVICORN_WORKERS, APP, env=LONG_DELAY) as server:
        server.signal_group(signal.SIGTERM)
        server.log.wait_event("lame duck", count=2)
        server.log.wait("Terminated child process", count=2)
        assert server.get("/").status == 200
        assert server.get("/readyz").status == 503
        assert rungs(server) == [("1", "SIGTERM")] * 2
        _outlive_the_repeat()
        server.signal_group(signal.SIGTERM)
        assert server.wait(DELAY / 2) == 0
        assert sorted(rungs(server)) == [("1", "SIGTERM")] * 2 + [("2", "SIGTERM")] * 2


def test_three_signals_to_the_group_cut_the_workers() -> None:
    """Each worker climbs all three rungs, once each."""
    with (
        launch(UVICORN_WORKERS, APP, env=LONG_DELAY) as server,
        contextlib.closing(server.client()) as stuck,
    ):
        stuck.ask("GET", "/stuck")
        for count in (1, 2):
            server.signal_group(signal.SIGTERM)
            server.log.wait_event("told to stop", count=2 * count)
            _outlive_the_repeat()
        server.signal_group(signal.SIGTERM)
        assert stuck.reply().status == 503
        server.wait(DELAY / 2)
        assert ("3", "SIGTERM") in rungs(server)


def _outlive_the_repeat() -> None:
    """Let the second pass in which a managed process takes a signal for a repeat of the last."""
    time.sleep(1.1)


def test_ctrl_c_on_a_terminal_does_not_wait() -> None:
    """SIGINT of a person starts at the second rung; the next one cuts."""
    master, slave = pty.openpty()
    try:
        with (
            launch(UVICORN, APP, env=LONG_DELAY, stdin=slave) as server,
            contextlib.closing(server.client()) as stuck,
        ):
            stuck.ask("GET", "/stuck")
            server.get("/")
            server.signal_group(signal.SIGINT)
            server.log.wait_event("draining")
            assert "lame duck" not in server.log.events()
            server.signal_group(signal.SIGINT)
            assert stuck.reply().status == 503
            assert server.wait(DELAY / 2) == 70
            assert rungs(server) == [("2", "SIGINT"), ("3", "SIGINT")]
    finally:
        os.close(master)
        os.close(slave)


def test_an_idle_server_on_a_terminal_ends_with_ctrl_c_at_once() -> None:
    """Ctrl-C with nothing in flight: no delay, no linger, exit status 0."""
    master, slave = pty.openpty()
    try:
        env = settings(grace_period=90, propagation_delay=DELAY, linger=DELAY)
        with launch(UVICORN, APP, env=env, stdin=slave) as server:
            server.get("/")
            server.signal_group(signal.SIGINT)
            assert server.wait(DELAY / 2) == 0
    finally:
        os.close(master)
        os.close(slave)


def test_sigint_without_a_terminal_is_a_sigterm() -> None:
    """A container's STOPSIGNAL may be SIGINT: it gets the whole choreography."""
    with launch(UVICORN, APP, env=settings(propagation_delay=0.3, linger=0.2)) as server:
        server.send_signal(signal.SIGINT)
        assert server.wait() == 0
        assert rungs(server) == [("1", "SIGINT")]
        assert server.log.events("lame duck", "draining") == ["lame duck", "draining"]


@ON_BOTH_LOOPS
def test_sigterm_during_start_up(launcher: Launcher) -> None:
    """Start-up is finished, nothing is served, the app's own shutdown runs, exit status 0."""
    env = settings(propagation_delay=DELAY, grace_period=60) | {"STARTUP_SECONDS": 1}
    with launch(launcher, APP, env=env, serving=False) as server:
        server.log.wait_mark("startup")
        server.terminate()
        told = server.log.wait_event("told to stop")
        assert "start-up is finished first" in told.fields["effect"]
        assert server.wait(DELAY / 2) == 0
        assert server.log.marks("shutdown") == ["shutdown"]
        assert not server.log.events("serving", "lame duck", "draining")


def test_both_workers_serve_to_the_end_of_the_delay() -> None:
    """After the signal every probe is 503, and new connections still reach each of the workers."""
    env = settings(propagation_delay=2, linger=0.2)
    with launch(UVICORN_WORKERS, APP, env=env) as server:
        server.terminate()
        server.log.wait_event("lame duck", count=2)
        pids: set[bytes] = set()
        while len(pids) < 2:
            assert server.get("/readyz").status == 503
            reply = server.get("/pid")
            assert reply.status == 200
            pids.add(reply.body)
        assert "draining" not in server.log.events()
        assert server.wait() == 0


def test_a_reload_of_the_workers_keeps_the_port() -> None:
    """SIGHUP replaces one worker after the other, and not one request is lost meanwhile."""
    env = settings(propagation_delay=0.3, linger=0.2)
    with launch(UVICORN_WORKERS, APP, env=env) as server:
        before = _pids(server)
        server.send_signal(signal.SIGHUP)
        while len(server.log.events("drain report")) < 2:
            assert server.get("/").status == 200
        server.log.wait_event("serving", count=4)
        assert not _pids(server) & before
        server.terminate()
        assert server.wait() == 0


def _pids(server: ServerProcess) -> set[bytes]:
    """Return the ids of the workers, asked over new connections until each has answered."""
    pids: set[bytes] = set()
    while len(pids) < server.launcher.workers:
        pids.add(server.get("/pid").body)
    return pids
