"""YAML (and JSON, which is YAML's flow style) as a tree of plain nodes that know their lines.

Built from the parser's events, so that no tag constructs anything, the limits hold while the text
is read, and an alias costs what it stands for: a document whose aliases would explode is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from .model import Fact, Place
from .source import Source, Unreadable, is_template

__all__ = ["MAX_DEPTH", "MAX_NODES", "Node", "documents"]

MAX_DEPTH: Final = 100
"""Of brackets in brackets. ruamel.yaml needs quadratic time for them."""
MAX_NODES: Final = 20_000
"""Of one file, aliases counted in full; the parser makes 15 000 to 45 000 a second."""
MAX_CHARACTERS: Final = 300_000
"""Of one document."""
COST: Final = 50
"""A document counts as ten nodes, and as one more for so many characters."""

NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})

_CORE_TAGS: Final = re.compile(
    r"tag:yaml\.org,2002:(str|int|float|bool|null|map|seq|timestamp|binary|set|omap|merge|value)$"
)


@dataclass(slots=True)
class Node:
    """A mapping, a sequence, a scalar, or nothing: whoever asks for what is not there gets that."""

    place: Place
    scalar: str | None = None
    mapping: dict[str, Node] = field(default_factory=dict[str, "Node"])
    sequence: list[Node] = field(default_factory=list["Node"])
    there: bool = True
    weight: int = 1

    def at(self, *keys: str) -> Node:
        """Return the node below `keys`; one that is not there has the place of its parent."""
        node = self
        for key in keys:
            node = node.mapping.get(key) or Node(node.place, there=False)
        return node

    @property
    def line(self) -> int:
        """The line of its key, or of its first character."""
        return self.place.line

    def text(self) -> str | None:
        """Return a scalar's text, None for anything else."""
        return self.scalar

    def fact(self) -> Fact[str] | None:
        """Return a scalar with its place."""
        return None if self.scalar is None else Fact(self.scalar, self.place)

    def number(self) -> float | None:
        """Return a finite number, None for anything else."""
        try:
            value = float(self.scalar or "")
        except ValueError:
            return None
        return value if abs(value) < 1e15 else None

    def strings(self) -> tuple[str, ...]:
        """Return the scalars of a sequence."""
        return tuple(item.scalar for item in self.sequence if item.scalar is not None)

    def pairs(self) -> dict[str, Fact[str | None]]:
        """Return the scalars of a mapping by key."""
        return {key: Fact(node.scalar, node.place) for key, node in self.mapping.items()}

    def texts(self) -> dict[str, str]:
        """Return the texts of a mapping by key."""
        return {key: node.scalar for key, node in self.mapping.items() if node.scalar is not None}


def documents(source: Source, wanted: Callable[[str], bool] = bool) -> Iterator[Node]:
    """Yield the documents of a stream; only those are parsed whose text is `wanted`.

    Raises:
        Unreadable: no YAML, a tag that would construct an object, or one of the limits.
    """
    builder = _Builder(source)
    for first, text in _split(source.text):
        if wanted(text):
            yield from builder.build(text, first)


_MARK = re.compile(r"^---(?=[ \t\n]|$)", re.M)
_JSON_TABS = re.compile(r"^[ \t]*\t[ \t]*", re.M)


def _split(text: str) -> Iterator[tuple[int, str]]:
    """Yield documents with the number of lines before them: `---` at the margin always ends one."""
    if text.lstrip()[:1] in ("{", "["):
        text = _JSON_TABS.sub(" ", text)  # fine in JSON, an error in YAML
    starts = [0, *(mark.start() for mark in _MARK.finditer(text)), len(text)]
    line = 0
    for start, end in pairwise(starts):
        part = text[start:end]
        if not all(row.startswith(("%", "#")) or not row.strip() for row in part.splitlines()):
            yield line, part
        line += part.count("\n")


