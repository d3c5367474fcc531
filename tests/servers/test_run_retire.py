"""Workers are replaced under `graceful run`: the instance stays in rotation, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

from .contract import goodbye, open_websocket
from .harness import LIMIT, Launcher, ServerProcess, settings, until
from .launchers_run import ON_ALL, RUN_UVICORN
from .test_run_ladder import answering, in_flight, running

QUICK = settings(grace_period=20, propagation_delay=15, stream_window=0.3)
"""A delay that no worker that only retires may serve: it would outlast the test."""

CLIENTS = 3
BREATH = 0.01
"""Seconds between two requests of a client: new workers need some of this machine, too."""


@contextlib.contextmanager
def load(server: ServerProcess) -> Generator[Counter[str]]:
    """Have a few clients ask all the time; counts the answers, and what was none."""
    answers: Counter[str] = Counter()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(BREATH):
            for path in ("/", "/readyz"):
                try:
                    answers[f"{path} {server.get(path).status}"] += 1
                except OSError as error:
                    answers[f"{path} {error!r}"] += 1

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield answers
    finally:
        over.set()
        for client in clients:
            client.join(LIMIT)


def gone(pid: int) -> bool:
    """Whether a process has ended and been waited for."""
    return not Path(f"/proc/{pid}").exists()


@ON_ALL
def test_a_reload_loses_nothing(launcher: Launcher) -> None:
    """HUP: every worker is replaced; readiness stays 200, streams are told, work is finished."""
    with running(launcher, QUICK) as (server, workers), load(server) as answers:
        with (
            contextlib.closing(in_flight(server, "/trickle", b"first\n")) as work,
            contextlib.closing(in_flight(server, "/ticks", b"\n\n")) as stream,
            open_websocket(server, "/talk/text") as talk,
        ):
            server.send_signal(signal.SIGHUP)
            assert work.reply().complete
            assert b"event: reconnect" in stream.reply().body
            end = goodbye(talk)
            assert (end.code, len(end.messages)) == (1012, 1)
        until(lambda: all(map(gone, workers)))
        for pid in workers:
            assert f"SIGHUP; only worker {pid} goes" in server.log.text
        with answering(server) as new:
            assert not set(new) & set(workers)
        assert "lame duck" not in server.log.events()
    resets = [answer for answer in answers.elements() if "ConnectionResetError" in answer]
    assert len(resets) <= launcher.resets
    assert set(answers) - set(resets) == {"/ 200", "/readyz 200"}


@ON_ALL
def test_a_shutdown_after_a_reload(launcher: Launcher) -> None:
    """The new workers hear of it as the old ones would have; the old ones count no more."""
    with running(launcher, QUICK) as (server, workers):
        server.send_signal(signal.SIGHUP)
        until(lambda: all(map(gone, workers)))
        with answering(server):
            for count in (1, 2):
                server.terminate()
                server.log.wait_event("told to stop", count=count)
            server.log.wait_mark("hook drain", count=4)
        assert server.wait() == 0
        assert server.log.report()["clean"] == "True"


def test_a_shutdown_in_the_middle_of_a_reload() -> None:
    """It is heard although the parent waits for an old worker, and nobody is started any more."""
    with running(RUN_UVICORN, QUICK) as (server, _), answering(server) as held:
        server.send_signal(signal.SIGHUP)
        server.log.wait("only worker")
        for count in (1, 2):
            server.terminate()
            server.log.wait_event("told to stop", count=count)
        for websocket in held.values():
            websocket.send("release")
        assert server.wait() == 0
        assert len(server.log.marks("startup")) == 3


def test_fewer_workers_is_no_shutdown() -> None:
    """TTOU takes one away, TTIN brings one back."""
    with running(RUN_UVICORN, QUICK) as (server, workers), load(server) as answers:
        server.send_signal(signal.SIGTTOU)
        until(lambda: any(map(gone, workers)))
        (left,) = [pid for pid in workers if not gone(pid)]
        assert f"SIGTTOU; only worker {sum(workers) - left} goes" in server.log.text
        server.send_signal(signal.SIGTTIN)
        with answering(server) as now:
            assert left in now
        assert "lame duck" not in server.log.events()
    assert set(answers) == {"/ 200", "/readyz 200"}


def test_a_worker_that_is_signalled_alone_retires() -> None:
    """Nobody has told the parent: it starts another one."""
    with running(RUN_UVICORN, QUICK) as (server, workers), load(server) as answers:
        os.kill(workers[0], signal.SIGTERM)
        until(lambda: gone(workers[0]))
        assert f"SIGTERM; only worker {workers[0]} goes" in server.log.text
        with answering(server):
            pass
    assert set(answers) == {"/ 200", "/readyz 200"}


def test_a_worker_that_has_gone_is_replaced_at_once() -> None:
    """uvicorn alone waits for its answer, here for minutes, and hears no signal meanwhile."""
    patient = ("--timeout-worker-healthcheck", "300")
    with running(RUN_UVICORN, QUICK, *patient) as (server, workers):
        os.kill(workers[0], signal.SIGSTOP)
        time.sleep(1.5)  # until it is asked, twice a second; if it was not, this shows less
        os.kill(workers[0], signal.SIGKILL)
        server.log.wait_mark("startup", count=3)
        with answering(server) as now:
            assert workers[0] not in now
        server.terminate()
        server.log.wait_event("lame duck")


def test_a_maximum_of_requests_only_replaces_the_worker() -> None:
    """The last request of the old worker is answered, and so is the next one."""
    arguments = ("--limit-max-requests", "20", "--limit-max-requests-jitter", "10")
    with running(RUN_UVICORN, QUICK, *arguments) as (server, workers), load(server) as answers:
        until(lambda: any(map(gone, workers)))
        server.log.wait_mark("startup", count=3)
    assert set(answers) == {"/ 200", "/readyz 200"}
