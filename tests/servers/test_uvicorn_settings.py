"""Settings that can't hold, through Starlette's add_middleware on a real uvicorn.

Starlette builds its middleware inside the lifespan call, where uvicorn takes an exception for an
app without lifespan: a constructor that raises would be a server that runs without a word.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from .harness import ASKED, ServerProcess, launch, settings
from .launchers import UVICORN, UVICORN_WORKERS

APP = "tests.servers.settings_app:app"

MOUNTED = "tests.servers.settings_app:mounted"

IN_CODE = "(from GracefulMiddleware(...))"

MISTAKES: list[Any] = [
    pytest.param(
        {"propagation_delay": -1},
        {},
        ["propagation_delay = -1", IN_CODE, "give zero or more seconds"],
        id="negative",
    ),
    pytest.param(
        {"grace_period": float("nan")},
        {},
        ["grace_period = nan", IN_CODE, "give a finite number"],
        id="nan",
    ),
    pytest.param(
        {"propagation_delay": 30, "grace_period": 30},
        {},
        ["propagation_delay 30 s", "grace_period 30 s", IN_CODE, "lower propagation_delay"],
        id="delay as long as grace",
    ),
    pytest.param(
        {"propagation_delay": 10, "drain_timeout": 25},
        {},
        ["propagation_delay 10 + drain_timeout 25", "= 39 s exceeds grace_period 30 s", "by 9 s"],
        id="sum exceeds grace",
    ),
    pytest.param(
        {},
        settings(grace_period="soon"),
        ["grace_period = 'soon'", "(from $GRACEFUL_GRACE_PERIOD)", "give a number of seconds"],
        id="unparsable variable",
    ),
    pytest.param(
        {"grace_period": 30},
        settings(grace_period="-5"),
        ["grace_period = '-5'", "(from $GRACEFUL_GRACE_PERIOD)", "give zero or more"],
        id="variable beats keyword",
    ),
    pytest.param(
        {"propogation_delay": 5},
        {},
        ["unknown setting 'propogation_delay'", IN_CODE, "did you mean 'propagation_delay'?"],
        id="unknown keyword",
    ),
    pytest.param(
        {"readiness_path": "ready"},
        {},
        ["readiness_path = 'ready'", IN_CODE, "starts with '/'"],
        id="path",
    ),
]


def in_code(*each: dict[str, Any]) -> dict[str, object]:
    """Return the variable that hands keyword arguments to the middleware."""
    return {"MIDDLEWARE": json.dumps(list(each))}


def lines_with(server: ServerProcess, *words: str) -> list[str]:
    """Return the lines that have all of `words`."""
    return [line.text for line in server.log.lines if all(word in line.text for word in words)]


@pytest.mark.parametrize(("keywords", "variables", "words"), MISTAKES)
def test_a_mistake_stops_the_process(
    keywords: dict[str, Any], variables: dict[str, object], words: list[str]
) -> None:
    """One line names the setting, its value, its source and the fix; exit status not 0."""
    env = in_code(keywords) | variables
    with launch(UVICORN, APP, serving=False, env=env) as server:
        assert server.wait() == 3  # uvicorn's own status for a start-up that failed
        assert len(lines_with(server, *words)) == 1, server.log.text
        assert "Traceback" not in server.log.text


def test_a_mistake_stops_the_workers_and_their_parent() -> None:
    """Nothing respawns for ever. The status is the parent's, and uvicorn's ends with 0 even so."""
    env = in_code({"propagation_delay": -1})
    with launch(UVICORN_WORKERS, APP, serving=False, env=env) as server:
        server.wait()
        assert lines_with(server, "propagation_delay = -1", IN_CODE)


def test_a_mistake_without_lifespan() -> None:
    """Where start-up can't fail, readiness and every request do, with the same words."""
    env = in_code({"propagation_delay": -1})
    with launch(UVICORN, APP, "--lifespan", "off", serving=False, env=env) as server:
        server.await_port()
        for path in ("/readyz", "/"):
            reply = server.get(path)
            assert reply.status == 503
            assert b"propagation_delay = -1 (from GracefulMiddleware(...))" in reply.body
        assert server.get("/livez").status in (200, 503)


