"""The contract on granian with workers, as `graceful run` starts it."""

from __future__ import annotations

from .contract import ServerContract
from .launchers_run import RUN_GRANIAN


class TestRunGranian(ServerContract):
    """The parent speaks, and its exit status tells the truth."""

    launcher = RUN_GRANIAN
