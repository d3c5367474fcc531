"""For the whole suite. What the apps of the tests import must not be here: it has no pytest."""

from __future__ import annotations

import gc
import signal
from importlib import import_module

import pytest

# Before the freeze: it asks the collector who refers to its things, which then knows nobody.
import_module("hypothesis")
pytest.register_assert_rewrite("tests.servers.contract")

# A shell has what it runs in the background ignore these, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Have the collector pass over five thousand tests, which else it looks at again and again.

    That is a third of the time of the processes that run them.
    """
    gc.collect()
    gc.freeze()
