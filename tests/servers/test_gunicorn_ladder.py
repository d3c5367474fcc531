"""The whole instance of a gunicorn goes: who is signalled, how often, and what happens meanwhile.

The arbiter climbs the ladder, its workers climb with it, and it goes on being one: it reaps and
respawns until the propagation delay is over.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from graceful.core.managed import REASON_WAIT

from .contract import goodbye, open_websocket
from .harness import ASKED, LIMIT, Launcher, ServerProcess, launch, settings
from .launchers import GUNICORN_ASGI, GUNICORN_GEVENT, GUNICORN_GTHREAD, GUNICORN_SYNC
from .test_gunicorn_retire import (
    ASGI_APP,
    ON_ALL,
    ON_STREAMING,
    app_of,
    ask,
    await_end,
    control,
    controlled,
    in_flight,
    on,
)

DELAY = 25.0
"""Seconds of propagation delay that no test waits for: all is over before."""

LONG = settings(grace_period=60, propagation_delay=DELAY, linger=0.2, stream_window=0.2)
SHORT = settings(grace_period=20, propagation_delay=1, linger=0.2, stream_window=0.2)


@contextlib.contextmanager
def running(
    launcher: Launcher, env: dict[str, object], *arguments: str, workers: int = 2
) -> Generator[ServerProcess]:
    """Start gunicorn, and wait until all workers are there."""
    count = ("-w", str(workers), *arguments)
    with launch(launcher, app_of(launcher), *count, env=env) as server:
        server.log.wait("Booting worker", count=workers)
        while len(workers_of(server)) != workers:
            time.sleep(0.02)
        if app_of(launcher) == ASGI_APP:  # UvicornWorker has no handlers while it loads the app
            server.log.wait_mark("startup", count=workers)
        assert server.get("/readyz").status == 200
        yield server


def workers_of(server: ServerProcess) -> list[int]:
    """Return the processes that have said that they boot."""
    lines = [re.search(r"Booting worker with pid: (\d+)", line.text) for line in server.log.lines]
    return [int(line[1]) for line in lines if line]


def rungs(server: ServerProcess) -> list[tuple[str, str]]:
    """Return the rungs that were climbed, with their causes."""
    told = [line.fields for line in server.log.lines if line.event == "told to stop"]
    return [(each["rung"], each["cause"]) for each in told]


def await_flipped(server: ServerProcess) -> None:
    """Wait for the arbiter's word; its workers follow within the blink of an eye."""
    server.log.wait_event("lame duck")
    give_up = time.monotonic() + LIMIT
    while {server.get("/readyz").status for _ in range(10)} != {503}:
        assert time.monotonic() < give_up, server.log.text


def await_delivered(pid: int, number: signal.Signals) -> None:
    """Wait until a signal that a process was sent has been caught."""
    give_up, bit = time.monotonic() + LIMIT, 1 << (number - 1)
    while True:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:  # and has done its work
            return
        pending = [int(mask, 16) for mask in re.findall(r"(?:Sig|Shd)Pnd:\s(\w+)", status)]
        if not any(mask & bit for mask in pending):
            return
        assert time.monotonic() < give_up, status


@ON_ALL
def test_the_instance_goes(launcher: Launcher) -> None:
    """All workers are unready at once, serve the delay, finish what they have, and go."""
    with running(launcher, SHORT | ASKED) as server:
        with in_flight(server, "/slow") as slow:
            server.terminate()
            await_flipped(server)
            assert server.get("/").status == 200
            assert slow.reply().body == b"slow but whole\n"
        assert server.wait() == 0
        assert rungs(server) == [("1", "SIGTERM")]
        report = server.log.report()
        assert (report["clean"].lower(), report["in_flight_at_signal"]) == ("true", "1")
        assert "Traceback" not in server.log.text
        flips = [line.fields for line in server.log.lines if line.event == "lame duck"]
        assert ["in_flight" in each for each in flips] == [False]  # only its workers know that


