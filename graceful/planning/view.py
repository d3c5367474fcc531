"""Everything that there is to show, in one value. The terminal, the page and JSON all read it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..core.advice import Advice, Choice, Kill, Traffic, enough, kill
from ..core.budget import Finding, Settings, check

__all__ = ["View"]


@dataclass(frozen=True)
class View:
    """A plan and what is wrong with it."""

    settings: Settings
    """As given."""
    choice: Choice
    advice: Advice
    traffic: Traffic
    findings: tuple[Finding, ...]
    """What does not fit; without errors the settings do."""
    kinds: tuple[str, ...]
    """Which settings to paste: keys of `KINDS`."""

    @cached_property
    def advised(self) -> Settings:
        """What would fit: the same settings where these do."""
        return enough(self.settings, self.advice)

    @property
    def problems(self) -> list[str]:
        """The errors' texts."""
        return [finding.text for finding in self.findings if finding.severity == "error"]

    @property
    def kill(self) -> Kill:
        """When SIGKILL comes as things are."""
        return kill(self.settings, self.choice)

    @property
    def changes(self) -> bool:
        """Whether anything has to change, here or at the platform, for the stop to fit."""
        return bool(self.problems or self.advised.differences(self.settings))

    @property
    def refused(self) -> bool:
        """Whether a process with these settings would stop at start."""
        return any(finding.severity == "error" for finding in check(self.settings))

    @property
    def verdict(self) -> str:
        """One line for people."""
        if not self.problems:
            return "The settings fit"
        if self.refused:
            return "The settings contradict: graceful would not start with them"
        return "The settings do not fit"

    @property
    def answers(self) -> list[str]:
        """What is advised, and what the traffic means for it."""
        advice, traffic, drain = self.advice, self.traffic, max(self.settings.drain, 0.0)
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
