"""A plan as one page of HTML, or its picture alone as SVG. No script, no network; the templates say
how it looks."""

from __future__ import annotations

from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..core.advice import Kill
from ..core.budget import Settings
from ..core.plan import steps
from .chart import chart
from .paste import snippet
from .view import View

__all__ = ["page", "svg"]

WIDTH: Final = 800
"""Pixels of an SVG that stands alone."""

_templates = Environment(
    loader=PackageLoader("graceful.planning", ""),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(view: View) -> str:
    """Return the page: the verdict, the stop as given and as advised, each second's source."""
    pictures: list[tuple[str, Settings, Kill | None]] = [("As given", view.settings, view.kill)]
    if view.changes:
        pictures.append(("As advised", view.advised, None))
    return _templates.get_template("page.html").render(
        view=view,
        pictures=[(name, chart(s, view.advice, k), steps(s, k)) for name, s, k in pictures],
        snippets=[(kind, snippet(kind, view.advised, view.choice)) for kind in view.kinds],
        width="100%",
        alone=False,
    )


def svg(view: View) -> str:
    """Return the picture of the stop as given."""
    drawn = chart(view.settings, view.advice, view.kill)
    text = _templates.get_template("picture.svg").render(c=drawn, width=WIDTH, alone=True)
    return text + "\n"
