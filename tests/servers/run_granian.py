"""`graceful run granian` on a free port: granian tells nobody which one it has drawn for port 0.

It logs on stdout, which nobody reads here.

    python -m tests.servers.run_granian [options] app
"""

from __future__ import annotations

import os
import sys

from graceful.cli import main

from .harness import reserved_port

__all__ = ["run"]


def run() -> None:
    """Run granian with the arguments of this process."""
    os.dup2(2, 1)
    with reserved_port() as port:
        sys.argv[1:1] = ["run", "granian", "--port", str(port)]
        main()


if __name__ == "__main__":
    run()
