"""One reader per format: text in, facts with places out. No reader judges or opens a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ..model import Scene
from ..source import Source
from . import caddy, compose, dockerfile, ecs, gunicorn_conf, haproxy, kubernetes, nginx, systemd

__all__ = ["READERS"]

READERS: Final[Mapping[str, Callable[[Source], Scene]]] = {
    "kubernetes": kubernetes.scene,
    "compose": compose.scene,
    "systemd": systemd.scene,
    "ecs": ecs.scene,
    "gunicorn": gunicorn_conf.scene,
    "dockerfile": dockerfile.scene,
    "haproxy": haproxy.scene,
    "nginx": nginx.scene,
    "caddy": caddy.scene,
}
