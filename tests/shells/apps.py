"""Small raw ASGI apps that several tests of the shells call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from graceful._asgi_types import App, Message, Receive, Scope, Send

OK: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
EVENTS: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}


def part(body: bytes, *, more: bool = True) -> Message:
    """Return one message of a response body."""
    return {"type": "http.response.body", "body": body, "more_body": more}


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once; doesn't know the lifespan protocol."""
    if scope["type"] != "http":
        raise RuntimeError("only http here")
    await send(dict(OK))
    await send(part(b"ok", more=False))


def app_of(handler: Callable[[Scope, Receive, Send], Awaitable[None]]) -> App:
    """Return an app that speaks lifespan and leaves the rest to `handler`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await handler(scope, receive, send)
            return
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    return app


def slow(seconds: float) -> App:
    """Return an app that answers after `seconds`."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(seconds)
        await send(dict(OK))
        await send(part(b"ok", more=False))

    return app_of(handler)


def script(*messages: Message) -> App:
    """Return an app that sends `messages`."""

    async def handler(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app_of(handler)
