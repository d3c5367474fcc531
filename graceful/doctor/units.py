"""Durations as the formats write them, in seconds; None = no duration that can be told."""

from __future__ import annotations

import math
import re
from typing import Final

__all__ = ["go", "haproxy", "nginx", "plain", "systemd"]

_PARTS: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Zµμ]*)")

_GO: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
}
_HAPROXY: Final = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}
_NGINX: Final = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "": 1}
_SYSTEMD: Final = {
    **dict.fromkeys(("us", "usec"), 1e-6),
    **dict.fromkeys(("ms", "msec"), 1e-3),
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}


def plain(text: str | None) -> float | None:
    """A finite number of seconds, zero or more."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def go(text: str | None) -> float | None:
    """Compose and Caddy: 1m30s; a bare number means nothing there but 0."""
    return 0.0 if text == "0" else _sum(text, _GO)


def haproxy(text: str | None) -> float | None:
    """HAProxy: 2s, 500ms; a bare number is milliseconds."""
    return _sum(text, {**_HAPROXY, "": 1e-3})


def nginx(text: str | None) -> float | None:
    """nginx: 60s, 1m; a bare number is seconds."""
    return _sum(text, _NGINX)


def systemd(text: str | None) -> float | None:
    """systemd: 1min 30s; 0 and 'infinity' are for ever."""
    if text == "infinity":
        return math.inf
    seconds = _sum(text, _SYSTEMD)
    return math.inf if seconds == 0 else seconds


def _sum(text: str | None, units: dict[str, float]) -> float | None:
    rest = (text or "").strip()
    if not rest or len(rest) > 64:
        return None
    total = 0.0
    while rest:
        part = _PARTS.match(rest)
        if part is None or part[2] not in units:
            return None
        total += float(part[1]) * units[part[2]]
        rest = rest[part.end() :].lstrip()
    return round(total, 9)
