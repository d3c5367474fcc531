"""The arithmetic of a stop: what is refused, in which words, and the deadlines that come of it."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core.budget import (
    SETTINGS,
    Finding,
    ServerLimit,
    Settings,
    SettingsError,
    Sourced,
    Timeline,
    check,
    closest,
    resolve,
)

HAND = "keyword argument"
NAMES = [row.name for row in SETTINGS]
SECONDS = [row.name for row in SETTINGS if row.kind == "seconds"]
OPTIONAL = [row.name for row in SETTINGS if row.kind.endswith("?")]


def by_hand(**values: object) -> Settings:
    """Resolve settings that all come from one place."""
    return resolve({name: Sourced(value, HAND) for name, value in values.items()})


def refusal(**values: object) -> str:
    """Return the text with which these settings are refused."""
    with pytest.raises(SettingsError) as caught:
        by_hand(**values)
    return str(caught.value)


# -- the table -----------------------------------------------------------------------------


def test_settings_have_the_rows_of_the_table_and_its_defaults() -> None:
    """The dataclass and the table that documents it say the same, in the same order."""
    declared = [(f.name, f.default) for f in fields(Settings) if f.name != "sources"]
    assert declared == [(row.name, row.default) for row in SETTINGS]


def test_each_row_says_what_it_means_and_which_variable_beats_it() -> None:
    """The table is the documentation: no row is without a meaning."""
    assert all(row.meaning for row in SETTINGS)
    assert SETTINGS[0].variable == "GRACEFUL_GRACE_PERIOD"
    assert len({row.variable for row in SETTINGS}) == len(SETTINGS)


def test_the_defaults_fit_and_leave_21_seconds_of_drain() -> None:
    """30 s less 5 s of delay, 3 s of clean-up and 1 s of margin."""
    settings = resolve()
    assert settings == Settings()
    assert settings.drain == 21.0
    assert check(settings) == []
    assert settings.source("grace_period") == "default"


def test_the_drain_is_the_rest_unless_it_is_given() -> None:
    """`drain_timeout` is taken as it is; without it every other part counts."""
    assert by_hand(drain_timeout=10).drain == 10.0
    assert by_hand(pre_stop=5, propagation_delay=2, cleanup_timeout=1).drain == 21.0


def test_values_lists_every_setting() -> None:
    """The start-up line shows all of them, and sources are told apart."""
    assert list(Settings().values()) == NAMES
    assert by_hand(linger=2).values()["linger"] == 2.0


def test_differences_name_the_settings_that_are_not_the_same() -> None:
    """Two apps of one process are compared by values; where these came from does not count."""
    assert by_hand(linger=1.0).differences(Settings()) == []
    assert by_hand(linger=1.0) == Settings()
    other = by_hand(linger=2, grace_period=40)
    assert other.differences(Settings()) == ["grace_period", "linger"]


# -- merging -------------------------------------------------------------------------------


def test_the_first_layer_wins_and_its_source_is_remembered() -> None:
    """Environment over code over defaults, value by value."""
    settings = resolve(
        {"grace_period": Sourced("60", "GRACEFUL_GRACE_PERIOD")},
        {"grace_period": Sourced(20, HAND), "linger": Sourced(0.5, HAND)},
    )
    assert (settings.grace_period, settings.linger) == (60.0, 0.5)
    assert settings.source("grace_period") == "GRACEFUL_GRACE_PERIOD"
    assert settings.source("linger") == HAND
    assert settings.source("exit_margin") == "default"


def test_a_value_that_is_beaten_is_not_even_read() -> None:
    """Nonsense in a lower layer does no harm where a higher one has spoken."""
    settings = resolve({"linger": Sourced(2, "above")}, {"linger": Sourced("x", "below")})
    assert settings.linger == 2.0


def test_sources_cannot_be_changed() -> None:
    """Settings are frozen, and so is what says where they came from."""
    with pytest.raises(TypeError):
        by_hand(linger=1).sources["linger"] = "me"  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


# -- values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [(7, 7.0), (2.5, 2.5), ("7", 7.0), (" 2.5 ", 2.5), ("1e1", 10.0), (0, 0.0), ("-0", 0.0)],
)
def test_seconds_may_be_a_number_or_its_text(raw: object, seconds: float) -> None:
    """Variables are text, keyword arguments are numbers; both become floats."""
    value = by_hand(linger=raw).linger
    assert value == seconds
    assert type(value) is float


NUMBER = "give a number of seconds, such as 5 or 2.5"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (-1, "linger = -1 (from keyword argument): give zero or more seconds"),
        ("-0.5", "linger = '-0.5' (from keyword argument): give zero or more seconds"),
        (math.nan, "linger = nan (from keyword argument): give a finite number of seconds"),
        ("nan", "linger = 'nan' (from keyword argument): give a finite number of seconds"),
        (math.inf, "linger = inf (from keyword argument): give a finite number of seconds"),
        ("1e999", "linger = '1e999' (from keyword argument): give a finite number of seconds"),
        (True, f"linger = True (from keyword argument): {NUMBER}"),
        ("5s", f"linger = '5s' (from keyword argument): {NUMBER}"),
        ("", f"linger = '' (from keyword argument): {NUMBER}"),
        ("none", f"linger = 'none' (from keyword argument): {NUMBER}"),
        (None, f"linger = None (from keyword argument): {NUMBER}"),
        (b"5", f"linger = b'5' (from keyword argument): {NUMBER}"),
        ([5], f"linger = [5] (from keyword argument): {NUMBER}"),
    ],
)
def test_seconds_that_are_none_are_refused_in_one_line(raw: object, text: str) -> None:
    """The line has the name, the value as it was written, its source and the fix."""
    assert refusal(linger=raw) == text


def test_a_number_too_large_for_a_float_is_refused() -> None:
    """An overflow is a bad value as any other, no crash."""
    assert refusal(linger=10**400).endswith(f"(from keyword argument): {NUMBER}")


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("raw", [-1, "x", math.nan, True, None])
def test_each_setting_in_seconds_is_checked(name: str, raw: object) -> None:
    """No row slips past the parser, and each refusal begins with its name."""
    assert refusal(**{name: raw}).startswith(f"{name} = {raw!r} (from {HAND}): give ")


@pytest.mark.parametrize("name", OPTIONAL)
@pytest.mark.parametrize("raw", [None, "", "none", "None", "off"])
def test_an_optional_setting_can_be_switched_off(name: str, raw: object) -> None:
    """None, an empty variable and the words for it all mean None."""
    assert by_hand(**{name: raw}).values()[name] is None


@pytest.mark.parametrize("raw", ["readyz", "", 5, "/ready\nz", "/a\x1b[2J"])
def test_a_probe_path_starts_with_a_slash_and_is_printable(raw: object) -> None:
    """A path that could never match, or could forge a log line, is refused (empty is off)."""
    if raw == "":
        assert by_hand(readiness_path=raw).readiness_path is None
        return
    assert refusal(readiness_path=raw) == (
        f"readiness_path = {raw!r} (from keyword argument): "
        "give a path that starts with '/', or None to switch it off"
    )


def test_a_probe_path_is_taken_as_it_is() -> None:
    """A good path goes through."""
    assert by_hand(liveness_path="/health/live").liveness_path == "/health/live"


@pytest.mark.parametrize(("raw", "port"), [(0, 0), ("8081", 8081), (65535, 65535)])
def test_a_port_may_be_a_number_or_its_text(raw: object, port: int) -> None:
    """Zero means any free one; both ends of the range are in it."""
    assert by_hand(probe_port=raw).probe_port == port


@pytest.mark.parametrize("raw", [-1, 65536, "65536", "http", 80.5, True, [1]])
def test_what_is_no_port_is_refused(raw: object) -> None:
    """Outside of 0 to 65535, a fraction, a bool or a word."""
    assert refusal(probe_port=raw) == (
        f"probe_port = {raw!r} (from keyword argument): "
        "give a port number from 0 to 65535 (0 = any free one)"
    )


def test_the_readiness_mode_is_one_of_two_words() -> None:
    """'own' and 'wrap'; anything else is refused with both."""
    assert by_hand(readiness_mode="wrap").readiness_mode == "wrap"
    assert by_hand(readiness_mode="own").readiness_mode == "own"
    text = "readiness_mode = 'both' (from keyword argument): use 'own' or 'wrap'"
    assert refusal(readiness_mode="both") == text


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    """A typing error is answered with the name that was meant."""
    assert refusal(propogation_delay=5) == (
        "unknown setting 'propogation_delay' (from keyword argument); "
        "did you mean 'propagation_delay'?"
    )


def test_a_name_that_resembles_nothing_is_refused_with_all_of_them() -> None:
    """Where no name is near, the whole list is the hint."""
    assert refusal(zzz=5) == (
        "unknown setting 'zzz' (from keyword argument); "
        f"the settings are {', '.join(sorted(NAMES))}"
    )
    assert closest("grace", ["grace_period", "linger"]) == "did you mean 'grace_period'?"


# -- the sum -------------------------------------------------------------------------------


def test_a_sum_that_exceeds_the_grace_period_shows_the_numbers_and_the_fix() -> None:
    """The example of the design, word for word, with every place a value came from."""
    with pytest.raises(SettingsError) as caught:
        resolve(
            {"grace_period": Sourced("30", "GRACEFUL_GRACE_PERIOD")},
            {"propagation_delay": Sourced(10, HAND), "drain_timeout": Sourced(25, HAND)},
        )
    assert str(caught.value) == (
        "propagation_delay 10 + drain_timeout 25 + cleanup_timeout 3 + exit_margin 1 = 39 s "
        "exceeds grace_period 30 s (from GRACEFUL_GRACE_PERIOD) by 9 s; "
        "lower propagation_delay (from keyword argument) or drain_timeout (from keyword argument), "
        "or raise grace_period together with the platform's own setting"
    )


def test_the_fix_names_only_what_can_make_up_for_the_excess() -> None:
    """Lowering a delay of 5 s would not help a clean-up of 60 s."""
    assert refusal(cleanup_timeout=60, pre_stop=1) == (
        "pre_stop 1 + propagation_delay 5 + cleanup_timeout 60 + exit_margin 1 = 67 s "
        "exceeds grace_period 30 s (from default) by 37 s; "
        "lower cleanup_timeout (from keyword argument), "
        "or raise grace_period together with the platform's own setting"
    )


def test_the_fix_names_what_was_set_by_hand_before_defaults() -> None:
    """The default delay of 5 s could make up for 3 s too, but nobody has just written it."""
    assert refusal(drain_timeout=24).endswith(
        "by 3 s; lower drain_timeout (from keyword argument), "
        "or raise grace_period together with the platform's own setting"
    )


def test_without_a_value_set_by_hand_the_fix_names_the_defaults() -> None:
    """A short grace period alone: each default that is long enough can be lowered."""
    assert refusal(grace_period=7) == (
        "propagation_delay 5 + cleanup_timeout 3 + exit_margin 1 = 9 s "
        "exceeds grace_period 7 s (from keyword argument) by 2 s; "
        "lower propagation_delay (from default) or cleanup_timeout (from default), "
        "or raise grace_period together with the platform's own setting"
    )


def test_where_no_single_part_is_enough_the_fix_names_all() -> None:
    """Three parts of 12 s exceed 30 s by more than the lowest of them."""
    text = refusal(
        grace_period=5, propagation_delay=4, drain_timeout=4, cleanup_timeout=4, exit_margin=4
    )
    assert text == (
        "propagation_delay 4 + drain_timeout 4 + cleanup_timeout 4 + exit_margin 4 = 16 s "
        "exceeds grace_period 5 s (from keyword argument) by 11 s; "
        "lower propagation_delay (from keyword argument) and drain_timeout (from keyword argument) "
        "and cleanup_timeout (from keyword argument) and exit_margin (from keyword argument), "
        "or raise grace_period together with the platform's own setting"
    )


def test_a_sum_equal_to_the_grace_period_fits() -> None:
    """The boundary itself is allowed, and so is what only floating point makes of it."""
    assert by_hand(drain_timeout=21).drain == 21.0
    parts = {"propagation_delay": 0.1, "cleanup_timeout": 0.2, "exit_margin": 0.1}
    parts |= {"drain_timeout": 0.2, "stream_window": 0.1, "linger": 0.1}
    assert 0.1 + 0.2 + 0.1 + 0.2 > 0.6
    assert by_hand(grace_period=0.6, **parts).drain == 0.2
    assert "by 0.01 s" in refusal(drain_timeout=21.01)


def test_a_delay_as_long_as_the_grace_period_is_refused() -> None:
    """Then nothing is left at all; one moment less is refused for the sum instead."""
    assert refusal(propagation_delay=30) == (
        "propagation_delay 30 s (from keyword argument) leaves nothing of grace_period "
        "30 s (from default); "
        "lower propagation_delay or raise grace_period (and the platform's setting)"
    )
    assert "exceeds grace_period" in refusal(propagation_delay=29.5)


def test_a_grace_period_of_nothing_is_refused() -> None:
    """With SIGKILL at once there is nothing to choreograph."""
    assert refusal(grace_period=0) == (
        "grace_period = 0 (from keyword argument): SIGKILL would come at once; "
        "give the seconds that the platform really waits"
    )


def test_a_budget_that_leaves_no_drain_is_refused() -> None:
    """The parts fill the grace period exactly and nothing remains for work in flight."""
    assert refusal(grace_period=9) == (
        "nothing is left of grace_period 9 s (from keyword argument) for work in flight: "
        "propagation_delay 5 + cleanup_timeout 3 + exit_margin 1 = 9 s; "
        "lower propagation_delay (from default) or cleanup_timeout (from default) "
        "or exit_margin (from default), "
        "or raise grace_period together with the platform's own setting"
    )


def test_a_drain_of_nothing_is_refused() -> None:
    """A drain of 0 s cuts everything; that is not what somebody means who writes it."""
    assert refusal(drain_timeout=0) == (
        "drain_timeout = 0 (from keyword argument): everything in flight would be cut at once; "
        "raise it, or leave it unset for the rest of the grace period"
    )


@pytest.mark.parametrize("name", ["stream_window", "linger"])
def test_a_part_of_the_drain_that_is_longer_than_it_is_refused(name: str) -> None:
    """What somebody asked for has to fit; the boundary does."""
    assert refusal(**{name: 11, "drain_timeout": 10}) == (
        f"{name} 11 s (from keyword argument) does not fit into the drain of 10 s; "
        f"lower {name} or raise drain_timeout or grace_period"
    )
    assert by_hand(**{name: 10, "drain_timeout": 10}).values()[name] == 10.0


def test_a_default_that_is_longer_than_the_drain_just_gives_way() -> None:
    """Who lowers the grace period only has not asked for five seconds of stream window."""
    assert by_hand(grace_period=10).drain == 1.0
    assert by_hand(drain_timeout=0.5).stream_window == 5.0


def test_equal_probe_paths_are_refused() -> None:
    """A liveness probe that asks for readiness would kill the drain."""
    assert refusal(readiness_path="/health", liveness_path="/health") == (
        "readiness_path and liveness_path are both '/health': a liveness probe there would "
        "fail during the drain and have the process killed; give them different paths"
    )
    off = by_hand(readiness_path=None, liveness_path=None)
    assert (off.readiness_path, off.liveness_path) == (None, None)


def test_a_check_limit_of_nothing_is_refused() -> None:
    """Each readiness check would fail, whatever it finds."""
    assert refusal(check_timeout=0) == (
        "check_timeout = 0 (from keyword argument): every readiness check would fail; "
        "give the seconds that one check may take"
    )


def test_a_stall_of_nothing_is_refused() -> None:
    """Somebody who writes 0 wants it off; taken literally it would have the process killed."""
    assert refusal(liveness_stall="0") == (
        "liveness_stall = 0 (from keyword argument): liveness would fail at once and have the "
        "process killed; give more seconds, or None to switch it off"
    )


# -- the server's own timeouts -------------------------------------------------------------


def test_a_server_that_waits_for_ever_is_no_contradiction() -> None:
    """uvicorn's None leaves the end to the budget."""
    assert check(Settings(), [ServerLimit("uvicorn", None, "at_signal")]) == []


