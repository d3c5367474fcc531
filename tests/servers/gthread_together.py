"""gthread, where a client comes whenever the main thread is asked for something in a drain.

Its poller then tells of both at once, and of the queue first. Else that happens when it happens.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

import graceful

from .wsgi_app import mark

Events = list[tuple[selectors.SelectorKey, int]]


class Worker(ThreadWorker):
    """The worker, with a poller of ours."""

    def run(self) -> None:
        """Serve."""
        self.poller: Any = Together(self)
        super().run()


class Together(selectors.EpollSelector):
    """Waits until there is a client, too."""

    def __init__(self, worker: Any) -> None:
        super().__init__()
        self._worker = worker

    def select(self, timeout: float | None = None) -> Events:
        """Return what is to be done, in the order in which it came."""
        events = super().select(timeout)
        asked, ports = self._worker.method_queue.fileno(), self._ports()
        if ports and graceful.draining() and asked in descriptors(events):
            for number, port in ports.items():
                while number not in descriptors(events):  # a sibling takes some
                    come(port.getsockname())
                    events = super().select(0.1)
        return sorted(events, key=lambda event: event[0].fd != asked)

    def _ports(self) -> dict[int, Any]:
        """Return the listeners that it waits for, by descriptor."""
        ports = self._worker.sockets
        return {key.fd: key.fileobj for key in self.get_map().values() if key.fileobj in ports}


def descriptors(events: Events) -> list[int]:
    """Return what has happened something to."""
    return [key.fd for key, _ in events]


def come(address: Any) -> None:
    """Be a client, which says how it was answered."""
    client = socket.create_connection(address)
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    def read() -> None:
        with contextlib.closing(client), client.makefile("rb") as answer:
            mark(f"client: {answer.read().splitlines()[:1]}")

    threading.Thread(target=read).start()
