"""The contract on hypercorn with workers, as `graceful run` starts it."""

from __future__ import annotations

from .contract import ServerContract
from .launchers_run import RUN_HYPERCORN


class TestRunHypercorn(ServerContract):
    """No worker is ended because another one is done, and the exit status tells the truth."""

    launcher = RUN_HYPERCORN
