"""Findings for machines: JSON, GitHub's annotations, SARIF 2.1.0. Text in, nothing printed here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import quote

from .catalogue import CATALOGUE, RULES
from .examine import SEVERITIES, Examination
from .model import Finding

__all__ = ["FORMATS", "as_dict"]

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"

_GITHUB: Final = {"error": "error", "warning": "warning", "note": "notice"}


def as_dict(finding: Finding) -> dict[str, Any]:
    """Return one finding as plain data."""
    rule = RULES[finding.id]
    return {
        "id": finding.id,
        "severity": rule.severity,
        "title": rule.title,
        "file": finding.place.file,
        "line": finding.place.line,
        "subject": finding.subject,
        "text": finding.text,
        "fix": finding.fix,
        "numbers": dict(finding.numbers),
    }


def to_json(found: Examination, version: str) -> str:
    """Return everything as one JSON object."""
    return _dump(
        {
            "version": version,
            "files": list(found.files),
            "counts": {severity: found.count(severity) for severity in SEVERITIES},
            "findings": [as_dict(finding) for finding in found.findings],
        }
    )


def to_github(found: Examination, version: str) -> str:
    """Return workflow commands, which GitHub shows beside the lines."""
    return "\n".join(map(_command, found.findings))


def _command(finding: Finding) -> str:
    rule = RULES[finding.id]
    values = {"file": finding.place.file, "line": str(finding.place.line), "title": finding.id}
    properties = ",".join(f"{key}={_escaped(text, ':,')}" for key, text in values.items())
    message = f"{finding.subject}: {finding.text}. Fix: {finding.fix}"
    return f"::{_GITHUB[rule.severity]} {properties}::{_escaped(message)}"


def _escaped(text: str, more: str = "") -> str:
    """A message can't end its command, nor begin another."""
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def to_sarif(found: Examination, version: str) -> str:
    """Return a SARIF 2.1.0 log, for code scanning."""
    rules = [
        {
            "id": rule.id,
            "shortDescription": {"text": rule.title},
            "fullDescription": {"text": rule.story},
            "help": {"text": rule.story},
            "defaultConfiguration": {"level": rule.severity},
        }
        for rule in CATALOGUE
    ]
    driver = {"name": "graceful check", "version": version, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding) for finding in found.findings],
    }
    return _dump({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _result(finding: Finding) -> dict[str, Any]:
    index = [rule.id for rule in CATALOGUE].index(finding.id)
    location = {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(finding.place.file)},
            "region": {"startLine": finding.place.line},
        },
        "logicalLocations": [{"fullyQualifiedName": finding.subject}],
    }
    return {
        "ruleId": finding.id,
        "ruleIndex": index,
        "level": RULES[finding.id].severity,
        "message": {"text": f"{finding.text}. Fix: {finding.fix}"},
        "locations": [location],
        "properties": {"numbers": dict(finding.numbers)},
    }


def _uri(file: str) -> str:
    return quote(PurePath(file).as_posix(), safe="/")


def _dump(data: Mapping[str, Any]) -> str:
    """ASCII only: whatever a file had in it, the output can be written anywhere."""
    return json.dumps(data, indent=2)


FORMATS: Final[Mapping[str, Callable[[Examination, str], str]]] = {
    "json": to_json,
    "github": to_github,
    "sarif": to_sarif,
}
