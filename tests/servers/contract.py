"""What every server has to show: one stop watched by many clients, and what a cut looks like.

A server takes part with a `Launcher` and one subclass:

    class TestMyServer(ServerContract):
        launcher = MY_SERVER

Each fixture runs one process through one whole stop, with a client for each behaviour, and the
tests ask what the clients saw. The drain of the watched stop ends when the test says so: one
WebSocket in each worker has the policy `finish`, and its client lets go of it last.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from .contract_app import ENCODED
from .harness import (
    LIMIT,
    Client,
    Launcher,
    Log,
    Reply,
    ServerProcess,
    launch,
    reserved_port,
    settings,
    until,
)

__all__ = ["ServerContract"]

APP = "tests.servers.contract_app:app"

SHORT = settings(propagation_delay=0.2, linger=0.2, stream_window=0.2)
"""For a test that is about none of them."""

PHASES = ("lame duck", "draining", "closing", "drain report")

FAREWELLS: Mapping[str, list[str | bytes]] = {
    "none": [],
    "text": ['{"type": "reconnect", "after": '],
    "bytes": [b"reconnect"],
    "async": ["later"],
    "raises": [],
}
"""Path of a talk → how the messages begin that its client gets before the close."""

STREAMS = ("ticks", "silent", "half", "encoded", "library", "watch")
"""Streams of the app that are told to reconnect; each marks its end."""


@dataclass(frozen=True)
class Goodbye:
    """How a WebSocket ended for its client."""

    messages: list[str | bytes]
    code: int | None
    """None = without a close frame."""
    reason: str


class WatchedStop:
    """What the clients saw of one stop. A client that failed does not spoil the others' tests."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.log: Log
        self._seen: dict[str, object] = {}

    def see(self, name: str, look: Callable[[], object]) -> None:
        """Keep what `look` returns, or how it failed."""
        try:
            self._seen[name] = look()
        except Exception as error:
            self._seen[name] = error

    def _of(self, name: str) -> object:
        seen = self._seen.get(name, LookupError("it never got so far"))
        if isinstance(seen, Exception):
            raise AssertionError(f"the client {name!r} failed: {seen!r}\n{self.log.text}") from seen
        return seen

    @property
    def status(self) -> int:
        """The exit status."""
        seen = self._of("status")
        assert isinstance(seen, int)
        return seen

    def reply(self, name: str) -> Reply:
        """Return the answer that the client `name` got."""
        seen = self._of(name)
        assert isinstance(seen, Reply)
        return seen

    def replies(self, name: str) -> list[Reply]:
        """Return the answers that the client `name` got."""
        seen = self._of(name)
        assert isinstance(seen, list)
        return seen  # pyright: ignore[reportUnknownVariableType]

    def goodbye(self, name: str) -> Goodbye:
        """Return the end of the WebSocket `name`."""
        seen = self._of(name)
        assert isinstance(seen, Goodbye)
        return seen

    def yes(self, name: str) -> bool:
        """Return the answer to a question of the watcher's."""
        return self._of(name) is True

    @property
    def drain_begins(self) -> int:
        """Where in the log a worker begins to drain.

        A parent that speaks for its workers comes to the end of the delay beside them, not before.
        """
        own = self.launcher.voices == self.launcher.workers
        return self.log.index("draining" if own else "hook drain")

    def total(self, field: str) -> float:
        """Return the sum of a figure over the drain reports of all workers."""
        reports = [line.fields for line in self.log.lines if line.event == "drain report"]
        assert len(reports) == self.launcher.voices
        return sum(float(report[field]) for report in reports)


def open_websocket(server: ServerProcess, path: str) -> ClientConnection:
    """Return an open WebSocket."""
    return connect(
        server.url(path, "ws"),
        open_timeout=LIMIT,
        ping_interval=None,
        compression=None,
        proxy=None,
    )


