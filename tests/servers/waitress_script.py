"""What a project of waitress's has as its main module: `python -m ... module:app [name=value]`."""

from __future__ import annotations

import logging
import sys
from importlib import import_module

from graceful.integrations.waitress import serve


def main(target: str, *options: str) -> None:
    """Import the app and serve it on a port of the kernel's choice."""
    logger = logging.getLogger("waitress")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler())
    module, _, name = target.partition(":")
    given = dict(option.split("=", 1) for option in options)
    serve(getattr(import_module(module), name), **{"listen": "127.0.0.1:0", "threads": 16} | given)


if __name__ == "__main__":
    main(*sys.argv[1:])
