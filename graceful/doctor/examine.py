"""From sources to findings: read, put together, judge, sort. The command is a shell around this."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from . import rules_balancers, rules_budget, rules_probes, rules_process, rules_rollout
from .assemble import assembled
from .catalogue import RULES, Severity
from .model import Finding, Scene
from .readers import READERS
from .source import Source

__all__ = ["SEVERITIES", "Examination", "examine"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")
"""The worst first."""

_JUDGES: Final = (
    rules_budget.rules,
    rules_process.rules,
    rules_probes.rules,
    rules_rollout.rules,
    rules_balancers.rules,
)

_SILENCED: Final = re.compile(r"graceful:\s*ignore(?:\[([\w\s,-]*)\])?")


@dataclass(frozen=True, slots=True)
class Examination:
    """What was looked at and what was found, in the order of the files."""

    files: tuple[str, ...]
    scene: Scene
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Return how many findings are that bad."""
        return sum(RULES[finding.id].severity == severity for finding in self.findings)


def examine(sources: Iterable[Source], ignored: Iterable[str] = ()) -> Examination:
    """Read all sources, put together what belongs together, and judge it.

    Args:
        sources: what was read, in the order in which findings are told.
        ignored: ids of rules that are left out.

    Raises:
        Unreadable: a source that is not of its format, or that exceeds a limit.
    """
    sources = list(sources)
    scene = Scene()
    for source in sources:
        scene += READERS[source.format](source)
    scene = assembled(scene)
    names = [source.name for source in sources]
    found = {(f.id, f.place, f.text): f for judge in _JUDGES for f in judge(scene)}
    silent = _silenced(sources)
    dropped = set(ignored)
    kept = [
        finding
        for finding in found.values()
        if finding.id not in dropped | silent.get((finding.place.file, finding.place.line), set())
    ]
    kept.sort(key=lambda f: (names.index(f.place.file), f.place.line, _rank(f), f.id, f.text))
    return Examination(tuple(names), scene, tuple(kept))


def _rank(finding: Finding) -> int:
    return SEVERITIES.index(RULES[finding.id].severity)


def _silenced(sources: Iterable[Source]) -> dict[tuple[str, int], set[str]]:
    """Return the ids that a comment 'graceful: ignore[id]' silences, for its line and the next."""
    found: dict[tuple[str, int], set[str]] = {}
    for source in sources:
        if "graceful:" not in source.text:
            continue
        for number, row in enumerate(source.text.splitlines(), 1):
            match = _SILENCED.search(row)
            if match is None:
                continue
            ids = set(RULES) if match[1] is None else set(re.split(r"[\s,]+", match[1].strip()))
            for line in (number, number + 1):
                found.setdefault((source.name, line), set()).update(ids)
    return found
