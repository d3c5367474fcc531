"""The system checks: each finding has its test, and a project that is right has none."""

from __future__ import annotations

from typing import Any, cast

import pytest
from django.core import checks as django_checks
from django.test import override_settings

from graceful.integrations.django import GracefulMiddleware, checks
from graceful.integrations.django.checks import ALWAYS, DEPLOY

from .project import OURS

COMMON = "django.middleware.common.CommonMiddleware"
SECURITY = "django.middleware.security.SecurityMiddleware"


class Subclass(GracefulMiddleware):
    """A project's own."""


def found(*, deploy: bool = True, **settings: Any) -> dict[str, Any]:
    """Return what `manage.py check --tag graceful` finds, by id."""
    run = cast(Any, django_checks).run_checks
    with override_settings(**settings):
        messages = run(tags=[checks.TAG], include_deployment_checks=deploy)
    assert all(message.hint for message in messages)
    return {message.id: message for message in messages}


def databases(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Give the project a database; Django warns of overriding that setting."""
    from django.conf import settings

    monkeypatch.setattr(settings, "DATABASES", {"default": options, "other": {}})


def test_a_project_that_is_right_has_no_findings() -> None:
    """Also with the checks for deployment."""
    assert found() == {}
    assert found(GRACEFUL={"grace_period": 60, "checks": {"x": print}, "on_drain": print}) == {}


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        (
            {"propagation_delay": 10, "drain_timeout": 25},
            "propagation_delay 10 + drain_timeout 25 + cleanup_timeout 3 + exit_margin 1 = 39 s "
            "exceeds grace_period 30 s (from default) by 9 s",
            "lower propagation_delay (from settings.GRACEFUL) or drain_timeout (from "
            "settings.GRACEFUL), or raise grace_period together with the platform's own setting",
        ),
        (
            {"linger": "soon"},
            "linger = 'soon' (from settings.GRACEFUL)",
            "give a number of seconds, such as 5 or 2.5",
        ),
        (
            {"GRACE_PERIOD": 60},
            "unknown setting 'GRACE_PERIOD' (from settings.GRACEFUL)",
            "did you mean 'grace_period'?",
        ),
        (
            30,
            "settings.GRACEFUL = 30",
            "give a dict, such as {'grace_period': 30}, or leave it out",
        ),
        (
            {"on_drain": "nowhere.to_be_found"},
            "on_drain = 'nowhere.to_be_found' (from settings.GRACEFUL)",
            "No module named 'nowhere'",
        ),
        ({"on_drain": 3}, "on_drain = 3", "give a callable, or a list of callables"),
        (
            {"checks": [print]},
            "checks = [<built-in function print>] (from settings.GRACEFUL)",
            "give a dict, name to callable",
        ),
        (
            {"sse_event": "a\nb"},
            "sse_event = 'a\\nb'",
            "give a name without line breaks, such as 'reconnect'",
        ),
    ],
)
def test_settings_that_are_wrong(given: object, message: str, hint: str) -> None:
    """One clear line with the numbers, the places, and the fix."""
    finding = found(deploy=False, GRACEFUL=given)["graceful.E001"]
    assert finding.msg == message
    assert finding.hint == hint
    assert finding.level == django_checks.ERROR


def test_the_environment_beats_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grace period belongs to whoever deploys."""
    monkeypatch.setenv("GRACEFUL_GRACE_PERIOD", "60")
    assert found(GRACEFUL={"propagation_delay": 30}) == {}
    monkeypatch.setenv("GRACEFUL_GRACE_PERIOD", "20")
    finding = found(GRACEFUL={"propagation_delay": 30})["graceful.E001"]
    assert "(from $GRACEFUL_GRACE_PERIOD)" in finding.msg


@pytest.mark.parametrize("second", [OURS, f"{__name__}.Subclass"])
def test_a_middleware_that_is_listed_twice(second: str) -> None:
    """Only the outermost would do anything."""
    finding = found(deploy=False, MIDDLEWARE=[OURS, COMMON, second])["graceful.E002"]
    assert "listed 2 times in MIDDLEWARE, at places 1 and 3 of 3" in finding.msg
    assert finding.level == django_checks.ERROR


def test_a_middleware_that_is_not_listed() -> None:
    """The app alone does nothing but these checks."""
    finding = found(deploy=False, MIDDLEWARE=[COMMON])["graceful.W001"]
    assert OURS in finding.hint


@pytest.mark.parametrize("ours", [OURS, f"{__name__}.Subclass"])
def test_a_middleware_that_is_not_the_first(ours: str) -> None:
    """What comes before it sees the probes, and is not waited for."""
    finding = found(deploy=False, MIDDLEWARE=[SECURITY, COMMON, ours])["graceful.W002"]
    assert "number 3 of 3 in MIDDLEWARE: SecurityMiddleware, CommonMiddleware see" in finding.msg
    assert found(deploy=False, MIDDLEWARE=[ours, COMMON]) == {}


def test_a_middleware_that_does_not_exist_is_for_django_to_tell() -> None:
    """It does so when the handler is made."""
    assert found(deploy=False, MIDDLEWARE=[OURS, "nowhere.Middleware"]) == {}


def test_a_variable_that_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt one changes nothing, and nothing says so."""
    monkeypatch.setenv("GRACEFUL_GRACE_PERIODE", "60")
    assert "did you mean 'GRACEFUL_GRACE_PERIOD'?" in found()["graceful.W003"].msg


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"MIDDLEWARE": [COMMON, OURS]}, "GracefulMiddleware comes after that check"),
        ({"MIDDLEWARE": [COMMON]}, "GracefulMiddleware is not in MIDDLEWARE"),
        (
            {"MIDDLEWARE": [OURS, COMMON], "GRACEFUL": {"readiness_mode": "wrap"}},
            "readiness_mode is 'wrap'",
        ),
    ],
)
def test_probes_that_allowed_hosts_refuses(settings: dict[str, Any], why: str) -> None:
    """A kubelet names the pod's IP as Host, and the pod would never be ready."""
    finding = found(**settings)["graceful.W004"]
    assert "ALLOWED_HOSTS = ['example.org', 'testserver'] refuses /readyz with 400" in finding.msg
    assert why in finding.msg
    assert "httpGet.httpHeaders" in finding.hint
    assert "graceful.W004" not in found(**settings, ALLOWED_HOSTS=["*"])
    assert "graceful.W004" not in found(deploy=False, **settings)
    settings = {**settings, "GRACEFUL": {**settings.get("GRACEFUL", {}), "readiness_path": None}}
    assert "graceful.W004" not in found(**settings)


def test_probes_that_are_redirected() -> None:
    """A kubelet takes 301 for an answer."""
    settings: dict[str, Any] = {"MIDDLEWARE": [SECURITY, OURS], "SECURE_SSL_REDIRECT": True}
    finding = found(**settings)["graceful.W005"]
    assert "/readyz with 301" in finding.msg
    assert "'^readyz$'" in finding.hint
    assert "graceful.W005" not in found(**settings, SECURE_REDIRECT_EXEMPT=["^readyz$"])
    assert "graceful.W005" not in found(MIDDLEWARE=[OURS, SECURITY], SECURE_SSL_REDIRECT=True)


def test_database_connections_of_no_bounded_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each deploy needs twice as many."""
    databases(monkeypatch, CONN_MAX_AGE=None)
    finding = found()["graceful.W006"]
    assert "DATABASES['default'] has CONN_MAX_AGE = None" in finding.msg
    assert "for up to 29 s" in finding.msg
    assert found(deploy=False) == {}
    databases(monkeypatch, CONN_MAX_AGE=60)
    assert found() == {}


def test_the_checks_that_are_listed_are_registered() -> None:
    """Those for deployment only with --deploy."""
    registry: Any = django_checks.registry.registry
    always = registry.get_checks()
    deploy = registry.get_checks(include_deployment_checks=True)
    assert set(ALWAYS) <= set(always)
    assert set(DEPLOY) <= set(deploy) - set(always)
