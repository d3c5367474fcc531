"""The ways in which a daphne comes to stop, and what is on the wire then."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator

import pytest

from .contract import APP, goodbye, open_websocket, refused
from .harness import ASKED, LIMIT, ROOT, Client, Launcher, ServerProcess, launch, settings, until
from .launchers_daphne import DAPHNE

APPS = "tests.servers.daphne_apps"
QUEUED = 20

QUICK = settings(propagation_delay=0.3, linger=0.2, stream_window=0.2)
LONG_DELAY = settings(propagation_delay=25, grace_period=60, linger=0.2, stream_window=0.2)
"""For stops that must not serve the delay."""


@contextlib.contextmanager
def connected(server: ServerProcess) -> Generator[Client]:
    """Return a client with a connection."""
    with contextlib.closing(server.client()) as client:
        yield client


def told(client: Client) -> bool:
    """Whether an event stream ended with a farewell and whole."""
    reply = client.reply()
    return reply.complete and b"event: reconnect\n" in reply.body


# -- the start -----------------------------------------------------------------------------------


@pytest.mark.parametrize("app", [f"{APPS}:app", APP], ids=["made at once", "made by Starlette"])
def test_the_lame_duck_needs_no_request(app: str) -> None:
    """SIGTERM before anybody has asked for anything: unready, and serving on."""
    with launch(DAPHNE, app, env=ASKED) as server:
        server.terminate()
        server.log.wait_event("lame duck")
        assert (server.get("/readyz").status, server.get("/").status) == (503, 200)
        assert server.wait() == 0
        assert "hook lame duck" in server.log.marks()


@pytest.mark.parametrize("app", ["wrong", "wrong_later"])
def test_wrong_settings_stop_the_start(app: str) -> None:
    """With the numbers, in a line, and no traceback."""
    with launch(DAPHNE, f"{APPS}:{app}", serving=False) as server:
        assert server.wait() == 1
        assert re.search("graceful: propagation_delay .* s", server.log.text)
        assert "Traceback" not in server.log.text


def test_a_daphne_that_nobody_has_tried() -> None:
    """One warning, and all the rest as ever."""
    with launch(DAPHNE, f"{APPS}:newer", env=QUICK) as server:
        server.terminate()
        assert server.wait() == 0
        assert server.log.text.count("daphne 9.1 is not among the versions") == 1
        assert server.log.report()["clean"].lower() == "true"


def test_a_daphne_that_lacks_a_name() -> None:
    """The app joins with its first request, drains, and daphne then stops in its own way."""
    with launch(DAPHNE, "tests.servers.daphne_lacking_app:app", env=ASKED, serving=False) as server:
        server.await_port()
        server.log.wait("daphne is not one that graceful knows")
        assert server.get("/readyz").status == 200
        server.terminate()
        server.log.wait_event("lame duck")
        assert (server.get("/readyz").status, server.get("/").status) == (503, 200)
        assert server.wait() == 0


def test_django_with_its_own_middleware() -> None:
    """First in MIDDLEWARE, nothing else: it joins when daphne starts."""
    django = Launcher(
        name="daphne-django",
        command=("tests.servers.daphne_script", *DAPHNE.command[1:]),
        announces=DAPHNE.announces,
        environment={"DJANGO_SETTINGS_MODULE": "shop.settings", "PYTHONPATH": str(ROOT)},
        directory=ROOT / "examples" / "django_app",
    )
    with launch(django, "shop.asgi:application", env=QUICK | ASKED) as server:
        server.terminate()
        server.log.wait_event("lame duck")
        assert server.get("/readyz").status == 503
        assert server.wait() == 0
        assert server.log.report()["clean"].lower() == "true"


# -- the ladder ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_skips_the_delay(number: signal.Signals) -> None:
    """A stream is told at once."""
    with launch(DAPHNE, APP, env=LONG_DELAY) as server, connected(server) as client:
        client.ask("GET", "/ticks")
        client.read_until(b"\n\n")
        server.send_signal(number)
        server.log.wait_event("lame duck")
        server.send_signal(number)
        assert told(client)
        assert server.wait(LIMIT / 2) == 0


def test_a_third_signal_cuts() -> None:
    """What can't be told is named, and the exit status is 70."""
    with launch(DAPHNE, APP, env=LONG_DELAY) as server, connected(server) as client:
        client.ask("GET", "/stuck")
        server.get("/")
        for count in (1, 2, 3):
            server.terminate()
            server.log.wait_event("told to stop", count=count)
        assert client.reply().status == 503
        assert server.wait(LIMIT / 2) == 70
        assert "in for_ever" in server.log.text


