"""The middleware is found wherever people put it, and nowhere else."""

from __future__ import annotations

from typing import Any

from flask import Flask
from starlette.applications import Starlette
from starlette.middleware import Middleware

from graceful import asgi, wsgi
from graceful._wrapped import is_wrapped_later, outermost


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An app."""


wrapped = asgi.GracefulMiddleware(bare)


async def calls_a_global(scope: Any, receive: Any, send: Any) -> None:
    """Another app, in whose module there is a wrapped one."""
    await wrapped(scope, receive, send)


class Lazy:
    """Wakes up when asked what it is, as Django's and werkzeug's lazy objects do."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError("nobody may ask")


def test_the_app_itself() -> None:
    assert outermost(wrapped, asgi.GracefulMiddleware) is wrapped


def test_the_outer_one_of_two() -> None:
    outer = asgi.GracefulMiddleware(wrapped)
    assert outermost(outer, asgi.GracefulMiddleware) is outer
    assert outermost([outer], asgi.GracefulMiddleware) is outer


def test_what_a_function_has_closed_over() -> None:
    inner = asgi.GracefulMiddleware(bare)

    def closed() -> object:
        return inner

    assert outermost(closed, asgi.GracefulMiddleware) is inner


def test_an_attribute_of_a_flask_app() -> None:
    app = Flask(__name__)
    assert outermost(app, wsgi.GracefulMiddleware) is None
    app.wsgi_app = wsgi.GracefulMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    assert outermost(app, wsgi.GracefulMiddleware) is app.wsgi_app


def test_globals_are_not_looked_at() -> None:
    """A wrapped app that is there beside the one that is served is the mistake to be noticed."""
    assert outermost(calls_a_global, asgi.GracefulMiddleware) is None


def test_lazy_objects_are_left_asleep() -> None:
    assert outermost([Lazy(), wrapped], asgi.GracefulMiddleware) is wrapped


def test_starlette_wraps_later() -> None:
    """It has only the class until its first request."""
    app = Starlette(middleware=[Middleware(asgi.GracefulMiddleware)])
    assert outermost(app, asgi.GracefulMiddleware) is None
    assert is_wrapped_later(app, asgi.GracefulMiddleware)
    assert not is_wrapped_later(Starlette(), asgi.GracefulMiddleware)
