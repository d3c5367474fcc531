"""The table of platforms and the advice that follows from it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core.advice import Choice, Traffic, advise, enough, judge
from graceful.core.budget import Settings, check
from graceful.core.platforms import KNOBS, PLATFORMS

SECONDS = st.floats(0, 1000)
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
    advice = advise(Choice(tuple(names), numbers, {}), settings, traffic)
    assert advice.delay == max(math.fsum(p.seconds for p in path.parts) for path in advice.paths)
    safe = replace(enough(settings, advice), grace_period=float(advice.grace))
    assert [f for f in check(safe) if f.severity == "error"] == []
    assert [f for f in judge(safe, advice, Traffic()) if f.severity == "error"] == []
