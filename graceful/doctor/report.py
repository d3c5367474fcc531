"""Findings for people: by file and line, the worst in colour, each with its fix."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from .catalogue import CATALOGUE, RULES, Rule, Severity
from .examine import SEVERITIES, Examination
from .model import Finding

__all__ = ["print_explanation", "print_list", "print_report"]

WIDTH: Final = 100
"""Columns of a story."""

COLOURS: Final[dict[Severity, str]] = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def print_report(found: Examination, console: Console) -> None:
    """Print every finding, then what was looked at."""
    for file, findings in groupby(found.findings, lambda finding: finding.place.file):
        console.print(Text(_safe(file), style="bold underline"))
        for finding in findings:
            _print(finding, console)
        console.print()
    console.print(_summary(found))


def _print(finding: Finding, console: Console) -> None:
    severity = RULES[finding.id].severity
    head = Text.assemble(
        (f"{finding.place.line:>5}", "dim"),
        "  ",
        (f"{severity:<7}", COLOURS[severity]),
        "  ",
        (finding.id, "bold"),
        "  ",
        (_safe(finding.subject), "dim"),
    )
    console.print(head)
    _indented(console, Text(_safe(finding.text)))
    _indented(console, Text.assemble(("fix: ", "green"), _safe(finding.fix)))


def _indented(console: Console, text: Text) -> None:
    console.print(Padding(text, (0, 0, 0, 7), expand=False))


def _summary(found: Examination) -> Text:
    looked = _looked_at(found)
    if not (found.scene.workloads or found.scene.balancers or found.findings):
        return Text(
            f"Nothing to check in {_many(len(found.files), 'file')}: no workload, no balancer."
        )
    if not found.findings:
        return Text.assemble(("Nothing found", "bold green"), f" in {looked}.")
    told = [Text(_many(found.count(s), s), COLOURS[s]) for s in SEVERITIES if found.count(s)]
    return Text.assemble(
        Text(", ").join(told),
        f" in {looked}.\n",
        (f"graceful check --explain {_worst(found).id} tells more.", "dim"),
    )


def _worst(found: Examination) -> Finding:
    return min(found.findings, key=lambda f: SEVERITIES.index(RULES[f.id].severity))


def _looked_at(found: Examination) -> str:
    scene = found.scene
    counts = {
        "workload": len(scene.workloads),
        "balancer": len(scene.balancers),
    }
    things = ", ".join(_many(count, name) for name, count in counts.items() if count)
    return f"{_many(len(found.files), 'file')} ({things or 'no workload'})"


def _many(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def _safe(text: str) -> str:
    """Names come from files: no control character of theirs reaches the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def print_list(console: Console) -> None:
    """Print every rule in one line."""
    width = max(len(rule.id) for rule in CATALOGUE)
    for rule in CATALOGUE:
        line = Text.assemble(
            (f"{rule.severity:<7}", COLOURS[rule.severity]),
            "  ",
            (f"{rule.id:<{width}}", "bold"),
            f"  {rule.title}",
        )
        console.print(line)


def print_explanation(rule: Rule, console: Console) -> None:
    """Print the story of one rule."""
    console.print(Text.assemble((rule.id, "bold"), "  ", (rule.severity, COLOURS[rule.severity])))
    console.print(Text(rule.title))
    console.print()
    console.print(Text(rule.story), width=min(console.width, WIDTH))