@ON_STREAMING
def test_streams_are_told_when_the_delay_is_over(launcher: Launcher) -> None:
    """And the process goes then, not when the arbiter's patience is over."""
    with running(launcher, SHORT) as server:
        with contextlib.closing(ask(server, "/ticks")) as stream:
            stream.read_until(b"\n\n")
            server.terminate()
            server.log.wait_event("lame duck")
            assert b"retry:" in stream.reply().body
            server.log.wait_event("draining")  # the arbiter may say it a moment later
        assert server.wait(10) == 0
        assert server.log.report()["told"] == "1"


@ON_ALL
def test_a_second_sigterm_skips_the_delay(launcher: Launcher) -> None:
    """The drain begins at once, and is as gentle as ever."""
    with running(launcher, LONG) as server:
        with in_flight(server, "/slow") as slow:
            server.terminate()
            server.log.wait_event("lame duck")
            server.terminate()
            assert slow.reply().body == b"slow but whole\n"
        assert server.wait(DELAY / 2) == 0
        assert rungs(server) == [("1", "SIGTERM"), ("2", "SIGTERM")]


@ON_ALL
def test_a_third_sigterm_cuts(launcher: Launcher) -> None:
    """The arbiter has begun its own stop by then, in which gunicorn alone would not hear it."""
    with running(launcher, LONG) as server:
        with in_flight(server, "/stuck") as stuck:
            for count in (1, 2, 3):
                server.terminate()
                server.log.wait_event("told to stop", count=count)
            assert server.wait(DELAY / 2) == 0
            with contextlib.suppress(ConnectionError):  # the server's own quick stop may be first
                assert stuck.reply().status in (500, 503)
        assert rungs(server) == [("1", "SIGTERM"), ("2", "SIGTERM"), ("3", "SIGTERM")]


def test_what_the_third_sigterm_cuts_is_a_503() -> None:
    """Where it can be reached: gunicorn's sync worker ends its app's work by an exit, a 500."""
    with running(GUNICORN_SYNC, LONG) as server, in_flight(server, "/blocked") as blocked:
        for count in (1, 2, 3):
            server.terminate()
            server.log.wait_event("told to stop", count=count)
        reply = blocked.reply()
        assert (reply.status, reply.headers["retry-after"], reply.closes) == (503, "1", True)
        assert server.wait(DELAY / 2) == 0
        assert server.log.report()["clean"].lower() == "false"
        assert "Traceback" not in server.log.text


@ON_ALL
def test_a_sigterm_after_the_delay_cuts(launcher: Launcher) -> None:
    """Whoever signals again while the workers drain does not want to wait for them."""
    with running(launcher, SHORT) as server, in_flight(server, "/stuck"):
        server.terminate()
        server.log.wait_event("draining")
        server.terminate()
        assert server.wait(10) == 0
        assert rungs(server)[-1] == ("3", "SIGTERM")


@ON_ALL
def test_systemd_signals_the_whole_group(launcher: Launcher) -> None:
    """Workers that are signalled, too, climb no rung of their own and don't retire."""
    with running(launcher, LONG) as server:
        server.signal_group(signal.SIGTERM)
        await_flipped(server)
        retire_at = time.monotonic() + REASON_WAIT + 0.2
        while time.monotonic() < retire_at:
            assert server.get("/").status == 200
        assert "only worker" not in server.log.text
        server.signal_group(signal.SIGTERM)
        assert server.wait(DELAY / 2) == 0
        assert rungs(server) == [("1", "SIGTERM"), ("2", "SIGTERM")]


@ON_ALL
def test_a_worker_signalled_before_its_arbiter_waits_for_the_reason(launcher: Launcher) -> None:
    """Nobody says in which order systemd signals a unit's processes."""
    with running(launcher, LONG) as server:
        for pid in workers_of(server):
            os.kill(pid, signal.SIGTERM)
            await_delivered(pid, signal.SIGTERM)
        server.terminate()
        await_flipped(server)
        assert "only worker" not in server.log.text
        server.terminate()
        assert server.wait(DELAY / 2) == 0


