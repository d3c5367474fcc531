"""The contract on granian with workers, as `graceful run` starts it."""

from __future__ import annotations

from .contract import ServerContract
from .launchers_run import RUN_GRANIAN, RUN_GRANIAN_WSGI
from .wsgi_contract import WsgiContract


class TestRunGranian(ServerContract):
    """The parent speaks, and its exit status tells the truth."""

    launcher = RUN_GRANIAN


class TestRunGranianWsgi(WsgiContract):
    """`--interface wsgi`: no event loop in which a worker could hear its parent."""

    launcher = RUN_GRANIAN_WSGI
