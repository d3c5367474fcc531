"""The whole instance goes, under `graceful run`: who is signalled, how often, and what is left."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import time
from collections.abc import Generator
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from .contract import APP, open_websocket, refused
from .harness import LIMIT, Client, Launcher, ServerProcess, launch, settings, until
from .launchers_run import ON_ALL, RUN_GRANIAN, RUN_UVICORN, on

DELAY = 25.0
"""Seconds of propagation delay that no test waits for: all is over before."""

LONG = settings(grace_period=60, propagation_delay=DELAY, linger=0.2, stream_window=0.2)
SHORT = settings(grace_period=20, propagation_delay=0.6, linger=0.2, stream_window=0.2)


def in_flight(server: ServerProcess, path: str, first: bytes) -> Client:
    """Return a client that has got the first part of its answer."""
    client = server.client()
    client.ask("GET", path)
    client.read_until(first)
    return client


@contextlib.contextmanager
def answering(server: ServerProcess, count: int = 2) -> Generator[dict[int, ClientConnection]]:
    """Open a WebSocket in each of `count` workers, which its drain waits for; by process."""
    held: dict[int, ClientConnection] = {}
    with contextlib.ExitStack() as exits:

        def all_answer() -> bool:
            websocket = exits.enter_context(open_websocket(server, "/held"))
            pid = int(websocket.recv(LIMIT))
            if pid in held:
                websocket.send("release")
            held.setdefault(pid, websocket)
            return len(held) == count

        until(all_answer)
        yield held
        let_go(held)


def let_go(held: dict[int, ClientConnection]) -> None:
    """Let the drain of every worker end."""
    for websocket in held.values():
        with contextlib.suppress(ConnectionClosed):
            websocket.send("release")


@contextlib.contextmanager
def running(
    launcher: Launcher, env: dict[str, object], *arguments: str
) -> Generator[tuple[ServerProcess, list[int]]]:
    """Start the server, and wait until both workers answer: they are the second value."""
    with launch(launcher, APP, *arguments, env=env) as server:
        with answering(server) as held:
            pass
        yield server, list(held)


def rungs(server: ServerProcess) -> list[tuple[str, str]]:
    """Return the rungs that were climbed, with their causes."""
    told = [line.fields for line in server.log.lines if line.event == "told to stop"]
    return [(each["rung"], each["cause"]) for each in told]


def await_flipped(server: ServerProcess) -> None:
    """Wait for both workers, and ask more often than there are workers."""
    server.log.wait_mark("hook lame duck", count=2)
    assert {server.get("/readyz").status for _ in range(10)} == {503}


@ON_ALL
def test_a_second_sigterm_skips_the_delay(launcher: Launcher) -> None:
    """Until then all serve and say 503; the drain begins at once, and is as gentle as ever."""
    with running(launcher, LONG) as (server, _):
        with contextlib.closing(in_flight(server, "/trickle", b"first\n")) as slow:
            server.terminate()
            await_flipped(server)
            assert server.get("/").status == 200
            server.terminate()
            assert slow.reply().complete
        assert server.wait(DELAY / 2) == 0
        assert rungs(server) == [("1", "SIGTERM"), ("2", "SIGTERM")]
        report = server.log.report()
        assert (report["clean"], report["in_flight_at_signal"]) == ("True", "1")


@ON_ALL
def test_a_third_sigterm_cuts(launcher: Launcher) -> None:
    """What never answers is named by its worker and counted by its parent, which exits with 70."""
    with running(launcher, LONG) as (server, _):
        with contextlib.closing(in_flight(server, "/stuck-halfway", b"half\n")) as stuck:
            for count in (1, 2, 3):
                server.terminate()
                server.log.wait_event("told to stop", count=count)
            assert not stuck.reply().complete
        assert server.wait(DELAY / 2) == 70
        assert [rung for rung, _ in rungs(server)] == ["1", "2", "3"]
        assert "GET /stuck-halfway" in server.log.text
        assert server.log.report()["exit_status"] == "70"


@ON_ALL
def test_systemd_signals_the_whole_group(launcher: Launcher) -> None:
    """Workers that are signalled, too, climb no rung of their own and don't retire."""
    with running(launcher, LONG) as (server, workers):
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.3)  # less than a worker waits for the reason
        server.signal_group(signal.SIGTERM)
        await_flipped(server)
        time.sleep(1.2)  # a worker would retire by now
        assert server.get("/").status == 200
        assert "only worker" not in server.log.text
        server.signal_group(signal.SIGTERM)
        assert server.wait(DELAY / 2) == 0
        assert rungs(server) == [("1", "SIGTERM"), ("2", "SIGTERM")]


