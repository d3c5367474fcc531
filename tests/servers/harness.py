"""Real server processes, what they write, and plain clients for them.

Rules of this file
- Nothing here knows a particular server: that is what a `Launcher` says.
- Tests wait for an event (a line of the log, a byte of a connection) and never for a time; the
  limits are generous and only end a test that has failed anyway.
- A process is ended by whoever started it, together with its own process group, whatever happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

__all__ = [
    "ASKED",
    "LEAN",
    "LIMIT",
    "Client",
    "Launcher",
    "Line",
    "Reply",
    "ServerProcess",
    "launch",
    "reserved_port",
    "save",
    "settings",
    "until",
]

LIMIT = 30.0
"""Seconds after which an event that has not come will not come any more."""

ROOT = Path(__file__).parents[2]

LEAN = Path(__file__).parent / "lean"


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """How one server is started, and what it can't do."""

    name: str
    command: Sequence[str]
    """Arguments after `python -m`; `{app}` stands for the app. The port is 0."""
    announces: str
    """Regular expression of the line in which the server tells its port."""
    workers: int = 1
    wakes: bool = True
    """Its main process notices a signal that another thread of it takes; a parent that is the
    server's alone may sleep on."""
    speakers: int | None = None
    """Processes that log the phases; None = each worker, 1 = a parent speaks for all."""
    refuses_while_draining: bool = True
    """The listener is closed in DRAINING. Not where a parent or sibling holds it open."""
    own_exit_status: bool = True
    """The exit status is graceful's, 0 or 70. A managing parent keeps its own."""
    sends_head_alone: bool = True
    """The head of a response is sent before its first byte of body."""
    denies_with: int = 503
    """The status by which a WebSocket is refused; 403 where the server has no denial response."""
    asyncio: bool = True
    """Tasks can be looked at, and a generator whose last part can't be sent is closed at once. On
    trio a stack ends at the loop, and such a generator is left to the collector."""
    lifespan: bool = True
    """It asks apps to start and to shut down."""
    reports_holds: bool = True
    """The drain report names holds; a parent only counts them, its worker has named them."""
    noise: str = ""
    """Regular expression of errors that the server itself logs where nothing has gone wrong."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    resets: int = 0
    """Requests that a reload may cost: each worker listens for itself on the port, and the kernel
    resets who comes to its queue between its last look and its end."""
    directory: Path = ROOT
    """Where it is started."""
    inherits: tuple[int, ...] = ()
    """Descriptors that it is started with."""

    @property
    def voices(self) -> int:
        """Processes that log the phases."""
        return self.speakers or self.workers

    @property
    def shutdowns(self) -> int:
        """Apps that are asked to shut down."""
        return self.workers if self.lifespan else 0


@dataclass(frozen=True)
class Line:
    """One line that the server has written; `event` and `fields` where it is one of graceful's."""

    text: str
    event: str = ""
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    mark: str = ""
    """What the app of the test has to say: lines that begin with `@ PID `."""
    pid: int = 0

    @classmethod
    def parse(cls, text: str) -> Line:
        """Read graceful's own console format, and the marks of the test's app."""
        if marked := re.match(r"@ (\d+) (.*)", text):
            return cls(text, mark=marked[2], pid=int(marked[1]))
        ours = re.match(r"\S+ \[\w+ *\] (.+?) +\[graceful\] ?(.*)", text)
        if ours is None:
            return cls(text)
        try:
            words = shlex.split(ours[2])
        except ValueError:
            words = ours[2].split()
        pairs = (word.split("=", 1) for word in words if "=" in word)
        return cls(text, ours[1], {key: value.strip('"') for key, value in pairs})


