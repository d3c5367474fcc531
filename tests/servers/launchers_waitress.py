"""waitress, run by `graceful.integrations.waitress.serve` and by its own command."""

from __future__ import annotations

from .harness import Launcher

__all__ = ["WAITRESS", "WAITRESS_SERVE"]

_SERVING = r"Serving on http://127\.0\.0\.1:(\d+)"

WAITRESS = Launcher(
    name="waitress",
    command=("tests.servers.waitress_script", "{app}"),
    announces=_SERVING,
)

WAITRESS_SERVE = Launcher(
    name="waitress-serve",
    command=("waitress", "--listen=127.0.0.1:0", "{app}"),
    announces=_SERVING,
)
