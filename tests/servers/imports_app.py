"""Two apps that use nothing themselves, and say on their way out what has been imported since."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from graceful.asgi import GracefulMiddleware
from graceful.wsgi import GracefulMiddleware as WsgiMiddleware

serving: set[str] = set()
"""What was imported when this process was last asked for something."""


def noted() -> bytes:
    """Take note of what there is by now."""
    serving.update(sys.modules)
    return b"noted\n"


def say() -> None:
    """Say what has come since, if anybody asked here."""
    if serving:
        text = " ".join(sorted(set(sys.modules) - serving))
        os.write(2, f"@ {os.getpid()} imported: {text}\n".encode())


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Serve HTTP; there is no lifespan to speak of."""
    if scope["type"] == "lifespan":
        await answer_lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": noted()})


async def answer_lifespan(receive: Any, send: Any) -> None:
    """Agree to everything."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def wsgi_answer(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Serve WSGI."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [noted()]


app = GracefulMiddleware(answer, on_cleanup=say)

wsgi_app = WsgiMiddleware(wsgi_answer, on_cleanup=say)
