"""The contract's ASGI app, which also says when a request that takes long has arrived."""

from __future__ import annotations

from typing import Any

from .contract_app import app as contract
from .contract_app import mark

LONG = ("/slow", "/stuck")


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Mark the beginning of what takes long, as `wsgi_app` does."""
    if scope.get("path") in LONG:
        mark(f"{scope['path'][1:]} begins")
    await contract(scope, receive, send)