def test_ctrl_c_on_a_terminal_skips_the_delay() -> None:
    """It reaches the workers as well, and begins at the second rung."""
    master, slave = pty.openpty()
    try:
        with (
            launch(RUN_UVICORN, APP, env=LONG, stdin=slave) as server,
            answering(server) as held,
        ):
            server.signal_group(signal.SIGINT)
            server.log.wait_mark("hook drain", count=2)
            let_go(held)
            assert server.wait(DELAY / 2) == 0
            assert rungs(server) == [("2", "SIGINT")]
            assert "Traceback" not in server.log.text
    finally:
        os.close(master)
        os.close(slave)


def test_a_worker_started_during_lame_duck_is_unready_at_once() -> None:
    """The server replaces who is killed, and the successor never says 200 to a probe."""
    with running(RUN_UVICORN, LONG) as (server, workers):
        server.terminate()
        await_flipped(server)
        os.kill(workers[0], signal.SIGKILL)
        server.log.wait_mark("startup", count=3)
        server.log.wait_mark("hook lame duck", count=3)
        assert {server.get("/readyz").status for _ in range(10)} == {503}
        with answering(server) as new:
            assert workers[0] not in new
        server.terminate()
        assert server.wait(DELAY / 2) == 70
        assert f"{workers[0]}: killed before it could say" in server.log.text


@ON_ALL
def test_a_worker_killed_in_the_drain_takes_nobody_along(launcher: Launcher) -> None:
    """The other one finishes; the report names the dead one, and what it had."""
    with launch(launcher, APP, env=SHORT) as server, answering(server) as held:
        server.terminate()
        server.log.wait_mark("hook drain", count=2)
        victim, survivor = held
        os.kill(victim, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{victim}").exists() or zombie(victim))
        held[survivor].send("release")
        server.log.wait_mark("let go")
        assert server.wait() == 70
        assert f"{victim}: killed with up to 1 in flight" in server.log.text
        assert server.log.index("let go") < server.log.index("drain report")
        assert server.log.marks("shutdown") == ["shutdown"]
        assert server.log.marks("startup") == ["startup"] * 2


def zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked for its status."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    return True


@ON_ALL
def test_a_worker_that_hangs_is_killed_in_time_and_named(launcher: Launcher) -> None:
    """Its own watchdog can't: it is stopped. The others have long gone, the status is 70."""
    env = settings(grace_period=6, propagation_delay=0.3, linger=0.2, cleanup_timeout=0.5)
    with launch(launcher, APP, env=env) as server, answering(server) as held:
        stopped, other = held
        server.terminate()
        server.log.wait_mark("hook drain", count=2)
        os.kill(stopped, signal.SIGSTOP)
        held[other].send("release")
        server.log.wait_mark("shutdown")
        assert server.wait(6) == 70
        assert f"worker {stopped}: SIGKILL" in server.log.text
        assert zombie(stopped)
        assert server.log.report()["clean"] == "False"
        assert float(server.log.report()["seconds"]) < 6


def test_nobody_waits_for_a_worker_that_will_not_come() -> None:
    """The parent has the port refuse when the last one that accepted has been killed."""
    with launch(RUN_UVICORN, APP, env=SHORT) as server, answering(server) as held:
        blocked, other = held
        os.kill(blocked, signal.SIGSTOP)  # accepts nobody, and says nothing
        server.terminate()
        server.log.wait_mark("hook drain")
        os.kill(blocked, signal.SIGKILL)
        until(lambda: refused(server))
        held[other].send("release")
        assert server.wait() == 70


@on(RUN_UVICORN, RUN_GRANIAN)
def test_a_signal_before_anybody_serves(launcher: Launcher) -> None:
    """Nobody was sent here: the delay is not waited for."""
    with launch(launcher, APP, env=LONG, serving=False) as server:
        server.log.wait("Started parent process|Spawning worker")
        server.terminate()
        assert server.wait(DELAY / 2) == 0


@ON_ALL
def test_a_worker_that_starts_into_the_drain(launcher: Launcher) -> None:
    """Its app is ready when the siblings have closed their listeners: it leaves, as they do."""
    app = "tests.servers.run_app:second_late"
    with launch(launcher, app, env=SHORT, serving=False) as server:
        server.await_serving()
        server.log.wait_mark("starting 2")
        server.terminate()
        assert server.wait(DELAY / 2) == 0
        assert server.log.report()["clean"] == "True"
        assert server.log.marks("shutdown") == ["shutdown"] * 2


def test_an_app_that_is_not_wrapped_is_said() -> None:
    """Nothing can be told to its workers; the server stops in its own way."""
    with launch(RUN_UVICORN, "tests.servers.run_app:bare", serving=False) as server:
        server.log.wait("Application startup complete", count=2)
        server.terminate()
        assert server.wait(LIMIT) == 0
        assert "not wrapped in GracefulMiddleware" in server.log.text


def test_an_app_that_does_not_start() -> None:
    """The status is the server's own for that."""
    with launch(RUN_UVICORN, "tests.servers.run_app:failing", serving=False) as server:
        assert server.wait(LIMIT) == 3
