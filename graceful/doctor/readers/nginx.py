"""nginx configurations, by crossplane: upstreams, what they keep open, whether they look elsewhere.

crossplane reads files only, so the text goes through one of its own; `include` is not followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, cast

import crossplane  # type: ignore[import-untyped]

from ...core.platforms import (
    NGINX_CLIENT_IDLE,
    NGINX_PLUS_FAILS,
    NGINX_PLUS_INTERVAL,
    NGINX_UPSTREAM_IDLE,
)
from ..model import Balancer, Check, Fact, Place, Scene
from ..source import Source, Unreadable
from ..units import nginx as seconds_of

__all__ = ["scene"]

MAX_DEPTH: Final = 50


class _Block:
    """A directive with its arguments, and those inside it."""

    def __init__(self, raw: dict[str, Any], file: str) -> None:
        self.name: str = raw["directive"]
        self.arguments: list[str] = raw["args"]
        self.place = Place(file, raw["line"])
        self.inner = [_Block(child, file) for child in raw.get("block", ())]

    def named(self, name: str) -> Iterator[_Block]:
        """Yield the directives inside, at any depth."""
        for child in self.inner:
            if child.name == name:
                yield child
            yield from child.named(name)

    def seconds(self) -> Fact[float] | None:
        found = seconds_of(self.arguments[0]) if self.arguments else None
        return None if found is None else Fact(found, self.place)


def scene(source: Source) -> Scene:
    """Return one balancer per upstream.

    Raises:
        Unreadable: braces or quotes that do not match, or too much of them.
    """
    top = _parsed(source)
    upstreams = list(top.named("upstream"))
    inside = {id(child) for upstream in upstreams for child in upstream.inner}
    client = next(
        (b.seconds() for b in top.named("keepalive_timeout") if id(b) not in inside), None
    )
    off = next((b for b in top.named("proxy_next_upstream") if "off" in b.arguments), None)
    streams = {id(u) for stream in top.named("stream") for u in stream.named("upstream")}
    passing, others = _passing(top)
    return Scene(
        balancers=tuple(
            _balancer(upstream, passing, client, off, top)
            for upstream in upstreams
            if id(upstream) not in streams and not others & set(upstream.arguments)
        )
    )


def _passing(top: _Block) -> tuple[dict[str, list[_Block]], set[str]]:
    """Return the locations by the upstream that they pass to, and the upstreams of others."""
    found: dict[str, list[_Block]] = {}
    others: set[str] = set()
    for block in (*top.named("location"), *top.named("server")):
        for child in block.inner:
            if child.name in OURS and child.arguments:
                host = _HOST.match(child.arguments[0].rpartition("://")[2])
                found.setdefault(host[0] if host else "", []).append(block)
            elif child.name in OTHERS:
                others.update(child.arguments[:1])
    return found, others


_HOST: Final = re.compile(r"[^/$:]*")
OURS: Final = frozenset({"proxy_pass", "grpc_pass", "uwsgi_pass"})
OTHERS: Final = frozenset({"fastcgi_pass", "memcached_pass", "scgi_pass"})
"""What leads to no web server of Python's."""


def _parsed(source: Source) -> _Block:
    depth = 0
    for number, row in enumerate(source.text.splitlines(), 1):
        depth += row.count("{") - row.count("}")
        if depth > MAX_DEPTH or row.count("{") > MAX_DEPTH:
            raise Unreadable(source.name, f"nested deeper than {MAX_DEPTH} levels", number)
    with TemporaryDirectory() as folder:
        file = Path(folder, "nginx.conf")
        file.write_text(source.text + "\n", encoding="utf-8")
        payload = cast(
            Any, crossplane.parse(str(file), single=True, check_ctx=False, check_args=False)
        )
    for error in payload["errors"]:
        reason = str(error["error"]).partition(" in /")[0] or "a quote or a directive never ends"
        raise Unreadable(source.name, f"is not nginx: {reason}", error["line"])
    parsed = payload["config"][0]["parsed"]
    return _Block({"directive": "", "args": [], "line": 1, "block": parsed}, source.name)


def _balancer(
    upstream: _Block,
    passing: dict[str, list[_Block]],
    client: Fact[float] | None,
    off: _Block | None,
    top: _Block,
) -> Balancer:
    name = upstream.arguments[0] if upstream.arguments else ""
    servers = [block for block in upstream.inner if block.name == "server" and block.arguments]
    through = passing.get(name, ())
    check = next((_check(c) for b in through for c in b.inner if c.name == "health_check"), None)
    idle = next((b.seconds() for b in upstream.inner if b.name == "keepalive_timeout"), None)
    keeps = next((b for b in upstream.inner if b.name == "keepalive"), None)
    if keeps is not None and idle is None:
        idle = Fact(NGINX_UPSTREAM_IDLE.value, keeps.place)
    return Balancer(
        kind="nginx",
        name=f"upstream {name}",
        place=upstream.place,
        hosts=tuple(block.arguments[0].partition(":")[0] for block in servers),
        check=check,
        blind=() if check else tuple(block.place for block in servers),
        idle=idle if keeps is not None and keeps.arguments[:1] != ["0"] else None,
        idle_setting="keepalive_timeout of the upstream",
        front_idle=client or Fact(NGINX_CLIENT_IDLE.value, top.place),
        front_setting="nginx keepalive_timeout",
        retries=Fact("proxy_next_upstream off", off.place) if off and len(servers) > 1 else None,
    )


def _check(block: _Block) -> Check:
    given = {name: value for name, _, value in (part.partition("=") for part in block.arguments)}
    interval = seconds_of(given.get("interval"))
    interval = NGINX_PLUS_INTERVAL.value if interval is None else interval
    fails = int(given["fails"]) if given.get("fails", "").isdigit() else int(NGINX_PLUS_FAILS.value)
    path = Fact(given.get("uri", "/"), block.place)
    how = f"interval {interval:g} s × fails {fails}"
    return Check(block.place, True, path, interval * fails, how)
