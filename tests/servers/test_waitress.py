"""waitress: the WSGI contract, and what is special about its ways."""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from collections.abc import Generator

import pytest

from .contract import refused
from .harness import LIMIT, Client, ServerProcess, launch, settings, until
from .launchers_waitress import WAITRESS, WAITRESS_SERVE
from .wsgi_contract import APP, WsgiContract, open_ticks, told

APPS = "tests.servers.waitress_apps"
QUEUED = 20
MANY = 1020
"""More than have room below descriptor 1024, less than the backlog."""

LONG_DELAY = settings(propagation_delay=25, grace_period=60, linger=0.2, stream_window=0.2)
"""For stops that must not serve the delay."""


class TestWaitress(WsgiContract):
    """`serve`, with 16 threads."""

    launcher = WAITRESS


@contextlib.contextmanager
def connected(server: ServerProcess) -> Generator[Client]:
    """Return a client with a connection."""
    with contextlib.closing(server.client()) as client:
        yield client


# -- listeners and connections -------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("ident=",), ("asyncore_use_poll=true",)])
def test_a_stop_as_it_should_be(options: tuple[str, ...]) -> None:
    """The port closes when the delay is over, idle connections are served on and then closed."""
    env = settings(propagation_delay=0.5, linger=2)
    with (
        launch(WAITRESS, APP, *options, env=env) as server,
        connected(server) as idle,
        connected(server) as silent,
        connected(server) as slow,
    ):
        assert not idle.get("/").closes
        slow.ask("GET", "/slow")
        server.terminate()
        server.log.wait_event("draining")
        until(lambda: refused(server))
        reply = idle.get("/")
        assert (reply.status, reply.closes) == (200, True)
        assert idle.at_end()
        assert slow.reply().body == b"slow but whole\n"
        assert silent.at_end()
        assert server.wait() == 0
        assert "Traceback" not in server.log.text
        assert "still running" not in server.log.text


def test_several_addresses() -> None:
    """`listen` may name more than one; the stop is that of all."""
    listen = "listen=127.0.0.1:0 127.0.0.1:0"
    with launch(WAITRESS, APP, listen, env=settings(propagation_delay=0.3)) as server:
        second = server.log.wait("Serving on", count=2).text.rpartition(":")[2]
        with contextlib.closing(Client(int(second))) as other, connected(server) as client:
            server.terminate()
            server.log.wait_event("draining")
            assert (other.get("/").status, client.get("/").status) == (200, 200)
        assert server.wait() == 0


def test_the_accept_queue_is_emptied() -> None:
    """Requests that the kernel has queued when the delay is over are answered, every one."""
    env = settings(propagation_delay=0, linger=0.5)
    with launch(WAITRESS, APP, env=env) as server, contextlib.ExitStack() as exits:
        server.send_signal(signal.SIGSTOP)
        clients = [exits.enter_context(connected(server)) for _ in range(QUEUED)]
        for client in clients:
            client.ask("GET", "/")
        server.terminate()
        server.send_signal(signal.SIGCONT)
        assert [client.reply().status for client in clients] == [200] * QUEUED
        assert server.wait() == 0


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 4 * MANY,
    reason="this process and the server may not have so many descriptors",
)
def test_the_queue_may_be_longer_than_select_can_see() -> None:
    """waitress admits a hundred connections; in a stop those that wait get their answer, too."""
    env = settings(propagation_delay=0, linger=1)
    with launch(WAITRESS, APP, env=env) as server, contextlib.ExitStack() as exits:
        server.send_signal(signal.SIGSTOP)
        clients = [exits.enter_context(connected(server)) for _ in range(MANY)]
        clients[-1].ask("GET", "/")
        server.terminate()
        server.send_signal(signal.SIGCONT)
        assert clients[-1].reply().status == 200
        assert server.wait() == 0


def test_what_has_not_reached_the_app_is_waited_for() -> None:
    """A request that no thread is free for, and one whose body is still on its way."""
    env = settings(propagation_delay=0.2, linger=0.2)
    with (
        launch(WAITRESS, APP, "threads=1", env=env) as server,
        connected(server) as slow,
        connected(server) as queued,
        connected(server) as upload,
        connected(server) as half_a_head,
    ):
        slow.ask("GET", "/slow")
        server.log.wait_mark("slow begins")
        queued.ask("GET", "/")
        half_a_head.socket.sendall(b"GET / HTTP/1.1\r\nHost")
        upload.begin_upload("/", b"12345", length=10)
        server.terminate()
        server.log.wait_event("draining")
        assert slow.reply().body == b"slow but whole\n"
        assert queued.reply().body == b"hello\n"
        assert not server.log.events("closing")
        upload.upload(b"67890")
        assert upload.reply().status == 405  # by the app, which has no such route
        assert half_a_head.at_end()  # and is not waited for
        assert server.wait() == 0
        assert server.log.report()["clean"].lower() == "true"


