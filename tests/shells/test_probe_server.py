"""The private probe port: what it answers, above all when nothing else in the process does."""

from __future__ import annotations

import errno
import http.client
import json
import socket
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from graceful import probe_server
from graceful.core.budget import Settings
from graceful.core.lifecycle import LifecycleCore
from graceful.core.phases import Phase
from graceful.core.records import Fault, Notice, Record
from graceful.loops import Loop, current_loop
from graceful.probe_server import ProbeServer
from graceful.probes import Check, Probes

SETTINGS = Settings(probe_port=0, check_timeout=5.0)


class Process:
    """What the port tells about: a lifecycle with a clock that stands still until it is moved."""

    def __init__(self, settings: Settings = SETTINGS, **checks: Check) -> None:
        self.now = 100.0
        self.published: list[Record] = []
        self.core = LifecycleCore(settings, lambda: 0.5)
        self.core.phase = Phase.SERVING
        self.loop: Loop | None = None
        probes = Probes(settings, checks, self)
        self.server = ProbeServer(settings, probes, self, host="127.0.0.1")

    def clock(self) -> float:
        """Tell the time of the test."""
        return self.now

    def publish(self, record: Record) -> None:
        """Hear a record."""
        self.published.append(record)

    def heed(self) -> None:
        """Nobody manages this process."""

    def get(self, path: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
        """Ask the port and return the status and the body."""
        response = self.ask(path, method)
        return response.status, json.loads(response.read() or b"{}")

    def ask(self, path: str, method: str = "GET") -> http.client.HTTPResponse:
        """Ask the port and return the whole response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        connection.request(method, path)
        response = connection.getresponse()
        self._open.callback(connection.close)
        self._open.callback(response.close)
        return response

    def __enter__(self) -> Process:
        self._open = ExitStack()
        assert self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self._open.close()


@contextmanager
def running_loop(process: Process, backend: str = "asyncio") -> Generator[Loop]:
    """Run an event loop in a thread of its own, as the app's."""
    ready, over = threading.Event(), list[anyio.Event]()

    async def main() -> None:
        over.append(anyio.Event())
        process.loop = current_loop()
        ready.set()
        await over[0].wait()

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(lambda: anyio.run(main, backend=backend))
        ready.wait()
        assert process.loop is not None
        try:
            yield process.loop
        finally:
            process.loop.soon(over[0].set)
            work.result()


@contextmanager
def blocked(loop: Loop) -> Generator[None]:
    """Hold the loop's thread as a handler with `time.sleep` does."""
    entered, release = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        release.wait()

    loop.soon(hold)
    entered.wait()
    try:
        yield
    finally:
        release.set()


def idle(loop: Loop) -> None:
    """Return when the loop has run everything that it was given so far."""
    done = threading.Event()
    loop.soon(done.set)
    done.wait()


async def ok() -> None:
    """Find everything in order."""


async def broken() -> bool:
    """Find something wrong."""
    return False


# -- readiness -------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", Phase)
def test_readiness_follows_the_phase_without_a_loop(phase: Phase) -> None:
    """Without checks the port needs nothing but the phase."""
    with Process() as process:
        process.core.phase = phase
        status, body = process.get("/readyz")
    assert status == (200 if phase is Phase.SERVING else 503)
    assert body["phase"] == phase.value


def test_readiness_answers_while_the_loop_is_blocked() -> None:
    """A flip is seen at once although no handler can run."""
    with Process() as process, running_loop(process) as loop, blocked(loop):
        assert process.get("/readyz")[0] == 200
        process.core.climb("SIGTERM", process.now)
        assert process.get("/readyz") == (503, {"status": "unready", "phase": "lame_duck"})


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_checks_run_on_the_apps_loop(backend: str) -> None:
    """Checks are coroutines that belong where the app's pools live."""
    threads: list[threading.Thread] = []

    async def check() -> None:
        threads.append(threading.current_thread())

    with Process(database=check) as process, running_loop(process, backend):
        assert process.get("/readyz")[0] == 200
    assert [thread.name.startswith("ThreadPool") for thread in threads] == [True]


def test_a_failing_check_is_named() -> None:
    """The port says what the app's own port would say."""
    with Process(database=broken, cache=ok) as process, running_loop(process):
        status, body = process.get("/readyz")
    assert status == 503
    assert body["checks"] == {"database": "failed", "cache": "ok"}
    assert process.published == [Fault("readiness check 'database'", "returned False")]


def test_checks_on_a_blocked_loop_make_it_unready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that doesn't answer in time is said to be blocked, and is asked anew next time."""
    monkeypatch.setattr(probe_server, "SLACK", 0.01)
    process = Process(replace(SETTINGS, check_timeout=0.25), database=ok)
    with process, running_loop(process) as loop:
        with blocked(loop):
            assert process.get("/readyz") == (503, {"status": "unready", "event_loop": "blocked"})
        idle(loop)
        monkeypatch.setattr(probe_server, "SLACK", 10.0)
        assert process.get("/readyz")[0] == 200


def test_no_check_runs_once_a_stop_has_begun() -> None:
    """During the drain the phase is all that counts, and the loop is left to its work."""
    with Process(database=broken) as process, running_loop(process) as loop, blocked(loop):
        process.core.retire("max_requests", process.now)
        assert process.get("/readyz")[0] == 200


@pytest.mark.parametrize("alive", [True, False])
def test_checks_without_a_loop_are_left_out(alive: bool) -> None:
    """Before the loop is known, and after it has gone, the phase alone is told."""
    with Process(database=broken) as process:
        if not alive:
            with running_loop(process):
                pass
        assert process.get("/readyz")[0] == 200


# -- liveness --------------------------------------------------------------------------------


def test_liveness_fails_once_the_loop_has_stalled() -> None:
    """A mark that waits longer than `liveness_stall` says that the loop is stuck for good."""
    with Process() as process, running_loop(process) as loop:
        with blocked(loop):
            for now, status in ((0, 200), (29.9, 200), (30.0, 200), (30.1, 503), (600, 503)):
                process.now = 100.0 + now
                assert process.get("/livez")[0] == status
            assert process.get("/livez")[1]["status"] == "stalled"
        idle(loop)
        assert process.get("/livez")[0] == 200


def test_a_loop_that_answers_is_never_stalled() -> None:
    """However far apart the probes are, only a mark that still waits counts."""
    with Process() as process, running_loop(process) as loop:
        for _ in range(3):
            assert process.get("/livez")[0] == 200
            idle(loop)
            process.now += 3600


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.SERVING])
def test_liveness_is_200_whenever_the_process_is_not_serving(phase: Phase) -> None:
    """A failing liveness probe would kill the drain, or a start-up that takes its time."""
    with Process() as process, running_loop(process) as loop, blocked(loop):
        assert process.get("/livez")[0] == 200
        process.now += 600
        process.core.phase = phase
        assert process.get("/livez") == (200, {"status": "live", "phase": phase.value})