def goodbye(websocket: ClientConnection) -> Goodbye:
    """Wait for the end of a WebSocket."""
    messages: list[str | bytes] = []
    try:
        while True:
            messages.append(websocket.recv(LIMIT))
    except ConnectionClosed as closed:
        frame = closed.rcvd
        return Goodbye(messages, frame.code if frame else None, frame.reason if frame else "")


def echoed(websocket: ClientConnection, text: str) -> bool:
    """Send `text`, and whether it comes back."""
    websocket.send(text)
    return websocket.recv(LIMIT) == text


def refused(server: ServerProcess) -> bool:
    """Whether a new connection is refused."""
    try:
        server.client().close()
    except OSError as error:  # a reset: it came in the very moment of the close
        return isinstance(error, ConnectionRefusedError)
    return False


def one_for_each_worker(server: ServerProcess, exits: contextlib.ExitStack) -> list[Client]:
    """Return a connection to each worker; where each has a listener, the kernel draws which."""
    found: dict[bytes, Client] = {}
    while len(found) < server.launcher.workers:
        client = exits.enter_context(contextlib.closing(server.client()))
        found.setdefault(client.get("/pid").body, client)
    return list(found.values())


def said(reply: Reply) -> Mapping[str, object]:
    """Return what `/state` answered."""
    answer: Mapping[str, object] = json.loads(reply.body)
    return answer


class _Watch:
    """Runs one process through a stop with every kind of client connected."""

    def __init__(self, server: ServerProcess, stop: WatchedStop) -> None:
        self.server = server
        self.stop = stop
        self.exits = contextlib.ExitStack()
        self.clients: dict[str, Client] = {}
        self.talks: dict[str, ClientConnection] = {}
        self.held: dict[str, ClientConnection] = {}

    def client(self, name: str) -> Client:
        """Return the client `name`, which is connected at its first use."""
        if name not in self.clients:
            self.clients[name] = self.exits.enter_context(contextlib.closing(self.server.client()))
        return self.clients[name]

    def websocket(self, path: str) -> ClientConnection:
        return self.exits.enter_context(open_websocket(self.server, path))

    def run(self) -> None:
        with self.exits:
            self.while_serving()
            self.server.terminate()
            voices = self.stop.launcher.voices
            self.server.log.wait_event("lame duck", count=voices)
            self.in_lame_duck()
            self.server.log.wait_event("draining", count=voices)
            self.server.log.wait_mark("hook drain", count=self.stop.launcher.workers)
            self.in_the_drain()
            for websocket in self.held.values():
                self.stop.see("released", partial(websocket.send, "release"))
            self.stop.see("status", self.server.wait)

    def while_serving(self) -> None:
        see = self.stop.see
        see("ready while serving", lambda: self.server.get("/readyz"))
        see("alive while serving", lambda: self.server.get("/livez"))
        see("state while serving", lambda: self.server.get("/state"))
        self.hold_every_worker()
        see("idle while serving", lambda: self.client("idle").get("/"))
        self.client("connected")  # and has not asked for anything yet
        for late in ("late state", "late stream", "late websocket", "late probes"):
            self.client(late).get("/")
        for path in ("slow", "trickle", "tokens", *STREAMS, "poll"):
            self.client(path).ask("GET", f"/{path}")
        for path in ("tokens", "ticks", "library"):
            self.client(path).read_until(b"\n\n" if path != "library" else b"\r\n\r\n")
        self.client("trickle").read_until(b"first\n")
        if self.stop.launcher.sends_head_alone:
            for path in ("silent", "encoded"):
                self.client(path).head()
        self.client("half").read_until(b"data: one\n")
        self.client("watch").read_until(b'{"n":')
        self.client("upload").begin_upload("/upload", b"12345", length=10)
        for name in FAREWELLS:
            self.talks[name] = self.websocket(f"/talk/{name}")
            assert echoed(self.talks[name], "hello")
        self.talks["push"] = self.websocket("/push")

    def hold_every_worker(self) -> None:
        """Open WebSockets that are waited for until each worker has at least one."""
        for _ in range(200):
            websocket = self.websocket("/held")
            pid = websocket.recv(LIMIT)
            assert isinstance(pid, str)
            self.held[f"{pid} {len(self.held)}"] = websocket
            if len({name.split()[0] for name in self.held}) == self.stop.launcher.workers:
                return
        raise AssertionError("not every worker accepts connections")

    def in_lame_duck(self) -> None:
        see, server = self.stop.see, self.server
        see("ready in lame duck", lambda: [server.get("/readyz") for _ in range(6)])
        see("alive in lame duck", lambda: server.get("/livez"))
        see("home in lame duck", lambda: [server.get("/") for _ in range(6)])
        see("state in lame duck", lambda: server.get("/state"))
        see("stream in lame duck", lambda: bool(self.client("ticks").read_until(b"\n\n")))
        with contextlib.suppress(WebSocketException):  # the tests of 'new' will say so
            self.talks["new"] = self.websocket("/talk/new")
        for name, websocket in self.talks.items():
            if name != "push":
                see(f"{name} in lame duck", partial(echoed, websocket, "still here"))

    def in_the_drain(self) -> None:
        see, client = self.stop.see, self.client
        see("ready in the drain", lambda: client("late probes").get("/readyz"))
        see("state in the drain", lambda: client("late state").get("/state"))
        client("late websocket").upgrade("/talk/late")
        see("late websocket", client("late websocket").reply)
        see("late stream", lambda: client("late stream").get("/ticks"))
        see("idle in the drain", lambda: client("idle").get("/"))
        see("idle is closed", client("idle").at_end)
        see("connected in the drain", lambda: client("connected").get("/"))
        client("upload").upload(b"67890")
        for name in ("upload", "slow", "trickle", "tokens", *STREAMS, "poll"):
            see(name, client(name).reply)
        if self.stop.launcher.refuses_while_draining:
            see("refused in the drain", lambda: refused(self.server))
        else:
            see("new in the drain", lambda: self.server.get("/"))
        for name, websocket in self.talks.items():
            see(name, partial(goodbye, websocket))