class Log:
    """What a process has written, line by line, and the way to wait for a line."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lines: list[Line] = []
        self._changed = threading.Condition()
        self._over = False
        self._pause_at: str | None = None
        self._reading = threading.Event()
        self._reading.set()
        self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for raw in stream:
                line = Line.parse(raw.decode(errors="replace").rstrip("\n"))
                if self._pause_at is not None and self._pause_at in line.text:
                    self._reading.clear()
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
                self._reading.wait()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    @property
    def lines(self) -> list[Line]:
        """Everything so far."""
        with self._changed:
            return list(self._lines)

    @property
    def text(self) -> str:
        """Everything so far, as written."""
        return "\n".join(line.text for line in self.lines)

    def pause_at(self, text: str) -> None:
        """Stop reading after the next line with `text`: the pipe fills up."""
        self._pause_at = text

    def finish(self) -> None:
        """Read, also after a pause, to the last line of a process that has ended."""
        self._pause_at = None
        self._reading.set()
        self._reader.join(LIMIT)

    def wait(self, pattern: str, *, count: int = 1, limit: float = LIMIT) -> Line:
        """Return the `count`-th line that `pattern` is found in, as soon as it is written."""
        return self._await(lambda line: re.search(pattern, line.text), repr(pattern), count, limit)

    def wait_event(self, event: str, *, count: int = 1, limit: float = LIMIT) -> Line:
        """Return the `count`-th line of graceful's with this event."""
        return self._await(lambda line: line.event == event, f"event {event!r}", count, limit)

    def wait_mark(self, mark: str, *, count: int = 1, limit: float = LIMIT) -> Line:
        """Return the `count`-th mark of the app's that begins with `mark`."""
        return self._await(lambda line: line.mark.startswith(mark), f"mark {mark!r}", count, limit)

    def _await(self, wanted: Callable[[Line], object], what: str, count: int, limit: float) -> Line:
        give_up = time.monotonic() + limit
        with self._changed:
            while True:
                found = [line for line in self._lines if wanted(line)]
                if len(found) >= count:
                    return found[count - 1]
                left = give_up - time.monotonic()
                if self._over or left <= 0:
                    state = "the process has ended" if self._over else f"{limit:g} s have passed"
                    written = "\n".join(line.text for line in self._lines)
                    raise AssertionError(
                        f"{state} and {what} was written {len(found)} of {count} times:\n{written}"
                    )
                self._changed.wait(left)

    # -- questions about what has been written -------------------------------------------------

    def events(self, *names: str) -> list[str]:
        """Return the events of graceful's in order, only those of `names` when given."""
        return [
            line.event
            for line in self.lines
            if line.event and line.event in (names or [line.event])
        ]

    def marks(self, prefix: str = "") -> list[str]:
        """Return the marks of the app's in order."""
        return [line.mark for line in self.lines if line.mark and line.mark.startswith(prefix)]

    def index(self, wanted: str) -> int:
        """Return the place of the first line with this event or with a mark that begins so."""
        for place, line in enumerate(self.lines):
            if line.event == wanted or (line.mark and line.mark.startswith(wanted)):
                return place
        raise AssertionError(f"{wanted!r} is not in:\n{self.text}")

    def report(self) -> Mapping[str, str]:
        """Return the fields of the (first) drain report."""
        return self.lines[self.index("drain report")].fields


