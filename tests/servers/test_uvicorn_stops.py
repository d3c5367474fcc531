"""The other ways in which a uvicorn comes to stop, and the ways in which it is run."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

import pytest

from .contract import APP
from .harness import ASKED, Client, Launcher, ServerProcess, launch, save, settings
from .launchers import UVICORN, UVICORN_H11, UVICORN_WORKERS

QUICK = settings(propagation_delay=0.3, linger=0.2, stream_window=0.2)

NO_DELAY_SERVED = settings(propagation_delay=25, grace_period=60, linger=0.2, stream_window=0.2)
"""For stops that must not serve the delay: the limits below end before it would."""

LIMIT = 12.0

EMBEDDED = Launcher(
    name="embedding program",
    command=("tests.servers.embedding",),
    announces=UVICORN.announces,
    noise=UVICORN.noise,
)


@contextlib.contextmanager
def open_stream(server: ServerProcess) -> Generator[Client]:
    """Return a client with an open event stream."""
    with contextlib.closing(server.client()) as client:
        client.ask("GET", "/ticks")
        client.read_until(b"\n\n")
        yield client


def was_told(client: Client) -> bool:
    """Whether an event stream ended with a farewell and whole."""
    reply = client.reply()
    return reply.complete and b"event: reconnect\n" in reply.body


@contextlib.contextmanager
def embedded(mode: str, env: dict[str, object]) -> Generator[tuple[ServerProcess, BinaryIO]]:
    """Start the embedding program; a line written to the second result makes it stop its server."""
    read, write = os.pipe()
    with os.fdopen(write, "wb", buffering=0) as stdin:
        try:
            with launch(EMBEDDED, "", mode, env=env, stdin=read) as server:
                yield server, stdin
        finally:
            os.close(read)


# -- stops without a signal ----------------------------------------------------------------------


def test_limit_max_requests_drains_without_a_delay() -> None:
    """One worker is replaced: its streams are told, and nothing is cut."""
    with (
        launch(UVICORN, APP, "--limit-max-requests", "1", env=NO_DELAY_SERVED) as server,
        open_stream(server) as client,
        contextlib.closing(server.client()) as slow,
    ):
        slow.ask("GET", "/slow")
        server.get("/")
        assert was_told(client)
        assert slow.reply().body == b"slow but whole\n"
        assert server.wait(LIMIT) == 0
        assert server.log.events("lame duck", "draining") == ["draining"]
        assert server.log.marks("shutdown") == ["shutdown"]


def test_a_worker_at_its_maximum_retires() -> None:
    """Its siblings go on serving the port: there is no lame duck, and no probe ever says 503."""
    limit = ("--limit-max-requests", "5")
    with launch(UVICORN_WORKERS, APP, *limit, env=NO_DELAY_SERVED) as server:
        statuses: list[int] = []
        while not server.log.events("draining"):
            statuses.append(server.get("/readyz").status)
        statuses += [server.get("/readyz").status for _ in range(10)]
        assert set(statuses) == {200}
        assert server.log.events("lame duck") == []
        server.log.wait_event("drain report")


def test_should_exit_drains_without_a_delay() -> None:
    """uvicorn's public switch, set by the program."""
    with embedded("should_exit", NO_DELAY_SERVED) as (server, stdin), open_stream(server) as client:
        stdin.write(b"stop\n")
        assert was_told(client)
        assert server.wait(LIMIT) == 0
        assert server.log.events("lame duck", "draining") == ["draining"]
        assert "the program goes on" in server.log.marks()


# -- programs that run the server ----------------------------------------------------------------


def test_a_program_goes_on_after_a_clean_stop() -> None:
    """`Server.run` returns after SIGTERM, with handlers and threads as they were before."""
    with launch(EMBEDDED, "", "run", env=QUICK) as server, open_stream(server) as client:
        server.terminate()
        assert was_told(client)
        assert server.wait(LIMIT) == 0
        assert server.log.marks("handler") == ["handler restored: True"]
        # One guards the end of the interpreter until the grace period is over.
        assert server.log.marks("threads") == ["threads: ['graceful-exit']"]
        assert server.log.marks("the program") == ["the program goes on"]


def test_a_second_server_in_one_process_has_its_own_life() -> None:
    """Stopped and started again on another loop: a second choreography, a second report."""
    with launch(EMBEDDED, "", "twice", env=QUICK) as server:
        server.terminate()
        server.log.wait_mark("again")
        server.log.wait_event("serving", count=2)
        server.port = int(
            server.log.wait(r"running on", count=2).text.rpartition(":")[2].split()[0]
        )
        with open_stream(server) as client:
            server.terminate()
            assert was_told(client)
        assert server.wait(LIMIT) == 0
        phases = ["lame duck", "draining", "closing", "drain report"]
        assert server.log.events(*phases) == phases * 2
        assert server.log.marks("handler") == ["handler restored: True"]


