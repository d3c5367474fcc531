"""Django's responses: made from ASGI messages, and told when they are over."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.http import HttpResponse

from graceful._asgi_types import Message

__all__ = ["end_with", "plain_text", "whole"]

Response = Any


def plain_text(status: int, text: str, headers: Mapping[str, str]) -> Response:
    """Return a whole response of our own."""
    response: Response = HttpResponse(
        text.encode(), status=status, content_type="text/plain; charset=utf-8"
    )
    for name, value in headers.items():
        response[name] = value
    return response


def whole(messages: Sequence[Message]) -> Response | None:
    """Return the response that `messages` are; None when there is none among them."""
    if not messages or messages[0]["type"] != "http.response.start":
        return None
    body = b"".join(message.get("body", b"") for message in messages[1:])
    response: Response = HttpResponse(body, status=messages[0]["status"])
    for name, value in messages[0]["headers"]:
        response[name.decode("latin-1")] = value.decode("latin-1")
    return response


def end_with(response: Response, over: Callable[[], None]) -> None:
    """Call `over` when `response` is closed, or dropped by somebody who does not close it."""
    close = _Close()
    close.over = over
    close.called = False
    close.response = weakref.ref(response)
    close.kept = response if response.streaming and _is_file(response) else None
    response.close = close


def _is_file(response: Response) -> bool:
    return getattr(response, "file_to_stream", None) is not None


class _Close:
    """Takes the place of `close` on one response.

    Held weakly, for otherwise each response would be a cycle; but a file wrapper of the server's
    takes this instead of the response, which then has nobody else. Each request pays for one, and
    an `__init__` would cost as much as all of it.
    """

    __slots__ = ("called", "kept", "over", "response")
    response: Callable[[], Any]
    over: Callable[[], None]
    kept: Response
    called: bool

    def __call__(self) -> None:
        response = self.response()
        try:
            if response is not None:
                type(response).close(response)
        finally:
            self.called = True
            self.over()

    def __del__(self) -> None:
        if not self.called:
            self.over()
