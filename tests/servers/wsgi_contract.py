"""What every WSGI server has to show: the contract of `contract.py`, as far as WSGI goes.

A server takes part with a `Launcher` and one subclass, and with `concurrent = False` where a worker
serves one request at a time, which then is all that it is asked for.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Generator, Mapping
from typing import ClassVar

import pytest

from .harness import ASKED, LIMIT, Client, Launcher, Reply, ServerProcess, launch, settings, until

__all__ = ["WsgiContract"]

APP = "tests.servers.wsgi_contract_app:app"

PHASES = ("lame duck", "draining", "closing", "drain report")

QUICK = settings(propagation_delay=0.5, linger=0.2)


class WsgiContract:
    """Subclass it with a launcher."""

    launcher: ClassVar[Launcher]
    concurrent: ClassVar = True

    def test_what_is_in_flight_finishes(self) -> None:
        """A request that needs until the drain is answered whole; then the instance leaves."""
        with launch(self.launcher, APP, env=QUICK) as server:
            with contextlib.closing(server.client()) as client:
                client.ask("GET", "/slow")
                server.log.wait_mark("slow begins")
                server.terminate()
                reply = client.reply()
            assert (reply.status, reply.body) == (200, b"slow but whole\n")
            assert server.wait() == 0
            events = server.log.events(*PHASES)
            assert Counter(events) == dict.fromkeys(PHASES, self.launcher.voices)
            assert list(dict.fromkeys(events)) == list(PHASES)
            assert (clean(server), total(server, "cut")) == (True, 0)
            assert total(server, "in_flight_at_signal") == 1

    def test_every_worker_is_unready_and_serves(self) -> None:
        """In the lame duck each answer of readiness is 503, each other one as before."""
        with launch(self.launcher, APP, env=ASKED) as server:
            assert server.get("/readyz").status == 200
            server.terminate()
            server.log.wait_event("lame duck")
            server.await_unready()
            assert {server.get("/readyz").status for _ in range(8)} == {503}
            assert {server.get("/livez").status for _ in range(4)} == {200}
            assert {server.get("/").status for _ in range(8)} == {200}
            assert server.wait() == 0

    def test_a_signal_that_another_thread_takes(self) -> None:
        """The main thread sleeps on in its system call, and has to be woken."""
        if not self.launcher.wakes:
            pytest.skip("the process that takes the signal is not ours")
        with launch(self.launcher, APP, env=QUICK) as server:
            server.signal_another_thread(signal.SIGTERM)
            assert server.wait() == 0
            events = Counter(server.log.events(*PHASES))
            assert events == dict.fromkeys(PHASES, self.launcher.voices)

    def test_hooks_run_in_each_worker(self) -> None:
        """In order, the clean-up last."""
        with launch(self.launcher, APP, env=QUICK) as server:
            for _ in range(40):  # a hook is its app's, which joins with its first request
                server.get("/")
            server.terminate()
            assert server.wait() == 0
            hooks = list(dict.fromkeys(server.log.marks("hook")))
            assert hooks == ["hook lame duck", "hook drain", "hook cleanup"]

    def test_what_is_stuck_is_named_and_cut(self) -> None:
        """With the function where it hangs, and the instance leaves all the same."""
        env = settings(propagation_delay=0.3, drain_timeout=1, cleanup_timeout=1, grace_period=6)
        with (
            launch(self.launcher, APP, env=env) as server,
            contextlib.closing(server.client()) as client,
        ):
            client.ask("GET", "/stuck?token=secret")
            server.log.wait_mark("stuck")
            server.terminate()
            server.wait()
            named = [line.fields["what"] for line in server.log.lines if line.event == "cut"]
            assert "GET /stuck" in named
            assert "in for_ever" in server.log.text
            assert "secret" not in server.log.text
            assert not clean(server)

    # -- where a worker serves several at a time -------------------------------------------------

    @pytest.fixture
    def several(self) -> None:
        """Skip what a worker of one request can't show."""
        if not self.concurrent:
            pytest.skip("a worker serves one request at a time")

    @pytest.mark.usefixtures("several")
    def test_streams_are_told_after_the_delay(self) -> None:
        """A last event with the client's own delay, a clean end, and the generator is closed."""
        env = settings(propagation_delay=0.8, stream_window=0.5)
        with launch(self.launcher, APP, env=env) as server, open_ticks(server) as client:
            terminated = time.monotonic()
            server.terminate()
            server.log.wait_event("lame duck")
            client.read_until(b"\n\n")
            reply = client.reply()
            assert time.monotonic() - terminated >= 0.8
            assert told(reply)
            assert server.wait() == 0
            assert "ticks ended" in server.log.marks()
            assert (total(server, "told"), total(server, "cut")) == (1, 0)

    @pytest.mark.usefixtures("several")
    def test_kept_alive_connections_are_answered_and_closed(self) -> None:
        """Also a new stream on one, which is sent away with the headers that the app gave it."""
        env = settings(propagation_delay=0.5, linger=2, stream_window=0.2)
        with contextlib.ExitStack() as exits:
            server = exits.enter_context(launch(self.launcher, APP, env=env))
            idle, late = (
                exits.enter_context(contextlib.closing(server.client())) for _ in range(2)
            )
            asked = {int(client.get("/pid").body) for client in (idle, late)}
            server.terminate()
            until(lambda: asked <= in_drain(server))
            reply = idle.get("/")
            assert (reply.status, reply.closes) == (200, True)
            late.ask("GET", "/ticks")
            reply = late.reply()
            assert reply.headers["content-type"].startswith("text/event-stream")
            assert told(reply)
            assert server.wait() == 0

    @pytest.mark.usefixtures("several")
    def test_a_body_in_parts_is_finished(self) -> None:
        """It is in flight until its last part, and no stream."""
        with (
            launch(self.launcher, APP, env=QUICK) as server,
            contextlib.closing(server.client()) as client,
        ):
            client.ask("GET", "/trickle")
            client.read_until(b"first\n")
            server.terminate()
            assert client.reply().body == b"first\nlast\n"
            assert server.wait() == 0


def in_drain(server: ServerProcess) -> set[int]:
    """Return the processes whose own drain has begun, which their parent tells before they do."""
    return {line.pid for line in server.log.lines if line.mark == "hook drain"}


@contextlib.contextmanager
def open_ticks(server: ServerProcess) -> Generator[Client]:
    """Return a client with an open stream of events."""
    with contextlib.closing(server.client(LIMIT)) as client:
        client.ask("GET", "/ticks")
        client.read_until(b"\n\n")
        yield client


def reports(server: ServerProcess) -> list[Mapping[str, str]]:
    """Return the fields of every drain report: one, or one of each worker."""
    found = [line.fields for line in server.log.lines if line.event == "drain report"]
    assert len(found) >= server.launcher.voices  # a worker may speak for itself, too
    return found


def total(server: ServerProcess, field: str) -> int:
    """Return the sum of a figure over all reports."""
    return sum(int(report[field]) for report in reports(server))


def clean(server: ServerProcess) -> bool:
    """Whether nothing was cut anywhere."""
    return all(report["clean"].lower() == "true" for report in reports(server))


def told(reply: Reply) -> bool:
    """Whether a stream ended with a farewell, whole."""
    before, _, last = reply.body.rpartition(b"retry: ")
    delay = int(last.split(b"\n")[0])
    data = last.split(b"data: ")[1]
    return (
        reply.complete
        and before.replace(b"data: tick\n\n", b"") == b""
        and b"event: reconnect\n" in last
        and json.loads(data) == {"retry_after_ms": delay}
    )
