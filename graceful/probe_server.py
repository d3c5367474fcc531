"""The private probe port: a thread of its own that answers while the event loop is blocked.

Rules of this file
- Nothing here waits for the event loop without a limit, and nothing on the loop waits for this.
- Requests say little and come from a prober, so this speaks HTTP/1.0: one connection, one answer.
- The port is private. It still bounds what a client can hold: a connection has a time limit, and
  so many at once and no more.
- One worker of a program gets the port and answers for itself; the others go without.
"""

from __future__ import annotations

import errno
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol, cast

from .core.budget import Settings
from .core.lifecycle import LifecycleCore
from .core.phases import Phase
from .core.records import Notice, Record
from .loops import Loop
from .probes import Answer, Probes, answer

__all__ = ["Owner", "ProbeServer"]

CLIENT_LIMIT: Final = 5.0
"""Seconds that a client may take to send its request or to read the answer."""

MANY: Final = 32
"""Connections at once; probers have one. More are closed unanswered."""

SLACK: Final = 0.25
"""Seconds that a loop gets beside the checks' own limit: it is busy, not blocked."""

BACK_OFF: Final = 0.1
"""Seconds before the next try when the process has no file descriptor left for a connection."""

LAST_MOMENT: Final = 0.5
"""Seconds that answers under way get when the port is closed."""


class Owner(Protocol):
    """What the port tells about; the lifecycle of the process."""

    @property
    def clock(self) -> Callable[[], float]: ...

    @property
    def core(self) -> LifecycleCore: ...

    @property
    def loop(self) -> Loop | None: ...

    def publish(self, record: Record) -> None: ...


