"""Channels consumers of each kind, which say on stderr how they ended."""

from __future__ import annotations

import asyncio
from typing import Any

import django
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

import graceful
from graceful.asgi import GracefulMiddleware

from .contract_app import mark

settings.configure(
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    SECRET_KEY="only a test",
)
django.setup()


class Talk(AsyncWebsocketConsumer):  # type: ignore[misc]
    """An echo that is in a group."""

    groups: Any = ("everybody",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Have the group told."""
        await self.channel_layer.group_send("everybody", {"type": "said", "text": text_data})

    async def said(self, message: dict[str, Any]) -> None:
        """Tell the client what one of the group has said."""
        await self.send(text_data=message["text"])

    async def disconnect(self, code: int) -> None:
        """Say with which code."""
        mark(f"talk disconnected {code}")


class SyncTalk(WebsocketConsumer):  # type: ignore[misc]
    """An echo in a thread."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Answer one message."""
        self.send(text_data=text_data)

    def disconnect(self, code: int) -> None:
        """Say with which code."""
        mark(f"sync talk disconnected {code}")


class Feed(AsyncHttpConsumer):  # type: ignore[misc]
    """Server-sent events: one, or one every moment."""

    async def handle(self, body: bytes) -> None:
        """Send events; Channels has nobody who could tell this of a disconnect."""
        name = self.scope["path"].strip("/")
        await self.send_headers(headers=[(b"Content-Type", b"text/event-stream")])
        try:
            while True:
                await self.send_body(b"data: one\n\n", more_body=True)
                await asyncio.sleep(0.05 if name == "ticks" else 3600)
        finally:
            mark(f"{name} left")

    async def disconnect(self) -> None:
        """Say that it has been called."""
        mark(f"{self.scope['path'].strip('/')} disconnected")


class Slow(AsyncHttpConsumer):  # type: ignore[misc]
    """An ordinary request that takes its time."""

    async def handle(self, body: bytes) -> None:
        """Answer only when the drain has begun."""
        await graceful.wait_draining()
        await asyncio.sleep(0.1)
        await self.send_response(200, b"slow but whole\n")


feeds: Any = [path(name, Feed.as_asgi()) for name in ("ticks", "silent")]
requests: Any = [*feeds, path("slow", Slow.as_asgi())]
talks: Any = [path("talk", Talk.as_asgi()), path("sync", SyncTalk.as_asgi())]
router: Any = ProtocolTypeRouter({"http": URLRouter(requests), "websocket": URLRouter(talks)})

app = GracefulMiddleware(router)