@on(GUNICORN_ASGI, GUNICORN_GTHREAD, GUNICORN_GEVENT, GUNICORN_SYNC)
def test_a_worker_started_during_lame_duck_is_unready_at_once(launcher: Launcher) -> None:
    """The arbiter replaces who is killed, and the successor never says 200 to a probe."""
    with running(launcher, LONG, workers=1) as server:
        (old,) = workers_of(server)
        server.terminate()
        await_flipped(server)
        os.kill(old, signal.SIGKILL)
        await_end(old)
        server.log.wait("Booting worker", count=2)
        assert [server.get("/readyz").status for _ in range(3)] == [503] * 3
        assert server.get("/").status == 200
        server.terminate()
        assert server.wait(DELAY / 2) == 0


@pytest.mark.parametrize("stops", [False, True], ids=["in the lame duck", "in the stop"])
@on(GUNICORN_SYNC, GUNICORN_GTHREAD)
def test_a_worker_that_cannot_start_any_more_ends_no_instance_that_goes(
    launcher: Launcher, tmp_path: Path, stops: bool
) -> None:
    """gunicorn alone would halt, which is the end of the delay, and in its stop forget the rest."""
    unloadable = tmp_path / "unloadable"
    env = {**LONG, "UNLOADABLE": unloadable}
    with running(launcher, env) as server, in_flight(server, "/slow") as slow:
        busy = server.log.wait_mark("slow begins").pid
        server.terminate()
        await_flipped(server)
        unloadable.touch()
        (idle,) = (pid for pid in workers_of(server) if pid != busy)
        os.kill(idle, signal.SIGKILL)
        server.log.wait_mark("loads")
        if not stops:
            unloadable.unlink()
            server.log.wait("Worker failed to boot while the instance goes; it goes on with 1")
            if launcher is GUNICORN_GTHREAD:
                assert server.get("/").status == 200
        server.terminate()
        assert slow.reply().body == b"slow but whole\n"
        if stops:
            await_end(busy)
            unloadable.unlink()  # the last one of all
        assert server.wait(DELAY / 2) == 0
        assert "HaltServer" not in server.log.text


@ON_ALL
def test_a_worker_killed_while_it_drains_is_in_the_report(launcher: Launcher) -> None:
    """Nobody starts another one then, and nobody calls the stop clean."""
    with (
        running(launcher, SHORT, workers=1) as server,
        in_flight(server, "/stuck") as stuck,
    ):
        (victim,) = workers_of(server)
        server.terminate()
        server.log.wait_event("draining")
        os.kill(victim, signal.SIGKILL)
        assert server.wait(10) == 0
        assert stuck.at_end()
        assert server.log.report()["clean"].lower() == "false"
        assert f"{victim}: killed with up to 1 in flight" in server.log.text
        assert len(workers_of(server)) == 1


def test_websockets_get_their_close_frame() -> None:
    """gunicorn's own ASGI worker would cut the connection."""
    with running(GUNICORN_ASGI, SHORT) as server, open_websocket(server, "/talk/text") as talk:
        server.terminate()
        assert goodbye(talk).code == 1012
        assert server.wait(10) == 0
        assert server.log.marks("shutdown") == ["shutdown"] * 2


def test_the_control_sockets_shutdown_is_a_sigterm(tmp_path: Path) -> None:
    """`gunicornc -c shutdown` starts the same choreography."""
    path = str(tmp_path / "control")
    launcher = controlled(GUNICORN_ASGI)
    with running(launcher, SHORT | ASKED, "--control-socket", path) as server:
        control(path, "shutdown")
        await_flipped(server)
        assert server.wait(10) == 0
        assert rungs(server) == [("1", "SIGTERM")]