def test_a_timeout_of_uvicorns_own_that_only_wastes_is_a_warning() -> None:
    """uvicorn's graceful timeout begins when graceful's drain is over."""
    arguments = ("--timeout-graceful-shutdown", "20")
    env = settings(propagation_delay=0.2, linger=0.2)
    with launch(UVICORN, APP, *arguments, env=env) as server:
        assert len(lines_with(server, "uvicorn --timeout-graceful-shutdown = 20 s")) == 1
        server.terminate()
        assert server.wait() == 0


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("GRACEFUL_PROPOGATION_DELAY", "5", "did you mean 'GRACEFUL_PROPAGATION_DELAY'?"),
        ("GRACEFUL_SERVICE_HOST", "10.0.0.1", ""),
        ("GRACEFUL_SERVICE_PORT", "80", ""),
        ("GRACEFUL_PORT", "tcp://10.0.0.1:80", ""),
        ("GRACEFUL_PROBE_PORT", "tcp://10.0.0.1:80", ""),
    ],
)
def test_an_unknown_variable_is_a_warning(name: str, value: str, hint: str) -> None:
    """Kubernetes itself sets such names for a Service called 'graceful': the process starts."""
    with launch(UVICORN, APP, env={name: value}) as server:
        assert server.get("/").status == 200
        warnings = lines_with(server, f"${name} is no setting of graceful", hint)
        assert len(warnings) == 1, server.log.text


def test_the_start_up_line_shows_every_value_and_its_source() -> None:
    """Variables beat keyword arguments beat defaults."""
    env = in_code({"grace_period": 50, "linger": 0.5}) | settings(grace_period=40)
    with launch(UVICORN, APP, env=env) as server:
        shown = server.log.wait_event("serving").fields
        assert float(shown["grace_period"]) == 40
        assert float(shown["linger"]) == 0.5
        assert float(shown["propagation_delay"]) == 5
        assert "grace_period from $GRACEFUL_GRACE_PERIOD" in shown["sources"]
        assert "linger from GracefulMiddleware(...)" in shown["sources"]


def test_two_wrapped_apps_share_one_stop() -> None:
    """One lifecycle for the process: one choreography, one report."""
    env = in_code({}, {}) | ASKED | settings(linger=0.2)
    with launch(UVICORN, MOUNTED, serving=False, env=env) as server:
        server.await_port()
        assert [server.get(f"/{n}/").status for n in (0, 1)] == [200, 200]
        server.terminate()
        server.log.wait_event("lame duck")
        assert [server.get(f"/{n}/readyz").status for n in (0, 1)] == [503, 503]
        assert server.wait() == 0
        assert server.log.events("serving", "drain report") == ["serving", "drain report"]


def test_two_wrapped_apps_that_contradict() -> None:
    """The second one fails with both values and both names; the first one goes on."""
    env = in_code({"linger": 0.2}, {"linger": 0.5})
    with launch(UVICORN, MOUNTED, serving=False, env=env) as server:
        server.await_port()
        assert server.get("/0/").status == 200
        refused = server.get("/1/")
        assert refused.status == 503
        assert refused.body.count(b"linger is 0.") == 1
        assert b"linger is 0.2 in " in refused.body
        assert b"and 0.5 in " in refused.body
        assert server.get("/0/").status == 200


def test_middleware_added_twice_by_mistake() -> None:
    """The outer one does it all, whatever the inner one was given."""
    env = in_code({}, {}) | settings(propagation_delay=0.2, linger=0.2)
    with launch(UVICORN, APP, env=env) as server:
        assert server.get("/").status == 200
        server.terminate()
        assert server.wait() == 0
        assert server.log.events("serving", "drain report") == ["serving", "drain report"]
