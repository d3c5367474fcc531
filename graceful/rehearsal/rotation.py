"""Which instances a balancer chooses from, as its probes have it. Pure; `now` is an argument.

`fall` failed probes in a row take an instance out, `rise` good ones bring it back, and either
way the change takes effect `lag` seconds later: endpoints, targets and DNS entries travel.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Rotation"]


class Rotation:
    """The members of a rotation; all are in it at first."""

    def __init__(self, names: Iterable[str], *, fall: int, rise: int, lag: float) -> None:
        """`fall` and `rise` are probes in a row, `lag` is in seconds."""
        self._fall, self._rise, self._lag = fall, rise, lag
        self._members = dict.fromkeys(names, True)
        self._healthy = dict(self._members)
        self._streak = dict.fromkeys(self._members, 0)
        self._coming: list[tuple[float, str, bool]] = []
        self._turn = 0

    def observe(self, name: str, *, ok: bool, now: float) -> None:
        """One probe of instance `name` has been answered (or not)."""
        if ok == self._healthy[name]:
            self._streak[name] = 0
            return
        self._streak[name] += 1
        if self._streak[name] >= (self._rise if ok else self._fall):
            self._healthy[name] = ok
            self._streak[name] = 0
            self._coming.append((now + self._lag, name, ok))

    def members(self, now: float) -> list[str]:
        """The instances that may be chosen at `now`."""
        while self._coming and self._coming[0][0] <= now:
            _, name, inside = self._coming.pop(0)
            self._members[name] = inside
        return [name for name, inside in self._members.items() if inside]

    def choose(self, now: float) -> str | None:
        """The next one in turn, None if nobody is left."""
        members = self.members(now)
        if not members:
            return None
        self._turn += 1
        return members[self._turn % len(members)]

    def steady(self, name: str, now: float) -> bool:
        """Whether `name` is a member and nothing known so far will change that."""
        inside = name in self.members(now)
        changing = any(coming == name for _, coming, _ in self._coming)
        return inside and not changing and self._streak[name] == 0
