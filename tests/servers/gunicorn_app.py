"""The contract's ASGI app, which also says when a request that takes long is being served."""

from __future__ import annotations

import time
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .contract_app import app, mark

__all__ = ["app"]

LONG = ("/slow", "/stuck", "/upload", "/wedged")


class Marks:
    """Mark the beginning of what takes long, as `wsgi_app` does: once it counts as in flight."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope.get("path") in LONG:
            mark(f"{scope['path'][1:]} begins")
        await self._app(scope, receive, send)


async def wedged(request: Request) -> Response:
    """A request that keeps the worker from everything else, for ever."""
    while True:
        time.sleep(60)  # noqa: ASYNC251 - the point of it


app.user_middleware.append(Middleware(Marks))  # the innermost
app.router.routes.append(Route("/wedged", wedged))