def test_wrapped_twice_by_mistake() -> None:
    """The outer one does it all: one farewell, one report."""
    with launch(EMBEDDED, "", "nested", env=QUICK) as server, open_stream(server) as client:
        server.terminate()
        reply = client.reply()
        assert reply.body.count(b"event: reconnect\n") == 1
        assert server.wait(LIMIT) == 0
        assert server.log.events("serving", "drain report") == ["serving", "drain report"]


def test_a_server_in_a_thread() -> None:
    """It says once that no signal will arrive, and `terminate()` drains it."""
    with embedded("thread", QUICK) as (server, stdin), open_stream(server) as client:
        server.get("/")
        stdin.write(b"stop\n")
        assert was_told(client)
        assert server.wait(LIMIT) == 0
        phases = ["lame duck", "draining", "closing", "drain report"]
        assert server.log.events(*phases) == phases
        assert server.log.text.count("outside the main thread") == 1
        assert server.log.marks("handler is default") == ["handler is default: True"]
        assert server.log.marks("threads") == ["threads: []"]


# -- lifespan ------------------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", [UVICORN, UVICORN_H11], ids=["uvloop", "asyncio"])
def test_without_lifespan_the_first_request_makes_it_serve(launcher: Launcher) -> None:
    """`--lifespan off`: the stop is the same, clean-up hooks included."""
    with launch(launcher, APP, "--lifespan", "off", env=QUICK | ASKED, serving=False) as server:
        server.await_port()
        assert server.get("/readyz").status == 200
        with open_stream(server) as client:
            server.terminate()
            server.log.wait_event("lame duck")
            assert server.get("/readyz").status == 503
            assert was_told(client)
        assert server.wait(LIMIT) == 0
        assert server.log.marks("hook") == [
            "hook lame duck",
            "hook drain",
            "hook first cleanup",
            "hook second cleanup",
        ]
        assert server.log.events("drain report") == ["drain report"]


def test_with_lifespan_on() -> None:
    """`--lifespan on` and an app that speaks it."""
    with launch(UVICORN, APP, "--lifespan", "on", env=QUICK) as server:
        server.terminate()
        assert server.wait(LIMIT) == 0
        assert server.log.marks("shutdown") == ["shutdown"]


def test_with_lifespan_on_an_app_without_it_still_fails() -> None:
    """The middleware doesn't hide from uvicorn that the app does not know the protocol."""
    arguments = ("tests.servers.hazards_app:app", "--lifespan", "on")
    with launch(UVICORN, *arguments, serving=False) as server:
        assert server.wait(LIMIT) == 3
        assert "HTTP only" in server.log.text


# -- reload --------------------------------------------------------------------------------------


def test_a_reload_waits_for_nothing(tmp_path: Path) -> None:
    """A saved file restarts the app although a stream is open and a long delay is configured."""
    module = tmp_path / "reloaded.py"
    module.write_text(f"from {APP.split(':')[0]} import app\n")
    arguments = ("--app-dir", str(tmp_path), "--reload", "--reload-dir", str(tmp_path))
    env = NO_DELAY_SERVED | {"PYTHONPATH": os.pathsep.join(("", os.environ.get("PYTHONPATH", "")))}
    with (
        launch(UVICORN, "reloaded:app", *arguments, env=env) as server,
        open_stream(server) as client,
    ):
        save(module, server, "detected changes")
        assert was_told(client)
        server.log.wait_event("serving", count=2, limit=LIMIT)
        server.await_listening()
        assert server.get("/").status == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(LIMIT) == 0


# -- requests that come late ---------------------------------------------------------------------


def test_a_request_that_would_be_cut_is_refused_at_once() -> None:
    """Half of the requests here have needed longer than the drain has left."""
    env = settings(propagation_delay=0.2, drain_timeout=1.5, stream_window=0.2, linger=0.2)
    with (
        launch(UVICORN, APP, env=env) as server,
        contextlib.closing(server.client()) as long,
        contextlib.closing(server.client()) as stuck,
        contextlib.closing(server.client()) as late,
    ):
        long.begin_upload("/upload", b"a", length=2)
        time.sleep(1.6)  # how long a request takes here is what this test is about
        long.upload(b"b")
        assert long.reply().status == 200
        stuck.ask("GET", "/stuck")
        server.terminate()
        server.log.wait_event("draining")
        reply = late.get("/")
        assert (reply.status, reply.headers["retry-after"], reply.closes) == (503, "1", True)
        assert server.wait(LIMIT) == 70  # the stuck one was cut
        assert server.log.report()["late_refused"] == "1"


def test_a_delay_that_was_too_short_is_told() -> None:
    """Requests still came when it ended: the balancer had not moved on."""
    env = settings(propagation_delay=1, stream_window=0.2, linger=0.2)
    with launch(UVICORN, APP, env=env) as server:
        server.terminate()
        server.log.wait_event("lame duck")
        while not server.log.events("draining"):
            with contextlib.suppress(OSError):
                server.get("/")
        assert server.wait(LIMIT) == 0
        assert "the balancer had not moved, raise it" in server.log.text
