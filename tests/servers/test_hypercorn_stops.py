"""How a hypercorn comes to stop beside the watched stop of the contract.

Siblings, the ladder, programs that embed it, what is read of its options, HTTP/2, and another one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from .contract import APP, goodbye, open_websocket
from .harness import ASKED, ROOT, Launcher, launch, reserved_port, settings
from .http2 import ANY_STREAM, http2
from .launchers_hypercorn import (
    HYPERCORN,
    HYPERCORN_CHILD,
    HYPERCORN_TRIO,
    HYPERCORN_UVLOOP,
    HYPERCORN_WORKERS,
)

QUICK = settings(propagation_delay=0.3, linger=0.2, stream_window=0.2)

DELAY = 25.0
"""Seconds of propagation delay that no test waits for: all is over before."""

LONG_DELAY = settings(propagation_delay=DELAY, grace_period=60, linger=0.2, stream_window=0.2)


def program(mode: str, *arguments: str) -> Launcher:
    """Return a program of `hypercorn_programs`."""
    command = ("tests.servers.hypercorn_programs", mode, *arguments)
    return replace(HYPERCORN, name=f"hypercorn-{mode}", command=command)


def on_port(port: int) -> Launcher:
    """Return a hypercorn on a fixed port: a listener that was shut down keeps no other."""
    command = [part.replace(":0", f":{port}") for part in HYPERCORN_CHILD.command]
    return replace(HYPERCORN_CHILD, command=command)


# -- siblings ------------------------------------------------------------------------------------


def runs(pid: int) -> bool:
    """Whether a process still runs; its parent may wait for another first before it reaps it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] != "Z"


def test_a_worker_that_is_done_ends_no_other() -> None:
    """The parent ends all others when the first has ended; who has work finishes it."""
    # A managed process takes a signal within a second for a repeat, which would hide the second.
    env = QUICK | settings(propagation_delay=1.2)
    with (
        launch(HYPERCORN_WORKERS, APP, env=env) as server,
        open_websocket(server, "/held") as held,
    ):
        pid = held.recv()
        server.terminate()
        server.log.wait_event("drain report")  # of the idle one
        idle = next(line.pid for line in server.log.lines if line.mark == "shutdown")
        while runs(idle):
            time.sleep(0.01)
        server.await_sleep()  # it has ended the other
        held.send("release")
        assert goodbye(held).code == 1000
        assert server.wait() == 0
        assert server.log.marks("shutdown") == ["shutdown"] * 2
        assert [line.pid for line in server.log.lines if line.mark == "shutdown"][1] == int(pid)
        told = [line.fields["rung"] for line in server.log.lines if line.event == "told to stop"]
        assert told == ["1", "1"]
        reports = [line.fields for line in server.log.lines if line.event == "drain report"]
        assert [report["clean"].lower() for report in reports] == ["true", "true"]


def test_sigterm_to_the_group_is_one_rung() -> None:
    """systemd signals the workers, too, and the parent tells them once more."""
    with launch(HYPERCORN_WORKERS, APP, env=QUICK) as server:
        server.signal_group(signal.SIGTERM)
        assert server.wait() == 0
        told = [line.fields["rung"] for line in server.log.lines if line.event == "told to stop"]
        assert told == ["1", "1"]
        assert server.log.events("lame duck", "drain report")[:2] == ["lame duck"] * 2


# -- one worker after the other --------------------------------------------------------------------


def test_a_worker_retires_at_its_maximum_of_requests() -> None:
    """What is in flight finishes, and the next worker serves the port."""
    with (
        launch(HYPERCORN_CHILD, APP, "--max-requests", "5", env=QUICK) as server,
        contextlib.closing(server.client()) as slow,
    ):
        slow.ask("GET", "/slow")
        seen = [server.get("/").status for _ in range(8)]
        assert slow.reply().body == b"slow but whole\n"
        server.log.wait_event("serving", count=2)
        seen.append(server.get("/").status)
        assert set(seen) == {200}
        assert not server.log.events("lame duck")
        assert "--max-requests" in server.log.text


