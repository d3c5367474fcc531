"""The contract on uvicorn with workers, as `graceful run` starts it."""

from __future__ import annotations

from .contract import ServerContract
from .launchers_run import RUN_UVICORN


class TestRunUvicorn(ServerContract):
    """The parent speaks, its port is refused in the drain, and its exit status tells the truth."""

    launcher = RUN_UVICORN
