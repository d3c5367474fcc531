"""The WSGI contract on gunicorn's workers without an event loop."""

from __future__ import annotations

from .launchers import GUNICORN_GEVENT, GUNICORN_GTHREAD, GUNICORN_SYNC
from .wsgi_contract import WsgiContract


class TestGunicornGthread(WsgiContract):
    """`--threads 16`."""

    launcher = GUNICORN_GTHREAD


class TestGunicornGevent(WsgiContract):
    """Greenlets, with everything patched."""

    launcher = GUNICORN_GEVENT


class TestGunicornSync(WsgiContract):
    """Four workers of one request each."""

    launcher = GUNICORN_SYNC
    concurrent = False