class _Builder:
    """Makes nodes of the documents of one file, within one budget."""

    def __init__(self, source: Source) -> None:
        self._file = source.name
        self._template = is_template(source.text)
        # "safe" constructs plain values only; of it just the events are used, so not even those.
        self._yaml: Any = YAML(typ="safe", pure=True)
        self._left = MAX_NODES
        self._first = 0
        self._anchors: dict[str, Node | None] = {}

    def build(self, text: str, first: int) -> Iterator[Node]:
        """Yield the documents in `text`, which begins after `first` lines."""
        self._first = first
        self._anchors = {}
        if len(text) > MAX_CHARACTERS:
            raise self._refuse(
                f"a document of more than {MAX_CHARACTERS:,} characters; check it in parts", 0
            )
        self._spend(10 + len(text) // COST, 0)
        try:
            yield from self._documents(text)
        except MarkedYAMLError as error:
            raise self._refuse(f"is not YAML: {error.problem}", _line(error)) from None
        except YAMLError as error:
            raise self._refuse(f"is not YAML: {str(error).splitlines()[0]}", 0) from None
        except (ValueError, TypeError, AttributeError, LookupError, AssertionError) as error:
            # What the parser says of text that its authors did not think of.
            raise self._refuse(f"is not YAML: {type(error).__name__}", 0) from None

    def _refuse(self, reason: str, line: int) -> Unreadable:
        if self._template and reason.startswith("is not YAML"):
            reason = "is a template: render it first, such as helm template . | graceful check -"
        return Unreadable(self._file, reason, self._first + line + 1)

    def _documents(self, text: str) -> Iterator[Node]:
        frames: list[_Frame] = []
        for event in self._yaml.parse(text):
            line = event.start_mark.line
            done: Node | None = None
            if isinstance(event, ScalarEvent | AliasEvent):
                done = self._leaf(event, line)
            elif isinstance(event, SequenceStartEvent | MappingStartEvent):
                if len(frames) >= MAX_DEPTH:
                    raise self._refuse(f"nested deeper than {MAX_DEPTH} levels", line)
                frames.append(self._frame(event, line))
            elif isinstance(event, SequenceEndEvent | MappingEndEvent):
                frame = frames.pop()
                line = frame.line
                done = frame.finished()
                if frame.anchor:
                    self._anchors[frame.anchor] = done
            if done is not None and frames:
                frames[-1].put(done, self._place(line))
            elif done is not None:
                yield done

    def _place(self, line: int) -> Place:
        return Place(self._file, self._first + line + 1)

    def _frame(self, event: Any, line: int) -> _Frame:
        self._judge_tag(event, line)
        self._spend(1, line)
        if event.anchor:
            self._anchors[event.anchor] = None  # not before it is complete
        return _Frame(
            Node(self._place(line)), line, event.anchor, isinstance(event, MappingStartEvent)
        )

    def _leaf(self, event: Any, line: int) -> Node:
        anchor = str(event.anchor or "")
        if isinstance(event, AliasEvent):
            target = self._anchors.get(anchor)
            if target is None:
                raise self._refuse(f"alias *{anchor} stands for nothing, or itself", line)
            self._spend(target.weight, line)
            return target
        self._judge_tag(event, line)
        self._spend(1, line)
        local = str(event.tag or "").startswith("!")  # CloudFormation's !Ref: not known here
        null = event.style is None and event.value in NULLS
        node = Node(self._place(line), None if local or null else event.value)
        if anchor:
            self._anchors[anchor] = node
        return node

    def _judge_tag(self, event: Any, line: int) -> None:
        tag: str = str(event.tag or "!")
        if not tag.startswith("!") and not _CORE_TAGS.match(tag):
            raise self._refuse(f"tag {tag[:80]!r} would construct an object", line)

    def _spend(self, nodes: int, line: int) -> None:
        self._left -= nodes
        if self._left < 0:
            raise self._refuse(
                f"more than {MAX_NODES:,} nodes, aliases counted in full; check it in parts", line
            )


def _line(error: Any) -> int:
    return error.problem_mark.line if error.problem_mark else 0


@dataclass(slots=True)
class _Frame:
    """A mapping or sequence that is being read."""

    node: Node
    line: int
    anchor: str | None
    is_mapping: bool
    key: tuple[str, Place] | None = None
    merged: list[Node] = field(default_factory=list["Node"])

    def put(self, child: Node, place: Place) -> None:
        self.node.weight += child.weight
        if not self.is_mapping:
            self.node.sequence.append(child)
        elif self.key is None:
            self.key = (child.scalar or "", place)
        else:
            (key, row), self.key = self.key, None
            if key == "<<":
                self.merged += child.sequence or [child]
            else:
                self.node.mapping[key] = _placed(child, row)

    def finished(self) -> Node:
        """Bring in what `<<` names; a mapping's own keys win."""
        for part in self.merged:
            for key, value in part.mapping.items():
                self.node.mapping.setdefault(key, value)
        return self.node


def _placed(child: Node, place: Place) -> Node:
    """A value is found where its key stands, also when it begins a line below."""
    if child.place == place:
        return child
    return Node(place, child.scalar, child.mapping, child.sequence, weight=child.weight)