class ServerContract:
    """The behaviours. Subclass it with a `launcher`."""

    launcher: ClassVar[Launcher]

    @pytest.fixture(scope="class")
    @classmethod
    def stop(cls) -> WatchedStop:
        """One clean stop with every kind of client, watched to its end."""
        seen = WatchedStop(cls.launcher)
        env = settings(propagation_delay=1.5, stream_window=0.5, grace_period=40)
        with launch(cls.launcher, APP, env=env) as server:
            seen.log = server.log
            server.await_workers()
            _Watch(server, seen).run()
        return seen

    # -- phases, probes --------------------------------------------------------------------------

    def test_readiness_flips_while_new_connections_are_served(self, stop: WatchedStop) -> None:
        """After SIGTERM every probe is 503 and every new connection is still answered 200."""
        assert stop.reply("ready while serving").status == 200
        assert {reply.status for reply in stop.replies("ready in lame duck")} == {503}
        assert {reply.status for reply in stop.replies("home in lame duck")} == {200}

    def test_readiness_stays_503_in_the_drain(self, stop: WatchedStop) -> None:
        """A prober that keeps its connection is told 503 to the end."""
        assert stop.reply("ready in the drain").status == 503

    def test_liveness_is_200_in_lame_duck(self, stop: WatchedStop) -> None:
        """A liveness probe that fails would have the drain killed."""
        assert stop.reply("alive while serving").status == 200
        assert stop.reply("alive in lame duck").status == 200

    def test_the_phases_come_in_order(self, stop: WatchedStop) -> None:
        """Each worker says lame duck, draining, closing and its report, in this order."""
        events = stop.log.events(*PHASES)
        assert Counter(events) == dict.fromkeys(PHASES, self.launcher.voices)
        assert list(dict.fromkeys(events)) == list(PHASES)

    def test_the_rung_is_logged(self, stop: WatchedStop) -> None:
        """Each worker says which signal it got and what that means."""
        told = [line.fields for line in stop.log.lines if line.event == "told to stop"]
        assert [(each["cause"], each["rung"]) for each in told] == (
            [("SIGTERM", "1")] * self.launcher.voices
        )

    def test_handlers_can_ask_about_the_stop(self, stop: WatchedStop) -> None:
        """`draining()` turns true with the drain, `remaining()` finite with the signal."""
        moments = ("while serving", "in lame duck", "in the drain")
        asked = [said(stop.reply(f"state {moment}")) for moment in moments]
        assert [answer["draining"] for answer in asked] == [False, False, True]
        assert [answer["bounded"] for answer in asked] == [False, True, True]
        assert all(answer["current"] for answer in asked)

    # -- ordinary requests -----------------------------------------------------------------------

    def test_connection_close_is_said_in_the_drain_only(self, stop: WatchedStop) -> None:
        """A kept-alive connection is kept while serving; in the drain the server gives it up."""
        assert not stop.reply("idle while serving").closes
        assert stop.reply("idle in the drain").closes
        assert stop.yes("idle is closed")

    def test_a_late_request_on_an_open_connection_is_served(self, stop: WatchedStop) -> None:
        """A request on a connection from before the drain is answered, idle or still unused."""
        for name in ("idle in the drain", "connected in the drain"):
            assert (stop.reply(name).status, stop.reply(name).body) == (200, b"hello\n")
        assert stop.reply("connected in the drain").closes

    def test_new_connections_in_the_drain(self, stop: WatchedStop) -> None:
        """Refused where the listener is this process's own, else served: never left hanging."""
        if self.launcher.refuses_while_draining:
            assert stop.yes("refused in the drain")
        else:
            assert stop.reply("new in the drain").status == 200
            assert stop.reply("new in the drain").closes

    def test_requests_in_flight_finish_whole(self, stop: WatchedStop) -> None:
        """One that has not answered yet, one half-way through its answer, one still uploading."""
        assert stop.reply("slow").body == b"slow but whole\n"
        assert stop.reply("trickle").body == b"first\nlast\n"
        assert stop.reply("trickle").complete
        assert json.loads(stop.reply("upload").body) == {"bytes": 10}

    def test_an_answer_that_starts_in_the_drain_says_close(self, stop: WatchedStop) -> None:
        """Also when its request came before the signal."""
        assert stop.reply("slow").closes
        assert stop.reply("upload").closes

    def test_background_work_of_a_request_is_waited_for(self, stop: WatchedStop) -> None:
        """The exchange is in flight until the app's call returns."""
        assert stop.log.index("background task done") < stop.log.index("closing")

    def test_a_hold_is_waited_for(self) -> None:
        """`hold()` alone keeps the process for work outside of requests."""
        with launch(self.launcher, APP, env=settings(propagation_delay=0.2, linger=0)) as server:
            assert server.get("/background/export").status == 200
            server.terminate()
            assert server.wait() == 0
            assert server.log.marks("export") == ["export done"]
            assert server.log.report()["clean"].lower() == "true"

    # -- server-sent events ----------------------------------------------------------------------

    def test_streams_are_open_through_the_whole_delay(self, stop: WatchedStop) -> None:
        """Nothing ends, and events go on, until the drain begins: they would come back here."""
        assert stop.yes("stream in lame duck")
        assert all(stop.log.index(f"{name} ended") > stop.drain_begins for name in STREAMS)

    @pytest.mark.parametrize("name", ["ticks", "silent", "half", "library"])
    def test_an_event_stream_ends_with_a_farewell(self, stop: WatchedStop, name: str) -> None:
        """Also a silent one and sse-starlette's: `retry:`, the event, and a clean end."""
        reply = stop.reply(name)
        assert reply.complete
        before, _, last = reply.body.rpartition(b"retry: ")
        delay = int(last.split(b"\n")[0])
        assert last == b'%d\nevent: reconnect\ndata: {"retry_after_ms":%d}\n\n' % (delay, delay)
        assert not before or before.endswith((b"\n\n", b"\r\n\r\n"))

    def test_a_farewell_waits_for_the_end_of_an_event(self, stop: WatchedStop) -> None:
        """A stream in the middle of an event finishes that event first."""
        assert stop.reply("half").body.startswith(b"data: one\ndata: two\n\nretry: ")

    @pytest.mark.parametrize("name", STREAMS)
    def test_the_generator_of_a_stream_is_ended(self, stop: WatchedStop, name: str) -> None:
        """Its `finally` runs before the process closes, also where it was left at a `yield`."""
        marks = [line.mark for line in stop.log.lines[: stop.log.index("closing")]]
        expected = 2 if name == "ticks" and self.launcher.asyncio else 1
        assert marks.count(f"{name} ended") >= expected

    def test_nothing_is_written_into_an_encoded_stream(self, stop: WatchedStop) -> None:
        """Its client gets the bytes of the app and then the end."""
        assert stop.reply("encoded").body == ENCODED

    def test_a_new_event_stream_in_the_drain_is_sent_away(self, stop: WatchedStop) -> None:
        """200, the app's own headers, only the farewell: EventSource gives up on anything else."""
        reply = stop.reply("late stream")
        assert (reply.status, reply.headers["x-feed"], reply.complete) == (200, "ticks", True)
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.body.startswith(b"retry: ")
        assert b"event: reconnect\n" in reply.body
        assert b"id: " not in reply.body

    def test_a_stream_that_must_finish_is_waited_for(self, stop: WatchedStop) -> None:
        """The policy `finish`: every token arrives, and no farewell."""
        expected = b"".join(b"data: %d\n\n" % n for n in range(5))
        assert (stop.reply("tokens").body, stop.reply("tokens").complete) == (expected, True)
        assert stop.log.index("tokens done") < stop.log.index("closing")

    # -- declared streams ------------------------------------------------------------------------

    def test_a_declared_stream_ends_after_a_whole_record(self, stop: WatchedStop) -> None:
        """A half-written line is finished, then come the farewell and a clean end."""
        reply = stop.reply("watch")
        assert reply.body == b'{"n": 1}\n{"n": 2}\n{"bye": true}\n'
        assert reply.complete

    def test_a_declared_long_poll_answers_by_itself(self, stop: WatchedStop) -> None:
        """Without records the app is told that its client leaves, and ends the response."""
        assert stop.reply("poll").status == 204

    # -- WebSockets ------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", [*FAREWELLS, "new"])
    def test_websockets_are_open_through_the_whole_delay(
        self, stop: WatchedStop, name: str
    ) -> None:
        """They answer after the signal, and so does one that was opened only then."""
        assert stop.yes(f"{name} in lame duck")
        assert stop.log.index(f"{name} saw websocket.disconnect") > stop.drain_begins

    @pytest.mark.parametrize("name", [*FAREWELLS, "new", "push"])
    def test_a_websocket_is_closed_with_a_retry_delay(self, stop: WatchedStop, name: str) -> None:
        """1012 'service restart', and how long this client should wait."""
        end = stop.goodbye(name)
        assert end.code == 1012
        assert json.loads(end.reason)["retry_after_ms"] > 0

    @pytest.mark.parametrize("name", FAREWELLS)
    def test_a_farewell_message_comes_before_the_close(self, stop: WatchedStop, name: str) -> None:
        """Text, bytes, a coroutine's result; none when the callable gives none or raises."""
        messages, expected = stop.goodbye(name).messages, FAREWELLS[name]
        assert len(messages) == len(expected)
        for message, beginning in zip(messages, expected, strict=True):
            assert message[: len(beginning)] == beginning

    def test_each_client_of_a_websocket_gets_its_own_delay(self, stop: WatchedStop) -> None:
        """The farewell callable sees the delay that the close frame will name."""
        end = stop.goodbye("text")
        assert json.loads(str(end.messages[0]))["after"] == json.loads(end.reason)["retry_after_ms"]

    def test_a_farewell_that_raises_is_logged_once(self, stop: WatchedStop) -> None:
        """And the drain goes on."""
        faults = [line for line in stop.log.lines if line.event == "failed"]
        assert ["ValueError: no words" in line.text for line in faults] == [True]

    @pytest.mark.parametrize("name", [*FAREWELLS, "new"])
    def test_the_app_of_a_websocket_learns_of_the_close(self, stop: WatchedStop, name: str) -> None:
        """It receives the disconnect with the code; what it sends later raises an OSError."""
        assert stop.log.marks(f"{name} saw") == [f"{name} saw websocket.disconnect 1012"]
        assert stop.log.marks(f"{name} could not send") == [f"{name} could not send: StreamClosed"]

    def test_a_new_websocket_in_the_drain_is_denied(self, stop: WatchedStop) -> None:
        """503 with `Retry-After` where the server can, before the app sees it."""
        reply = stop.reply("late websocket")
        assert reply.status == self.launcher.denies_with
        assert reply.status != 503 or int(reply.headers["retry-after"]) >= 1
        assert not stop.log.marks("late saw")

    # -- hooks, the end --------------------------------------------------------------------------

    def test_hooks_run_in_order(self, stop: WatchedStop) -> None:
        """Lame duck, drain, clean-up (as listed), and only then the app's own shutdown."""
        order = [
            "hook lame duck",
            "hook drain",
            "let go",
            "hook first cleanup",
            "hook second cleanup",
            *["shutdown"] * self.launcher.lifespan,
        ]
        marks = [mark for mark in stop.log.marks() if mark in order]
        assert list(dict.fromkeys(marks)) == order
        assert stop.log.marks("shutdown") == ["shutdown"] * self.launcher.shutdowns

    def test_a_clean_stop_exits_with_0(self, stop: WatchedStop) -> None:
        """Everything finished."""
        assert stop.status == 0

    def test_the_drain_report_has_the_numbers(self, stop: WatchedStop) -> None:
        """Who was told, who was waited for, and that nothing was cut."""
        sent_away = len(STREAMS) + len(["poll", "late stream", "push", "new"]) + len(FAREWELLS)
        assert stop.total("told") == sent_away
        assert stop.total("farewells_failed") == 1
        assert stop.total("cut") == 0
        assert stop.total("served") >= len(["slow", "trickle", "upload", "idle", "connected"])
        assert stop.log.report()["clean"].lower() == "true"
        assert stop.log.report()["propagation_delay"] == "1.5"

    def test_no_traceback_is_written(self, stop: WatchedStop) -> None:
        """A clean stop has nothing to complain about."""
        bad = re.compile("Traceback|Exception|ERROR")
        noise = re.compile(self.launcher.noise or "$.")
        lines = [line.text for line in stop.log.lines if not line.mark]
        assert [text for text in lines if bad.search(text) and not noise.search(text)] == []

    # -- linger ----------------------------------------------------------------------------------

    @pytest.fixture(scope="class")
    @classmethod
    def linger(cls) -> WatchedStop:
        """A stop with two idle connections, whose clients ask when accepting has ended."""
        seen = WatchedStop(cls.launcher)
        with (
            launch(cls.launcher, APP, env=settings(propagation_delay=0.5, linger=3)) as server,
            contextlib.closing(server.client()) as late,
            contextlib.closing(server.client()) as later,
        ):
            seen.log = server.log
            late.get("/")
            later.get("/")
            server.terminate()
            server.log.wait_event("draining", count=cls.launcher.voices)
            if cls.launcher.refuses_while_draining:
                until(lambda: refused(server))
            seen.see("late", lambda: late.get("/"))
            time.sleep(0.7)  # the linger is a stretch of time: this is somewhere in it
            seen.see("later", lambda: later.get("/"))
            seen.see("status", server.wait)
        return seen

    def test_the_linger_answers_what_was_on_the_wire(self, linger: WatchedStop) -> None:
        """With nothing in flight and the listener closed, an idle connection is still answered."""
        for name in ("late", "later"):
            assert (linger.reply(name).status, linger.reply(name).closes) == (200, True)
        assert linger.status == 0

    def test_the_report_warns_of_a_delay_that_is_too_short(self, linger: WatchedStop) -> None:
        """A request so late means that the balancer had not moved."""
        assert "the balancer had not moved, raise it" in linger.log.text

    # -- nothing to do ---------------------------------------------------------------------------

    def test_an_idle_process_reports_no_warning(self) -> None:
        """Nobody asked in the last fifth of the delay, nothing was in flight: exit with 0."""
        with launch(self.launcher, APP, env=settings(propagation_delay=0.5, linger=0.1)) as server:
            server.get("/")
            server.terminate()
            assert server.wait() == 0
            events = Counter(server.log.events(*PHASES))
            assert events == dict.fromkeys(PHASES, self.launcher.voices)
            assert "warnings" not in server.log.report()

    def test_a_signal_that_another_thread_takes(self) -> None:
        """The main thread sleeps on in its system call, and has to be woken."""
        if not self.launcher.wakes:
            pytest.skip("the process that takes the signal is not ours")
        with launch(self.launcher, APP, env=SHORT) as server:
            server.signal_another_thread(signal.SIGTERM)
            assert server.wait() == 0
            events = Counter(server.log.events(*PHASES))
            assert events == dict.fromkeys(PHASES, self.launcher.voices)

    # -- the private probe port ------------------------------------------------------------------

    def test_readiness_flips_under_a_blocked_loop(self) -> None:
        """On the private port, which asks no event loop; liveness stays 200 there, too."""
        with (
            reserved_port() as port,
            launch(self.launcher, APP, env=SHORT | settings(probe_port=port)) as server,
            contextlib.ExitStack() as exits,
        ):

            def probe(path: str) -> int:
                with contextlib.closing(Client(port)) as client:
                    return client.get(path).status

            blocked = one_for_each_worker(server, exits)
            for client in blocked:
                client.ask("GET", "/block")
            server.log.wait_mark("blocking", count=self.launcher.workers)
            assert (probe("/readyz"), probe("/livez")) == (200, 200)
            server.terminate()
            server.log.wait_event("lame duck", count=self.launcher.voices)
            until(lambda: probe("/readyz") == 503)  # the parent may speak before its workers hear
            assert probe("/livez") == 200
            assert not server.log.marks("blocked no more")
            assert [client.reply().body for client in blocked] == [b"at last\n"] * len(blocked)
            assert server.wait() == 0

    # -- a farewell that hangs -------------------------------------------------------------------

    def test_a_farewell_that_hangs_costs_the_message_only(self) -> None:
        """The close comes with its code and delay, and the log names the fault."""
        env = SHORT | {"FAREWELL": "hangs"}
        with (
            launch(self.launcher, APP, env=env) as server,
            open_websocket(server, "/talk/hung") as websocket,
        ):
            websocket.send("hello")
            websocket.recv(LIMIT)
            server.terminate()
            end = goodbye(websocket)
            assert (end.messages, end.code) == ([], 1012)
            assert json.loads(end.reason)["retry_after_ms"] > 0
            assert server.wait() == 0
            assert "took longer than" in server.log.text

    def test_a_fixed_farewell_is_sent_to_everybody(self) -> None:
        """`farewell=` may be plain text."""
        env = SHORT | {"FAREWELL": "fixed"}
        with (
            launch(self.launcher, APP, env=env) as server,
            open_websocket(server, "/talk/one") as one,
            open_websocket(server, "/talk/two") as two,
        ):
            server.terminate()
            assert [goodbye(one).messages, goodbye(two).messages] == [["so long"], ["so long"]]
            assert server.wait() == 0

    # -- what does not finish --------------------------------------------------------------------

    @pytest.fixture(scope="class")
    @classmethod
    def cut(cls) -> Generator[WatchedStop]:
        """A stop whose drain deadline passes with work in flight."""
        seen = WatchedStop(cls.launcher)
        env = settings(propagation_delay=0.3, drain_timeout=1.5, linger=0.5, stream_window=0.5)
        with contextlib.ExitStack() as exits:
            server = exits.enter_context(launch(cls.launcher, APP, env=env))
            seen.log = server.log
            server.await_workers()
            clients = {
                path: exits.enter_context(contextlib.closing(server.client()))
                for path in ("stuck", "stuck-halfway", "background/stuck")
            }
            for path, client in clients.items():
                client.ask("GET", f"/{path}?token=secret")
            clients["stuck-halfway"].read_until(b"half\n")
            clients["background/stuck"].head()
            held = exits.enter_context(open_websocket(server, "/held"))
            held.recv(LIMIT)
            server.terminate()
            seen.see("stuck", clients["stuck"].reply)
            seen.see("stuck-halfway", clients["stuck-halfway"].reply)
            seen.see("held", lambda: goodbye(held))
            seen.see("status", server.wait)
            yield seen

    def test_a_request_without_an_answer_is_cut_with_503(self, cut: WatchedStop) -> None:
        """Its client is told to come again, and that the connection is over."""
        reply = cut.reply("stuck")
        assert (reply.status, reply.complete, reply.closes) == (503, True, True)
        assert int(reply.headers["retry-after"]) >= 1

    def test_a_half_sent_answer_does_not_look_whole(self, cut: WatchedStop) -> None:
        """The client of a cut response must be able to notice."""
        assert (cut.reply("stuck-halfway").body, cut.reply("stuck-halfway").complete) == (
            b"half\n",
            False,
        )

    def test_a_stream_that_did_not_finish_is_closed_at_the_deadline(self, cut: WatchedStop) -> None:
        """Also a WebSocket with the policy `finish` gets a close frame."""
        assert cut.goodbye("held").code == 1012

    def test_a_cut_is_named_in_the_log(self, cut: WatchedStop) -> None:
        """Method, path without the query, and the function where it hung."""
        named = {line.fields["what"]: line for line in cut.log.lines if line.event == "cut"}
        assert set(named) == {"GET /stuck", "GET /stuck-halfway", "WEBSOCKET /held", "stuck"}
        assert "in for_ever" in cut.log.text or not self.launcher.asyncio
        assert "secret" not in cut.log.text.replace("/background/stuck?token=secret", "")

    def test_a_cut_is_in_the_report(self, cut: WatchedStop) -> None:
        """Requests, streams and holds."""
        reports = [line.fields for line in cut.log.lines if line.event == "drain report"]
        assert len(reports) == self.launcher.voices
        if self.launcher.reports_holds:
            assert sum(int(report["cut"]) for report in reports) == 3
            assert [report["holds"] for report in reports if "holds" in report] == ["stuck"]
        else:
            assert [report["cut"] for report in reports] == ["4"]
        assert "false" in [report["clean"].lower() for report in reports]

    def test_clean_up_runs_after_a_cut(self, cut: WatchedStop) -> None:
        """Hooks and the app's own shutdown have their time after the drain deadline."""
        assert cut.log.marks("hook second cleanup")
        assert cut.log.marks("shutdown") == ["shutdown"] * self.launcher.shutdowns

    def test_a_cut_exits_with_70(self, cut: WatchedStop) -> None:
        """Where the exit status is ours, it tells the truth."""
        assert cut.status == (70 if self.launcher.own_exit_status else 0)