class ProbeServer:
    """Answers both probes on a port of its own.

    A probe whose path is None is off on the app's port only; here it has its usual name, so that
    the probes can be kept off the public port.

    Args:
        host: the address to listen on; "" = all, IPv6 and IPv4.
    """

    def __init__(self, settings: Settings, probes: Probes, owner: Owner, host: str = "") -> None:
        self._settings = settings
        self._probes = probes
        self._owner = owner
        self._host = host
        self._paths = {
            settings.readiness_path or "/readyz": self._readiness,
            settings.liveness_path or "/livez": self._liveness,
        }
        self._heartbeat = Heartbeat(owner.clock)
        self._thread: threading.Thread | None = None
        self._wake: socket.socket | None = None
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._pending: set[SimpleQueue[Answer | None]] = set()
        self._stopping = threading.Event()
        self.port: int | None = None
        """The real port while this process owns it; None otherwise."""

    def start(self) -> bool:
        """Listen; False when the port can't be had, which the observers are told."""
        port = self._settings.probe_port or 0
        try:
            listener = _listen(self._host, port)
        except OSError as error:
            self._owner.publish(_refused(port, error))
            return False
        self.port = listener.getsockname()[1]
        self._stopping.clear()
        self._heartbeat = Heartbeat(self._owner.clock)
        self._wake, woken = socket.socketpair()
        self._thread = threading.Thread(
            target=self._accept, args=(listener, woken), name="graceful-probes", daemon=True
        )
        self._thread.start()
        return True

    def stop(self) -> None:
        """Close the port and end its threads. Harmless when it isn't open."""
        thread, self._thread = self._thread, None
        wake, self._wake = self._wake, None
        if thread is None or wake is None:
            return
        self._stopping.set()
        wake.close()
        thread.join()
        # Who waits for the event loop would wait in vain: it may be the one that runs this.
        for box in tuple(self._pending):
            box.put(None)
        for connection, worker in tuple(self._connections.items()):
            with suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RD)
            worker.join(LAST_MOMENT)
        self.port = None

    def answer(self, target: str, method: str) -> Answer:
        """Return what a request is answered; from any thread but the loop's."""
        reply = self._paths.get(target.partition("?")[0])
        if reply is None:
            return answer(404, {"status": "not found"})
        return reply(method)

    # -- what is answered ----------------------------------------------------------------

    def _readiness(self, method: str) -> Answer:
        core, loop = self._owner.core, self._owner.loop
        if loop is None or not self._probes.runs_checks(core, method):
            return self._probes.readiness_by_phase(core, method)
        box: SimpleQueue[Answer | None] = SimpleQueue()

        async def ask() -> None:
            box.put(await self._probes.readiness(core, method))

        self._pending.add(box)
        try:
            if self._stopping.is_set() or not loop.soon(lambda: loop.spawn(ask)):
                return self._probes.readiness_by_phase(core, method)
            reply = box.get(timeout=self._settings.check_timeout + SLACK)
            return reply or self._probes.readiness_by_phase(core, method)
        except Empty:
            return answer(503, {"status": "unready", "event_loop": "blocked"}, method)
        finally:
            self._pending.discard(box)

    def _liveness(self, method: str) -> Answer:
        core, loop, stall = self._owner.core, self._owner.loop, self._settings.liveness_stall
        if stall is not None and loop is not None and core.phase is Phase.SERVING:
            late = self._heartbeat.late(loop)
            if late > stall:
                body = {"status": "stalled", "event_loop": f"blocked for {late:.0f} s or more"}
                return answer(503, body, method)
        return self._probes.liveness(core, method)

    # -- connections ---------------------------------------------------------------------

    def _accept(self, listener: socket.socket, woken: socket.socket) -> None:
        with listener, woken, selectors.DefaultSelector() as selector:
            listener.setblocking(False)
            selector.register(listener, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while woken not in [key.fileobj for key, _ in selector.select()]:
                try:
                    connection, _ = listener.accept()
                except (BlockingIOError, ConnectionError):  # the client has gone already
                    continue
                except OSError:
                    self._stopping.wait(BACK_OFF)
                    continue
                self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        if len(self._connections) >= MANY:
            connection.close()
            return
        thread = threading.Thread(
            target=self._serve, args=(connection,), name="graceful-probe", daemon=True
        )
        self._connections[connection] = thread
        thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # An OSError: the client went away, and nobody is left to tell.
        with suppress(OSError), connection:
            connection.settimeout(CLIENT_LIMIT)
            _Request(connection, self)
        self._connections.pop(connection, None)


class Heartbeat:
    """How long a loop has not run what it was given. Asks only when asked: an idle loop sleeps."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._posted: float | None = None

    def late(self, loop: Loop) -> float:
        """Return the seconds for which a mark has waited, and post one when none does."""
        posted, now = self._posted, self._clock()
        if posted is not None:
            return now - posted
        self._posted = now
        if not loop.soon(self._mark):
            self._posted = None  # a loop that is gone is not blocked
        return 0.0

    def _mark(self) -> None:
        self._posted = None


class _Request(BaseHTTPRequestHandler):
    """Translates one request; everything happens in the constructor, as the base class has it."""

    protocol_version = "HTTP/1.0"

    def __init__(self, connection: socket.socket, server: ProbeServer) -> None:
        self._probe_server = server
        super().__init__(connection, connection.getpeername(), cast("Any", server))

    def _reply(self) -> None:
        reply = self._probe_server.answer(self.path, self.command)
        self.send_response_only(reply.status)
        for name, value in reply.headers:
            self.send_header(name.decode(), value.decode())
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _reply

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: probes come every few seconds, and each worker's log would be full."""


# -- sockets -----------------------------------------------------------------------------------


def _listen(host: str, port: int) -> socket.socket:
    if host == "" and socket.has_dualstack_ipv6():
        try:
            family = socket.AF_INET6
            return socket.create_server((host, port), family=family, dualstack_ipv6=True)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # IPv6 is compiled in, but switched off
                raise
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _refused(port: int, error: OSError) -> Notice:
    if error.errno == errno.EADDRINUSE:
        return Notice(
            f"probe_port {port} is taken, so this process goes without; "
            "with several workers one of them owns it and answers for itself",
            level="info",
        )
    return Notice(
        f"probe_port {port} can't be opened ({error.strerror}), so this process goes without; "
        "choose another port"
    )