def test_an_app_that_stops_the_reactor() -> None:
    """No lame duck, but a drain: what is in flight finishes, and nobody asked for a status."""
    with launch(DAPHNE, f"{APPS}:app", env=LONG_DELAY) as server, connected(server) as upload:
        upload.begin_upload("/", b"12345", length=10)
        assert server.get("/stop").body == b"hello\n"
        server.log.wait_event("draining")
        upload.upload(b"67890")
        assert upload.reply().status == 200
        assert server.wait(LIMIT / 2) == 0
        assert not server.log.events("lame duck")


def test_a_blocked_loop_is_left_behind() -> None:
    """The watchdog ends a process that can't be drained, with a report, before SIGKILL would."""
    env = settings(
        propagation_delay=0.1,
        drain_timeout=0.1,
        cleanup_timeout=0.1,
        grace_period=1.2,
        exit_margin=0.5,
        linger=0.05,
        stream_window=0.05,
    )
    with launch(DAPHNE, APP, env=env) as server, connected(server) as client:
        client.ask("GET", "/block")
        server.log.wait_mark("blocking")
        server.terminate()
        assert server.wait() == 70
        assert "GET /block" in server.log.text
        assert not server.log.marks("blocked no more")


# -- the wire ------------------------------------------------------------------------------------


def test_the_accept_queue_is_emptied() -> None:
    """Requests that the kernel has queued when the delay is over are answered, every one."""
    env = settings(propagation_delay=0, linger=0.5)
    with launch(DAPHNE, APP, env=env) as server, contextlib.ExitStack() as exits:
        server.send_signal(signal.SIGSTOP)
        clients = [exits.enter_context(connected(server)) for _ in range(QUEUED)]
        for client in clients:
            client.ask("GET", "/")
        server.terminate()
        server.send_signal(signal.SIGCONT)
        assert [client.reply().status for client in clients] == [200] * QUEUED
        assert server.wait() == 0


def test_who_comes_in_the_moment_of_the_close_is_served() -> None:
    """A hook connects when the reactor has been told to stop listening and has not done so yet."""
    with launch(DAPHNE, f"{APPS}:connecting", env=QUICK) as server:
        server.get("/")
        server.terminate()
        assert server.wait() == 0
        assert server.log.marks("late") == ["late: HTTP/1.1 200 OK"] * 3


def test_a_connection_without_a_request_is_not_waited_for() -> None:
    """Nor one with half a head: its client may never send the other half."""
    env = settings(propagation_delay=0.2, linger=0.3, grace_period=60)
    with (
        launch(DAPHNE, APP, env=env) as server,
        connected(server) as silent,
        connected(server) as half,
    ):
        half.socket.sendall(b"GET / HTTP/1.1\r\nHost")
        server.terminate()
        assert server.wait(LIMIT / 2) == 0
        assert silent.at_end()
        assert half.at_end()


def test_a_response_that_says_close_closes() -> None:
    """Twisted alone would keep the connection to the end of the process."""
    env = settings(propagation_delay=0.2, linger=20)
    with launch(DAPHNE, APP, env=env) as server, connected(server) as client:
        client.get("/")
        server.terminate()
        until(lambda: refused(server))
        assert client.get("/").closes
        assert client.at_end()
        assert not server.log.events("closing")


