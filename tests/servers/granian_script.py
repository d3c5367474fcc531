"""granian's own command line on a free port: it can be given port 0, but tells nobody which it is.

It logs on stdout, which nobody reads here.

    python -m tests.servers.granian_script [options] app
"""

from __future__ import annotations

import os
import sys

from granian.cli import entrypoint

from .harness import reserved_port

__all__ = ["run"]


def run() -> None:
    """Run granian with the arguments of this process."""
    os.dup2(2, 1)
    with reserved_port() as port:
        sys.argv[1:1] = ["--port", str(port)]
        entrypoint()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    run()
