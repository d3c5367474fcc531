"""Balancers by name. A new one is one module and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .base import Balancer, BalancerFactory, Route
from .caddy import Caddy
from .haproxy import HAProxy
from .internal import InternalBalancer
from .internal_l4 import InternalL4Balancer
from .nginx import Nginx

__all__ = ["BALANCERS", "Balancer", "Route"]

BALANCERS: Final[Mapping[str, BalancerFactory]] = {
    "internal": InternalBalancer,
    "internal-l4": InternalL4Balancer,
    "haproxy": HAProxy,
    "nginx": Nginx,
    "caddy": Caddy,
}
