"""The console script `graceful`. Here is only what must work with no extra installed."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; a missing extra ends with its pip command and exit status 2."""
    try:
        from .group import graceful
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        print(missing_extra("click"), file=sys.stderr)
        raise SystemExit(2) from None
    graceful()


def missing_extra(module: str, extra: str = "rehearsal") -> str:
    """Return the line that says what to install."""
    return f"graceful: needs {module}; run: pip install 'graceful-drain[{extra}]'"
