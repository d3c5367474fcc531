"""Django and Channels in one file: a page, a WebSocket, server-sent events.

Run:  daphne -p 8000 examples.channels_app:app
or:   uvicorn examples.channels_app:app

Stop it with Ctrl-C or SIGTERM: consumers see an ordinary disconnect, and their clients a reason to
come back.
"""

import asyncio
import itertools
from typing import Any

import django
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path

from graceful.asgi import GracefulMiddleware

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="only an example")
django.setup()


async def home(request: HttpRequest) -> HttpResponse:
    """A quick request."""
    return HttpResponse(b"hello\n", content_type="text/plain")


class Echo(AsyncWebsocketConsumer):  # type: ignore[misc]
    """A WebSocket: says what it hears."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Answer one message."""
        await self.send(text_data=text_data, bytes_data=bytes_data)

    async def disconnect(self, code: int) -> None:
        """Clean up; in a stop with code 1012, when the client has been told to come back."""


class Events(AsyncHttpConsumer):  # type: ignore[misc]
    """Server-sent events, numbered, for ever."""

    async def handle(self, body: bytes) -> None:
        """Send events until the client has gone, or has been told to come back."""
        await self.send_headers(headers=[(b"Content-Type", b"text/event-stream")])
        for n in itertools.count(1):
            await self.send_body(b"id: %d\ndata: %d\n\n" % (n, n), more_body=True)
            await asyncio.sleep(0.5)

    async def disconnect(self) -> None:
        """Clean up, however it has ended."""


urlpatterns = [path("", home)]
pages: Any = [path("events", Events.as_asgi()), re_path("", get_asgi_application())]
sockets: Any = [path("ws", Echo.as_asgi())]
router: Any = ProtocolTypeRouter({"http": URLRouter(pages), "websocket": URLRouter(sockets)})

app = GracefulMiddleware(router, farewell='{"type": "reconnect"}')
