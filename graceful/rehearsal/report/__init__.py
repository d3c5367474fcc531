"""The rehearsal as one page of HTML and as JUnit XML; both are made from a `Result` alone."""

from __future__ import annotations

from .junit import junit
from .page import page

__all__ = ["junit", "page"]