class ServerProcess:
    """One started server."""

    def __init__(self, process: subprocess.Popen[bytes], log: Log, launcher: Launcher) -> None:
        self.process = process
        self.log = log
        self.launcher = launcher
        self.port = 0

    def await_port(self) -> None:
        """Wait until the server has told its port."""
        found = re.search(self.launcher.announces, self.log.wait(self.launcher.announces).text)
        assert found is not None
        self.port = int(found[1])

    def await_serving(self) -> None:
        """Wait until every worker serves."""
        self.await_port()
        self.log.wait_event("serving", count=self.launcher.voices)
        self.await_listening()

    def await_workers(self) -> None:
        """Wait until each worker's app has started: a parent speaks up when the first one has."""
        if self.launcher.shutdowns:
            self.log.wait_mark("startup", count=self.launcher.shutdowns)

    def await_listening(self) -> None:
        """Wait for the first connection that is not refused.

        An app is ready before its server listens, and a parent tells its port even earlier; no line
        says when the one has followed from the other.
        """
        give_up = time.monotonic() + LIMIT
        while True:
            try:
                self.client().close()
            except ConnectionRefusedError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.01)
            else:
                return

    def await_sleep(self) -> None:
        """Wait until each thread of the main process sleeps, in a system call or on a lock.

        Between its last line of Python and its system call a thread is nowhere: a signal that comes
        right then is noticed only after the call.
        """
        tasks = Path(f"/proc/{self.process.pid}/task")
        give_up = time.monotonic() + LIMIT
        while tasks.exists() and not all(_sleeps(task) for task in tasks.iterdir()):
            assert time.monotonic() < give_up, self.log.text
            time.sleep(0.001)

    def client(self, timeout: float = LIMIT) -> Client:
        """Return a client that will open one connection of its own."""
        return Client(self.port, timeout)

    def get(self, path: str) -> Reply:
        """Answer of a GET on a new connection."""
        with contextlib.closing(self.client()) as client:
            return client.get(path)

    def await_unready(self, path: str = "/readyz", *, in_a_row: int = 10) -> None:
        """Wait until whichever worker is asked says that it is not ready.

        A parent tells its workers at once and speaks; each of them hears it in its own time.
        """
        give_up = time.monotonic() + LIMIT
        answers = 0
        while answers < in_a_row:
            answers = answers + 1 if self.get(path).status == 503 else 0
            assert time.monotonic() < give_up, self.log.text

    def url(self, path: str, scheme: str = "http") -> str:
        """Return the address of `path`."""
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def terminate(self) -> None:
        """Send SIGTERM to the main process, as Kubernetes and docker do."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the main process only."""
        self.process.send_signal(number)

    def signal_another_thread(self, number: signal.Signals) -> None:
        """Have another thread of the main process than its main one take the signal.

        Its main thread is not interrupted then: what a signal also looks like that comes in the
        moment between the interpreter's last look for signals and the call that goes to sleep.
        """
        pid = self.process.pid
        tasks = Path(f"/proc/{pid}/task").iterdir()
        takers = sorted(int(task.name) for task in tasks if _takes(task, number))
        # The oldest but the main one: libraries' youngest come and go, and a signal with them.
        taker = (takers[1:] or takers)[0]
        assert ctypes.CDLL(None).tgkill(pid, taker, number) == 0

    def signal_group(self, number: signal.Signals) -> None:
        """Signal every process of the group at once, as systemd and terminals do."""
        os.killpg(self.process.pid, number)

    def wait(self, limit: float = LIMIT) -> int:
        """Return the exit status."""
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still alive after {limit:g} s:\n{self.log.text}") from None
        self.log.finish()
        return status

    def kill(self) -> None:
        """End what is left of the group that this test has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(LIMIT)
        self.log.finish()


def _takes(task: Path, number: signal.Signals) -> bool:
    """Whether the thread doesn't block the signal, as libc's own threads do."""
    with contextlib.suppress(OSError):  # it has ended
        blocked = re.search(r"^SigBlk:\s*(\w+)$", (task / "status").read_text(), re.M)
        return blocked is not None and not int(blocked[1], 16) & 1 << (number - 1)
    return False


def _sleeps(task: Path) -> bool:
    with contextlib.suppress(OSError):  # it has ended
        return (task / "stat").read_text().rpartition(") ")[2][0] in "SD"
    return True


@contextlib.contextmanager
def launch(
    launcher: Launcher,
    app: str,
    *arguments: str,
    serving: bool = True,
    stdin: int = subprocess.DEVNULL,
    stderr: int | None = None,
    env: Mapping[str, object] | None = None,
) -> Generator[ServerProcess]:
    """Start a server and end it when the block is left.

    Args:
        launcher: which server.
        app: `module:attribute`, importable from the root of the repository.
        arguments: more of the command line.
        serving: wait until it serves.
        stdin: a descriptor for its standard input.
        stderr: a descriptor for what it writes instead of the pipe that is read here.
        env: variables on top of the launcher's and the test's own.
    """
    command = [part.format(app=app) for part in launcher.command]
    variables = {name: str(value) for name, value in (env or {}).items()}
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", *command, *arguments],
        cwd=launcher.directory,
        pass_fds=launcher.inherits,
        env={**clean_environment(), **launcher.environment, **variables},
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=write if stderr is None else stderr,
        start_new_session=True,
    )
    os.close(write)
    server = ServerProcess(process, Log(os.fdopen(read, "rb")), launcher)
    try:
        if serving:
            server.await_serving()
        yield server
    except Exception as error:
        if server.log.text not in str(error):
            error.add_note(server.log.text)
        raise
    finally:
        server.kill()


def until(holds: Callable[[], bool]) -> None:
    """Wait until something that no line tells of holds."""
    give_up = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def save(module: Path, server: ServerProcess, noticed: str) -> None:
    """Save a file until the server writes that it has seen it.

    A reloader may begin to watch a moment after its app has begun to serve.
    """
    for _ in range(int(LIMIT)):
        module.write_text(module.read_text() + "# saved\n")
        with contextlib.suppress(AssertionError):
            server.log.wait(noticed, limit=3)
            return
    raise AssertionError(f"{noticed!r} was never written:\n{server.log.text}")


def settings(**values: object) -> dict[str, object]:
    """Return settings by name as environment variables."""
    return {f"GRACEFUL_{name.upper()}": value for name, value in values.items()}


ASKED = settings(propagation_delay=2)
"""For a test that asks something within the delay: enough for a busy machine, and waited for."""


@contextlib.contextmanager
def reserved_port() -> Generator[int]:
    """Keep a port that is free for a server that can't choose one and tell.

    A bound socket that does not listen keeps the kernel from giving the port to anybody else, and
    with SO_REUSEADDR on both sides the server can still bind it.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def clean_environment() -> dict[str, str]:
    """Return the test's environment without settings, which would be about something else.

    And without what a server has no use for: see `lean/`.
    """
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("GRACEFUL_", "COVERAGE_"))}
    return mine | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(LEAN)}


