"""Views as they are everywhere. Nothing here knows how the process stops."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.http import HttpResponse, StreamingHttpResponse

Request = Any  # `HttpRequest`, for those who have django-stubs


def home(request: Request) -> HttpResponse:
    """A quick request."""
    return HttpResponse(b"hello\n", content_type="text/plain")


def slow(request: Request) -> HttpResponse:
    """A request that takes as long as it is told to."""
    time.sleep(float(request.GET.get("seconds", "1")))
    return HttpResponse(b"done\n", content_type="text/plain")


def echo(request: Request) -> HttpResponse:
    """A request that must not run twice."""
    return HttpResponse(request.body, content_type="application/octet-stream")


def events(request: Request) -> StreamingHttpResponse:
    """Server-sent events, numbered, for ever. Under WSGI each client keeps one thread busy."""
    numbers = async_numbers() if hasattr(request, "scope") else numbers_in_a_thread()
    return StreamingHttpResponse(numbers, content_type="text/event-stream")


async def async_numbers() -> AsyncIterator[str]:
    """What an ASGI server sends."""
    for n in itertools.count(1):
        yield event(n)
        await asyncio.sleep(0.5)


def numbers_in_a_thread() -> Iterator[str]:
    """What a WSGI server sends."""
    for n in itertools.count(1):
        yield event(n)
        time.sleep(0.5)


def event(n: int) -> str:
    """One event."""
    return f"id: {n}\ndata: {json.dumps({'n': n})}\n\n"


def stock_is_known() -> bool:
    """A readiness check: False, or an exception, and no new requests are sent here."""
    return True