def test_hup_ends_all_workers_before_it_starts_others() -> None:
    """hypercorn's own reload: each worker takes it for the end, and the port is served again."""
    with reserved_port() as port, launch(on_port(port), APP, env=QUICK) as server:
        server.send_signal(signal.SIGHUP)
        server.log.wait_event("drain report")
        server.log.wait_event("serving", count=2)
        server.await_listening()
        assert server.get("/").status == 200
        server.terminate()
        assert server.wait() == 0


def test_a_reloader_waits_for_nothing(tmp_path: Path) -> None:
    """A saved file restarts the app although a stream is open and a long delay is configured."""
    module = tmp_path / "reloaded.py"
    module.write_text(f"from {APP.split(':')[0]} import app\n")
    env = LONG_DELAY | {"PYTHONPATH": str(tmp_path)}
    with (
        launch(HYPERCORN_CHILD, "reloaded:app", "--reload", env=env) as server,
        contextlib.closing(server.client()) as client,
    ):
        client.ask("GET", "/ticks")
        client.read_until(b"\n\n")
        module.write_text(module.read_text() + "# saved\n")
        reply = client.reply()
        assert (reply.complete, b"event: reconnect\n" in reply.body) == (True, True)
        server.log.wait_event("serving", count=2)


# -- the ladder ------------------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", [HYPERCORN, HYPERCORN_TRIO], ids=["asyncio", "trio"])
def test_signals_climb_a_ladder(launcher: Launcher) -> None:
    """The second skips the delay, the third cuts what is stuck."""
    with (
        launch(launcher, APP, env=LONG_DELAY) as server,
        contextlib.closing(server.client()) as stuck,
    ):
        stuck.ask("GET", "/stuck")
        server.get("/")
        server.terminate()
        server.log.wait_event("lame duck")
        assert server.get("/readyz").status == 503
        server.terminate()
        server.log.wait_event("draining")
        server.terminate()
        assert stuck.reply().status == 503
        assert server.wait(DELAY / 2) == (70 if launcher.own_exit_status else 0)
        told = [line.fields["rung"] for line in server.log.lines if line.event == "told to stop"]
        assert told == ["1", "2", "3"]


def test_uvloop() -> None:
    """`-k uvloop`: the delay is served, the listener refuses, the WebSocket is told."""
    with (
        launch(HYPERCORN_UVLOOP, APP, env=QUICK | ASKED) as server,
        open_websocket(server, "/talk/none") as websocket,
    ):
        server.terminate()
        server.log.wait_event("lame duck")
        assert server.get("/readyz").status == 503
        assert goodbye(websocket).code == 1012
        assert server.wait() == 0
        assert server.log.report()["clean"].lower() == "true"


# -- embedded --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["embedded", "on_trio", "with_trigger"])
def test_a_program_that_embeds_it(mode: str) -> None:
    """SIGTERM has the whole choreography, and then the program goes on."""
    with (
        launch(program(mode), APP, env=QUICK | ASKED) as server,
        open_websocket(server, "/talk/none") as websocket,
    ):
        server.terminate()
        server.log.wait_event("lame duck")
        assert server.get("/readyz").status == 503
        assert goodbye(websocket).code == 1012
        assert server.wait() == 0
        assert server.log.marks(
            "shutdown",
        ) == ["shutdown"]
        assert server.log.marks("the program") == ["the program goes on"]


def test_a_program_with_a_trigger_of_its_own() -> None:
    """Without a signal there is no delay; all else is as ever."""
    read, write = os.pipe()
    with (
        launch(program("own_trigger"), APP, env=LONG_DELAY, stdin=read) as server,
        open_websocket(server, "/talk/none") as websocket,
    ):
        os.write(write, b"\n")
        assert goodbye(websocket).code == 1012
        assert server.wait(DELAY / 2) == 0
        assert server.log.events("lame duck", "draining") == ["draining"]
        assert server.log.marks("the program") == ["the program goes on"]
    os.close(read)
    os.close(write)


# -- what is read of its options -------------------------------------------------------------------


