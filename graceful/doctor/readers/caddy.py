"""Caddyfiles: each `reverse_proxy`, how it checks and how long it keeps connections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ...core.platforms import CADDY_FAILS, CADDY_INTERVAL, CADDY_KEEPALIVE
from ..model import Balancer, Check, Fact, Place, Scene
from ..source import Source, Unreadable
from ..units import go as seconds_of

__all__ = ["scene"]

MAX_DEPTH: Final = 50

_HEREDOC: Final = re.compile(r"\s<<([A-Za-z0-9_-]+)\s*$")
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|[^\s"`]\S*|["`]')


@dataclass(slots=True)
class _Line:
    """A directive with its arguments, and the lines of its block."""

    words: list[str]
    place: Place
    inner: list[_Line] = field(default_factory=list["_Line"])

    def named(self, name: str) -> Iterator[_Line]:
        """Yield the directives inside, at any depth."""
        for child in self.inner:
            if child.words[0] == name:
                yield child
            yield from child.named(name)

    def value(self, name: str) -> Fact[str] | None:
        """Return the first argument of a directive inside."""
        found = next(self.named(name), None)
        return Fact(found.words[1], found.place) if found and len(found.words) > 1 else None


def scene(source: Source) -> Scene:
    """Return one balancer per `reverse_proxy`.

    Raises:
        Unreadable: braces that do not match, or too many of them.
    """
    proxies = _parsed(source).named("reverse_proxy")
    return Scene(balancers=tuple(_balancer(proxy) for proxy in proxies))


def _parsed(source: Source) -> _Line:
    top = _Line([""], Place(source.name, 1))
    stack = [top]
    for number, row in _rows(source.text):
        words = _words(row)
        opens = bool(words) and words[-1] == "{"
        words = words[:-1] if opens else words
        if words == ["}"] and not opens:
            if len(stack) == 1:
                raise Unreadable(source.name, "is not a Caddyfile: a } too many", number)
            stack.pop()
            continue
        if not words and not opens:
            continue
        line = _Line([word.strip('"`') for word in words] or [""], Place(source.name, number))
        stack[-1].inner.append(line)
        if opens:
            stack.append(line)
        if len(stack) > MAX_DEPTH:
            raise Unreadable(source.name, f"nested deeper than {MAX_DEPTH} levels", number)
    if len(stack) > 1:
        raise Unreadable(source.name, "is not a Caddyfile: a } is missing", stack[-1].place.line)
    return top


def _rows(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers, without what heredocs and long strings hold."""
    until = ""
    for number, row in enumerate(text.splitlines(), 1):
        if until:
            ended = until in row if until == "`" else row.split()[:1] == [until]
            if not ended:
                continue
            row = row.partition(until)[2]
            until = ""
        heredoc = _HEREDOC.search(row)
        if heredoc:
            until = heredoc[1]
        elif row.partition("#")[0].count("`") % 2:
            row, until = row[: row.rindex("`")], "`"
        yield number, row


def _words(row: str) -> list[str]:
    words: list[str] = []
    for word in _TOKEN.findall(row[:4000]):
        if word.startswith("#"):
            break
        words.append(word)
    return words


def _balancer(proxy: _Line) -> Balancer:
    hosts = [word for word in proxy.words[1:] if not word.startswith(("/", "@", "*"))]
    for to in proxy.named("to"):
        hosts += to.words[1:]
    checks = _check(proxy)
    return Balancer(
        kind="caddy",
        name=f"reverse_proxy {' '.join(hosts)}"[:60],
        place=proxy.place,
        hosts=tuple(_host(host) for host in hosts),
        check=checks,
        blind=() if checks else (proxy.place,),
        idle=_idle(proxy),
        idle_setting="keepalive of its transport",
        retries=None
        if len(hosts) < 2 or proxy.value("lb_try_duration") or proxy.value("lb_retries")
        else Fact("no lb_try_duration", proxy.place),
    )


def _host(address: str) -> str:
    bare = address.rpartition("://")[2]
    return bare.rpartition(":")[0] or bare


def _check(proxy: _Line) -> Check | None:
    path = proxy.value("health_uri") or proxy.value("health_path")
    port = proxy.value("health_port")
    if path is None and port is None:
        return None
    written, fails = proxy.value("health_interval"), proxy.value("health_fails")
    interval = seconds_of(written.value) if written else None
    interval = CADDY_INTERVAL.value if interval is None else interval
    times = int(fails.value) if fails and fails.value.isdigit() else int(CADDY_FAILS.value)
    place = (path or port or Fact("", proxy.place)).place
    how = f"health_interval {interval:g} s" + (f" × health_fails {times}" if times > 1 else "")
    return Check(place, True, path or Fact("/", place), interval * times, how)


def _idle(proxy: _Line) -> Fact[float] | None:
    given = proxy.value("keepalive")
    if given is None:
        return Fact(CADDY_KEEPALIVE.value, proxy.place)
    seconds = seconds_of(given.value)
    return None if not seconds else Fact(seconds, given.place)
