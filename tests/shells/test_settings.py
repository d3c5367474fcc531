"""Where values come from: environment, keyword arguments, defaults; and what is no setting."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from graceful.core.budget import SETTINGS, Settings, SettingsError
from graceful.settings import Binding, Keywords, for_development, load, unknown_variables


def test_defaults() -> None:
    """Without anything written down, the defaults are in force and have no source."""
    settings = load({}, environ={})
    assert settings == Settings()
    assert settings.sources == {}
    assert settings.source("grace_period") == "default"


def test_environment_beats_keywords_beats_defaults() -> None:
    """The grace period belongs to whoever deploys; each value knows where it came from."""
    settings = load(
        {"grace_period": 60, "linger": 2},
        source="GracefulMiddleware(...)",
        environ={"GRACEFUL_GRACE_PERIOD": "90", "GRACEFUL_PROPAGATION_DELAY": "7.5"},
    )
    assert (settings.grace_period, settings.linger, settings.propagation_delay) == (90, 2, 7.5)
    assert settings.exit_margin == 1
    assert settings.sources == {
        "grace_period": "$GRACEFUL_GRACE_PERIOD",
        "propagation_delay": "$GRACEFUL_PROPAGATION_DELAY",
        "linger": "GracefulMiddleware(...)",
    }


def test_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping it is `os.environ` that is read."""
    monkeypatch.setenv("GRACEFUL_LINGER", "0.5")
    monkeypatch.setenv("GRACEFUL_LINGERR", "0.5")
    assert load({}).linger == 0.5
    assert "GRACEFUL_LINGERR" in unknown_variables()[0]


@pytest.mark.parametrize(
    ("variable", "value", "name", "expected"),
    [
        ("GRACEFUL_DRAIN_TIMEOUT", "none", "drain_timeout", None),
        ("GRACEFUL_DRAIN_TIMEOUT", "12", "drain_timeout", 12.0),
        ("GRACEFUL_READINESS_PATH", "/up", "readiness_path", "/up"),
        ("GRACEFUL_LIVENESS_PATH", "off", "liveness_path", None),
        ("GRACEFUL_LIVENESS_PATH", "", "liveness_path", None),
        ("GRACEFUL_READINESS_MODE", "wrap", "readiness_mode", "wrap"),
        ("GRACEFUL_PROBE_PORT", "8081", "probe_port", 8081),
        ("GRACEFUL_LIVENESS_STALL", "off", "liveness_stall", None),
    ],
)
def test_values_from_the_environment(
    variable: str, value: str, name: str, expected: object
) -> None:
    """Text is read as what the setting is; 'none', 'off' and nothing switch off."""
    assert load({}, environ={variable: value}).values()[name] == expected


@pytest.mark.parametrize(
    ("environ", "keywords", "words"),
    [
        ({"GRACEFUL_LINGER": "soon"}, {}, ["linger = 'soon'", "$GRACEFUL_LINGER", "2.5"]),
        ({"GRACEFUL_LINGER": "nan"}, {}, ["linger = 'nan'", "finite"]),
        ({"GRACEFUL_GRACE_PERIOD": "-3"}, {}, ["grace_period = '-3'", "zero or more"]),
        ({"GRACEFUL_GRACE_PERIOD": "3"}, {}, ["propagation_delay", "$GRACEFUL_GRACE_PERIOD"]),
        ({}, {"grace_perod": 3}, ["unknown setting 'grace_perod'", "'grace_period'", "here"]),
        ({}, {"readiness_mode": "both"}, ["readiness_mode = 'both' (from here)", "'wrap'"]),
    ],
)
def test_mistakes(environ: dict[str, str], keywords: dict[str, Any], words: list[str]) -> None:
    """A mistake names the setting, its value, where it was written, and the fix."""
    with pytest.raises(SettingsError) as error:
        load(keywords, source="here", environ=environ)
    for word in words:
        assert word in str(error.value)


def test_unknown_variables() -> None:
    """Each is one sentence with the nearest real name; what isn't ours is not looked at."""
    (sentence,) = unknown_variables(
        {"GRACEFUL_GRACE_PERIODE": "5", "GRACE_PERIOD": "5", "GRACEFUL_LINGER": "1"}
    )
    assert "$GRACEFUL_GRACE_PERIODE is no setting" in sentence
    assert "did you mean 'GRACEFUL_GRACE_PERIOD'" in sentence


