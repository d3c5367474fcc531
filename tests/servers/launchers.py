"""The servers of the suite, a few lines each."""

from __future__ import annotations

from .harness import Launcher

__all__ = ["UVICORN", "UVICORN_H11", "UVICORN_WORKERS", "UVICORN_WSPROTO"]

_PORT = r"Uvicorn running on http://127\.0\.0\.1:(\d+)"
# Denials that the sans-I/O protocol has sent, and streams that ended with a disconnect.
_NOISE = "ASGI callable returned without completing"
_UVICORN = ("uvicorn", "{app}", "--port", "0", "--no-access-log")

UVICORN = Launcher(
    name="uvicorn",
    command=(*_UVICORN, "--loop", "uvloop", "--http", "httptools"),
    announces=_PORT,
    noise=_NOISE,
)

UVICORN_H11 = Launcher(
    name="uvicorn-h11-asyncio",
    command=(*_UVICORN, "--loop", "asyncio", "--http", "h11"),
    announces=_PORT,
    noise=_NOISE,
)

UVICORN_WSPROTO = Launcher(
    name="uvicorn-wsproto",
    command=(*_UVICORN, "--ws", "wsproto"),
    announces=_PORT,
    noise=_NOISE,
)

UVICORN_WORKERS = Launcher(
    name="uvicorn-workers",
    command=(*_UVICORN, "--workers", "2"),
    announces=_PORT,
    noise=_NOISE,
    workers=2,
    refuses_while_draining=False,
    own_exit_status=False,
)