def test_an_upload_that_never_ends_is_named() -> None:
    """The hold for it is in the report, and the exit status is 70."""
    env = settings(propagation_delay=0.1, drain_timeout=1, linger=0.2)
    with launch(WAITRESS, APP, env=env) as server, connected(server) as upload:
        upload.begin_upload("/", b"12345", length=10)
        server.get("/")  # by when the head above has been read
        server.terminate()
        assert server.wait() == 70
        assert "waitress has not received" in server.log.report()["holds"]


def test_a_slow_reader_gets_the_whole_answer() -> None:
    """The app is done with it long before it has been sent."""
    env = settings(propagation_delay=0.1, linger=0.1)
    with launch(WAITRESS, f"{APPS}:large", env=env) as server, connected(server) as client:
        client.ask("GET", "/")
        client.head()
        server.terminate()
        server.log.wait_event("draining")
        time.sleep(0.7)  # the linger is over, and all that is left is this
        assert len(client.reply().body) == 32 * 2**20
        assert server.wait() == 0


# -- the ladder, the end -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_skips_the_delay(number: signal.Signals) -> None:
    """A stream is told at once."""
    with launch(WAITRESS, APP, env=LONG_DELAY) as server, open_ticks(server) as client:
        server.send_signal(number)
        server.log.wait_event("lame duck")
        server.send_signal(number)
        assert told(client.reply())
        assert server.wait(LIMIT / 2) == 0


def test_a_third_signal_cuts() -> None:
    """What can't be told is left behind, and the exit status is 70."""
    with launch(WAITRESS, APP, env=LONG_DELAY) as server, connected(server) as client:
        client.ask("GET", "/stuck")
        server.log.wait_mark("stuck")
        for count in (1, 2, 3):
            server.terminate()
            server.log.wait_event("told to stop", count=count)
        assert server.wait(LIMIT / 2) == 70
        assert "in for_ever" in server.log.text


def test_a_signal_during_the_start_is_a_stop() -> None:
    """Sent in the very moment in which serving begins."""
    env = settings(propagation_delay=0.1)
    with launch(WAITRESS, f"{APPS}:hasty", env=env, serving=False) as server:
        assert server.wait() == 0
        assert server.log.events("draining", "drain report") == ["draining", "drain report"]


# -- what it is given ----------------------------------------------------------------------------


def test_an_app_that_nobody_has_wrapped_is() -> None:
    """And a line says so."""
    with launch(WAITRESS, f"{APPS}:bare", env=settings(propagation_delay=0.3)) as server:
        server.log.wait("given an app without GracefulMiddleware")
        assert server.get("/readyz").status == 200
        server.terminate()
        assert server.wait() == 0
        assert server.log.report()["clean"].lower() == "true"


def test_an_app_that_is_wrapped_inside_is_not_wrapped_again() -> None:
    """Its middleware brings hooks and settings from the start, before any request."""
    with launch(WAITRESS, f"{APPS}:within", env=settings(propagation_delay=0.1)) as server:
        server.terminate()
        assert server.wait() == 0
        assert "without GracefulMiddleware" not in server.log.text
        assert server.log.marks("hook") == ["hook lame duck", "hook drain", "hook cleanup"]


def test_wrong_settings_stop_the_start() -> None:
    """With the numbers, in a line, and no traceback."""
    with launch(WAITRESS, f"{APPS}:wrong", serving=False) as server:
        assert server.wait() == 1
        assert "propagation_delay 50 s" in server.log.text
        assert "Traceback" not in server.log.text


def test_a_waitress_that_lacks_a_name_serves_in_its_own_way() -> None:
    """A line says what that means."""
    with launch(WAITRESS, "tests.servers.waitress_lacking_app:app", serving=False) as server:
        server.log.wait("has no pull_trigger: it serves in its own way")
        server.await_port()
        assert server.get("/").status == 200
        server.terminate()
        assert server.wait() == -signal.SIGTERM


def test_waitress_serve_needs_only_the_middleware() -> None:
    """Its own command, which knows nothing of graceful and has a log of its own."""
    env = settings(propagation_delay=0.5, stream_window=0.2)
    with launch(WAITRESS_SERVE, APP, env=env, serving=False) as server:
        server.await_port()
        with open_ticks(server) as client:
            server.terminate()
            server.log.wait("graceful:lame duck")
            assert (server.get("/readyz").status, server.get("/").status) == (503, 200)
            assert told(client.reply())
        assert server.wait() == 0
        assert server.log.marks("hook") == ["hook lame duck", "hook drain", "hook cleanup"]
        assert "graceful:drain report" in server.log.text


def test_waitress_serve_alone_is_ended_by_sigterm() -> None:
    """An app that nobody has wrapped is served as ever: nothing hears the signal."""
    with launch(WAITRESS_SERVE, f"{APPS}:bare", serving=False) as server:
        server.await_port()
        assert server.get("/").status == 200
        server.terminate()
        assert server.wait() == -signal.SIGTERM
