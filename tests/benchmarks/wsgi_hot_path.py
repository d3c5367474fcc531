"""What the WSGI middleware adds to one request, against an empty one that wraps the iterable.

Both are driven in the same run, in alternating blocks, with nothing switched off: the lifecycle is
SERVING, probes are on, the exchange is tracked, and timed as in a process that is probed before
each block. Prints the ratio of what each adds.

    python -m tests.benchmarks.wsgi_hot_path
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from graceful.wsgi import GracefulMiddleware

BLOCK = 5_000
ROUNDS = 60
BAR = 3.0
TYPE = ("Content-Type", "text/plain; charset=utf-8")
HEADERS = [("Content-Length", "5"), TYPE]

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def in_a_list(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer as Django and plain functions do."""
    start_response("200 OK", HEADERS)
    return [b"hello"]


class Body:
    """An iterable that wants to be closed."""

    def __init__(self) -> None:
        self.parts = iter((b"hello",))

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.parts)

    def close(self) -> None:
        """Nothing has to be."""


def in_an_iterable(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer as Flask and Werkzeug do."""
    start_response("200 OK", HEADERS)
    return Body()


def of_unknown_length(
    environ: dict[str, Any], start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """Answer as templates that are rendered in parts do: nobody can tell yet what it will be."""
    start_response("200 OK", [TYPE])
    return Body()


class Wrapped:
    """What every middleware that wants to know when a response is over has to return at least."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self.body = body
        self.parts = iter(body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.parts)

    def close(self) -> None:
        """Close what is inside."""
        close = getattr(self.body, "close", None)
        if close is not None:
            close()


class EmptyMiddleware:
    """Wraps the iterable and nothing else."""

    def __init__(self, app: App) -> None:
        self.app = app

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        return Wrapped(self.app(environ, start_response))


def new_environ() -> dict[str, Any]:
    """Return the environ of one request, as gunicorn makes it."""
    return {
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": Wrapped,
        "wsgi.input_terminated": True,
        "SERVER_SOFTWARE": "gunicorn/27.0.1",
        "wsgi.input": None,
        "wsgi.early_hints": None,
        "gunicorn.socket": None,
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "RAW_URI": "/",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "HTTP_ACCEPT": "*/*",
        "HTTP_USER_AGENT": "wrk",
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "PATH_INFO": "/",
        "SCRIPT_NAME": "",
    }


def write(data: bytes) -> None:
    """Take a part of the body that the app does not return."""


def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
    """Take the response's beginning."""
    return write


def block(target: App) -> float:
    """Return the seconds for one request, over a block of them."""
    environs = [new_environ() for _ in range(BLOCK)]
    began = time.thread_time()  # whoever else is on the machine does not count
    while environs:  # an environ is let go of after its request, as by a server
        body = target(environs.pop(), start_response)
        for _ in body:
            pass
        close = getattr(body, "close", None)
        if close is not None:
            close()
    return (time.thread_time() - began) / BLOCK


def ratio_for(app: App) -> float:
    """Print the cost of each for one kind of app and return the ratio."""
    wrapped = GracefulMiddleware(app)
    targets: dict[str, App] = {"bare": app, "empty": EmptyMiddleware(app), "graceful": wrapped}
    times: dict[str, list[float]] = {name: [] for name in targets}
    for _ in range(ROUNDS):
        wrapped(new_environ() | {"PATH_INFO": "/readyz"}, start_response)
        for name, target in targets.items():
            times[name].append(block(target))
    wrapped.leave()
    ratios = [
        (graceful - bare) / (empty - bare)
        for bare, empty, graceful in zip(
            times["bare"], times["empty"], times["graceful"], strict=True
        )
    ]
    print(f"{app.__name__}:")
    for name, seconds in times.items():
        print(f"{name:>9}: {statistics.median(seconds) * 1e6:6.3f} µs a request (median block)")
    ratio = statistics.median(ratios)
    low, high = statistics.quantiles(ratios, n=10)[0], statistics.quantiles(ratios, n=10)[-1]
    print(
        f"graceful adds {ratio:.2f} x what an empty middleware adds (10-90 %: {low:.2f}-{high:.2f})"
    )
    return ratio


def main() -> float:
    """Return the worst ratio."""
    return max(map(ratio_for, (in_a_list, in_an_iterable, of_unknown_length)))


if __name__ == "__main__":
    sys.exit(0 if main() <= BAR else 1)
