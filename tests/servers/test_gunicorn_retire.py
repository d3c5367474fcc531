"""A worker of gunicorn's that is replaced: the instance stays in rotation, nothing is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from .contract import goodbye, open_websocket
from .harness import LIMIT, Client, Launcher, ServerProcess, launch, settings
from .launchers import (
    GUNICORN_ASGI,
    GUNICORN_GEVENT,
    GUNICORN_GTHREAD,
    GUNICORN_SYNC,
    GUNICORN_UVICORN,
)

WSGI_APP = "tests.servers.wsgi_app:app"
ASGI_APP = "tests.servers.gunicorn_app:app"

WITH_LOOPS = (GUNICORN_ASGI, GUNICORN_UVICORN)
WITH_THREADS = (GUNICORN_GTHREAD, GUNICORN_GEVENT)
QUICK = settings(grace_period=20, propagation_delay=15, stream_window=0.3)
"""A delay that no worker that only retires may serve: it would outlast the test. The linger is as
long as it is by default, for what is asked here is whether that loses nothing."""


def on(*launchers: Launcher) -> pytest.MarkDecorator:
    """Run a test on each of `launchers`."""
    return pytest.mark.parametrize("launcher", launchers, ids=lambda launcher: launcher.name)


ON_ALL = on(*WITH_LOOPS, *WITH_THREADS, GUNICORN_SYNC)
ON_STREAMING = on(*WITH_LOOPS, *WITH_THREADS)


@contextlib.contextmanager
def running(launcher: Launcher, *arguments: str) -> Generator[ServerProcess]:
    """Start gunicorn with one worker of a class, and wait until that answers."""
    with launch(launcher, app_of(launcher), "-w", "1", *arguments, env=QUICK) as server:
        assert server.get("/readyz").status == 200
        yield server


def app_of(launcher: Launcher) -> str:
    """Return what the worker class can serve."""
    return ASGI_APP if launcher.name in {each.name for each in WITH_LOOPS} else WSGI_APP


def worker_of(server: ServerProcess) -> int:
    """Return the process that answers."""
    return int(server.get("/pid").body)


def await_end(pid: int) -> None:
    """Wait until a process is gone."""
    give_up = time.monotonic() + LIMIT
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < give_up:
            os.kill(pid, 0)
            time.sleep(0.02)
        raise AssertionError(f"{pid} is still there")


def await_replaced(server: ServerProcess, old: int) -> None:
    """Wait until `old` is gone; whoever asks meanwhile is answered, and told that all is well."""
    give_up = time.monotonic() + LIMIT
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < give_up:
            os.kill(old, 0)
            for path in ("/readyz", "/"):
                reply = server.get(path)
                assert reply.status == 200, f"{path}: {reply}\n{server.log.text}"
            time.sleep(0.02)
        raise AssertionError(f"{old} is still there:\n{server.log.text}")
    assert worker_of(server) != old


def ask(server: ServerProcess, path: str) -> Client:
    """Return a client whose request is on its way."""
    client = server.client()
    client.ask("GET", path)
    return client


@contextlib.contextmanager
def in_flight(server: ServerProcess, path: str) -> Generator[Client]:
    """A client of `/slow` or `/stuck`, whose request has got to the app."""
    with contextlib.closing(ask(server, path)) as client:
        server.log.wait_mark(f"{path[1:]} begins")
        yield client


@ON_ALL
def test_a_reload_loses_nothing(launcher: Launcher) -> None:
    """HUP: the new worker is there before the old one goes; what the old one has is finished."""
    with running(launcher) as server:
        old = worker_of(server)
        with contextlib.closing(ask(server, "/trickle")) as client:
            client.read_until(b"first\n")
            server.send_signal(signal.SIGHUP)
            reply = client.reply()
            assert (reply.body, reply.complete) == (b"first\nlast\n", True)
        await_replaced(server, old)
        assert f"SIGHUP; only worker {old} goes" in server.log.text
        assert "lame duck" not in server.log.events()


@ON_STREAMING
def test_what_a_reload_cuts_is_told(launcher: Launcher) -> None:
    """A request that never ends is cut at the drain deadline; a thread can only be left."""
    with running(launcher) as server:
        old = worker_of(server)
        with in_flight(server, "/stuck"):
            server.send_signal(signal.SIGHUP)
            await_replaced(server, old)
        report = server.log.report()
        assert (report["cut"], report["clean"]) == ("1", "False")
        assert f"only worker {old} goes" in report["cause"]
        assert "GET /stuck" in report["stragglers"]


@on(*WITH_LOOPS)
def test_a_worker_that_is_replaced_leaves_rotation_with_its_instance(launcher: Launcher) -> None:
    """Its probes say 200 while its port is served, and 503 once that is to end."""
    env = settings(grace_period=60, propagation_delay=20, linger=15)
    with launch(launcher, ASGI_APP, "-w", "1", env=env) as server, contextlib.ExitStack() as exits:
        replaced, told = (exits.enter_context(contextlib.closing(server.client())) for _ in "ab")
        for client in (replaced, told):
            assert client.get("/").status == 200
        exits.enter_context(in_flight(server, "/stuck"))
        server.send_signal(signal.SIGHUP)
        server.log.wait_event("draining")
        assert replaced.get("/readyz").status == 200
        server.terminate()
        server.log.wait_event("told to stop")  # the arbiter itself waits for its reload
        assert told.get("/readyz").status == 503


def test_clients_that_close_late_cost_the_others_nothing() -> None:
    """gthread alone waits 2 s for each, in the thread that serves all of them."""
    env = settings(grace_period=30, propagation_delay=15, linger=5)
    with contextlib.ExitStack() as exits:
        more = ("-w", "1", "--keep-alive", "30")  # or gunicorn itself closes them before
        server = exits.enter_context(launch(GUNICORN_GTHREAD, WSGI_APP, *more, env=env))
        *lazy, other = (exits.enter_context(contextlib.closing(server.client())) for _ in range(25))
        for client in (*lazy, other):
            client.get("/")
        server.send_signal(signal.SIGHUP)
        server.log.wait_event("draining")
        for client in lazy:  # each is told to close, and none does
            client.ask("GET", "/")
        assert {(reply.status, reply.closes) for reply in map(Client.reply, lazy)} == {(200, True)}
        assert other.get("/").status == 200


def test_a_client_that_comes_when_the_port_closes() -> None:
    """gthread's poller may tell of it together with our request to close, which is first then."""
    more = ("-w", "1", "-k", "tests.servers.gthread_together.Worker")
    with launch(GUNICORN_GTHREAD, WSGI_APP, *more, env=QUICK) as server:
        old = worker_of(server)
        server.send_signal(signal.SIGHUP)
        await_end(old)
        assert "Exception in worker process" not in server.log.text
        clients = server.log.marks("client: ")
        assert clients
        assert set(clients) == {"client: [b'HTTP/1.1 200 OK']"}


def test_a_gevent_worker_ends_in_peace() -> None:
    """None of our threads, which gevent gives hubs, is left to an interpreter that ends."""
    with running(GUNICORN_GEVENT) as server:
        for reload in range(10):
            old = worker_of(server)
            server.send_signal(signal.SIGHUP)
            await_end(old)
            server.log.wait_event("drain report", count=reload + 1)
        assert "SIGABRT" not in server.log.text


@ON_STREAMING
def test_a_reload_tells_the_streams_of_the_old_worker(launcher: Launcher) -> None:
    """They come back to the port, where the new worker is."""
    with running(launcher) as server, contextlib.closing(ask(server, "/ticks")) as stream:
        old = worker_of(server)
        stream.read_until(b"\n\n")
        server.send_signal(signal.SIGHUP)
        rest = stream.reply()
        assert rest.complete
        assert b"retry:" in rest.body
        await_replaced(server, old)


def test_a_reload_tells_the_websockets_of_the_old_worker() -> None:
    """gunicorn alone would cut them when its time is over."""
    with running(GUNICORN_ASGI) as server, open_websocket(server, "/talk/text") as talk:
        old = worker_of(server)
        server.send_signal(signal.SIGHUP)
        end = goodbye(talk)
        assert (end.code, len(end.messages)) == (1012, 1)
        await_replaced(server, old)


@ON_ALL
def test_a_maximum_of_requests_only_replaces_the_worker(launcher: Launcher) -> None:
    """The last request of the old worker is answered, and so is the next one."""
    with running(launcher, "--max-requests", "5") as server:
        old = worker_of(server)
        for _ in range(4):
            assert server.get("/").status == 200
        await_replaced(server, old)


def test_fewer_workers_is_no_shutdown() -> None:
    """TTOU takes one away, TTIN brings one back."""
    with running(GUNICORN_ASGI) as server:
        old = worker_of(server)
        server.send_signal(signal.SIGTTIN)
        server.log.wait_mark("startup", count=2)
        with contextlib.closing(ask(server, "/ticks")) as stream:
            stream.read_until(b"\n\n")
            server.send_signal(signal.SIGTTOU)
            await_replaced(server, old)
            assert f"SIGTTOU; only worker {old} goes" in server.log.text
            assert "lame duck" not in server.log.events()


def test_a_worker_that_is_signalled_alone_retires() -> None:
    """Nobody has told the arbiter: it starts another one."""
    with running(GUNICORN_ASGI) as server:
        old = worker_of(server)
        os.kill(old, signal.SIGTERM)
        await_replaced(server, old)
        assert f"SIGTERM; only worker {old} goes" in server.log.text


@contextlib.contextmanager
def daemon(launcher: Launcher, pid_file: Path) -> Generator[ServerProcess]:
    """Start gunicorn with one worker as a daemon, which still writes to our pipe."""
    more = ("-w", "1", "--daemon", "-R", "--pid", str(pid_file), "--keep-alive", "30")
    with launch(launcher, app_of(launcher), *more, env=QUICK) as server:
        assert server.process.wait(LIMIT) == 0
        arbiter = int(pid_file.read_text())
        try:
            yield server
        finally:
            os.killpg(os.getpgid(arbiter), signal.SIGKILL)


@on(GUNICORN_ASGI, GUNICORN_GTHREAD)
def test_a_daemon_without_workers_for_a_while(launcher: Launcher, tmp_path: Path) -> None:
    """WINCH retires all workers of a daemon; whoever is served to the end is told 200."""
    with contextlib.ExitStack() as exits:
        server = exits.enter_context(daemon(launcher, pid_file := tmp_path / "pid"))
        arbiter, old = int(pid_file.read_text()), worker_of(server)
        kept = exits.enter_context(contextlib.closing(server.client()))
        assert kept.get("/").status == 200
        trickle = exits.enter_context(contextlib.closing(ask(server, "/trickle")))
        trickle.read_until(b"first\n")
        stuck = exits.enter_context(in_flight(server, "/stuck"))
        os.kill(arbiter, signal.SIGWINCH)
        server.log.wait(f"SIGWINCH; only worker {old} goes")
        assert trickle.reply().body == b"first\nlast\n"
        assert kept.get("/readyz").status == 200
        last = kept.get("/")
        assert (last.status, last.closes) == (200, True)
        stuck.close()
        end_what_is_stuck(server, old)
        os.kill(arbiter, signal.SIGTTIN)
        server.log.wait("Booting worker", count=2)
        assert server.get("/readyz").status == 200
        assert worker_of(server) != old
        assert "lame duck" not in server.log.events()


def end_what_is_stuck(server: ServerProcess, pid: int) -> None:
    """It has been shown to wait for what is in flight; nobody waits for that to be cut."""
    os.kill(pid, 0)
    os.kill(pid, signal.SIGKILL)
    await_end(pid)


def control(path: str, command: str) -> None:
    """Ask the arbiter by its control socket."""
    give_up = time.monotonic() + LIMIT
    while not os.path.exists(path):
        assert time.monotonic() < give_up
        time.sleep(0.02)
    ran = subprocess.run(
        [sys.executable, "-m", "gunicorn.ctl.cli", "-s", path, "-c", command],
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert ran.returncode == 0, ran


def controlled(launcher: Launcher) -> Launcher:
    """Return a launcher that leaves gunicorn its control socket."""
    command = [part for part in launcher.command if part != "--no-control-socket"]
    return dataclasses.replace(launcher, command=command)


@on(GUNICORN_ASGI, GUNICORN_GTHREAD)
def test_the_control_socket_removes_a_worker(launcher: Launcher, tmp_path: Path) -> None:
    """`gunicornc -c "worker remove"` takes the oldest away: it finishes, and no probe fails."""
    path = str(tmp_path / "control")
    with running(controlled(launcher), "--control-socket", path) as server:
        old = worker_of(server)
        with contextlib.closing(ask(server, "/trickle")) as client:
            client.read_until(b"first\n")
            control(path, "worker add")
            server.log.wait("Booting worker", count=2)
            control(path, "worker remove")
            server.log.wait(f"fewer workers; only worker {old} goes")
            assert client.reply().complete
        await_replaced(server, old)
        assert "lame duck" not in server.log.events()


def test_a_new_arbiter_takes_the_port_over() -> None:
    """USR2, then SIGTERM to the old one: readiness stays 200 on a port that is served."""
    script = ("tests.servers.gunicorn_script", *GUNICORN_ASGI.command[1:])
    with running(dataclasses.replace(GUNICORN_ASGI, command=script)) as server:
        old = worker_of(server)
        server.send_signal(signal.SIGUSR2)
        server.log.wait_mark("startup", count=2)
        server.terminate()
        await_replaced(server, old)
        assert server.process.wait(LIMIT) == 0
        assert server.get("/readyz").status == 200
        assert "lame duck" not in server.log.events()
