"""The servers of the suite, a few lines each."""

from __future__ import annotations

from typing import Any

from .harness import Launcher

__all__ = [
    "GUNICORN_ASGI",
    "GUNICORN_GEVENT",
    "GUNICORN_GTHREAD",
    "GUNICORN_SYNC",
    "GUNICORN_UVICORN",
    "LISTENS",
    "UVICORN",
    "UVICORN_H11",
    "UVICORN_WORKERS",
    "UVICORN_WSPROTO",
]

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

_GUNICORN = (
    *("gunicorn", "{app}", "-b", "127.0.0.1:0", "--no-control-socket"),
    *("-c", "python:graceful.integrations.gunicorn_conf"),
)
LISTENS = r"Listening at: http://127\.0\.0\.1:(\d+)"


def gunicorn(name: str, *options: str, **traits: Any) -> Launcher:
    """Return a gunicorn of two workers whose arbiter speaks for them."""
    return Launcher(
        name=f"gunicorn-{name}",
        command=(*_GUNICORN, "-w", "2", *options),
        announces=LISTENS,
        workers=2,
        speakers=1,
        reports_holds=False,
        refuses_while_draining=False,
        own_exit_status=False,
        **traits,
    )


GUNICORN_ASGI = gunicorn(
    "asgi",
    *("-k", "asgi"),
    noise="ASGI application returned without completing",
    sends_head_alone=False,
    denies_with=403,
)
GUNICORN_UVICORN = gunicorn("uvicorn", "-k", "uvicorn_worker.UvicornWorker", noise=_NOISE)
GUNICORN_GTHREAD = gunicorn("gthread", "-k", "gthread", "--threads", "16")
GUNICORN_GEVENT = gunicorn("gevent", "-k", "gevent")
GUNICORN_SYNC = gunicorn("sync", "-k", "sync", "--workers", "4")
