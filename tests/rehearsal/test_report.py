"""The report: where things lie in the picture, what the page says, and a browser looks at it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest

from graceful.rehearsal import Result
from graceful.rehearsal.outcomes import Outcome, Sent
from graceful.rehearsal.report import junit, page
from graceful.rehearsal.report.chart import LEFT, RIGHT, chart
from tests.browser import Browser, open_browser

from .findings import CLEAN, LOSS, RESTART, STREAM

OTHER = replace(RESTART, number=2, instance="i2", sigterm_at=12.0, requests_lost=1)


def sent(at: float, instance: str = "i1", outcome: Outcome = Outcome.OK) -> Sent:
    """Return a request that took a tenth of a second."""
    return Sent(at, 0.1, "quick", instance, outcome)


def drawn(**more: object) -> Result:
    """Return a rehearsal of two instances with all there is to draw."""
    requests = [sent(n / 10, f"i{n % 2 + 1}") for n in range(240)]
    requests.append(sent(13.0, "i2", Outcome.RESET))
    fields: dict[str, object] = {
        "seconds": 25.0,
        "restarts": [RESTART, OTHER],
        "losses": [LOSS],
        "streams": [
            STREAM,
            replace(STREAM, connected_at=8.5, ended_at=25.0, restart=None, instance="i2"),
            replace(STREAM, kind="sse", told=False, ended="sse truncated"),
            replace(STREAM, kind="sse", connected_at=8.5, ended_at=25.0, restart=None),
        ],
        "sent": requests,
    }
    return replace(CLEAN, **(fields | more))  # type: ignore[arg-type]


def test_the_bands_of_an_instance_are_its_phases_without_a_gap() -> None:
    row = chart(drawn()).rows[0]
    assert [band.phase for band in row.bands] == [
        "serving",
        "lame-duck",
        "draining",
        "starting",
        "serving",
    ]
    for band, following in zip(row.bands, row.bands[1:], strict=False):
        assert band.x + band.width == pytest.approx(following.x, abs=0.11)
    assert row.bands[0].x == LEFT
    assert row.bands[-1].x + row.bands[-1].width == pytest.approx(RIGHT)


def test_an_instance_starts_before_it_serves() -> None:
    one, two = chart(drawn(first_ready={"i1": 1.5})).rows
    assert [(band.phase, band.title) for band in one.bands][:2] == [
        ("starting", "starting, 0.00–1.50 s"),
        ("serving", "serving, 1.50–2.00 s"),
    ]
    assert one.bands[0].x + one.bands[0].width == pytest.approx(one.bands[1].x, abs=0.11)
    assert two.bands[0].phase == "serving"  # a result that doesn't tell


def test_a_listener_that_closes_without_a_flip_has_no_lame_duck() -> None:
    bare = replace(RESTART, readiness_flip=None, refused=0.2)
    row = chart(drawn(restarts=[bare])).rows[0]
    assert [band.phase for band in row.bands][:3] == ["serving", "still-ready", "lame-duck"]
    assert row.bands[2].width == 0


def test_a_late_flip_stands_out() -> None:
    late = replace(RESTART, readiness_flip=2.0)
    row = chart(drawn(restarts=[late])).rows[0]
    assert row.bands[1].phase == "still-ready"
    assert row.bands[1].text == "still ready"


def test_a_reload_keeps_its_instance() -> None:
    reloaded = chart(drawn(signal="SIGHUP", restarts=[RESTART])).rows[0]
    assert [band.phase for band in reloaded.bands] == ["serving", "reloading", "serving"]


def test_each_request_is_a_tick_and_each_lost_one_a_mark() -> None:
    one, two = chart(drawn()).rows
    assert one.ticks.count("M") == 120
    assert one.lost == []
    assert [lost.title for lost in two.lost] == ["lost: quick, reset, sent at 13.00 s"]


def test_what_was_lost_before_an_instance_had_it_has_a_row_of_its_own() -> None:
    """A proxy's own 503 must stand out as well."""
    refused = replace(sent(2.0), instance=None, outcome=Outcome.REFUSED)
    row = chart(drawn(sent=[sent(1.0), refused])).rows[-1]
    assert row.name == "no instance"
    assert [lost.title for lost in row.lost] == ["lost: quick, refused, sent at 2.00 s"]


