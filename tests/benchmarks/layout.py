"""Runs a module in a process whose objects lie in other places each time.

Which objects share a line of the cache is worth a percent or two, for better or worse, and is else
the same in every process that does the same: a median of many rounds would be no better than one.

    python -m tests.benchmarks.layout uvicorn app:app
"""

from __future__ import annotations

import random
import runpy
import sys
from typing import Final

SIZES: Final = range(16, 513, 16)
"""Bytes; from 513 on the interpreter asks the C library."""


def scattered() -> list[bytes]:
    """Fill memory with objects of all small sizes, and leave gaps between them at random."""
    filled = [bytes(random.choice(SIZES)) for _ in range(random.randrange(20_000, 40_000))]
    return [one for one in filled if random.random() < 0.5]


if __name__ == "__main__":
    kept = scattered()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
