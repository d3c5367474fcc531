"""What the lifecycle needs of a server, and how the right integration is found.

An integration is imported only when its server has been: by module name, from one table. A server
that is not in it still works in the plain way, through the signal handler that it had installed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from .core.budget import ServerLimit
from .signals import Handler

__all__ = ["DETECTORS", "PlainServer", "Server", "ServerOwner", "detect"]

DETECTORS = {
    "uvicorn.server": "graceful.integrations.uvicorn",
    "gunicorn.workers.base": "graceful.integrations.gunicorn_workers",
}
"""Module that a running server has imported → integration with a `detect(handler)`."""


class ServerOwner(Protocol):
    """What an integration may ask of the lifecycle that attached it."""

    async def stop(self, cause: str, *, retires: bool = False) -> None:
        """The server has begun to stop by itself: drain now, return when drained.

        `retires`: siblings go on serving the port.
        """
        ...

    async def server_gone(self) -> int:
        """The server has finished its own shutdown. Returns the exit status, 0 or 70."""
        ...

    def drain_left(self) -> float:
        """Return the seconds that the server's own shutdown may still take for work."""
        ...


class Server(Protocol):
    """One running server, as its integration sees it."""

    name: str
    """For the start-up line: name and version; empty when no integration knows it."""
    managed: bool
    """A parent process manages this one and may repeat the platform's signals."""
    shares_listener: bool
    """Siblings or a parent hold the listening socket too, so it goes on listening anyway."""
    development: bool
    """A reloader restarts this process on each saved file."""
    needs_lifespan: bool
    """The server treats an app without lifespan support as an error."""

    def limits(self) -> Sequence[ServerLimit]:
        """Return the server's own timeouts that take part in the budget."""
        ...

    def attach(self, owner: ServerOwner) -> None:
        """Make the server's own shutdown go through `owner`."""
        ...

    def detach(self) -> None:
        """Undo `attach`."""
        ...

    async def stop_accepting(self) -> None:
        """Empty the accept queue, then close this process's listeners. Connections stay."""
        ...

    def has_connections(self) -> bool:
        """Whether any client connection is open; True when the server can't tell."""
        ...

    def leave(self) -> None:
        """Start the server's own shutdown; the drain is over."""
        ...


class PlainServer:
    """A server that no integration knows: the lifecycle tells it through its signal handler."""

    name = ""
    managed = False
    shares_listener = False
    development = False
    needs_lifespan = False

    def limits(self) -> Sequence[ServerLimit]:
        return ()

    def attach(self, owner: ServerOwner) -> None:
        pass

    def detach(self) -> None:
        pass

    async def stop_accepting(self) -> None:
        """Only the server itself could; it goes on accepting until it is told to leave."""

    def has_connections(self) -> bool:
        return True

    def leave(self) -> None:
        """See `Lifecycle.leave_servers`."""


def detect(handler: Handler, receive: object = None) -> Server | None:
    """Return the server that runs the caller's event loop, None when no integration knows it.

    Args:
        handler: what SIGTERM calls at present; servers that own the signal are found behind it.
        receive: the `receive` of the lifespan, which tells several servers of a loop apart.
    """
    for module, integration in DETECTORS.items():
        if module in sys.modules:
            found: Server | None = import_module(integration).detect(handler, receive)
            if found is not None:
                return found
    return None
