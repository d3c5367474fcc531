"""What the lifecycle needs of a server, and how the right integration is found.

An integration is imported only when its server has been: by module name, from the table of traits.
A server that is not in it still works in the plain way, through the signal handler that it had
installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, runtime_checkable

from .core.budget import ServerLimit, Settings, SettingsError
from .core.traits import TRAITS, UNKNOWN, ServerTraits
from .signals import Handler

__all__ = [
    "PlainServer",
    "Server",
    "ServerOwner",
    "Worker",
    "Wrapped",
    "detect",
    "prepare",
    "prepare_server",
]


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

    def accepts_no_more(self) -> bool:
        """This process closes its listener now, nobody waits to be accepted.

        Returns True when no other process accepts any more, and the listener, which a parent goes
        on holding, has to be shut down: new clients are refused then and hang nowhere.
        """
        ...

    def drain_left(self) -> float:
        """Return the seconds that the server's own shutdown may still take for work."""
        ...


class Server(Protocol):
    """One running server, as its integration sees it."""

    traits: ServerTraits
    """What it can do: its row of the table."""
    version: str
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


@runtime_checkable
class Worker(Protocol):
    """A server that knows more of its parent's signals than they say."""

    def told_early(self) -> bool:
        """Whether the signal has come before anybody could hear it."""
        ...

    def is_replaced(self) -> bool:
        """Whether a successor serves the port already, so that this process alone is meant."""
        ...


class Wrapped(Protocol):
    """An app that joins with its first request, unless its server lets it do so before."""

    @property
    def settings(self) -> Settings: ...

    @property
    def error(self) -> SettingsError | None:
        """What is wrong with its settings."""
        ...

    def enter(self) -> bool:
        """Join the lifecycle. False when settings are wrong."""
        ...


class PlainServer:
    """A server that no integration knows: the lifecycle tells it through its signal handler."""

    traits = UNKNOWN
    version = ""
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


def detect(
    handler: Handler, receive: object = None, lost: Callable[[str], object] = str
) -> Server | None:
    """Return the server that runs the caller's event loop, None when no integration knows it.

    Args:
        handler: what SIGTERM calls at present; servers that own the signal are found behind it.
        receive: the `receive` of the lifespan, which tells several servers of a loop apart.
        lost: is told what doesn't work because a server has lost a name; the process goes on in
            the plain way.
    """
    for row in TRAITS:
        if not row.integration or row.module not in sys.modules:
            continue
        try:
            found: Server | None = import_module(row.integration).detect(handler, receive)
        except (ImportError, AttributeError) as error:
            lost(
                f"the installed {row.name} is not one that graceful knows ({error}); it stops in "
                f"its own way when its signal handler is called, after the drain"
            )
            continue
        if found is not None:
            return found
    return None


def prepare(app: Wrapped, lost: Callable[[str], object] = str) -> None:
    """Have the server that imports `app` call its `enter` before it serves, where it can.

    Args:
        app: was made a moment ago; servers without lifespan call it with requests only.
        lost: as for `detect`.
    """
    for row in TRAITS:
        if not row.prepares or row.module not in sys.modules:
            continue
        try:
            import_module(row.integration).prepare(app)
        except (ImportError, AttributeError) as error:
            lost(
                f"the installed {row.name} is not one that graceful knows ({error}); a worker of "
                "WSGI apps stops in its own way, without a drain"
            )


def prepare_server(lost: Callable[[str], object] = str) -> None:
    """Have a server be ready for an app that joins when it is too late to find that out.

    One that asks no app to start lets its app join when it starts all the same.

    Args:
        lost: as for `detect`.
    """
    for row in TRAITS:
        if not row.early or row.module not in sys.modules:
            continue
        try:
            import_module(row.integration).prepare()
        except (ImportError, AttributeError) as error:
            lost(
                f"the installed {row.name} is not one that graceful knows ({error}); an app that "
                "is not asked to start joins with its first request, and may be too late to drain"
            )