def test_the_stall_can_be_switched_off() -> None:
    """`liveness_stall=None`: the thread that answers is all that liveness tells."""
    process = Process(replace(SETTINGS, liveness_stall=None))
    with process, running_loop(process) as loop, blocked(loop):
        process.get("/livez")
        process.now += 600
        assert process.get("/livez")[0] == 200


def test_a_loop_that_is_gone_is_not_blocked() -> None:
    """After the loop has ended there is no heart that could fail to beat."""
    with Process() as process:
        with running_loop(process):
            pass
        for _ in range(2):
            assert process.get("/livez")[0] == 200
            process.now += 600


# -- http ------------------------------------------------------------------------------------


def test_the_answer_is_what_probes_say() -> None:
    """Headers are passed on, and HEAD has no body."""
    with Process() as process:
        response = process.ask("/readyz", "HEAD")
        assert response.status == 200
        assert response.getheader("cache-control") == "no-store"
        assert response.getheader("content-length") == str(len(process.ask("/readyz").read()))
        assert response.read() == b""


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/readyz?verbose=1", "GET", 200),
        ("/", "GET", 404),
        ("/readyz/x", "GET", 404),
        ("/readyz", "POST", 405),
        ("/livez", "DELETE", 405),
    ],
)
def test_paths_and_methods(path: str, method: str, status: int) -> None:
    """Queries are ignored; the rest is not found or not allowed."""
    with Process() as process:
        assert process.get(path, method)[0] == status


def test_paths_follow_the_settings() -> None:
    """A path that was moved is moved here; one that is off on the public port is on here."""
    settings = replace(SETTINGS, readiness_path="/healthz", liveness_path=None)
    with Process(settings) as process:
        assert process.get("/healthz")[0] == 200
        assert process.get("/livez")[0] == 200
        assert process.get("/readyz")[0] == 404


def test_malformed_requests_get_400_and_harm_nobody() -> None:
    """Rubbish on the port is answered and forgotten."""
    with Process() as process:
        with raw(process) as client:
            client.sendall(b"\x16\x03\x01 nonsense of a TLS hello\r\n\r\n")
            assert b"400" in client.recv(4096)
        assert process.get("/readyz")[0] == 200


def test_a_client_that_vanishes_harms_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    """A reset in the middle of a request leaves no trace."""
    with Process() as process:
        for sent in (b"", b"GET /rea", b"GET /readyz HTTP/1.1\r\n\r\n"):
            with raw(process) as client:
                client.sendall(sent)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert process.get("/readyz")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_silent_client_holds_nobody_else() -> None:
    """Connections that say nothing don't keep a probe from its answer."""
    with Process() as process, ExitStack() as clients:
        for _ in range(5):
            clients.enter_context(raw(process))
        assert process.get("/readyz")[0] == 200


