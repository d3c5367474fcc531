"""System checks: what would make a stop of this project lose requests, each with its fix.

    graceful.E001  settings that are wrong or contradict         always
    graceful.E002  the middleware is listed more than once       always
    graceful.W001  the middleware is not listed                  always
    graceful.W002  the middleware is not the first               always
    graceful.W003  a GRACEFUL_* variable that is no setting      with --deploy
    graceful.W004  ALLOWED_HOSTS refuses the platform's probes   with --deploy
    graceful.W005  probes are redirected to HTTPS                with --deploy
    graceful.W006  database connections of no bounded age        with --deploy

Budget and settings are judged by the core; here is only what is Django's. No check imports the
project's URLs, models or server entry points.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from graceful.asgi import GracefulMiddleware as AsgiMiddleware
from graceful.core.budget import Settings, SettingsError
from graceful.settings import unknown_variables

from .conf import configuration, looked_up
from .middleware import GracefulMiddleware

__all__ = ["ALWAYS", "DEPLOY", "TAG", "findings"]

TAG: Final = "graceful"
"""`manage.py check --tag graceful` runs only these."""

PATH: Final = "graceful.integrations.django.GracefulMiddleware"

COMMON: Final = "django.middleware.common.CommonMiddleware"
SECURITY: Final = "django.middleware.security.SecurityMiddleware"

Check = Callable[..., list[CheckMessage]]


def check_settings(**_: object) -> list[CheckMessage]:
    """E001: the budget, names and values of the settings."""
    try:
        found = configuration()
        found.settings()
        keywords: dict[str, Any] = {**found.keywords, **found.options}
        shell = AsgiMiddleware(_no_app, **keywords)  # judges the options; joins nothing
        if shell.error is not None:
            raise shell.error
    except SettingsError as error:
        message, fix = _message_and_fix(str(error))
        return [Error(message, hint=fix, id="graceful.E001")]
    return []


def _message_and_fix(text: str) -> tuple[str, str]:
    """Take a message of the core's apart: its fix comes last."""
    message, found, fix = text.rpartition("; ")
    if not found:
        message, found, fix = text.partition(": ")
    return message, fix or "see the settings of graceful"


def check_middleware(**_: object) -> list[CheckMessage]:
    """E002, W001, W002: GracefulMiddleware stands in MIDDLEWARE once, and first."""
    listed = list(settings.MIDDLEWARE)
    places = _places(listed)
    if not places:
        return [
            Warning(
                "GracefulMiddleware is not in MIDDLEWARE: no probe is answered and nothing is "
                "drained",
                hint=f"put {PATH!r} first in MIDDLEWARE. If asgi.py or wsgi.py wraps the "
                "application in graceful's own GracefulMiddleware, silence graceful.W001",
                id="graceful.W001",
            )
        ]
    if len(places) > 1:
        numbers = " and ".join(str(place + 1) for place in places)
        return [
            Error(
                f"GracefulMiddleware is listed {len(places)} times in MIDDLEWARE, at places "
                f"{numbers} of {len(listed)}; only the outermost one would do anything",
                hint="keep the first place and remove the others",
                id="graceful.E002",
            )
        ]
    place = places[0]
    if place == 0:
        return []
    before = ", ".join(name.rpartition(".")[2] for name in listed[:place])
    return [
        Warning(
            f"GracefulMiddleware is number {place + 1} of {len(listed)} in MIDDLEWARE: {before} "
            f"{'sees' if place == 1 else 'see'} each probe first, and work done there is not "
            "waited for",
            hint=f"move {PATH!r} to the first place",
            id="graceful.W002",
        )
    ]


def check_variables(**_: object) -> list[CheckMessage]:
    """W003: a misspelt variable changes nothing."""
    return [
        Warning(text, hint="rename or remove it", id="graceful.W003")
        for text in unknown_variables()
    ]


def check_hosts(**_: object) -> list[CheckMessage]:
    """W004: probes come with the pod's IP as Host, which ALLOWED_HOSTS does not know."""
    way = _way_to_readiness()
    hosts = list(settings.ALLOWED_HOSTS)
    if way is None or COMMON not in way.passed or "*" in hosts:
        return []
    return [
        Warning(
            f"ALLOWED_HOSTS = {hosts!r} refuses {way.path} with 400 when the probe names the "
            f"pod's IP as its Host, as a kubelet does: {way.why}",
            hint=f"{way.fix}, or give the probe a Host header that ALLOWED_HOSTS knows "
            "(httpGet.httpHeaders)",
            id="graceful.W004",
        )
    ]


