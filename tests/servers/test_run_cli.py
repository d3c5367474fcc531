"""`graceful run` as a command line: what it takes, what it refuses, and what it passes on."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from .contract import APP
from .harness import LIMIT, ROOT, clean_environment, launch
from .launchers_run import RUN_UVICORN, launched


def graceful_run(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run the command to its end; returns the status and what was written."""
    done = subprocess.run(
        [sys.executable, "-m", "graceful.cli", "run", *arguments],
        cwd=ROOT,
        env=clean_environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LIMIT,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout


def test_an_unknown_server_gets_the_nearest_name() -> None:
    """One line, status 2."""
    status, text = graceful_run("uvicron", "app:app")
    assert (status, text) == (
        2,
        "graceful run: there is no server 'uvicron'; did you mean 'uvicorn'? "
        "it runs uvicorn, hypercorn, granian\n",
    )


def test_a_server_that_needs_no_launcher_says_how_it_is_run() -> None:
    """gunicorn has its configuration, daphne and waitress have no workers."""
    for server, hint in (("gunicorn", "install(globals())"), ("daphne", "run it as it is")):
        status, text = graceful_run(server, "app:app")
        assert status == 2
        assert hint in text
        assert text.count("\n") == 1


def test_a_missing_server_gets_its_pip_command(tmp_path: Path) -> None:
    """The extra has the name of the server."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'uvicorn' else found(name, *rest)\n"
    )
    status, text = graceful_run("uvicorn", "app:app", PYTHONPATH=str(tmp_path))
    assert (status, text) == (
        2,
        "graceful: needs uvicorn; run: pip install 'graceful-drain[uvicorn]'\n",
    )


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian"])
def test_what_the_server_refuses_is_in_its_own_words(server: str) -> None:
    """Its own message and status for an option that it doesn't know."""
    alone = subprocess.run(
        [sys.executable, "-m", server, "--no-such-option", "app:app"],
        capture_output=True,
        timeout=LIMIT,
        check=False,
        text=True,
    )
    status, text = graceful_run(server, "--no-such-option", "app:app")
    assert status == alone.returncode != 0
    assert text.splitlines()[-1].endswith(alone.stderr.splitlines()[-1].partition("error")[2])


def test_settings_that_contradict_are_refused_before_the_server_starts() -> None:
    """With the numbers, and where they come from."""
    status, text = graceful_run("--grace-period", "5", "--propagation-delay", "9", "uvicorn", APP)
    assert status == 2
    assert "an option of graceful run" in text
    assert "Traceback" not in text


def test_options_beat_variables_and_reach_the_workers() -> None:
    """What a worker keeps to is what it tells its parent."""
    command = ["graceful.cli", "run", "--grace-period", "44", *RUN_UVICORN.command[2:]]
    launcher = launched("uvicorn", announces=RUN_UVICORN.announces)
    launcher = dataclasses.replace(launcher, command=command)
    env = {"GRACEFUL_GRACE_PERIOD": 33, "GRACEFUL_PROPAGATION_DELAY": 0.2}
    with launch(launcher, APP, env=env) as server:
        started = server.log.wait_event("serving").fields
        assert (started["grace_period"], started["propagation_delay"]) == ("44.0", "0.2")
        server.terminate()
        assert server.wait() == 0


def test_one_worker_has_no_parent() -> None:
    """uvicorn serves in the process itself, and everything is as without the launcher."""
    launcher = launched(
        "uvicorn",
        *("{app}", "--port", "0"),
        announces=RUN_UVICORN.announces,
    )
    with launch(launcher, APP, env={"GRACEFUL_PROPAGATION_DELAY": 0.2}) as server:
        server.get("/")
        server.terminate()
        assert server.wait() == 0
        assert server.log.report()["clean"] == "True"
