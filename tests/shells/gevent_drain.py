"""A drain under gevent, run in a process of its own by `test_wsgi_gevent.py`. Prints what it saw.

Everything is imported after the patching, or with the argument `late` before it, as by a master
that forks its workers and lets each of them patch itself.
"""

# ruff: noqa: E402
import sys
from importlib import import_module

if "late" in sys.argv:
    import_module("tests.shells.wsgi_harness")

from gevent import monkey

monkey.patch_all()

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import graceful
from graceful.core.phases import Phase
from graceful.wsgi import GracefulMiddleware
from tests.shells.wsgi_harness import EVENTS, OK, Call

gevent: Any = import_module("gevent")  # whose stubs leave much unknown
seen: dict[str, Any] = {}


def wait_for_news() -> None:
    """Be silent for longer than the drain lasts."""
    time.sleep(30)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Talk, or be silent, or answer."""

    def talking() -> Iterator[bytes]:
        while True:
            yield b"data: 1\n\n"
            time.sleep(0.01)

    def silent() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        wait_for_news()

    path = environ["PATH_INFO"]
    start_response("200 OK", OK if path == "/" else EVENTS)
    return [b"hello"] if path == "/" else silent() if path == "/silent" else talking()


def no_loop_here() -> bool:
    """Whether this greenlet or thread is free to run an event loop of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def check() -> bool:
    """A check that waits for a socket, as far as gevent can tell."""
    time.sleep(0.01)
    return no_loop_here()


async def async_check() -> None:
    """One on the loop."""
    await asyncio.sleep(0.01)


def hook() -> None:
    """A hook that waits."""
    time.sleep(0.01)
    seen["hook"] = no_loop_here()


wrapped = GracefulMiddleware(
    app,
    checks={"sync": check, "async": async_check},
    on_drain=hook,
    grace_period=5,
    propagation_delay=0.1,
    stream_window=0.4,
    linger=0,
    cleanup_timeout=0,
    drain_timeout=1,
)
lifecycle = graceful.current()


def main() -> None:
    """Serve, stop, and tell."""
    greenlets = [gevent.spawn(lambda: Call(wrapped).finish()) for _ in range(100)]
    gevent.joinall(greenlets, timeout=20, raise_error=True)
    ticks: list[float] = []

    def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            time.sleep(0.005)

    ticker = gevent.spawn(tick)
    seen["ready"] = Call(wrapped, "/readyz").finish().status
    ended: list[float] = []

    def stream() -> None:
        call = Call(wrapped, "/talking").finish()
        assert b"event: reconnect" in call.text
        ended.append(time.monotonic())

    streams = [gevent.spawn(stream) for _ in range(4)]
    straggler = gevent.spawn(lambda: Call(wrapped, "/silent").finish())
    while len(lifecycle.tracker.streams()) < 5:
        time.sleep(0.001)
    began = time.monotonic()
    lifecycle.terminate()
    seen["unready"] = Call(wrapped, "/readyz").finish().status
    while lifecycle.phase is not Phase.DRAINING:
        assert no_loop_here()
        time.sleep(0.001)
    gevent.joinall(streams, timeout=20, raise_error=True)
    seen["spread"] = max(ended) - min(ended)
    while not lifecycle.core.tally.cut:
        time.sleep(0.001)
    seen["cut_after"] = time.monotonic() - began
    (cut,) = lifecycle.core.tally.cut
    seen["cut"], seen["stack"] = cut.name, cut.stack
    seen["longest_stall"] = max(b - a for a, b in itertools.pairwise(ticks))
    seen["served"] = lifecycle.tracker.served
    straggler.kill()
    ticker.kill()
    wrapped.leave()
    seen["left"] = [t.name for t in threading.enumerate() if t.name.startswith("graceful")]
    seen["phase"] = lifecycle.phase.value
    print(json.dumps(seen))


main()