def test_a_server_limit_that_would_cut_requests_is_an_error() -> None:
    """One that counts from the signal must cover delay and drain; equal is enough."""
    limit = ServerLimit("gunicorn graceful_timeout", 25.5, "at_signal")
    assert check(Settings(), [limit]) == [
        Finding(
            "error",
            "gunicorn graceful_timeout = 25.5 s would cut requests: propagation_delay 5 + drain 21 "
            "= 26 s; raise it to at least 26 or leave it unset",
        )
    ]
    assert check(Settings(), [ServerLimit("gunicorn", 26, "at_signal")]) == []


def test_a_server_limit_that_only_wastes_time_is_a_warning() -> None:
    """One that begins after the drain has the clean-up's time, and no more."""
    limit = ServerLimit("uvicorn --timeout-graceful-shutdown", 10, "after_drain")
    assert check(Settings(), [limit]) == [
        Finding(
            "warning",
            "uvicorn --timeout-graceful-shutdown = 10 s begins after graceful's drain of up to "
            "21 s and is cut short to what grace_period 30 s leaves; unset it, graceful's drain "
            "takes its place",
        )
    ]
    assert check(Settings(), [ServerLimit("uvicorn", 3, "after_drain")]) == []


def test_a_server_limit_that_would_cut_clean_up_is_an_error() -> None:
    """One that begins when the server asks the app to shut down, which is when the hooks run."""
    limit = ServerLimit("hypercorn shutdown_timeout", 2, "at_clean_up")
    assert check(Settings(), [limit]) == [
        Finding(
            "error",
            "hypercorn shutdown_timeout = 2 s would cut clean-up hooks: cleanup_timeout is 3 s; "
            "raise the one or lower the other",
        )
    ]
    assert check(Settings(), [ServerLimit("hypercorn", 3, "at_clean_up")]) == []