@dataclass(frozen=True)
class Reply:
    """One whole answer. `complete` is False when the body was cut."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool = True

    @property
    def closes(self) -> bool:
        """Whether the server has said that it closes the connection."""
        return self.headers.get("connection", "").lower() == "close"


class Client:
    """One HTTP/1.1 connection that is never opened a second time."""

    def __init__(self, port: int, timeout: float = LIMIT) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._http.connect()
        self._http.auto_open = 0
        sock: socket.socket = self._http.sock
        self.socket = sock.dup()  # http.client drops its own once an answer says close
        self._answer: http.client.HTTPResponse | None = None
        self.received = b""
        """What has been read of a response that is read in parts."""

    def get(self, path: str, **headers: str) -> Reply:
        """Ask and return the whole answer."""
        self.ask("GET", path, None, **headers)
        return self.reply()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> None:
        """Send a request."""
        self._http.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def begin_upload(self, path: str, part: bytes, *, length: int) -> None:
        """Send a request and a part of its body."""
        self._http.putrequest("POST", path)
        self._http.putheader("Content-Length", str(length))
        self._http.endheaders(part)

    def upload(self, part: bytes) -> None:
        """Send more of the body."""
        self._http.send(part)

    def upgrade(self, path: str) -> None:
        """Ask for a WebSocket on this connection."""
        self.ask(
            "GET",
            path,
            None,
            Connection="Upgrade",
            Upgrade="websocket",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        )

    def head(self) -> http.client.HTTPResponse:
        """Wait for the head of the answer."""
        if self._answer is None:
            self._answer = self._http.getresponse()
        return self._answer

    def read_until(self, end: bytes) -> bytes:
        """Read the body as far as `end`; returns what has been read since the last call."""
        answer, part = self.head(), b""
        while not part.endswith(end):
            byte = answer.read(1)
            if not byte:
                raise AssertionError(f"the body ended before {end!r}: {self.received + part!r}")
            part += byte
        self.received += part
        return part

    def reply(self) -> Reply:
        """Read the answer to its end."""
        answer, self._answer = self.head(), None
        complete = True
        try:
            rest = answer.read()
        except http.client.IncompleteRead as error:
            rest, complete = error.partial, False
        except ConnectionResetError:
            rest, complete = b"", False
        body, self.received = self.received + rest, b""
        headers = {name.lower(): value for name, value in answer.getheaders()}
        answer.close()
        return Reply(answer.status, headers, body, complete)

    def at_end(self) -> bool:
        """Wait for the server to close the connection; False when it sends something."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        """Close the connection."""
        if self._answer is not None:
            self._answer.close()
        self._http.close()
        self.socket.close()
