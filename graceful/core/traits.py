"""What each server can do, by name and version: one table, and nothing else knows a server's name.

The shells read it to find words that the server understands, `graceful.servers` to find the
integration, the contract suite to know what to expect. A server that is not in it is taken to be
one that follows the specifications. Data only; how a server is stopped is its integration's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Literal

__all__ = ["TRAITS", "UNKNOWN", "SaysClose", "ServerTraits", "traits_named", "traits_of_wsgi"]

SaysClose = Literal["header", "response", "request", "never"]
"""How a WSGI server is told to close a connection. The specification forbids apps to send
`Connection`. Most servers pass it on and act on it; gunicorn drops it, but can be asked through the
object behind `start_response`; waitress and wsgiref take it for an error, but waitress does what
the request said, and that can be changed."""

APPLICATIONS_OWN: Final = range(3000, 5000)
"""Close codes that RFC 6455, 7.4.2 leaves to libraries and applications."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTraits:
    """One server, as far as what it does differs from the specifications."""

    name: str = ""
    """As its logs call it; empty for one that nobody knows."""
    tested: tuple[str, str] | None = None
    """The oldest and the newest version that the integration was tested with; None = any will do.
    0.54.1 is taken for 0.54 where that is all that is said."""
    module: str = ""
    """A module that is imported wherever this server runs."""
    integration: str = ""
    """Module with a `detect(handler, receive)`; empty = the plain treatment."""
    prepares: bool = False
    """The integration has a `prepare(app)`, by which WSGI apps join before their first request."""
    early: bool = False
    """The integration has a `prepare()` for what is too late when an app without lifespan joins;
    it is called where ASGI apps are imported."""
    software: str = ""
    """How `SERVER_SOFTWARE` begins in its WSGI environ; empty = it serves no WSGI."""
    says_close: SaysClose = "header"
    counts_blocks: bool = True
    """It asks how many blocks a WSGI body has, and sends the length of a single one."""
    state: bool = True
    """What an app puts into `scope["state"]` in its lifespan is in that of each request."""
    denies: bool = True
    """It can answer a WebSocket handshake with a response of ours; otherwise 403 is all there is.
    Read by tests only: the shell asks the scope, which is the specification's way."""
    close_codes: Literal["all", "own"] = "all"
    """"own": WebSockets can be closed with 1000 and `APPLICATIONS_OWN` only."""
    closes_while_receiving: bool = True
    """A WebSocket's close goes out whatever its app does meanwhile; otherwise the app must neither
    wait in `receive`, which holds the close up, nor return, which takes its place."""

    def close_code(self, code: int) -> int:
        """Return what this server can say of `code`: 1012 becomes 4012 where it must be our own."""
        allowed = self.close_codes == "all" or code == 1000 or code in APPLICATIONS_OWN
        return code if allowed else code + 3000

    def knows(self, version: str) -> bool:
        """Whether `version` is among those that the integration was tested with."""
        if self.tested is None:
            return True
        oldest, newest = map(_numbers, self.tested)
        given = _numbers(version)
        return oldest <= given and given[: len(newest)] <= newest


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (3, 0, 2) of '3.0.2', (1,) of '1rc2'."""
    found = (re.match(r"\d+", part) for part in version.split("."))
    return tuple(int(part[0]) for part in takewhile(bool, found) if part)


UNKNOWN: Final = ServerTraits()

TRAITS: Final = (
    # First: it is found only where `serve` gives it, also on the loop of another server.
    ServerTraits(
        name="grpc",
        tested=("1.85", "1.85"),
        module="graceful.integrations.grpc",
        integration="graceful.integrations.grpc",
    ),
    ServerTraits(
        name="uvicorn",
        tested=("0.54", "0.54"),
        module="uvicorn.server",
        integration="graceful.integrations.uvicorn",
    ),
    ServerTraits(
        name="gunicorn",
        tested=("27.0", "27.0"),
        module="gunicorn.workers.base",
        integration="graceful.integrations.gunicorn_workers",
        software="gunicorn",
        says_close="response",
        counts_blocks=False,
        denies=False,
    ),
    ServerTraits(
        name="hypercorn",
        tested=("0.18", "0.18"),
        module="hypercorn.protocol",
        integration="graceful.integrations.hypercorn",
        early=True,
    ),
    ServerTraits(
        name="granian",
        tested=("2.8", "2.8"),
        module="granian._granian",
        integration="graceful.integrations.granian",
        prepares=True,
        software="Granian",
        closes_while_receiving=False,
    ),
    ServerTraits(
        name="daphne",
        tested=("4.2", "4.2"),
        module="daphne.server",
        integration="graceful.integrations.daphne",
        early=True,
        state=False,
        denies=False,
        close_codes="own",
    ),
    ServerTraits(
        name="waitress",
        tested=("3.0", "3.0"),
        module="waitress.server",
        integration="graceful.integrations.waitress",
        prepares=True,
        software="waitress",
        says_close="request",
    ),
    # Its handlers assert that no app speaks of the connection; Django's runserver is built on it.
    ServerTraits(name="wsgiref", software="WSGIServer", says_close="never"),
)


def traits_named(name: str) -> ServerTraits:
    """Return the row of the server `name`."""
    return next((row for row in TRAITS if row.name == name), UNKNOWN)


def traits_of_wsgi(software: str) -> ServerTraits:
    """Return the row of the WSGI server that calls itself `software`."""
    return next(
        (row for row in TRAITS if row.software and software.startswith(row.software)), UNKNOWN
    )
