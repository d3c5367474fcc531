"""The contracts on granian, in the ways in which it is run."""

from __future__ import annotations

from .contract import ServerContract
from .launchers_granian import (
    GRANIAN,
    GRANIAN_ASYNCIO,
    GRANIAN_WORKERS,
    GRANIAN_WSGI,
    GRANIAN_WSGI_WORKERS,
)
from .wsgi_contract import WsgiContract


class TestGranian(ServerContract):
    """`--interface asgi`, on uvloop."""

    launcher = GRANIAN


class TestGranianAsyncio(ServerContract):
    """`--loop asyncio`: signals reach the process by another way."""

    launcher = GRANIAN_ASYNCIO


class TestGranianWorkers(ServerContract):
    """`--workers 2`, each of which has a listener of its own."""

    launcher = GRANIAN_WORKERS


class TestGranianWsgi(WsgiContract):
    """`--interface wsgi`: threads that Python has not started."""

    launcher = GRANIAN_WSGI


class TestGranianWsgiWorkers(WsgiContract):
    """`--workers 2`."""

    launcher = GRANIAN_WSGI_WORKERS
