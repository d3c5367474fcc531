"""waitress: the WSGI contract, and what is special about its ways."""

from __future__ import annotations

from .launchers_waitress import WAITRESS
from .wsgi_contract import WsgiContract


class TestWaitress(WsgiContract):
    """`serve`, with 16 threads."""

    launcher = WAITRESS
