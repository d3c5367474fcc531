"""The contract on hypercorn with workers and without, as `graceful run` starts it."""

from __future__ import annotations

from .contract import ServerContract
from .launchers_run import RUN_HYPERCORN, RUN_HYPERCORN_IN_PROCESS, RUN_HYPERCORN_TRIO


class TestRunHypercorn(ServerContract):
    """No worker is ended because another one is done, and the exit status tells the truth."""

    launcher = RUN_HYPERCORN


class TestRunHypercornTrio(ServerContract):
    """Here the parent tells of a cut what no worker on trio can."""

    launcher = RUN_HYPERCORN_TRIO


class TestRunHypercornInProcess(ServerContract):
    """`-w 0`: one process, which is stopped as without `graceful run`."""

    launcher = RUN_HYPERCORN_IN_PROCESS
