"""How `graceful plan` shows its answer: in a terminal, as SVG, as a page of HTML, and as settings
to paste. Nothing is decided here: the arithmetic is `graceful.core.advice`'s and `.plan`'s."""

from __future__ import annotations

from .page import page, svg
from .paste import KINDS, fitting, snippet, variables
from .terminal import show
from .view import View

__all__ = ["KINDS", "View", "fitting", "page", "show", "snippet", "svg", "variables"]
