"""WSGI apps to be served bare and wrapped. Run by `wsgi_throughput.py`."""

from __future__ import annotations

from typing import Any

from graceful.wsgi import GracefulMiddleware

from .bare_flask import app as flask
from .wsgi_hot_path import in_a_list as hello

__all__ = ["django", "flask", "hello", "wrapped_flask", "wrapped_hello"]

wrapped_hello = GracefulMiddleware(hello)
wrapped_flask = GracefulMiddleware(flask)


def django(*, wrapped: bool) -> Any:
    """Return a Django project, which can be set up only once in a process."""
    from .bare_django import application

    return application(wrapped=wrapped)
