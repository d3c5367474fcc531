"""A granian of another version, or with names that this one has under others.

python -m tests.servers.granian_changed version|variable|function|spawn [options] app
"""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

import granian
from granian import _signals
from granian.server.mp import MPServer

from .granian_script import run


def change_version() -> None:
    """Be one that nobody has tried."""
    granian.__version__ = "3.0.0"


def rename_variable() -> None:
    """Have `shutdown_glue` under another name; the function works as ever."""
    spawned: Any = MPServer._spawn_asgi_lifespan_worker
    code = spawned.__wrapped__.__code__
    names = tuple("stop_glue" if n == "shutdown_glue" else n for n in code.co_varnames)
    spawned.__wrapped__.__code__ = code.replace(co_varnames=names)


def rename_function() -> None:
    """Have `set_sync_signals` under another name."""
    spawned: Any = MPServer._spawn_wsgi_worker
    code = spawned.__wrapped__.__code__
    names = tuple("set_thread_signals" if n == "set_sync_signals" else n for n in code.co_names)
    spawned.__wrapped__.__code__ = code.replace(co_names=names)
    signals: Any = _signals
    signals.set_thread_signals = signals.set_sync_signals
    del signals.set_sync_signals


def spawn() -> None:
    """Start workers from nothing instead of forking them."""
    multiprocessing.set_start_method("spawn")


CHANGES = {
    "version": change_version,
    "variable": rename_variable,
    "function": rename_function,
    "spawn": spawn,
}

if __name__ == "__main__":
    CHANGES[sys.argv.pop(1)]()
    run()
