"""What a plan looks like: where bars lie, what is pasted, and a browser looks at the page."""

from __future__ import annotations

import ast
import json
from collections.abc import Generator
from io import StringIO
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from ruamel.yaml import YAML

from graceful.core.advice import Choice, Traffic, advise, judge
from graceful.core.budget import Settings, Sourced, resolve
from graceful.core.plan import noticing
from graceful.core.platforms import PLATFORMS
from graceful.planning import KINDS, View, fitting, page, show, snippet, svg
from graceful.planning.chart import chart
from graceful.planning.terminal import picture
from tests.browser import Browser, open_browser

NAMES = st.lists(st.sampled_from(sorted(PLATFORMS)), max_size=4, unique=True)


def plan(*names: str, settings: Settings | None = None, kinds: tuple[str, ...] = ()) -> View:
    """Return the plan for platforms with their defaults."""
    given, choice = settings or Settings(), Choice(names, {}, {})
    traffic = Traffic(50, 0.2, 8)
    advice = advise(choice, given, traffic)
    findings = tuple(judge(given, choice, advice, traffic))
    return View(given, choice, advice, traffic, findings, kinds or fitting(choice))


@given(NAMES, st.floats(0, 20))
def test_the_picture_is_to_scale(names: list[str], pre_stop: float) -> None:
    """No bar leaves the picture, and those of one platform follow each other."""
    view = plan(*names, settings=Settings(grace_period=60, pre_stop=pre_stop))
    drawn = chart(view.settings, view.advice)
    for row in drawn.rows:
        for mark in row.marks:
            assert mark.x >= 0
            assert mark.x + mark.width <= 100.001
    for path in view.advice.paths:
        found = noticing(path)
        assert all(a.ends == b.begins for a, b in pairwise(found))
        assert not found or found[-1].ends == pytest.approx(path.seconds)
    assert 2 <= len(drawn.axis) <= 7


@given(NAMES, st.floats(0, 20))
def test_eighty_columns_are_enough(names: list[str], pre_stop: float) -> None:
    view = plan(*names, settings=Settings(grace_period=60, pre_stop=pre_stop))
    assert max(len(line.plain) for line in picture(view)) < 80


def test_text_is_complete_at_80_columns_without_colour() -> None:
    told = StringIO()
    show(plan("kubernetes", "alb"), Console(file=told, width=80, highlight=False))
    text = told.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "alb sees" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (("kubernetes", "alb"), ("kubernetes",)),
        (("ecs", "nlb"), ("ecs",)),
        (("systemd", "docker"), ("systemd", "compose")),
        (("haproxy",), ("env",)),
        ((), ("env",)),
    ],
)
def test_what_is_pasted_fits_the_platforms(names: tuple[str, ...], kinds: tuple[str, ...]) -> None:
    assert fitting(Choice(names, {}, {})) == kinds


@given(st.floats(0, 100), st.floats(0.1, 500))
def test_what_is_pasted_is_what_was_advised(pre_stop: float, delay: float) -> None:
    """Every kind, read back by its own reader, has the numbers of the advice."""
    choice = Choice(("haproxy",), {}, {})
    settings = Settings(grace_period=700.0, pre_stop=pre_stop, propagation_delay=delay)
    for kind in KINDS:
        names = {k.removeprefix("GRACEFUL_").lower(): v for k, v in _read(kind, settings, choice)}
        again = resolve({name: Sourced(value, kind) for name, value in names.items()})
        assert again.grace_period == 700
        assert again.propagation_delay == pytest.approx(delay, abs=1e-9)
        assert again.pre_stop == pytest.approx(pre_stop, abs=1e-9)


def _read(kind: str, settings: Settings, choice: Choice) -> list[tuple[str, object]]:
    """Read a snippet as the platform does; its own grace period must be the same."""
    text = snippet(kind, settings, choice)
    match kind:
        case "kubernetes":
            pod = YAML(typ="safe").load(text)
            assert pod["terminationGracePeriodSeconds"] == 700
            return [(one["name"], one["value"]) for one in pod["containers"][0]["env"]]
        case "compose":
            app = YAML(typ="safe").load(text)["services"]["app"]
            assert app["stop_grace_period"] == "700s"
            return list(app["environment"].items())
        case "ecs":
            task = json.loads(text)
            assert task["stopTimeout"] == 700
            return [(one["name"], one["value"]) for one in task["environment"]]
        case "gunicorn":
            call = ast.parse(text).body[-1]
            assert isinstance(call, ast.Expr)
            assert isinstance(call.value, ast.Call)
            return [(str(k.arg), ast.literal_eval(k.value)) for k in call.value.keywords]
        case "systemd":
            assert "TimeoutStopSec=700\n" in text
            lines = [s for s in text.splitlines() if s.startswith("Environment=")]
            return [_pair(line.removeprefix("Environment=")) for line in lines]
        case _:
            return [_pair(line) for line in text.splitlines()]


def _pair(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    return name, value


def test_the_picture_alone_is_xml_without_a_script() -> None:
    root = xml.fromstring(svg(plan("kubernetes", "alb", "dns")))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not [e for e in root.iter() if e.tag.endswith(("script", "image"))]


def test_the_page_needs_no_network_and_no_script() -> None:
    text = page(plan("kubernetes", "alb"))
    assert "<script" not in text
    assert not [word for word in ("src=", "@import", "url(") if word in text]
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("httpGet", "")


def test_what_comes_from_outside_is_text() -> None:
    settings = Settings(readiness_path="/<script>alert(1)</script>")
    assert "<script" not in page(plan("kubernetes", settings=settings))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[Browser]:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_a_browser_shows_where_sigkill_falls(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "plan.html"
    view = plan("docker", "haproxy", settings=Settings(propagation_delay=40))
    file.write_text(page(view), encoding="utf-8")
    browser.show(file, width=400, dark=False)
    assert browser.complaints == []
    assert browser.overlaps("svg text, h1, h2, h3, p, table, pre") == []
    assert browser.run("document.querySelectorAll('svg').length") == 2
    assert browser.run("document.querySelectorAll('svg')[0].querySelectorAll('.never').length") > 0
    assert browser.run("document.querySelectorAll('svg')[1].querySelectorAll('.never').length") == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_it(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    """No word of the console, nothing wider than the window, and no text on another."""
    file = tmp_path / "plan.html"
    names = ("kubernetes", "alb", "dns")
    file.write_text(page(plan(*names, kinds=tuple(KINDS))), encoding="utf-8")
    browser.show(file, width=width, dark=dark)
    assert browser.complaints == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.overlaps("svg text, h1, h2, h3, p, table, pre") == []
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark
