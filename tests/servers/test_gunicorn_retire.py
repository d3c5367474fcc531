"""A worker of gunicorn's that is replaced: the instance stays in rotation, nothing is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Generator

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
QUICK = settings(grace_period=20, propagation_delay=15, stream_window=0.3, linger=0.3)
"""A delay that no worker that only retires may serve: it would outlast the test."""


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
            assert server.get("/readyz").status == 200
            assert server.get("/").status == 200
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
