"""How a granian comes to stop beside the watched stop of the contract: reloads, the ladder, limits.

And what becomes of it where granian is not the one that the integration knows.
"""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from .contract import APP, goodbye, open_websocket
from .harness import ASKED, Launcher, ServerProcess, launch, save, settings
from .launchers_granian import GRANIAN, GRANIAN_WORKERS, GRANIAN_WSGI
from .wsgi_contract import APP as WSGI_APP

QUICK = settings(propagation_delay=0.3, linger=0.2, stream_window=0.2)

DELAY = 25.0
"""Seconds of propagation delay that no test waits for: all is over before."""

LONG_DELAY = settings(propagation_delay=DELAY, grace_period=60, linger=0.2, stream_window=0.2)

BOTH = pytest.mark.parametrize(
    ("launcher", "app"), [(GRANIAN, APP), (GRANIAN_WSGI, WSGI_APP)], ids=["asgi", "wsgi"]
)


def rungs(server: ServerProcess) -> list[tuple[str, str]]:
    """Return the rungs that were climbed, with their causes."""
    told = [line.fields for line in server.log.lines if line.event == "told to stop"]
    return [(each["rung"], each["cause"]) for each in told]


# -- workers that are replaced -------------------------------------------------------------------


@BOTH
def test_a_reload_retires_the_worker(launcher: Launcher, app: str) -> None:
    """Its successor serves already: no lame duck, and no request is told 503.

    The kernel shares connections out among both listeners, and resets one that comes to the old
    one's queue in the microseconds between its last look and its end: one in thousands.
    """
    interval = ("--respawn-interval", "4")
    with launch(launcher, app, *interval, env=LONG_DELAY) as server:
        server.send_signal(signal.SIGHUP)
        seen: list[int] = []
        resets = 0
        while not server.log.events("drain report"):
            try:
                seen += [server.get("/readyz").status, server.get("/").status]
            except ConnectionResetError:
                resets += 1
        assert set(seen) == {200}
        assert resets <= 1
        assert server.log.events("lame duck", "draining") == ["draining"]
        assert "a successor serves" in server.log.text
        server.terminate()
        server.log.wait_event("lame duck")
        assert server.get("/readyz").status == 503


def test_a_reload_takes_its_time_for_what_is_in_flight() -> None:
    """A WebSocket of the old worker is told 1012, a request is answered."""
    interval = ("--respawn-interval", "4")
    with (
        launch(GRANIAN, APP, *interval, env=LONG_DELAY) as server,
        open_websocket(server, "/talk/text") as websocket,
        contextlib.closing(server.client()) as slow,
    ):
        slow.ask("GET", "/slow")
        server.get("/")
        server.send_signal(signal.SIGHUP)
        assert goodbye(websocket).code == 1012
        assert slow.reply().body == b"slow but whole\n"
        server.log.wait_event("drain report")


# -- the ladder ----------------------------------------------------------------------------------


def test_signals_to_the_group_climb_once_in_each_worker() -> None:
    """The parent passes on what the group was sent already: the same rung."""
    with (
        launch(GRANIAN_WORKERS, APP, env=LONG_DELAY) as server,
        contextlib.closing(server.client()) as stuck,
    ):
        stuck.ask("GET", "/stuck")
        server.signal_group(signal.SIGTERM)
        server.log.wait_event("lame duck", count=2)
        time.sleep(1.1)  # a managed process takes a signal within a second for a repeat
        assert rungs(server) == [("1", "SIGTERM")] * 2
        assert server.get("/readyz").status == 503
        server.signal_group(signal.SIGTERM)
        server.log.wait_event("draining", count=2)
        time.sleep(1.1)
        server.signal_group(signal.SIGTERM)
        assert stuck.reply().status == 503
        assert server.wait(DELAY / 2) == 0  # the parent's own
        assert rungs(server).count(("2", "SIGTERM")) == 2
        assert ("3", "SIGTERM") in rungs(server)


@BOTH
def test_sigterm_during_the_import_of_the_app(launcher: Launcher, app: str, tmp_path: Path) -> None:
    """granian's worker loses the signal and its parent waits for ever; here it ends."""
    module = tmp_path / "slow_to_import.py"
    module.write_text(
        f"import time\nfrom tests.servers.contract_app import mark\nmark('importing')\n"
        f"time.sleep(1.5)\nfrom {app.split(':')[0]} import app\n"
    )
    env = LONG_DELAY | {"PYTHONPATH": str(tmp_path)}
    with launch(launcher, "slow_to_import:app", env=env, serving=False) as server:
        server.log.wait_mark("importing")
        server.terminate()
        assert server.wait(DELAY / 2) == 0
        assert not server.log.events("serving", "lame duck")


# -- what is read of granian's options -----------------------------------------------------------


