"""The contract on uvicorn, in the ways in which it is run."""

from __future__ import annotations

from .contract import ServerContract
from .launchers import UVICORN, UVICORN_H11, UVICORN_WORKERS, UVICORN_WSPROTO


class TestUvicorn(ServerContract):
    """httptools, uvloop, websockets' sans-I/O protocol: what `uvicorn[standard]` runs."""

    launcher = UVICORN


class TestUvicornH11(ServerContract):
    """h11 and asyncio: what plain `uvicorn` runs."""

    launcher = UVICORN_H11


class TestUvicornWsproto(ServerContract):
    """The other WebSocket protocol."""

    launcher = UVICORN_WSPROTO


class TestUvicornWorkers(ServerContract):
    """`--workers 2`."""

    launcher = UVICORN_WORKERS
