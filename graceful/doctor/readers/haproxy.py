"""haproxy.cfg: how each backend checks, how fast it notices, how long it keeps connections."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ...core.platforms import HAPROXY_FALL, HAPROXY_INTER
from ..model import Balancer, Check, Fact, Place, Scene
from ..source import Source
from ..units import haproxy as seconds_of

__all__ = ["scene"]

_SECTIONS: Final = frozenset({"frontend", "backend", "listen", "defaults"})
_OTHER_SECTIONS: Final = frozenset(
    {
        "global",
        "peers",
        "resolvers",
        "userlist",
        "mailers",
        "cache",
        "program",
        "ring",
        "http-errors",
    }
    | {"log-forward", "fcgi-app", "crt-store", "traces", "acme", "log-profile", "ruleset"}
)
MAX_WORDS: Final = 100
"""Of a line: HAProxy takes 64 unless it is built otherwise."""
_METHOD: Final = re.compile(r"[A-Z]+$")


@dataclass(slots=True)
class _Section:
    """One section, its settings laid over those of its `defaults`."""

    kind: str
    name: str
    place: Place
    settings: dict[str, tuple[list[str], Place]] = field(
        default_factory=dict[str, "tuple[list[str], Place]"]
    )
    servers: list[tuple[list[str], Place]] = field(default_factory=list["tuple[list[str], Place]"])

    sends_to: set[str] = field(default_factory=set[str])

    def value(self, key: str) -> str | None:
        words = self.settings.get(key)
        return words[0][0] if words and words[0] else None

    def seconds(self, key: str) -> Fact[float] | None:
        found = seconds_of(self.value(key))
        return None if found is None else Fact(found, self.settings[key][1])


def scene(source: Source) -> Scene:
    """Return one balancer per backend or listen section that has servers."""
    sections = list(_sections(source))
    fronts = [s for s in sections if s.kind in ("frontend", "listen")]
    return Scene(
        balancers=tuple(
            _balancer(section, fronts)
            for section in sections
            if section.kind in ("backend", "listen") and section.servers
        )
    )


def _sections(source: Source) -> Iterator[_Section]:
    defaults: dict[str, _Section] = {}
    latest: _Section | None = None
    current: _Section | None = None
    for number, row in enumerate(source.text.splitlines(), 1):
        words = _words(row)
        if not words:
            continue
        place = Place(source.name, number)
        if words[0] in _SECTIONS:
            if current is not None and current.kind != "defaults":
                yield current
            current = _begun(words, place, defaults, latest)
            if current.kind == "defaults":
                latest = defaults[current.name] = current
        elif words[0] in _OTHER_SECTIONS and row[:1].strip():
            if current is not None and current.kind != "defaults":
                yield current
            current = None
        elif current is not None:
            _take(current, words, place)
    if current is not None and current.kind != "defaults":
        yield current


def _begun(
    words: list[str], place: Place, defaults: Mapping[str, _Section], latest: _Section | None
) -> _Section:
    name = words[1] if len(words) > 1 and words[1] != "from" else ""
    section = _Section(words[0], name, place)
    base = defaults.get(words[words.index("from") + 1]) if "from" in words[1:-1] else latest
    if base is not None and (section.kind != "defaults" or "from" in words[1:-1]):
        section.settings.update(base.settings)
    return section


def _words(row: str) -> list[str]:
    lexer = shlex.shlex(row[:4000], posix=True)
    lexer.whitespace_split = True
    try:
        return list(lexer)[:MAX_WORDS]
    except ValueError:
        return row[:4000].partition("#")[0].split()[:MAX_WORDS]


def _take(section: _Section, words: list[str], place: Place) -> None:
    negated = words[0] == "no"
    words = words[1:] if negated else words
    if not words:
        return
    if words[0].startswith("server") and len(words) < 3:
        return
    if words[0] == "server-template":  # prefix, how many, address
        section.servers += [([words[1], *words[3:]], place)] * 2  # more than one, whatever it says
        return
    if words[0] == "server":
        section.servers.append((words[1:], place))
        return
    two = words[0] in ("timeout", "option", "http-check") and len(words) > 1
    key = " ".join(words[:2]) if two else words[0]
    if negated:
        section.settings.pop(key, None)
    elif key in ("use_backend", "default_backend"):
        section.sends_to.update(words[1:2])
    elif key in KEPT:
        if key in CHECKS:  # the last one counts, whatever it asks
            section.settings = {k: v for k, v in section.settings.items() if k not in CHECKS}
        section.settings[key] = (words[2:] if two else words[1:], place)


def _balancer(section: _Section, fronts: list[_Section]) -> Balancer:
    front = _front(section, fronts)
    common = section.settings.get("default-server", ([], section.place))[0]
    servers = [([*common, *words], words, place) for words, place in section.servers]
    checked = [(_options(words), place) for words, _, place in servers if _is_checked(words)]
    blind = tuple(
        place for words, _, place in servers if not (_is_checked(words) or IDLE & set(words))
    )
    if _is_no_http(section):
        checked, blind = [], ()
    return Balancer(
        kind="haproxy",
        name=f"{section.kind} {section.name}",
        place=section.place,
        hosts=tuple(_host(words) for _, words, _ in servers),
        check=_check(section, *checked[0]) if checked else None,
        blind=blind,
        idle=_idle(section, front),
        idle_setting="timeout http-keep-alive",
        front_idle=front.seconds(_idle_key(front)),
        front_setting=f"haproxy {_idle_key(front)}",
        retries=_retries(section, len(servers)),
    )


IDLE: Final = frozenset({"backup", "disabled"})
"""Servers that get no requests as things are."""


def _is_no_http(section: _Section) -> bool:
    """Whether this leads to something else than web servers, a database for instance."""
    asks = "option httpchk" in section.settings
    return bool(OTHER_CHECKS & section.settings.keys()) or (
        section.value("mode") == "tcp" and not asks
    )


OTHER_CHECKS: Final = frozenset(
    f"option {name}-check" for name in ("mysql", "pgsql", "redis", "ldap", "spop")
) | {"option smtpchk"}

KEPT: Final = frozenset(
    {"mode", "retries", "default-server", "option redispatch", "option httpchk", "http-check send"}
    | {"option tcp-check", "option ssl-hello-chk", "option http-server-close", "option httpclose"}
    | {"option forceclose", "timeout http-keep-alive", "timeout http-request", "timeout client"}
    | OTHER_CHECKS
)
"""All that is looked at: each section has a copy of what its `defaults` say."""

CHECKS: Final = OTHER_CHECKS | {"option httpchk", "option tcp-check", "option ssl-hello-chk"}


def _front(section: _Section, fronts: list[_Section]) -> _Section:
    """Return where this backend's clients come in."""
    if section.kind == "listen":
        return section
    used = [front for front in fronts if section.name in front.sends_to]
    return (used or fronts or [section])[0]


