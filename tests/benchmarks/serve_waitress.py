"""The Flask example on waitress.  Run:  python -m tests.benchmarks.serve_waitress 8000"""

from __future__ import annotations

import sys
from importlib import import_module

from graceful.integrations.waitress import serve

if __name__ == "__main__":
    app = import_module("examples.flask_app").app
    serve(app, listen=f"127.0.0.1:{sys.argv[1]}", threads=32)
