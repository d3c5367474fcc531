"""What became of a request: names for it, and how an answer or an exception gets one. Pure.

'Lost' is everything but `OK`: an unexpected status (a 503 too), a body that is not whole, no
answer, or an answer to a request that has run more than once.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import aiohttp

__all__ = [
    "REQUEST_ID",
    "TIMES_SEEN",
    "Loss",
    "Outcome",
    "Sent",
    "is_our_own",
    "of_answer",
    "of_error",
]

REQUEST_ID: Final = "x-request-id"
"""Sent with every request."""
TIMES_SEEN: Final = "x-times-seen"
"""How often the app has run the request with that id, if it says so."""


class Outcome(StrEnum):
    """The outcomes, as they stand in tables and JSON."""

    OK = "ok"
    STATUS = "status"
    RESET = "reset"
    REFUSED = "refused"
    TRUNCATED = "truncated"
    TIMED_OUT = "timed out"
    REPEATED = "repeated"


@dataclass(frozen=True)
class Loss:
    """One request that was lost."""

    number: int
    kind: str
    path: str
    outcome: Outcome
    detail: str
    instance: str | None
    """Which instance it went to, where that is known."""
    fresh: bool
    """Whether it asked for a connection of its own; others may use a kept-alive one."""
    at: float
    """Seconds after the start of the rehearsal at which the loss was noticed."""
    restart: int | None
    """Number of the restart during or after which it happened; None = before the first one."""
    after_sigterm: float | None
    """Seconds after that restart's SIGTERM."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request of the load, as the report draws it."""

    at: float
    """Seconds after the start of the rehearsal at which it was sent."""
    seconds: float
    """Until its outcome was known."""
    kind: str
    instance: str | None
    outcome: Outcome


def of_answer(status: int, *, whole: bool, times_seen: str | None) -> tuple[Outcome, str]:
    """Name an answer that has been read to its end; the second item is a detail for people."""
    if status != 200:
        return Outcome.STATUS, str(status)
    if times_seen is not None and times_seen.isdecimal() and int(times_seen) > 1:
        return Outcome.REPEATED, f"the app ran it {times_seen} times"
    if not whole:
        return Outcome.TRUNCATED, "the body is not what was sent"
    return Outcome.OK, ""


OUR_OWN: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}
)
"""What a client gets that has run out of descriptors, ports or memory."""


def is_our_own(error: Exception) -> bool:
    """Whether `error` says nothing of the app: this machine could not send the request."""
    return isinstance(error, OSError) and error.errno in OUR_OWN


def of_error(error: Exception, *, answered: bool) -> tuple[Outcome, str]:
    """Name an exception of the client; `answered`: the head of the response had arrived."""
    detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, TimeoutError):
        return Outcome.TIMED_OUT, detail
    if answered:
        return Outcome.TRUNCATED, detail
    if isinstance(error, aiohttp.ClientConnectorError):
        refused = error.errno == errno.ECONNREFUSED
        why = os.strerror(error.errno) if error.errno else str(error.os_error)
        return (Outcome.REFUSED if refused else Outcome.RESET), f"could not connect: {why}"
    return Outcome.RESET, detail