def test_a_graceful_timeout_that_only_wastes_time() -> None:
    """It begins after the drain."""
    with launch(HYPERCORN, APP, "--graceful-timeout", "20", env=QUICK) as server:
        server.terminate()
        assert server.wait() == 0
        assert server.log.text.count("hypercorn --graceful-timeout = 20 s begins after") == 1


def test_a_shutdown_timeout_that_would_cut_is_refused(tmp_path: Path) -> None:
    """Clean-up hooks run while hypercorn waits for lifespan.shutdown."""
    file = tmp_path / "hypercorn.toml"
    file.write_text("shutdown_timeout = 1\n")
    with launch(HYPERCORN, APP, "-c", str(file), env=QUICK, serving=False) as server:
        assert server.wait() != 0
        assert "hypercorn shutdown_timeout = 1 s would cut clean-up hooks" in server.log.text


# -- HTTP/2 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", [HYPERCORN, HYPERCORN_TRIO], ids=["asyncio", "trio"])
def test_http2_connections_are_told_to_go(launcher: Launcher) -> None:
    """An idle one with the drain, one with streams after its last."""
    env = ASKED | settings(linger=1, stream_window=0.2)
    with (
        launch(launcher, APP, env=env) as server,
        http2(server.port) as idle,
        http2(server.port) as busy,
    ):
        assert idle.get("/").body == b"hello\n"
        slow = busy.ask("/slow")
        assert busy.get("/").status == 200
        server.terminate()
        server.log.wait_event("lame duck")
        assert busy.get("/readyz").status == 503
        assert busy.goaways == []
        assert idle.read_goaway() == (ANY_STREAM, 0)
        late = idle.get("/")
        assert (late.status, "connection" in late.headers) == (200, False)
        assert busy.answer(slow).body == b"slow but whole\n"
        assert busy.read_goaway() == (ANY_STREAM, 0)
        idle.read_to_end()
        assert idle.goaways[-1] == (3, 0)
        busy.read_to_end()
        assert busy.goaways[-1] == (5, 0)
        assert server.wait() == 0
        assert "Traceback" not in server.log.text


# -- another hypercorn -----------------------------------------------------------------------------


def test_a_version_that_nobody_has_tried() -> None:
    """One warning at start; the rest is as ever."""
    with launch(program("untested", *HYPERCORN.command[1:]), APP, env=QUICK) as server:
        server.terminate()
        assert server.wait() == 0
        assert server.log.text.count("hypercorn 9.9.9 is not among the versions") == 1
        assert "lame duck" in server.log.events()


@pytest.mark.parametrize("mode", ["lacking", "lacking_embedded"])
def test_a_name_that_is_gone(mode: str) -> None:
    """It is said once, requests are served, and SIGTERM ends it in hypercorn's own way."""
    with launch(program(mode, *HYPERCORN.command[1:]), APP, env=QUICK, serving=False) as server:
        server.log.wait("is not one that graceful knows")
        server.await_port()
        server.await_listening()
        assert server.get("/").status == 200
        server.terminate()
        assert server.wait() == 0
        assert server.log.text.count("is not one that graceful knows") == 1
        assert server.log.marks("shutdown") == ["shutdown"]


# -- an app without lifespan ---------------------------------------------------------------------


@pytest.mark.parametrize("launcher", [HYPERCORN, HYPERCORN_CHILD], ids=lambda each: each.name)
def test_an_app_that_joins_at_its_first_request(launcher: Launcher) -> None:
    """Django's MIDDLEWARE: hypercorn has been waiting for its end long before, and still drains."""
    env = ASKED | {"PYTHONPATH": ROOT / "examples" / "django_app"}
    with launch(launcher, "shop.asgi:application", env=env, serving=False) as server:
        server.await_port()
        server.await_listening()
        assert server.get("/readyz").status == 200
        with contextlib.closing(server.client()) as slow:
            slow.ask("GET", "/slow?seconds=3")
            server.terminate()
            server.log.wait_event("lame duck")
            assert server.get("/readyz").status == 503
            assert server.get("/").status == 200
            assert slow.reply().body == b"done\n"
        assert server.wait() == 0
        assert server.log.report()["clean"] == "True"
        assert "Traceback" not in server.log.text