def test_the_gap_between_exit_and_ready_is_named() -> None:
    slow = replace(RESTART, ready=12.0)
    assert [label.text for label in chart(drawn(restarts=[slow])).rows[0].labels] == [
        "SIGTERM",
        "exit 0",
        "ready",
    ]


def test_a_stream_is_a_line_with_a_gap_until_its_client_is_back() -> None:
    lines = chart(drawn()).lines
    assert [line.tone for line in lines] == ["0", "cut", "cut", "0", "0", "gap", "1"]
    told = lines[5]
    assert told.x2 > told.x1
    assert told.title == "told to reconnect; away 0.50 s"


def test_requests_in_flight_are_counted() -> None:
    curve = chart(drawn(sent=[sent(1.0), sent(1.05), sent(3.0)])).curves[0]
    assert curve.name == "in flight"
    assert curve.top == "2"


def test_nothing_to_draw_is_drawn() -> None:
    empty = drawn(restarts=[], streams=[], sent=[], losses=[])
    assert chart(empty).rows == []
    assert "<svg" in page({"this": empty})


def test_what_comes_from_outside_is_text() -> None:
    hostile = drawn(command="<script>alert(1)</script>")
    assert "<script" not in page({"this": hostile})


def test_two_runs_are_compared() -> None:
    text = page({"this": drawn(), "the other": drawn(balancer="nginx")})
    assert text.count('<svg viewBox="0 0 1200') == 2
    assert "Compared" in text


def test_junit_has_a_case_for_each_thing_that_must_not_happen() -> None:
    suites = xml.fromstring(junit({"rehearsal": drawn()}))
    (suite,) = suites
    assert suite.get("tests") == "5"
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert suite.get("failures") == str(len(failed))
    assert "every stream is told to reconnect" in failed


def test_junit_survives_what_xml_can_not_say() -> None:
    loss = replace(LOSS, detail="bad \x00\x1b bytes & <tags>")
    xml.fromstring(junit({"rehearsal": drawn(losses=[loss])}))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[Browser]:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_it(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    """No word of the console, nothing wider than the window, and no text on another."""
    file = tmp_path / "report.html"
    file.write_text(page({"this": drawn(), "the other": drawn()}), encoding="utf-8")
    browser.show(file, width=width, dark=dark)
    assert browser.complaints == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.overlaps("svg text, h1, h2, h3, p, table") == []
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


def long_run(instances: int) -> Result:
    """Return two minutes at 300 requests/s with 200 streams, each moved four times."""
    names = [f"i{number + 1}" for number in range(instances)]
    restarts = [
        replace(RESTART, number=n + 1, instance=names[n % instances], sigterm_at=4.0 + 8 * n)
        for n in range(14)
    ]
    streams = [
        replace(
            STREAM,
            client=client,
            kind=kind,
            instance=names[(client + life) % instances],
            connected_at=24.0 * life,
            ended_at=24.0 * life + 23.5,
        )
        for kind in ("sse", "websocket")
        for client in range(100)
        for life in range(5)
    ]
    requests = [sent(n / 300, names[n % instances]) for n in range(36_000)]
    return drawn(
        seconds=120.0,
        restarts=restarts,
        streams=streams,
        sent=requests,
        losses=[],
        first_ready=dict.fromkeys(names, 0.8),
    )


BEYOND_THE_EDGE = """
    [...document.querySelectorAll("svg text")].filter(text => {
        const [word, picture] = [text, text.ownerSVGElement].map(e => e.getBoundingClientRect());
        return word.right > picture.right || word.left < picture.left;
    }).map(text => text.textContent)
"""


def test_a_long_run_of_many_instances(browser: Browser, tmp_path: Path) -> None:
    """Nothing overlaps, and each instance has a colour of its own."""
    file = tmp_path / "report.html"
    file.write_text(page({"this": long_run(6)}), encoding="utf-8")
    assert file.stat().st_size < 2_000_000
    browser.show(file, width=1280, dark=False)
    assert browser.complaints == []
    assert browser.overlaps("svg text, h1, h2, h3, p, table") == []
    assert browser.run(BEYOND_THE_EDGE) == []
    colour = "getComputedStyle(document.querySelector('line.t{}')).stroke"
    assert len({browser.run(colour.format(number)) for number in range(6)}) == 6
