"""Files as people have them: what is found in the bad ones, by rule and line, and in good ones not.

A folder is one case, its files are looked at together. Expectations stand where the finding does:

    terminationGracePeriodSeconds: 20  # expect: grace-exceeded
    # expect-next: shell-swallows-sigterm       where a line can't have a comment
    id@line                                     in FILE.expect, where no line can
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from graceful.doctor import CATALOGUE, Source, examine, read
from graceful.doctor.source import decoded

FILES = Path(__file__).parent / "files"
MARK = re.compile(r"#\s*expect(-next)?:\s*(.+?)\s*$")

Found = tuple[str, int, str]


def cases(kind: str) -> list[Path]:
    """Every case of a folder."""
    return sorted(path for path in (FILES / kind).iterdir() if path.suffix != ".expect")


def members(case: Path) -> list[Path]:
    """The files of a case."""
    return [case] if case.is_file() else sorted(case.iterdir())


def found(case: Path) -> list[Found]:
    """File, line and id of every finding."""
    sources: list[Source] = []
    for path in members(case):
        with path.open("rb") as stream:
            sources.append(read(stream, path.name))
    return sorted((f.place.file, f.place.line, f.id) for f in examine(sources).findings)


def expected(case: Path) -> list[Found]:
    """What the comments say."""
    return sorted(one for path in members(case) for one in _marks(path))


def _marks(path: Path) -> list[Found]:
    marks: list[Found] = []
    text = decoded(path.read_bytes(), path.name)
    for number, row in enumerate(text.splitlines(), 1):
        match = MARK.search(row)
        if match:
            line = number + bool(match[1])
            marks += [(path.name, line, id_) for id_ in re.split(r",\s*", match[2])]
    beside = path.with_name(f"{path.name}.expect")
    if beside.exists():
        for row in beside.read_text().split():
            id_, _, at = row.partition("@")
            marks.append((path.name, int(at), id_))
    return marks


def name(case: Path) -> str:
    return case.name


@pytest.mark.parametrize("case", cases("bad"), ids=name)
def test_what_is_wrong_is_found_where_it_stands(case: Path) -> None:
    """All of it, and nothing else."""
    assert expected(case), "a bad case says what is bad"
    assert Counter(found(case)) == Counter(expected(case))


@pytest.mark.parametrize("case", cases("good"), ids=name)
def test_good_files_raise_no_alarm(case: Path) -> None:
    """Not even a note."""
    assert found(case) == []


def test_every_rule_is_shown_by_a_file() -> None:
    """A rule without one might never fire."""
    shown = {id_ for case in cases("bad") for _, _, id_ in expected(case)}
    assert shown == {rule.id for rule in CATALOGUE}


def test_there_are_enough_files() -> None:
    """The table is long, so is the list of what it was tried on."""
    assert sum(len(members(case)) for kind in ("good", "bad") for case in cases(kind)) >= 30