def test_a_silent_client_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that says nothing is closed when its time is up."""
    monkeypatch.setattr(probe_server, "CLIENT_LIMIT", 0.01)
    with Process() as process, raw(process) as client:
        assert client.recv(1) == b""


def test_no_more_connections_than_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a connection is closed unanswered; room comes back."""
    monkeypatch.setattr(probe_server, "MANY", 2)
    with Process() as process, raw(process) as first, raw(process), raw(process) as third:
        assert third.recv(1) == b""
        first.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
        assert first.recv(4096).startswith(b"HTTP/1.0 200")


@contextmanager
def raw(process: Process) -> Generator[socket.socket]:
    """Connect to the port."""
    assert process.server.port is not None
    with socket.create_connection(("127.0.0.1", process.server.port), timeout=30) as client:
        yield client


# -- opening and closing -----------------------------------------------------------------------


def threads() -> set[threading.Thread]:
    """Return the threads of the port that live."""
    return {t for t in threading.enumerate() if t.name.startswith("graceful-probe")}


def test_the_port_can_be_opened_and_closed_many_times() -> None:
    """Nothing is left behind, and the same object starts again."""
    process = Process()
    for _ in range(3):
        with process:
            assert process.get("/readyz")[0] == 200
            assert threads()
        assert threads() == set()
        assert process.server.port is None
    process.server.stop()


def test_a_new_life_forgets_the_heartbeat_of_the_old_one() -> None:
    """A mark that an old loop never ran says nothing about the next one."""
    process = Process()
    with running_loop(process) as loop, blocked(loop), process:
        process.get("/livez")
    process.now += 600
    with running_loop(process), process:
        assert process.get("/livez")[0] == 200


def test_closing_waits_for_nobody() -> None:
    """Silent clients and probes that wait for a blocked loop are let go when the port closes."""
    process = Process(replace(SETTINGS, check_timeout=3600.0), database=ok)
    with running_loop(process) as loop, blocked(loop), ThreadPoolExecutor(1) as pool:
        with process, raw(process) as silent:
            waiting = pool.submit(process.get, "/readyz")
            until(lambda: process.server._pending)
            process.server.stop()
            assert waiting.result() == (200, {"status": "ready", "phase": "serving"})
            assert silent.recv(1) == b""
        assert threads() == set()


def test_a_probe_that_comes_while_the_port_closes_waits_for_no_loop() -> None:
    """The last probe is answered from the phase."""
    process = Process(replace(SETTINGS, check_timeout=3600.0), database=ok)
    with process, running_loop(process) as loop, blocked(loop):
        process.server.stop()
        assert process.server.answer("/readyz", "GET").status == 200


def until(condition: Callable[[], object]) -> None:
    """Let other threads run until `condition` holds; the test's own time limit is the end."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.001)


def test_a_port_that_another_worker_owns_is_left_to_it() -> None:
    """The second of two workers says once that it goes without, and serves."""
    with Process() as first:
        second = Process(replace(SETTINGS, probe_port=first.server.port))
        assert not second.server.start()
        assert second.server.port is None
        (notice,) = second.published
        assert isinstance(notice, Notice)
        assert notice.level == "info"
        assert notice.text.startswith(f"probe_port {first.server.port} is taken")
        second.server.stop()
        assert first.get("/readyz")[0] == 200


@pytest.mark.parametrize("host", ["", "127.0.0.1", "::1"])
def test_a_port_that_cannot_be_opened_is_a_warning(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other refusal names its reason; the process serves without the port."""

    def refuse(*_: object, **__: object) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    process = Process(replace(SETTINGS, probe_port=80))
    process.server._host = host
    assert not process.server.start()
    assert process.published == [
        Notice(
            "probe_port 80 can't be opened (Permission denied), so this process goes without; "
            "choose another port"
        )
    ]


@pytest.mark.parametrize("ipv6", ["there", "absent", "switched off"])
def test_all_addresses_are_served(ipv6: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no host given the port is open on IPv4, whatever this machine does about IPv6."""
    real = socket.create_server
    if ipv6 == "absent":
        monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    elif ipv6 == "switched off":

        def create(address: Any, *, family: int, **options: Any) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
            return real(address, family=family, **options)

        monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)
        monkeypatch.setattr(socket, "create_server", create)
    process = Process()
    process.server._host = ""
    with process:
        assert process.get("/readyz")[0] == 200


def test_running_out_of_descriptors_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """When accept fails for want of descriptors the port tries again, without spinning."""
    monkeypatch.setattr(probe_server, "BACK_OFF", 0.001)
    real, failures = socket.socket.accept, [OSError(errno.EMFILE, "Too many open files")] * 2
    failures += [ConnectionAbortedError()]

    def accept(self: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    with Process() as process:
        assert process.get("/readyz")[0] == 200
    assert failures == []
