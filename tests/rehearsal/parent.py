"""A parent that knows no signal, and its child, which serves: what must not be reloaded."""

from __future__ import annotations

import subprocess
import sys

if __name__ == "__main__":
    serve = ["-m", "uvicorn", "tests.benchmarks.bare_app:app", "--log-level", "warning", "--port"]
    subprocess.run([sys.executable, *serve, sys.argv[1]], check=False)
