"""Reads what is to be checked: bytes of bounded size, decoded, with its format told.

Nothing here understands a format beyond telling it from the others, and nothing is ever executed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO, Final

__all__ = ["FORMATS", "MAX_BYTES", "Source", "Unreadable", "decoded", "read", "told"]

MAX_BYTES: Final = 4 * 1024 * 1024
"""Of one file. The rendered output of a large Helm chart has about one megabyte."""

MAX_OTHERS: Final = 256 * 1024
"""Of one file that is not YAML: nobody writes longer ones by hand."""

FORMATS: Final = (
    *("kubernetes", "compose", "systemd", "ecs", "gunicorn"),
    *("haproxy", "nginx", "caddy", "dockerfile"),
)

YAMLS: Final = frozenset({"kubernetes", "compose", "ecs"})


class Unreadable(Exception):
    """A file can't be checked; says why, and where."""

    def __init__(self, file: str, reason: str, line: int | None = None) -> None:
        super().__init__(f"{file}:{line}: {reason}" if line else f"{file}: {reason}")
        self.file = file
        self.reason = reason
        self.line = line


@dataclass(frozen=True, slots=True)
class Source:
    """The text of one file."""

    name: str
    """As it was given; '<stdin>' for what was piped in."""
    text: str
    format: str


def read(stream: BinaryIO, name: str, given: str | None = None) -> Source:
    """Return what `stream` holds.

    Args:
        stream: bytes; no more than `MAX_BYTES` are taken.
        name: for messages, and to tell the format.
        given: the format, where somebody has named it.

    Raises:
        Unreadable: empty, too large, binary, in an unknown encoding, or of no known format.
    """
    data = stream.read(MAX_BYTES + 1)
    _limit(data, MAX_BYTES, name)
    text = decoded(data, name)
    found = given or told(name, text)
    if found is None and not text.strip():
        raise Unreadable(name, "is empty")
    if found is None:
        formats = "|".join(FORMATS)
        raise Unreadable(name, f"is of no format that is known; say which with --as {formats}")
    if found not in YAMLS:
        _limit(data, MAX_OTHERS, name)
    return Source(name, text, found)


def _limit(data: bytes, most: int, name: str) -> None:
    if len(data) > most:
        raise Unreadable(name, f"is larger than {most // 1024:,} KiB; give the part that matters")


def decoded(data: bytes, name: str) -> str:
    """Return the text: UTF-8, or UTF-16 with its mark, as PowerShell writes into files.

    Raises:
        Unreadable: anything else.
    """
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not wide and b"\0" in data:
        raise Unreadable(name, "is a binary file", data.count(b"\n", 0, data.index(b"\0")) + 1)
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(name, f"is not UTF-8 text (byte {error.start})", line) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


_UNIT = re.compile(r"^\[(Unit|Service|Install|Socket)\]\s*$", re.M)
_HAPROXY = re.compile(
    r"^(global|defaults|(frontend|backend|listen)\s+\S+)\s*(#.*|from\s.*)?$", re.M
)
_DOCKERFILE = re.compile(r"\A(\s*(#.*|ARG\s.*)?\n)*\s*FROM\s+\S+", re.I)
_NGINX = re.compile(r"^\s*(upstream\s+\S+|server|http|events|location\s[^\n{]+)\s*\{", re.M)
_CADDY = re.compile(r"^\s*reverse_proxy\b", re.M)
_SERVICES = re.compile(r"^services\s*:", re.M)
_KIND = re.compile(r"""^\s*(- )?["']?kind["']?\s*:|"kind"\s*:""", re.M)
_TASK = re.compile(r"""["']?[cC]ontainerDefinitions["']?\s*:""")
_GUNICORN = re.compile(
    r"^(bind|workers|worker_class|threads|timeout|graceful_timeout|keepalive)\s*=", re.M
)
_TEMPLATE = re.compile(r"""^[^#\n]*\{\{-?\s*[.$a-zA-Z"]""", re.M)

_BY_NAME: Final = (
    (re.compile(r"gunicorn.*\.py$|\.conf\.py$"), "gunicorn"),
    (re.compile(r"(^|[.-])(dockerfile|containerfile)", re.I), "dockerfile"),
    (re.compile(r"^caddyfile|\.caddy(file)?$", re.I), "caddy"),
    (re.compile(r"\.(service|socket)$|\.service\.d"), "systemd"),
    (re.compile(r"haproxy.*\.(cfg|conf)$", re.I), "haproxy"),
    (re.compile(r"nginx.*\.conf$", re.I), "nginx"),
    (re.compile(r"^(docker-)?compose.*\.ya?ml$"), "compose"),
)
_BY_TEXT: Final = (
    (_UNIT, "systemd"),
    (_TASK, "ecs"),
    (_KIND, "kubernetes"),
    (_SERVICES, "compose"),
    (_DOCKERFILE, "dockerfile"),
    (_NGINX, "nginx"),
    (_HAPROXY, "haproxy"),
    (_CADDY, "caddy"),
    (_GUNICORN, "gunicorn"),
)


def told(name: str, text: str) -> str | None:
    """Return the format, by the file's name and else by what stands in it."""
    base = PurePath(name).name
    for pattern, found in _BY_NAME:
        if pattern.search(base):
            return found
    head = text[:200_000]  # enough to tell, and bounded whatever the patterns do
    return next((found for pattern, found in _BY_TEXT if pattern.search(head)), None)


def is_template(text: str) -> bool:
    """Whether this is a Helm or Jinja template that nobody has rendered."""
    return _TEMPLATE.search(text[:200_000]) is not None
