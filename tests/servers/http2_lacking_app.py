"""An app on a gunicorn whose HTTP/2 connections are made otherwise."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .wsgi_contract_app import app

__all__ = ["app"]

connection: Any = import_module("gunicorn.http2.connection")
_init = connection.HTTP2ServerConnection.__init__


def _other_init(self: Any, *args: Any) -> None:
    _init(self, *args)


connection.HTTP2ServerConnection.__init__ = _other_init
