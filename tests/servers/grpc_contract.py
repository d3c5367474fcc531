"""What graceful promises on gRPC, on each kind of server; and a client for it.

A test class for one kind is a subclass of `GrpcContract` that says how it is started. Tests wait
for events: a line of the log, a message, the end of an RPC.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .harness import LIMIT, Launcher, ServerProcess, launch, settings

SERVICE = "/test.Contract/"
PUSHBACK = "grpc-retry-pushback-ms"

LONG_DELAY = settings(propagation_delay=25, grace_period=60, linger=0.2, stream_window=0.2)
"""For stops that must not serve the delay."""

QUICK = settings(propagation_delay=0.2, linger=0.1, stream_window=0.2)


def launcher(kind: str) -> Launcher:
    """Return how the server of the contract is started."""
    return Launcher(
        name=f"grpc {kind}",
        command=("tests.servers.grpc_contract_app", kind),
        announces=r"grpc port (\d+)",
    )


def pushback(error: Any) -> int:
    """Return the delay that an RPC which was told to go elsewhere has been given."""
    assert error.code() is grpc.StatusCode.UNAVAILABLE, error
    return int(dict(error.trailing_metadata())[PUSHBACK])


@dataclass
class End:
    """How a stream has ended for its client."""

    messages: list[bytes] = field(default_factory=list[bytes])
    error: Any = None
    """None = with OK."""
    at: float = 0.0


class Stub:
    """A client with one connection."""

    def __init__(self, port: int, service: str = SERVICE) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel: Any = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self._service = service
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._threads: list[threading.Thread] = []
        self._begun: list[Any] = []  # an RPC that nobody holds is cancelled

    def __enter__(self) -> Stub:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()
        for thread in self._threads:
            thread.join(LIMIT)

    def call(self, method: str, request: bytes = b"") -> bytes:
        """Return the answer of a unary RPC."""
        reply: bytes = self._channel.unary_unary(self._service + method)(request, timeout=LIMIT)
        return reply

    def begin(self, method: str, request: bytes = b"") -> Any:
        """Begin a unary RPC."""
        begun = self._channel.unary_unary(self._service + method).future(request, timeout=LIMIT)
        self._begun.append(begun)
        return begun

    def stream(self, method: str, request: bytes = b"") -> Any:
        """Begin a stream of answers."""
        return self._channel.unary_stream(self._service + method)(request, timeout=LIMIT * 2)

    def chat(self, requests: Iterator[bytes]) -> Any:
        """Begin a stream of both."""
        return self._channel.stream_stream(self._service + "Chat")(requests, timeout=LIMIT * 2)

    def upload(self, requests: Iterator[bytes]) -> Any:
        """Begin a stream of requests."""
        return self._channel.stream_unary(self._service + "Upload").future(
            requests, timeout=LIMIT * 2
        )

    def read(self, stream: Any) -> Callable[[], End]:
        """Read a stream in a thread; the result waits for its end."""
        end = End()

        def run() -> None:
            try:
                for message in stream:
                    end.messages.append(message)
            except grpc.RpcError as error:
                end.error = error
            end.at = time.monotonic()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append(thread)

        def ended() -> End:
            thread.join(LIMIT)
            assert not thread.is_alive()
            return end

        return ended

    def health(self, service: str = "") -> str:
        """Return what the health service says."""
        reply = self._health.Check(health_pb2.HealthCheckRequest(service=service), timeout=LIMIT)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))

    def watch(self, service: str = "") -> Iterator[str]:
        """Yield what the health service says whenever it says something else."""
        request = health_pb2.HealthCheckRequest(service=service)
        for reply in self._health.Watch(request, timeout=LIMIT):
            yield str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))

    def await_healthy(self, service: str = "") -> None:
        """Return when the health service says that it serves, of a service that it may not know."""
        assert "SERVING" in self.watch(service)

    def await_unhealthy(self, service: str = "") -> None:
        """Return when the health service says that it does not serve."""
        assert "NOT_SERVING" in self.watch(service)


@contextlib.contextmanager
def running(kind: str, env: Any) -> Generator[tuple[ServerProcess, Stub]]:
    """Start a server and connect."""
    with launch(launcher(kind), "", env=env) as server, Stub(server.port) as stub:
        assert stub.call("Echo", b"hello") == b"hello"
        yield server, stub


@dataclass
class Watched:
    """What the clients saw of one stop."""

    server: ServerProcess
    seen: dict[str, Any] = field(default_factory=dict[str, Any])


STREAMS = ("Ticks", "Ticks", "Ticks", "Ticks", "Silent", "Silent", "Polite", "Finish")


class GrpcContract:
    """The promises."""

    kind: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def stop(cls) -> Iterator[Watched]:
        """Stop a server that is busy with all kinds of RPCs."""
        env = settings(propagation_delay=1, stream_window=1, linger=0.3)
        with running(cls.kind, env) as (server, stub):
            watched = Watched(server)
            see = watched.seen
            words: queue.SimpleQueue[bytes] = queue.SimpleQueue()
            parts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
            see["health"] = stub.health()
            watch = stub.watch()
            assert next(watch) == "SERVING"
            streams = [stub.stream(name) for name in STREAMS]
            for each in streams:
                next(each)
            chat = stub.chat(iter(words.get, b"over"))
            words.put(b"hi")
            see["chat"] = next(chat)
            upload = stub.upload(iter(parts.get, b"over"))
            parts.put(b"12345")
            slow = stub.begin("Slow", b"1.5")
            server.log.wait_mark("slow")
            ends = [stub.read(each) for each in (*streams, chat)]
            server.terminate()
            see["watched"] = next(said for said in watch if said != "SERVING")
            see["in lame duck"] = stub.call("Echo", b"served")
            new = stub.stream("Ticks")
            see["new in lame duck"] = next(new)
            ends.append(stub.read(new))
            server.log.wait_event("draining")
            with Stub(server.port) as other:  # a new connection
                see["late"] = other.call("Echo", b"late")
                see["late stream"] = other.read(other.stream("Ticks"))()
            for part in (b"678", b"90", b"over"):
                parts.put(part)
            see["upload"] = upload.result()
            see["slow"] = slow.result()
            for name, end in zip((*STREAMS, "Chat", "New"), ends, strict=True):
                see.setdefault(name, []).append(end())
            see["status"] = server.wait()
            words.put(b"over")
            yield watched

    def test_everything_was_clean(self, stop: Watched) -> None:
        """Exit status 0, nothing cut, no traceback; the call of serve returns."""
        assert stop.seen["status"] == 0, stop.server.log.text
        report = stop.server.log.report()
        assert (report["clean"], report["cut"]) == ("True", "0")
        assert "Traceback" not in stop.server.log.text
        assert stop.server.log.marks("served")

    def test_health_flips_first(self, stop: Watched) -> None:
        """Before the hooks of the user's, while RPCs and new streams are served."""
        assert (stop.seen["health"], stop.seen["watched"]) == ("SERVING", "NOT_SERVING")
        assert stop.server.log.marks("hook lame duck") == ["hook lame duck, unhealthy"]
        assert stop.seen["in lame duck"] == b"served"
        assert stop.seen["new in lame duck"] == b"0"

    def test_what_is_in_flight_finishes(self, stop: Watched) -> None:
        """A unary RPC, an upload, and a stream whose policy is `finish`."""
        assert stop.seen["slow"] == b"slow but whole"
        assert stop.seen["upload"] == b"10"
        (finished,) = stop.seen["Finish"]
        assert (finished.messages, finished.error) == ([b"and", b"last"], None)

    def test_late_unary_rpcs_are_served(self, stop: Watched) -> None:
        """Also on a new connection; the handler can see that it is late."""
        assert stop.seen["late"] == b"late draining"

    def test_new_streams_are_turned_away(self, stop: Watched) -> None:
        """With a delay to wait."""
        end: End = stop.seen["late stream"]
        assert end.messages == []
        assert pushback(end.error) >= 50

    def told(self, stop: Watched) -> list[End]:
        """Return the ends of the streams that are to be told."""
        names = ("Ticks", "Silent", "Polite", "Chat", "New")
        return list(itertools.chain.from_iterable(stop.seen[name] for name in names))

    def test_streams_are_told_after_the_delay(self, stop: Watched) -> None:
        """Each with UNAVAILABLE and a delay of its own, spread over the window."""
        ends = self.told(stop)
        delays = [pushback(end.error) for end in ends]
        assert len(delays) == 9
        assert len(set(delays)) > 1
        assert max(end.at for end in ends) - min(end.at for end in ends) > 0.2
        log = stop.server.log
        assert min(log.index("ticks over"), log.index("silent over")) > log.index("draining")
        assert log.report()["told"] == "9"
        assert log.report()["streams_left_to_finish"] == "2"

    def test_messages_before_the_farewell_are_whole(self, stop: Watched) -> None:
        """No tick is missing or doubled."""
        for end in (*stop.seen["Ticks"], *stop.seen["New"]):
            first = int(end.messages[0])
            assert end.messages == [b"%d" % (first + n) for n in range(len(end.messages))]

    def test_the_farewell_of_the_user_comes_last(self, stop: Watched) -> None:
        """With the very delay that the status says."""
        (end,) = stop.seen["Polite"]
        assert end.messages == [b"bye in %d" % pushback(end.error)]

    def test_handlers_learn_of_the_end(self, stop: Watched) -> None:
        """Each runs to its own end."""
        log = stop.server.log
        assert (len(log.marks("ticks over")), len(log.marks("silent over"))) == (5, 3)

    def test_phases_and_hooks_come_in_order(self, stop: Watched) -> None:
        """As on every server."""
        log = stop.server.log
        phases = ("told to stop", "lame duck", "draining", "closing", "drain report")
        assert log.events(*phases) == list(phases)
        hooks = ["hook lame duck, unhealthy", "hook drain", "hook cleanup"]
        assert log.marks("hook") == hooks
        assert log.report()["in_flight_at_signal"] == "11"

    # -- each in a process of its own ------------------------------------------------------------

    def test_a_straggler_is_cut_and_named(self) -> None:
        """Method, path, client and stack; exit status 70."""
        env = {**QUICK, **settings(drain_timeout=0.6, cleanup_timeout=2)}
        with running(self.kind, env) as (server, stub):
            stuck = stub.begin("Stuck")
            server.log.wait_mark("stuck")
            server.terminate()
            assert isinstance(stuck.exception(), grpc.RpcError)
            assert stuck.code() is grpc.StatusCode.UNAVAILABLE
            assert server.wait() == 70
            assert "GRPC /test.Contract/Stuck from 127.0.0.1:" in server.log.report()["stragglers"]
            assert "in Stuck" in server.log.text
            assert server.log.marks("hook cleanup")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_second_signal_skips_the_delay(self, number: signal.Signals) -> None:
        """A stream is told at once."""
        with running(self.kind, LONG_DELAY) as (server, stub):
            ticks = stub.stream("Ticks")
            next(ticks)
            server.send_signal(number)
            stub.await_unhealthy()
            server.send_signal(number)
            assert pushback(stub.read(ticks)().error) >= 50
            assert server.wait(LIMIT / 2) == 0

    def test_a_third_signal_cuts(self) -> None:
        """What can't be told is left behind."""
        with running(self.kind, LONG_DELAY) as (server, stub):
            stuck = stub.begin("Stuck")  # a call that nobody keeps is cancelled
            server.log.wait_mark("stuck")
            for count in (1, 2, 3):
                server.terminate()
                server.log.wait_event("told to stop", count=count)
            assert server.wait(LIMIT / 2) == 70
            assert stuck.exception() is not None

    def test_a_signal_that_another_thread_takes(self) -> None:
        """The main thread sleeps on in its system call, and has to be woken."""
        with running(self.kind, QUICK) as (server, _):
            server.signal_another_thread(signal.SIGTERM)
            assert server.wait() == 0
            phases = ("lame duck", "draining", "closing", "drain report")
            assert server.log.events(*phases) == list(phases)

    def test_a_hold_keeps_the_process(self) -> None:
        """Work after an RPC is waited for."""
        with running(self.kind, QUICK) as (server, stub):
            stub.call("Hold", b"1")
            server.terminate()
            assert server.wait() == 0
            assert server.log.index("job done") < server.log.index("closing")

    def test_what_is_too_late_is_refused(self) -> None:
        """A unary RPC for which the time left is less than such RPCs need."""
        env = {**QUICK, **settings(drain_timeout=1.2, cleanup_timeout=0.5, linger=1)}
        with running(self.kind, env) as (server, stub):
            begun = [stub.begin("Slow", b"1.6") for _ in range(3)]
            assert [each.result() for each in begun] == [b"slow but whole"] * 3
            stuck = stub.begin("Stuck")  # a call that nobody keeps is cancelled
            server.log.wait_mark("stuck")
            server.terminate()
            server.log.wait_event("draining")
            with pytest.raises(grpc.RpcError) as caught:
                stub.call("Echo")
            assert pushback(caught.value) >= 50
            assert server.wait() == 70
            assert stuck.exception() is not None
            assert server.log.report()["late_refused"] == "1"

    def test_a_client_that_watches_no_health_holds_nothing_up(self) -> None:
        """It is sent away after the linger, and the RPC that it waits for is answered."""
        with running(self.kind, QUICK) as (server, stub):
            server.terminate()
            while (call := stub.begin("Slow", b"0.1")).exception() is None:
                assert call.result() == b"slow but whole"
            assert server.wait(LIMIT / 2) == 0
            assert server.log.report()["cut"] == "0"

    def test_wrong_settings_stop_the_start(self) -> None:
        """With the numbers, in a line, and no traceback."""
        env = settings(propagation_delay=50)
        with launch(launcher(self.kind), "", env=env, serving=False) as server:
            assert server.wait() == 1
            assert "graceful: propagation_delay 50 s" in server.log.text
            assert "Traceback" not in server.log.text

    def test_a_hundred_streams_are_all_told(self) -> None:
        """None before the delay, none without a status."""
        env = settings(propagation_delay=1, stream_window=1.5, linger=0.2)
        with running(self.kind, env) as (server, stub):
            streams = [stub.stream("Ticks") for _ in range(100)]
            for each in streams:
                next(each)
            ends = [stub.read(each) for each in streams]
            server.terminate()
            server.log.wait_event("draining")
            delays = {pushback(end().error) for end in ends}
            assert len(delays) > 20
            assert server.wait() == 0
            assert server.log.report()["told"] == "100"
            assert server.log.index("draining") < server.log.index("ticks over")
