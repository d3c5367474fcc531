"""A Starlette app whose middleware gets its settings from $MIDDLEWARE, a list of JSON objects.

One object for each `add_middleware`; `mounted` mounts two wrapped apps instead, one for each.
"""

from __future__ import annotations

import json
import os
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from graceful.integrations.starlette import GracefulMiddleware

SETTINGS: list[dict[str, Any]] = json.loads(os.environ.get("MIDDLEWARE", "[{}]"))


async def home(request: Request) -> Response:
    """A quick request."""
    return PlainTextResponse("hello\n")


def wrapped(*settings: dict[str, Any]) -> Starlette:
    """Return an app with one middleware for each of `settings`."""
    wrapped = Starlette(routes=[Route("/", home)])
    for each in settings:
        wrapped.add_middleware(GracefulMiddleware, **each)
    return wrapped


app = wrapped(*SETTINGS)

mounted = Starlette(
    routes=[Mount(f"/{n}", wrapped(settings)) for n, settings in enumerate(SETTINGS)]
)