def test_findings_of_all_limits_are_listed() -> None:
    """Errors and warnings of several limits and of the sum come together."""
    limits = [ServerLimit("a", 1, "at_signal"), ServerLimit("b", 9, "after_drain")]
    severities = [f.severity for f in check(Settings(drain_timeout=22), limits)]
    assert severities == ["error", "error", "warning"]


# -- the deadlines -------------------------------------------------------------------------


def test_the_timeline_of_the_defaults() -> None:
    """SIGTERM at 100: drain from 105 to 126, clean-up to 129, and there the watchdog leaves."""
    assert Timeline.start(Settings(), 100.0) == Timeline(
        began=100.0,
        signalled=100.0,
        delay_ends=105.0,
        drain_deadline=126.0,
        cleanup_deadline=129.0,
        exits_at=129.0,
    )


def test_a_pre_stop_hook_has_used_up_its_part() -> None:
    """The grace period began 5 s before the signal, so everything but the delay is earlier."""
    assert Timeline.start(Settings(pre_stop=5.0), 100.0) == Timeline(
        began=95.0,
        signalled=100.0,
        delay_ends=105.0,
        drain_deadline=121.0,
        cleanup_deadline=124.0,
        exits_at=124.0,
    )


def test_a_shorter_delay_moves_every_deadline_but_the_end() -> None:
    """A stop without a delay is over sooner; the watchdog's time stays the platform's."""
    timeline = Timeline.start(Settings(), 100.0, delay=0.0)
    assert (timeline.delay_ends, timeline.drain_deadline) == (100.0, 121.0)
    assert (timeline.cleanup_deadline, timeline.exits_at) == (124.0, 129.0)


