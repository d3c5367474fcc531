"""granian, in the ways in which it is run."""

from __future__ import annotations

from .harness import Launcher

__all__ = ["GRANIAN", "GRANIAN_ASYNCIO", "GRANIAN_WORKERS", "GRANIAN_WSGI", "GRANIAN_WSGI_WORKERS"]


def granian(name: str, *options: str, workers: int = 1) -> Launcher:
    """Return a granian whose parent exits with its own status, and passes signals on once."""
    return Launcher(
        name=f"granian-{name}",
        command=("tests.servers.granian_script", "{app}", "--workers", str(workers), *options),
        announces=r"Listening at: http://127\.0\.0\.1:(\d+)",
        workers=workers,
        own_exit_status=False,
        wakes=False,
    )


GRANIAN = granian("asgi", "--interface", "asgi")
GRANIAN_ASYNCIO = granian("asgi-asyncio", "--interface", "asgi", "--loop", "asyncio")
GRANIAN_WORKERS = granian("asgi-workers", "--interface", "asgi", workers=2)
GRANIAN_WSGI = granian("wsgi", "--interface", "wsgi", "--blocking-threads", "16")
GRANIAN_WSGI_WORKERS = granian(
    "wsgi-workers", "--interface", "wsgi", "--blocking-threads", "16", workers=2
)
