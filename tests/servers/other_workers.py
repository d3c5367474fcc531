"""Worker classes that graceful has never heard of: one that serves WSGI, one that serves ASGI.

As small as they can be and still take part in gunicorn's contract: a heartbeat, `alive`, and the
handlers of signals that the base class has installed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from gunicorn.workers.base import Worker
from gunicorn.workers.sync import SyncWorker

WsgiWorker: Any = type("WsgiWorker", (Worker,), dict(vars(SyncWorker)))
"""gunicorn's sync worker in all but its name and its ancestors."""


class AsgiWorker(Worker):
    """HTTP/1.1, one request for each connection; the app's lifespan around all of it."""

    def run(self) -> None:
        """Serve until `alive` is false."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        sockets: Any = self.sockets
        lifespan = _Lifespan(self.wsgi)
        await lifespan.ask("startup")
        servers = [await asyncio.start_server(self._answer, sock=s.sock) for s in sockets]
        while self.alive:
            self.notify()
            await asyncio.sleep(0.05)
        for server in servers:
            server.close()
        await lifespan.ask("shutdown")

    async def _answer(self, reader: Any, writer: Any) -> None:
        with contextlib.closing(writer):
            line = (await reader.readline()).split()
            while (await reader.readline()).strip():
                pass
            if len(line) < 2:
                return
            scope: dict[str, Any] = {
                "type": "http",
                "http_version": "1.1",
                "method": line[0].decode(),
                "path": line[1].decode(),
                "query_string": b"",
                "root_path": "",
                "headers": [],
                "state": {},
            }

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": b""}

            async def send(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    head = b"".join(b"%s: %s\r\n" % pair for pair in message["headers"])
                    writer.write(b"HTTP/1.1 %d OK\r\n%s\r\n" % (message["status"], head))
                else:
                    writer.write(message.get("body", b""))
                    await writer.drain()

            app: Any = self.wsgi
            await app(scope, receive, send)


class _Lifespan:
    """One call of the app, asked to start and to shut down."""

    def __init__(self, app: Any) -> None:
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._task = asyncio.create_task(app(scope, self._to_app.get, self._from_app.put))

    async def ask(self, what: str) -> None:
        await self._to_app.put({"type": f"lifespan.{what}"})
        answer = await self._from_app.get()
        assert answer["type"] == f"lifespan.{what}.complete", answer