def test_hurry_skips_the_rest_of_the_delay_and_keeps_the_end() -> None:
    """What was left of the delay becomes drain; once it is over, nothing moves."""
    timeline = Timeline.start(Settings(), 100.0)
    hurried = timeline.hurried(102.0)
    assert hurried.delay_ends == 102.0
    assert hurried.drain_deadline == timeline.drain_deadline
    assert hurried.cleanup_deadline == timeline.cleanup_deadline
    assert timeline.hurried(110.0) == timeline


def test_a_cut_ends_the_drain_now_and_begins_clean_up() -> None:
    """Clean-up keeps its own seconds, inside the budget."""
    cut = Timeline.start(Settings(), 100.0).cut(102.0, 3.0)
    assert (cut.delay_ends, cut.drain_deadline, cut.cleanup_deadline) == (102.0, 102.0, 105.0)
    assert cut.exits_at == 129.0


def test_a_cut_never_moves_a_deadline_later() -> None:
    """A third signal after the drain's own deadline changes nothing that has passed."""
    timeline = Timeline.start(Settings(), 100.0)
    assert timeline.cut(128.0, 3.0) == timeline


# -- on random settings --------------------------------------------------------------------

sane = st.floats(0.0, 40.0) | st.sampled_from(["0", "1", "2.5", "30"])
wild = st.none() | st.booleans() | st.floats() | st.text("05.-enf/\n ", max_size=4) | st.integers()


@given(
    st.dictionaries(
        st.sampled_from(NAMES[:8]) | st.sampled_from([*NAMES, "grace", "drain"]),
        st.one_of(sane, sane, sane, wild),
        max_size=8,
    )
)
def test_settings_are_refused_by_name_or_fit_into_the_grace_period(values: dict[str, Any]) -> None:
    """Whatever is written, the process starts with a budget that holds, or says what is wrong."""
    settings, problem = None, ""
    try:
        settings = by_hand(**values)
    except SettingsError as error:
        problem = str(error)
    if settings is None:
        assert any(name in problem for name in {*NAMES, *values})
        assert "\n" not in problem
        return
    parts = settings.pre_stop + settings.propagation_delay + settings.cleanup_timeout
    assert parts + settings.drain + settings.exit_margin <= settings.grace_period + 1e-6
    assert settings.drain > 0
    timeline = Timeline.start(settings, 1000.0)
    assert timeline.signalled <= timeline.delay_ends <= timeline.drain_deadline
    assert timeline.drain_deadline <= timeline.cleanup_deadline <= timeline.exits_at + 1e-6
