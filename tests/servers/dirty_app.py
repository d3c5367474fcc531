"""A WSGI app and an ASGI app whose work is done by gunicorn's dirty workers, and what these do."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gunicorn.dirty import DirtyApp, get_dirty_client, get_dirty_client_async

import graceful.asgi
import graceful.wsgi
from graceful._asgi_types import Receive, Scope, Send

from .wsgi_app import mark

PLACE = "tests.servers.dirty_app:Pool"
RELEASED = "DIRTY_APP_RELEASED"
"""Environment variable: the file without which `wait` does not end."""


class Pool(DirtyApp):
    """What the pool of dirty workers does."""

    def quick(self) -> str:
        """Answer at once."""
        return "quick"

    def wait(self) -> str:
        """Answer when the test has made the file."""
        mark("wait begins")
        while not Path(os.environ[RELEASED]).exists():
            time.sleep(0.01)
        return "waited"

    def pid(self) -> int:
        """Say who answers."""
        return os.getpid()


def respond(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Ask the pool for what the path says."""
    answer = get_dirty_client().execute(PLACE, environ["PATH_INFO"].strip("/"))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(answer).encode()]


async def respond_async(scope: Scope, receive: Receive, send: Send) -> None:
    """Ask the pool for what the path says."""
    client = await get_dirty_client_async()
    answer = await client.execute_async(PLACE, scope["path"].strip("/"))
    head = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": str(answer).encode()})


wsgi = graceful.wsgi.GracefulMiddleware(respond)
asgi = graceful.asgi.GracefulMiddleware(respond_async)
