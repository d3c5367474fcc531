"""Everything that there is to show, in one value. The terminal, the page and JSON all read it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..core.advice import Advice, Choice, Traffic, enough
from ..core.budget import Settings

__all__ = ["View"]


@dataclass(frozen=True)
class View:
    """A plan and what is wrong with it."""

    settings: Settings
    """As given."""
    choice: Choice
    advice: Advice
    traffic: Traffic
    problems: tuple[str, ...]
    """Empty: the settings fit."""
    kinds: tuple[str, ...]
    """Which settings to paste: keys of `KINDS`."""

    @cached_property
    def advised(self) -> Settings:
        """What would fit: the same settings where these do."""
        return enough(self.settings, self.advice)

    @property
    def verdict(self) -> str:
        """One line for people."""
        if not self.problems:
            return "The settings fit"
        return "The settings do not fit"

    @property
    def answers(self) -> list[str]:
        """What is advised, and what the traffic means for it."""
        advice, traffic, drain = self.advice, self.traffic, self.settings.drain
        found: list[str] = []
        if advice.paths:
            found.append(f"Advised propagation_delay: {advice.delay:g} s")
        found.append(
            f"Smallest safe grace_period: {advice.grace} s, with {advice.drain:g} s of drain"
        )
        if traffic.in_flight is not None:
            found.append(
                f"In flight at the flip (rate x mean): {traffic.in_flight:g}; "
                "at most as many must finish in the drain"
            )
        if traffic.p99 is not None:
            verb = "fits" if traffic.p99 <= drain else "does not fit"
            found.append(f"p99 {traffic.p99:g} s {verb} the drain of {drain:g} s")
        return found
