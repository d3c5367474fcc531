"""daphne, on Twisted's reactor with asyncio behind it."""

from __future__ import annotations

from .harness import Launcher

__all__ = ["DAPHNE"]

DAPHNE = Launcher(
    name="daphne",
    command=("tests.servers.daphne_script", "-b", "127.0.0.1", "-p", "0", "{app}"),
    announces=r"Listening on TCP address 127\.0\.0\.1:(\d+)",
    sends_head_alone=False,
    denies_with=403,
    lifespan=False,
    environment={"PYTHONPATH": ""},  # it is made of Twisted
)
