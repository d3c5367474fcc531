"""What a rehearsal does: one frozen record of options, each with its unit and its reason.

The command line is made from these fields (`graceful.cli.rehearse`), so a new option is added
here and nowhere else. Nothing in this file acts.
"""

from __future__ import annotations

import dataclasses
import math
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from .schedule import Kind

__all__ = ["PORT", "Plan", "PlanError", "RehearsalError"]

PORT: Final = "{port}"
SECONDS: Final = "{seconds}"

T = TypeVar("T")


class RehearsalError(Exception):
    """The rehearsal could not be held: no statement about the app can be made."""


class PlanError(RehearsalError, ValueError):
    """The options contradict each other or the command can't work."""


def _option(default: T, text: str) -> T:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Options of one rehearsal. Times are seconds as floats; paths begin with '/'."""

    command: Sequence[str]
    """How one instance is started, word by word; every '{port}' is replaced by its port."""
    instances: int = _option(2, "How many instances stand behind the balancer.")
    rolls: int = _option(1, "How often every instance is restarted; 0 = load only, a control.")
    reload_signal: str = _option(
        "",
        "Signal (HUP) on which an instance replaces its workers by itself; sent in the place of "
        "SIGTERM, and no instance is restarted.",
    )
    duration: float = _option(5.0, "Seconds of load where there are no rolls.")
    rate: float = _option(100.0, "Requests per second, all kinds together, on a fixed schedule.")
    websockets: int = _option(0, "How many WebSocket clients stay connected.")
    sse: int = _option(0, "How many server-sent-events clients stay connected.")
    balancer: str = _option("internal", "What stands before the instances.")

    quick_path: str = _option("/", "GET, answered at once ('' leaves this kind out).")
    slow_path: str = _option(
        "/slow?seconds={seconds}", "GET that takes 0.2 to 2 s; '{seconds}' is replaced."
    )
    post_path: str = _option("/echo", "POST whose answer is the request's body.")
    websocket_path: str = _option("/ws", "WebSocket that numbers its messages and may echo ours.")
    sse_path: str = _option("/events", "Server-sent events, numbered.")
    readiness_path: str = _option("/readyz", "What balancers ask: 200 = choose this instance.")
    sse_event: str = _option("reconnect", "Name of the SSE event that is a farewell.")

    probe_interval: float = _option(0.5, "Seconds between two readiness probes of the balancer.")
    fall: int = _option(2, "Failed probes in a row that take an instance out of the rotation.")
    rise: int = _option(1, "Good probes in a row that bring it back.")
    lag: float = _option(1.0, "Seconds until the rotation follows the probes (internal ones).")
    rtt: float = _option(0.02, "Seconds between choosing a connection and writing (internal-l4).")
    client_keepalive: float = _option(
        1.5,
        "Seconds after which clients and proxies drop an idle connection; below the server's own "
        "(gunicorn: 2), or the two race without any restart.",
    )

    block_path: str = _option("", "GET that blocks the event loop, for the fault 'blocked-loop'.")
    faults: Sequence[str] = field(default=())
    """What goes wrong on purpose: the first in the first restart, and so on, in turn."""

    request_timeout: float = _option(15.0, "Seconds after which a request has timed out.")
    message_interval: float = _option(0.5, "Seconds between two messages of a WebSocket client.")
    reconnect_cap: float = _option(2.0, "Longest delay in seconds that a told client waits.")
    start_timeout: float = _option(30.0, "Seconds that an instance may take to become ready.")
    kill_after: float = _option(
        35.0, "Seconds from SIGTERM to SIGKILL; the longest a reload may take."
    )
    warmup: float = _option(1.0, "Seconds of load before the first SIGTERM.")
    settle: float = _option(0.5, "Seconds between two restarts.")
    tail: float = _option(1.0, "Seconds of load after the last restart.")
    time_limit: float = _option(0.0, "Seconds for all of it; 0 = worked out from the rest.")
    seed: int = _option(1, "Seed of the load's random choices.")
    trace: bool = False
    """Keep every request in the result, for a report that draws them."""
    logs: Path | None = field(
        default=None, metadata={"help": "Folder for the output of the instances; made if missing."}
    )

    def __post_init__(self) -> None:
        """Check everything that can be checked before a process is started.

        Raises:
            PlanError: an option is out of range or the command has no '{port}'.
        """
        self._check_command()
        object.__setattr__(self, "command", tuple(self.command))
        object.__setattr__(self, "faults", tuple(self.faults))
        self._check_numbers()
        self._check_paths()
        self._check_signal()
        self._check_faults()

    def _check_command(self) -> None:
        if isinstance(self.command, str):
            raise PlanError(f"command = {self.command!r}: give a list of words, no shell reads it")
        if not self.command:
            raise PlanError("no command given: put it after '--'")
        if not any(PORT in word for word in self.command):
            raise PlanError(
                f"the command has no {PORT}, so instances can't be told apart: "
                f"{' '.join(self.command)}"
            )

    def _check_numbers(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, int | float) and not (0 <= value < math.inf):
                raise PlanError(f"{name} = {value}: give a number that is not negative")
        for name in ("instances", "fall", "rise"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} = {getattr(self, name)}: give 1 or more")
        for name in ("probe_interval", "request_timeout", "start_timeout", "message_interval"):
            if getattr(self, name) == 0:
                raise PlanError(f"{name} = 0: give more than 0 s")
        if self.rate and not self.kinds:
            raise PlanError("rate > 0, but every kind of request is left out: rate = 0 says that")

    def _check_paths(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not name.endswith("_path"):
                continue
            if value and (not value.startswith("/") or not value.isprintable() or " " in value):
                raise PlanError(f"{name} = {value!r}: give a path that begins with '/'")
        if not self.readiness_path:
            raise PlanError("readiness_path = '': balancers need a path to ask")
        for name, path in (("websockets", self.websocket_path), ("sse", self.sse_path)):
            if getattr(self, name) and not path:
                raise PlanError(f"{name} = {getattr(self, name)}, but its path is left out")

    def _check_signal(self) -> None:
        if self.reload_signal and self.signal_name not in signal.Signals.__members__:
            raise PlanError(f"reload_signal = {self.reload_signal!r}: give a name such as HUP")

    def _check_faults(self) -> None:
        if not self.faults:
            return
        if self.reload_signal:
            raise PlanError("faults are for restarts: leave out reload_signal or the faults")
        if len(self.faults) > self.restarts:
            raise PlanError(
                f"{len(self.faults)} faults, but {self.restarts} restarts (instances x rolls), one "
                "fault each: raise rolls"
            )

    @property
    def restarts(self) -> int:
        """How many restarts, or reloads, there will be."""
        return self.rolls * self.instances

    @property
    def signal_name(self) -> str:
        """What an instance is sent, such as 'SIGTERM'."""
        return (
            f"SIG{self.reload_signal.upper().removeprefix('SIG')}"
            if self.reload_signal
            else "SIGTERM"
        )

    @property
    def kinds(self) -> Mapping[Kind, str]:
        """The kinds of request that are part of the load, with their paths."""
        paths = {
            Kind.QUICK: self.quick_path,
            Kind.SLOW: self.slow_path,
            Kind.POST: self.post_path,
        }
        return {kind: path for kind, path in paths.items() if path}

    @property
    def limit(self) -> float:
        """Seconds after which the rehearsal gives up: all waits at their longest, and a bit."""
        if self.time_limit:
            return self.time_limit
        detection = (max(self.fall, self.rise) + 1) * self.probe_interval + self.lag
        restart = self.kill_after + self.start_timeout + detection + self.settle
        load = self.warmup + self.duration + self.tail + self.request_timeout
        return 2 * self.start_timeout + load + self.restarts * restart + self.reconnect_cap + 30

    def command_for(self, port: int) -> list[str]:
        """Return the command line of the instance on `port`."""
        return [word.replace(PORT, str(port)) for word in self.command]
