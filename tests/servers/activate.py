"""Starts a module on a listening socket that it inherits, as systemd does for a socket unit.

Run:  python -m tests.servers.activate DESCRIPTOR MODULE ARGUMENT…
"""

from __future__ import annotations

import os
import sys

FIRST = 3
"""The first descriptor that is passed on (sd_listen_fds(3))."""

if __name__ == "__main__":
    os.dup2(int(sys.argv[1]), FIRST, inheritable=True)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])
