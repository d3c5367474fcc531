"""Who takes part in one life: the wrapped apps of this process, each with its server and loop.

A list with rules: who may join, who is alive, who is the last. What follows from that is the
lifecycle's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .core.budget import SHARED, Settings, SettingsError
from .driver import Hook
from .loops import Loop
from .servers import PlainServer, Server

__all__ = ["Member", "Members"]


@dataclass(eq=False, slots=True)
class Member:
    """One wrapped app that takes part in the life of its process."""

    name: str
    settings: Settings
    loop: Loop
    lifespan: bool
    """It will say when it is over; otherwise it is over when its loop is."""
    hooks: tuple[Hook, ...] = ()
    receive: object = None
    """The server's `receive` of its lifespan."""
    server: Server = field(default_factory=PlainServer)
    guest: bool = False
    """It brings hooks and settings to the life of others, takes no signals, and ends with them."""

    @property
    def alive(self) -> bool:
        """Whether it still takes part."""
        return self.lifespan or self.loop.is_alive()


class Members:
    """The members of one life, oldest first. Not locked: that is up to the lifecycle."""

    def __init__(self) -> None:
        self._all: list[Member] = []

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._all))

    def __len__(self) -> int:
        return len(self._all)

    @property
    def loop(self) -> Loop | None:
        """The loop of the first one whose loop runs."""
        return next((m.loop for m in self if m.loop.is_alive()), None)

    @property
    def loop_between_turns(self) -> Loop | None:
        """The loop of the first one that will go on: granian runs its loop in turns."""
        return next((m.loop for m in self if m.lifespan), None)

    @property
    def hooks(self) -> list[Hook]:
        """The hooks of each, in order."""
        return [hook for member in self for hook in member.hooks]

    @property
    def servers(self) -> list[tuple[Server, Loop]]:
        """The servers of those who are alive, each with its loop; a guest knows of none."""
        alive = [m for m in self if m.alive]
        hosts = [m for m in alive if not m.guest]
        return [(m.server, m.loop) for m in hosts or alive]

    def is_last(self, member: Member) -> bool:
        """Whether nobody else is alive; guests do not count."""
        return not any(m.alive and not m.guest for m in self if m is not member)

    def forget_ended(self) -> None:
        """Let go of those whose loop has ended without a word."""
        self._all = [m for m in self._all if m.alive]

    def check(self, member: Member) -> None:
        """See whether `member` may join the others.

        Raises:
            SettingsError: its settings contradict those of the first one.
        """
        for first in self._all[:1]:
            names = member.settings.differences(first.settings)
            if member.guest:
                names = [name for name in names if name in SHARED]
            if names:
                values = "; ".join(
                    f"{n} is {getattr(first.settings, n)!r} in {first.name} "
                    f"and {getattr(member.settings, n)!r} in {member.name}"
                    for n in names
                )
                raise SettingsError(
                    f"two apps of one process share one stop, but {values}; "
                    "give both the same settings"
                )

    def add(self, member: Member) -> None:
        """`member` takes part."""
        self._all.append(member)

    def remove(self, member: Member) -> bool:
        """`member` takes part no more. Returns whether the life ends with it."""
        if member not in self._all:
            return False
        self._all.remove(member)
        return not (self._all if member.guest else [m for m in self._all if not m.guest])

    def clear(self) -> None:
        """Nobody takes part any more."""
        self._all.clear()
