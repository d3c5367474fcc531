"""What the middleware adds to one request, against an empty middleware that only wraps `send`.

Both are driven in the same run, in alternating blocks, with nothing switched off: the lifecycle is
SERVING, probes are on, the exchange is tracked, and timed as in a process that is probed before
each block. Prints the ratio of what each adds.

    python -m tests.benchmarks.hot_path
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import Any

from graceful._asgi_types import App, Message, Receive, Scope, Send
from graceful.asgi import GracefulMiddleware

BLOCK = 5_000
ROUNDS = 60
BAR = 3.0
HEADERS = [
    (b"content-length", b"5"),
    (b"content-type", b"text/plain; charset=utf-8"),
]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as a framework does: a start and a body."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"hello"})


class EmptyMiddleware:
    """What every middleware that looks at responses has to do at least."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped(message: Message) -> None:
            await send(message)

        await self.app(scope, receive, wrapped)


async def receive() -> Message:
    """The request has no body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    """Take the response."""


def new_scope() -> dict[str, Any]:
    """Return the scope of one request, as uvicorn makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "root_path": "",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "state": {},
    }


async def block(target: App) -> float:
    """Return the seconds for one request, over a block of them."""
    scopes = [new_scope() for _ in range(BLOCK)]
    began = time.perf_counter()
    while scopes:  # a scope is let go of after its request, as by a server
        await target(scopes.pop(), receive, send)
    return (time.perf_counter() - began) / BLOCK


async def with_lifespan(target: App, body: Any) -> None:
    """Run `body` between the start-up and the shutdown of `target`."""
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    lifespan: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(_coroutine(target(lifespan, inbox.get, outbox.put)))
    await inbox.put({"type": "lifespan.startup"})
    await outbox.get()
    await body()
    await inbox.put({"type": "lifespan.shutdown"})
    await outbox.get()
    await task


async def _coroutine(awaitable: Any) -> None:
    await awaitable


async def main() -> float:
    """Print the cost of each and return the ratio."""
    targets: dict[str, App] = {
        "bare": app,
        "empty": EmptyMiddleware(app),
        "graceful": GracefulMiddleware(app),
    }
    times: dict[str, list[float]] = {name: [] for name in targets}

    async def measure() -> None:
        for _ in range(ROUNDS):
            await targets["graceful"](new_scope() | {"path": "/readyz"}, receive, send)
            for name, target in targets.items():
                times[name].append(await block(target))

    async def only_http(scope: Scope, receive: Receive, send: Send) -> None:
        await targets["graceful"](scope, receive, send)

    await with_lifespan(only_http, measure)
    ratios = [
        (graceful - bare) / (empty - bare)
        for bare, empty, graceful in zip(
            times["bare"], times["empty"], times["graceful"], strict=True
        )
    ]
    for name, seconds in times.items():
        print(f"{name:>9}: {statistics.median(seconds) * 1e6:6.3f} µs a request (median block)")
    ratio = statistics.median(ratios)
    low, high = statistics.quantiles(ratios, n=10)[0], statistics.quantiles(ratios, n=10)[-1]
    print(
        f"graceful adds {ratio:.2f} x what an empty middleware adds (10-90 %: {low:.2f}-{high:.2f})"
    )
    return ratio


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) <= BAR else 1)