def test_an_upload_is_waited_for() -> None:
    """daphne calls the app when the body is there, so nobody else could know of it."""
    with launch(DAPHNE, APP, env=QUICK) as server, connected(server) as upload:
        upload.begin_upload("/upload", b"12345", length=10)
        server.terminate()
        server.log.wait_event("draining")
        until(lambda: refused(server))
        assert not server.log.events("closing")
        upload.upload(b"67890")
        assert upload.reply().body == b'{"bytes":10}'
        assert server.wait() == 0
        assert server.log.report()["clean"].lower() == "true"


def test_an_upload_that_never_ends_is_named() -> None:
    """The hold for it is in the report, and the exit status is 70."""
    env = settings(propagation_delay=0.1, drain_timeout=1, linger=0.2)
    with launch(DAPHNE, APP, env=env) as server, connected(server) as upload:
        upload.begin_upload("/upload", b"12345", length=10)
        server.get("/")  # by when the head above has been read
        server.terminate()
        assert server.wait() == 70
        assert "daphne has not received" in server.log.report()["holds"]


def test_a_slow_reader_gets_the_whole_answer() -> None:
    """The app is done with it long before it has been sent."""
    env = settings(propagation_delay=0.1, linger=0.1)
    with launch(DAPHNE, f"{APPS}:app", env=env) as server, connected(server) as client:
        client.ask("GET", "/large")
        client.head()
        server.terminate()
        server.log.wait_event("draining")
        time.sleep(0.7)  # the linger is over, and all that is left is this
        assert len(client.reply().body) == 32 * 2**20
        assert server.wait() == 0


def test_a_request_that_fails_at_the_end_is_answered() -> None:
    """daphne looks for failed apps once a second; the reactor waits for that."""
    env = settings(propagation_delay=0, linger=0.1)
    with launch(DAPHNE, f"{APPS}:app", env=env) as server, connected(server) as client:
        client.get("/")
        server.send_signal(signal.SIGSTOP)
        client.ask("GET", "/fails")
        server.terminate()
        server.send_signal(signal.SIGCONT)
        assert client.reply().status == 500
        assert server.wait() == 0


def test_a_stream_that_fails_in_the_drain_is_closed() -> None:
    """Its client sees that the answer is not whole, and nobody waits for more of it."""
    with launch(DAPHNE, f"{APPS}:app", env=QUICK) as server, connected(server) as client:
        client.ask("GET", "/fails-late")
        client.read_until(b"half\n")
        server.terminate()
        assert not client.reply().complete
        assert server.wait(LIMIT / 2) == 0


def test_a_websocket_whose_client_says_nothing_more() -> None:
    """It gets its close frame; its silence holds the end for a second at most."""
    env = settings(propagation_delay=0.1, linger=0.1, stream_window=0.1, grace_period=60)
    with (
        launch(DAPHNE, APP, env=env) as server,
        open_websocket(server, "/talk/none") as talk,
        open_websocket(server, "/held") as held,
    ):
        held.recv(LIMIT)
        server.terminate()
        assert goodbye(talk).code == 1012
        held.send("release")
        assert server.wait(LIMIT / 2) == 0


WITHOUT_END = """
import socket, time
import daphne.server, graceful.asgi
from graceful.integrations.daphne import EMPTY_WITHIN, _empty

class Slow:
    "A port whose queue is never empty, and which takes its time for each client."
    connected, accepted = True, 0
    def __init__(self, listener): self.fileno = listener.fileno
    def doRead(self):
        time.sleep(EMPTY_WITHIN / 5)
        self.accepted += 1

with socket.create_server(("127.0.0.1", 0)) as listener:
    waiting = socket.create_connection(listener.getsockname())
    port = Slow(listener)
    _empty(port)
print(port.accepted)
"""


def test_clients_without_end() -> None:
    """They are taken in for a second: the linger of who is connected already passes meanwhile."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_END], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 1 <= int(done.stdout) <= 6