def check_redirect(**_: object) -> list[CheckMessage]:
    """W005: kubelets and balancers take a redirect for an answer, so readiness never flips."""
    way = _way_to_readiness()
    if way is None or SECURITY not in way.passed or not settings.SECURE_SSL_REDIRECT:
        return []
    exempt: Iterable[str] = settings.SECURE_REDIRECT_EXEMPT
    if any(re.search(pattern, way.path.lstrip("/")) for pattern in exempt):
        return []
    return [
        Warning(
            f"SECURE_SSL_REDIRECT answers a plain-HTTP probe of {way.path} with 301, which a "
            f"kubelet takes for ready, whatever the process would say: {way.why}",
            hint=f"{way.fix}, or add {'^' + re.escape(way.path.lstrip('/')) + '$'!r} to "
            "SECURE_REDIRECT_EXEMPT",
            id="graceful.W005",
        )
    ]


def check_databases(**_: object) -> list[CheckMessage]:
    """W006: CONN_MAX_AGE = None."""
    in_force = _settings()
    overlap = in_force.grace_period - in_force.exit_margin
    databases: Mapping[str, Mapping[str, Any]] = settings.DATABASES
    return [
        Warning(
            f"DATABASES[{alias!r}] has CONN_MAX_AGE = None, connections of no bounded age: a "
            f"worker that is leaving keeps its own for up to {overlap:g} s while the one that "
            "takes over opens as many, so each deploy needs twice the database's connections",
            hint="give CONN_MAX_AGE a number of seconds, such as 60, with CONN_HEALTH_CHECKS = "
            "True; 0 under ASGI",
            id="graceful.W006",
        )
        for alias, database in databases.items()
        if database.get("CONN_MAX_AGE", 0) is None
    ]


ALWAYS: Final[tuple[Check, ...]] = (check_settings, check_middleware)
DEPLOY: Final[tuple[Check, ...]] = (
    check_variables,
    check_hosts,
    check_redirect,
    check_databases,
)


def findings() -> list[CheckMessage]:
    """Return everything that the checks of this module find, those of --deploy as well."""
    return [message for check in (*ALWAYS, *DEPLOY) for message in check()]


class _Way:
    """How a readiness probe gets to its answer: which middleware it passes, and why."""

    def __init__(self, path: str, passed: list[str], why: str, fix: str) -> None:
        self.path = path
        self.passed = passed
        self.why = why
        self.fix = fix


def _way_to_readiness() -> _Way | None:
    """Return how a probe travels; None where it passes nothing, or where there is none."""
    in_force = _settings()
    path = in_force.readiness_path
    listed = list(settings.MIDDLEWARE)
    places = _places(listed)
    if path is None:
        return None
    if places and in_force.readiness_mode == "wrap":
        why = "readiness_mode is 'wrap', so while SERVING the app answers it, behind that check"
        return _Way(path, listed, why, "set readiness_mode to 'own'")
    if not places:
        why = "GracefulMiddleware is not in MIDDLEWARE"
        return _Way(path, listed, why, f"put {PATH!r} first in MIDDLEWARE")
    if places[0] > 0:
        why = "GracefulMiddleware comes after that check"
        return _Way(path, listed[: places[0]], why, f"move {PATH!r} to the first place")
    return None


def _places(listed: list[str]) -> list[int]:
    """Return where GracefulMiddleware or a subclass of it stands."""
    return [place for place, name in enumerate(listed) if _is_ours(name)]


def _is_ours(name: str) -> bool:
    if name == PATH:
        return True
    try:
        found = looked_up(name)
    except ImportError:
        return False  # Django says so itself
    return isinstance(found, type) and issubclass(found, GracefulMiddleware)


def _settings() -> Settings:
    """Return the settings in force; the defaults while E001 says what is wrong with them."""
    try:
        return configuration().settings()
    except SettingsError:
        return Settings()


async def _no_app(scope: object, receive: object, send: object) -> None:
    """Stands in for an app where only the options are judged."""
