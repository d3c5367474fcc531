"""The table of platforms and the advice that follows from it."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core.advice import Choice, Traffic, advise, enough, judge, kill
from graceful.core.budget import Settings, check
from graceful.core.plan import bars, steps
from graceful.core.platforms import KNOBS, PLATFORMS, Check, Grace, Number, Records

SECONDS = st.floats(0, 1000)
HALVES = st.integers(0, 400).map(lambda n: n / 2)
NAMES = st.lists(st.sampled_from(sorted(PLATFORMS)), min_size=1, max_size=4, unique=True)
NUMBERS = st.dictionaries(
    st.tuples(st.sampled_from(sorted(PLATFORMS)), st.sampled_from(sorted(KNOBS))), SECONDS
)


@pytest.mark.parametrize(
    ("names", "delay"),
    [
        ("kubernetes", 5),
        ("alb", 65),
        ("kubernetes alb", 25),
        ("haproxy", 8),
        ("dns", 90),
        ("consul dns", 110),
    ],
)
def test_defaults(names: str, delay: float) -> None:
    """The longest path decides, and who is told waits for its teller."""
    assert advise(Choice(tuple(names.split()), {}, {}), Settings()).delay == delay


def test_an_old_ttl_counts() -> None:
    assert advise(Choice(("dns",), {("dns", "ttl"): 5}, {}, old_ttl=300), Settings()).delay == 330


@given(NAMES, NUMBERS, st.sampled_from(sorted(KNOBS)), SECONDS)
def test_advice_never_falls_as_a_number_grows(
    names: list[str], numbers: dict[tuple[str, str], float], knob: str, more: float
) -> None:
    low = {key: value for key, value in numbers.items() if key[1] != knob}
    low |= {(name, knob): 1.0 for name in names}
    high = low | {(name, knob): 1.0 + more for name in names}
    before, after = (advise(Choice(tuple(names), n, {}), Settings()) for n in (low, high))
    assert after.delay >= before.delay
    assert after.grace >= before.grace


@given(NAMES, NUMBERS, SECONDS, SECONDS, SECONDS)
def test_the_smallest_safe_grace_passes_the_budget(
    names: list[str], numbers: dict[tuple[str, str], float], pre: float, window: float, p99: float
) -> None:
    settings = Settings(pre_stop=pre, stream_window=window)
    traffic = Traffic(p99=p99)
    choice = Choice(tuple(names), numbers, {})
    advice = advise(choice, settings, traffic)
    assert advice.delay == max(math.fsum(p.seconds for p in path.parts) for path in advice.paths)
    safe = replace(
        enough(settings, advice),
        grace_period=float(advice.grace),
        sources={"grace_period": "whoever deploys"},
    )
    assert [f for f in check(safe) if f.severity == "error"] == []
    assert [f for f in judge(safe, choice, advice, Traffic()) if f.severity == "error"] == []


@pytest.mark.parametrize("name", [name for name, row in PLATFORMS.items() if row.grace])
def test_the_platforms_own_grace_period_takes_part(name: str) -> None:
    """Who gives no grace period gets the platform's default; who does is only reminded of it."""
    choice, grace = Choice((name,), {}, {}), PLATFORMS[name].grace
    assert grace is not None
    default = grace.seconds.value
    long = Settings(propagation_delay=default + 5, grace_period=default + 20)
    given = replace(long, sources={"grace_period": "--grace-period"})
    advice = advise(choice, long)
    (told,) = [f for f in judge(long, choice, advice, Traffic()) if "SIGKILL" in f.text]
    assert told.severity == "error"
    assert told.text.endswith(f"set {grace.option} to at least {default + 20:g} s")
    assert kill(long, choice).at == default
    assert name in kill(long, choice).by
    (told,) = [f for f in judge(given, choice, advice, Traffic()) if "SIGKILL" in f.text]
    assert told.severity == "warning"
    assert kill(given, choice).at == default + 20


def test_the_smallest_of_several_defaults_kills() -> None:
    found = kill(Settings(grace_period=120), Choice(("systemd", "docker"), {}, {}))
    assert (found.at, "docker" in found.by) == (10, True)


def test_no_more_than_the_platform_allows() -> None:
    settings = Settings(propagation_delay=115, grace_period=124)
    choice = Choice(("ecs",), {}, {})
    told = judge(settings, choice, advise(choice, settings), Traffic())
    assert any("120 s at most" in finding.text for finding in told)


def test_a_grace_period_below_the_smallest_safe_one_is_a_warning() -> None:
    """It is no contradiction, but streams and slow requests have less than they ask for."""
    settings, choice = Settings(grace_period=11), Choice((), {}, {})
    (told,) = judge(settings, choice, advise(choice, settings), Traffic())
    assert told.severity == "warning"
    assert "leaves a drain of 2 s, where 5 s are asked for" in told.text
    assert "at least 14" in told.text


@given(NAMES, HALVES, HALVES, HALVES)
def test_whatever_is_shown_ends_with_sigkill_and_nothing_after_it(
    names: list[str], delay: float, grace: float, pre: float
) -> None:
    settings = Settings(propagation_delay=delay, grace_period=grace, pre_stop=pre)
    found = kill(settings, Choice(tuple(names), {}, {}))
    steps_ = steps(settings, found)
    assert "SIGKILL" in steps_[-1].text
    assert [step.at for step in steps_] == sorted(step.at for step in steps_)
    cut = [bar for bar in bars(settings, found) if bar.kind == "never"]
    assert ("never needed" in steps_[-1].text) is ({bar.name for bar in cut} <= {"exit margin"})
    for bar in bars(settings, found):
        assert bar.begins < bar.ends
        assert bar.kind == "never" or bar.ends <= found.at + 1e-9
        assert bar.kind != "never" or bar.begins >= found.at


def test_every_number_says_where_it_is_from() -> None:
    for row in PLATFORMS.values():
        numbers = [row.lag, *_numbers(row.check), *_numbers(row.records), *_numbers(row.grace)]
        assert all(len(number.source) > 10 for number in numbers if number is not None)


def _numbers(part: Check | Records | Grace | None) -> list[Number]:
    if part is None:
        return []
    return [v for one in fields(part) if isinstance(v := getattr(part, one.name), Number)]