def _host(words: list[str]) -> str:
    address = words[-1] if len(words) < 2 else words[1]
    return address.rpartition(":")[0] or address


def _is_checked(words: list[str]) -> bool:
    checked = False
    for word in words:  # the last one of the two counts
        checked = word == "check" or (checked and word != "no-check")
        if word in ("track", "agent-check"):
            return True
    return checked


def _options(words: list[str]) -> dict[str, str]:
    """Return the words that are followed by a value, with it; the last one counts."""
    return {words[i]: words[i + 1] for i in range(len(words) - 1)}


def _check(section: _Section, options: Mapping[str, str], place: Place) -> Check:
    inter = seconds_of(options.get("inter"))
    inter = HAPROXY_INTER.value if inter is None else inter
    fast = seconds_of(options.get("fastinter"))
    fall = int(options["fall"]) if options.get("fall", "").isdigit() else int(HAPROXY_FALL.value)
    if fast is None or fall == 1:
        return Check(place, *_asked(section), inter * fall, f"inter {inter:g} s × fall {fall}")
    how = f"inter {inter:g} s + fastinter {fast:g} s × {fall - 1}"
    return Check(place, *_asked(section), inter + fast * (fall - 1), how)


def _asked(section: _Section) -> tuple[bool, Fact[str] | None]:
    """Whether the check is an HTTP request, and its path."""
    httpchk = section.settings.get("option httpchk")
    if httpchk is None:
        return False, None
    send = section.settings.get("http-check send")
    if send is not None:
        given = _options(send[0])
        if "uri" in given:
            return True, Fact(given["uri"], send[1])
    words = [word for word in httpchk[0] if not _METHOD.match(word)]
    return True, Fact(words[0] if words else "/", httpchk[1])


def _idle_key(front: _Section) -> str:
    keys = ("timeout http-keep-alive", "timeout http-request", "timeout client")
    return next((key for key in keys if front.seconds(key) is not None), keys[0])


def _idle(section: _Section, front: _Section) -> Fact[float] | None:
    """How long a server's connection waits for the client's next request, which it stays with."""
    closes = {"option http-server-close", "option httpclose", "option forceclose"}
    both = {**front.settings, **section.settings}
    if closes & both.keys() or section.value("mode") == "tcp":
        return None
    return front.seconds(_idle_key(front))


def _retries(section: _Section, servers: int) -> Fact[str] | None:
    if servers < 2 or section.value("mode") == "tcp":
        return None
    if section.value("retries") == "0":
        return Fact("retries 0", section.settings["retries"][1])
    if "option redispatch" not in section.settings:
        return Fact("no option redispatch", section.place)
    return None
