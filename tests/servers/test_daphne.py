"""The contract on daphne."""

from __future__ import annotations

from .contract import ServerContract
from .launchers_daphne import DAPHNE


class TestDaphne(ServerContract):
    """HTTP/1.1 and WebSockets on Twisted."""

    launcher = DAPHNE
