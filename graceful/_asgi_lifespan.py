"""The lifespan protocol, spoken on the app's behalf: start-up failures, the last drain, the end.

An app that does not speak it keeps its hooks all the same: the protocol is then spoken for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from ._asgi_types import App, Message, Receive, Scope, Send
from .core.budget import SettingsError

__all__ = ["LifespanOwner", "serve_lifespan"]


class LifespanOwner(Protocol):
    """What the middleware does at the four moments of a lifespan."""

    app: App

    def enter(self, *, lifespan: bool, receive: Receive | None = None) -> SettingsError | None:
        """The app is about to start. Returns what is wrong with its settings, if anything."""
        ...

    def started(self) -> None:
        """The app is ready to serve."""
        ...

    async def before_shutdown(self) -> None:
        """The server has asked for the end; return when the app may be shut down."""
        ...

    def gone(self) -> None:
        """The app has shut down, or never came up."""
        ...

    def must_speak(self) -> bool:
        """Whether the server takes an app without lifespan as an error."""
        ...


class _Lifespan:
    """One lifespan: what the server has asked for and what the app has answered."""

    def __init__(self, owner: LifespanOwner, receive: Receive, send: Send) -> None:
        self._owner = owner
        self._receive = receive
        self._send = send
        self._asked: str | None = None
        self.answered: set[str] = set()

    async def receive(self) -> Message:
        message = await self._receive()
        self._asked = message["type"]
        if self._asked == "lifespan.shutdown":
            await self._owner.before_shutdown()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if not kind.startswith("lifespan."):
            # An app that takes every scope for a request; it is told, and then spoken for.
            raise RuntimeError(f"{kind!r} was sent to a lifespan scope")
        self.answered.add(kind)
        if kind == "lifespan.startup.complete":
            self._owner.started()
        elif kind.startswith(("lifespan.startup.failed", "lifespan.shutdown.")):
            self._owner.gone()
        await self._send(message)

    async def speak_for_app(self) -> None:
        """Finish the protocol where the app has left it."""
        if self._asked is None:
            await self.receive()
        if "lifespan.startup.failed" in self.answered:
            return
        if "lifespan.startup.complete" not in self.answered:
            await self.send({"type": "lifespan.startup.complete"})
        if self._asked != "lifespan.shutdown":
            await self.receive()
        if not self.answered & {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
            await self.send({"type": "lifespan.shutdown.complete"})


async def serve_lifespan(owner: LifespanOwner, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the app's lifespan with the lifecycle around it."""
    problem = owner.enter(lifespan=True, receive=receive)
    if problem is not None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(problem)})
        raise problem  # as frameworks do: a TestClient would take a silent return for a start
    lifespan = _Lifespan(owner, receive, send)
    try:
        await _run_app(owner.app, scope, lifespan, owner.must_speak)
        await lifespan.speak_for_app()
    finally:
        owner.gone()


async def _run_app(
    app: Callable[[Scope, Receive, Send], Awaitable[None]],
    scope: Scope,
    lifespan: _Lifespan,
    must_speak: Callable[[], bool],
) -> None:
    try:
        await app(scope, lifespan.receive, lifespan.send)
    except Exception:
        # Before any answer this is how apps say that they don't know the protocol.
        if lifespan.answered or must_speak():
            raise