@BOTH
def test_a_kill_timeout_that_would_cut_is_refused(launcher: Launcher, app: str) -> None:
    """At start, with the numbers; granian ends when a worker does not come up."""
    with launch(launcher, app, "--workers-kill-timeout", "6", serving=False) as server:
        assert server.wait() == 1
        assert "granian --workers-kill-timeout = 6 s would cut requests" in server.log.text


def test_a_kill_timeout_that_fits() -> None:
    """Says nothing, and kills nobody."""
    with launch(GRANIAN, APP, "--workers-kill-timeout", "29", env=QUICK) as server:
        server.terminate()
        assert server.wait() == 0
        assert "kill-timeout" not in server.log.text


def test_a_reloader_waits_for_nothing(tmp_path: Path) -> None:
    """A saved file restarts the app although a stream is open and a long delay is configured."""
    module = tmp_path / "reloaded.py"
    module.write_text(f"from {APP.split(':')[0]} import app\n")
    reload = ("--reload", "--reload-paths", str(tmp_path))
    env = LONG_DELAY | {"PYTHONPATH": str(tmp_path)}
    with (
        launch(GRANIAN, "reloaded:app", *reload, env=env) as server,
        contextlib.closing(server.client()) as client,
    ):
        client.ask("GET", "/ticks")
        client.read_until(b"\n\n")
        save(module, server, "Changes detected")
        reply = client.reply()
        assert (reply.complete, b"event: reconnect\n" in reply.body) == (True, True)
        server.log.wait_event("serving", count=2)


def test_without_lifespan() -> None:
    """`--interface asginl`: the first request makes it serve; then hooks and report come, too."""
    nl = replace(GRANIAN, command=[w if w != "asgi" else "asginl" for w in GRANIAN.command])
    with launch(nl, APP, env=QUICK | ASKED, serving=False) as server:
        server.await_port()
        server.await_listening()
        assert server.get("/readyz").status == 200
        with open_websocket(server, "/talk/text") as websocket:
            server.terminate()
            server.log.wait_event("lame duck")
            assert server.get("/readyz").status == 503
            assert goodbye(websocket).code == 1012
        assert server.wait() == 0
        hooks = ["hook lame duck", "hook drain", "hook first cleanup", "hook second cleanup"]
        assert server.log.marks("hook") == hooks
        assert server.log.report()["clean"].lower() == "true"


# -- HTTP/2 --------------------------------------------------------------------------------------


def test_a_peer_that_is_not_there_any_more() -> None:
    """An HTTP/2 connection ends with a ping that nobody answers: the worker waits no longer."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + b"\4" + b"\0" + b"\0\0\0\0"
    env = settings(propagation_delay=0.2, drain_timeout=2, linger=0.2)
    with launch(GRANIAN, APP, env=env) as server, contextlib.closing(server.client()) as peer:
        peer.socket.sendall(preface)
        assert peer.socket.recv(1)
        server.terminate()
        assert server.wait() == 0
        assert server.log.marks("shutdown") == ["shutdown"]
        assert server.log.report()["clean"].lower() == "true"


# -- another granian -----------------------------------------------------------------------------


def changed(launcher: Launcher, change: str) -> Launcher:
    """Return a launcher of a granian that is not as the integration knows it."""
    return replace(
        launcher, command=("tests.servers.granian_changed", change, *launcher.command[1:])
    )


def test_a_version_that_nobody_has_tried() -> None:
    """One warning at start; the rest is as ever."""
    with launch(changed(GRANIAN, "version"), APP, env=QUICK) as server:
        server.terminate()
        assert server.wait() == 0
        assert server.log.text.count("granian 3.0.0 is not among the versions") == 1
        assert "lame duck" in server.log.events()


@pytest.mark.parametrize(
    ("launcher", "change", "app", "lost"),
    [
        (GRANIAN, "variable", APP, "_spawn_asgi_lifespan_worker has no variable shutdown_glue"),
        (GRANIAN_WSGI, "function", WSGI_APP, "set_sync_signals"),
    ],
    ids=["asgi", "wsgi"],
)
def test_a_name_that_is_gone(launcher: Launcher, change: str, app: str, lost: str) -> None:
    """It is said once, requests are served, and SIGTERM ends it in granian's own way."""
    with launch(changed(launcher, change), app, env=QUICK, serving=False) as server:
        server.await_port()
        server.log.wait("is not one that graceful knows")
        server.await_listening()
        assert server.get("/").status == 200
        with contextlib.closing(server.client()) as slow:
            slow.begin_upload("/", b"", length=0)
            server.terminate()
            assert server.wait() == 0
        assert server.log.text.count("is not one that graceful knows") == 1
        assert lost in server.log.text


def test_spawned_workers_serve_the_delay_too() -> None:
    """Where nothing of the parent is on the stack (the default from Python 3.14 on)."""
    with launch(changed(GRANIAN, "spawn"), APP, env=QUICK | ASKED) as server:
        server.terminate()
        server.log.wait_event("lame duck")
        assert server.get("/readyz").status == 503
        assert server.wait() == 0
