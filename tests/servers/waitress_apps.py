"""What a waitress may be given."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

from graceful.core.records import Record, Started
from graceful.wsgi import GracefulMiddleware

from .wsgi_contract_app import app as flask_app

Environ = dict[str, Any]


def bare(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer; nobody has wrapped this one, though somebody else in its module is."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello\n"]


wrong = GracefulMiddleware(bare, propagation_delay=50, grace_period=30)


def prefixed(inner: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Return a middleware as people write them."""

    def outer(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        return inner(environ | {"SCRIPT_NAME": "/prefix"}, start_response)

    return outer


within = prefixed(flask_app)


def impatient(record: Record) -> None:
    """Send SIGTERM in the moment in which the process says that it serves."""
    if isinstance(record, Started):
        os.kill(os.getpid(), signal.SIGTERM)


def large_answer(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with more than any buffer of a socket holds."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x" * 32 * 2**20]


large = GracefulMiddleware(large_answer)
hasty = GracefulMiddleware(bare, observers=[impatient])
