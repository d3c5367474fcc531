"""A program that runs uvicorn itself. Run: python -m tests.servers.embedding MODE

It marks what happens around the server; a line on stdin makes it stop the server in its own way.
"""

from __future__ import annotations

import signal
import sys
import threading

import uvicorn

import graceful
from graceful.asgi import GracefulMiddleware

from .contract_app import app, mark


def server_of(wrapped: object) -> uvicorn.Server:
    """Return a server for `wrapped` on a free port."""
    assert callable(wrapped)
    return uvicorn.Server(uvicorn.Config(wrapped, port=0, log_level="info"))


def run() -> None:
    """The plain way: `Server.run`, stopped by a signal."""
    server_of(app).run()


def should_exit() -> None:
    """Stopped through uvicorn's own public switch."""
    server = server_of(app)

    def stop() -> None:
        sys.stdin.readline()
        server.should_exit = True

    threading.Thread(target=stop, daemon=True).start()
    server.run()


def thread() -> None:
    """In a thread, where no signals arrive: stopped by code."""
    server = server_of(app)
    running = threading.Thread(target=server.run)
    running.start()
    sys.stdin.readline()
    mark(f"handler is default: {signal.getsignal(signal.SIGTERM) is signal.SIG_DFL}")
    graceful.current().terminate()
    running.join()


def twice() -> None:
    """One server after the other in one process: each has its own life."""
    run()
    mark("again")
    run()


def nested() -> None:
    """Wrapped twice by mistake."""
    server_of(GracefulMiddleware(GracefulMiddleware(app))).run()


if __name__ == "__main__":
    before = signal.getsignal(signal.SIGTERM)
    {f.__name__: f for f in (run, should_exit, thread, twice, nested)}[sys.argv[1]]()
    alive = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
    mark(f"handler restored: {signal.getsignal(signal.SIGTERM) is before}")
    mark(f"threads: {[name for name in alive if 'graceful' in name]}")
    mark("the program goes on")