def test_service_links_of_kubernetes() -> None:
    """A Service called 'graceful', or 'graceful-probe', injects variables that must stop nobody,
    not even where one has the name of a setting."""
    environ = {
        "GRACEFUL_PORT": "tcp://10.0.0.1:80",
        "GRACEFUL_SERVICE_HOST": "10.0.0.1",
        "GRACEFUL_PORT_80_TCP_ADDR": "10.0.0.1",
        "GRACEFUL_PROBE_PORT": "tcp://10.0.0.2:81",
        "GRACEFUL_PROBE_PORT_81_UDP": "udp://10.0.0.2:81",
    }
    settings = load({}, environ=environ)
    assert settings == Settings()
    assert len(unknown_variables(environ)) == 5


def test_for_development() -> None:
    """Under a reloader nothing waits, whatever was asked for, and the source says why."""
    asked = load({"propagation_delay": 8, "linger": 3, "grace_period": 60}, environ={})
    settings = for_development(asked, "uvicorn --reload")
    assert (settings.propagation_delay, settings.linger, settings.stream_window) == (0, 0, 0)
    assert settings.drain == 1
    assert settings.source("linger") == "uvicorn --reload"
    assert settings.source("grace_period") == "keyword argument"
    assert for_development(load({"grace_period": 9.5}, environ={}), "x").drain == 0.5


def test_keywords_are_the_settings() -> None:
    """What editors offer as keyword arguments is what the table of settings has."""
    assert set(get_type_hints(Keywords)) == {row.name for row in SETTINGS}


def test_the_timeline_belongs_to_the_server_that_ends_the_process() -> None:
    """An app that names another one comes too late; its probes are its own."""
    base = load({"grace_period": 60}, source="install(...)", environ={})
    merged = load({"readiness_path": "/up", "linger": 1}, source="App(...)", environ={}, base=base)
    assert (merged.grace_period, merged.readiness_path) == (60, "/up")
    with pytest.raises(SettingsError) as caught:
        load({"linger": 2}, source="App(...)", environ={}, base=base)
    assert str(caught.value) == (
        "linger = 2 (from App(...)) comes too late for the server, whose own stop keeps to 1.0; "
        "give it to install(...) in the server's configuration, or as $GRACEFUL_LINGER"
    )
    settled = {"GRACEFUL_LINGER": "3"}
    assert load({"linger": 2}, source="App(...)", environ=settled, base=base).linger == 3


def test_what_a_server_has_set_is_every_apps() -> None:
    """Keywords add to it, the same value twice is no contradiction, and each keeps its source."""
    base = load({"grace_period": 60}, source="install(...)", environ={})
    merged = load({"grace_period": 60}, source="App(...)", environ={}, base=base)
    assert merged.grace_period == 60
    assert merged.source("grace_period") == "App(...)"
    assert load({}, environ={}, base=base).source("grace_period") == "install(...)"
    assert load({}, environ={}, base=base).source("linger") == "default"


def test_a_server_and_an_app_that_contradict_each_other() -> None:
    """One line names both places; the environment, which beats both, settles it."""
    base = load({"grace_period": 60}, source="install(...)", environ={})
    with pytest.raises(SettingsError) as caught:
        load({"grace_period": 40}, source="App(...)", environ={}, base=base)
    assert str(caught.value) == (
        "grace_period is 60.0 in install(...) and 40 in App(...); "
        "give it in one place, or the same value in both"
    )
    settled = {"GRACEFUL_GRACE_PERIOD": "50"}
    assert load({"grace_period": 40}, environ=settled, base=base).grace_period == 50


def test_an_app_that_contradicts_a_server_that_serves_follows() -> None:
    """What it gives beside that still counts, and a mistake is a mistake."""
    told: list[str] = []
    installed = load({"grace_period": 60}, source="install(...)", environ={})
    base = Binding.of(installed, told.append)
    assert base.differences(installed) == []
    given = {"grace_period": 40, "linger": 2, "readiness_path": "/up"}
    merged = load(given, source="App(...)", environ={}, base=base)
    assert (merged.grace_period, merged.linger, merged.readiness_path) == (60, 1, "/up")
    assert merged.source("grace_period") == "install(...)"
    assert [text.split()[0] for text in told] == ["grace_period", "linger"]
    with pytest.raises(SettingsError, match="unknown setting 'grace'"):
        load({"grace": 40}, environ={}, base=base)
