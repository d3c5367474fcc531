"""The contract on gunicorn's workers with an event loop, as `install` runs them."""

from __future__ import annotations

from .contract import ServerContract
from .launchers import GUNICORN_ASGI, GUNICORN_UVICORN


class TestGunicornUvicorn(ServerContract):
    """`uvicorn_worker.UvicornWorker`."""

    launcher = GUNICORN_UVICORN


class TestGunicornAsgi(ServerContract):
    """gunicorn's own ASGI worker."""

    launcher = GUNICORN_ASGI
