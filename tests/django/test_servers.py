"""The Django example as a newcomer starts it: real servers, told to stop."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.servers import launchers_granian, launchers_hypercorn, launchers_run
from tests.servers.harness import (
    ASKED,
    LEAN,
    LIMIT,
    ROOT,
    Launcher,
    ServerProcess,
    clean_environment,
    launch,
    settings,
)
from tests.servers.launchers import UVICORN_H11

PROJECT = ROOT / "examples" / "django_app"

UVICORN = dataclasses.replace(
    UVICORN_H11, command=(*UVICORN_H11.command, "--app-dir", str(PROJECT)), name="uvicorn"
)

_GUNICORN = ("gunicorn", "-c", "python:graceful.integrations.gunicorn_conf", "-b", "127.0.0.1:0")

GUNICORN = Launcher(
    name="gunicorn",
    command=(*_GUNICORN, "--chdir", str(PROJECT), "{app}"),
    announces=r"Listening at: http://127\.0\.0\.1:(\d+)",
)

HYPERCORN_WORKERS, GRANIAN, RUN_UVICORN, RUN_HYPERCORN, RUN_GRANIAN = (
    dataclasses.replace(launcher, environment={"PYTHONPATH": f"{PROJECT}{os.pathsep}{LEAN}"})
    for launcher in (
        launchers_hypercorn.HYPERCORN_WORKERS,
        launchers_granian.GRANIAN,
        launchers_run.RUN_UVICORN,
        launchers_run.RUN_HYPERCORN,
        launchers_run.RUN_GRANIAN,
    )
)

QUICK = ASKED | settings(stream_window=0.3, linger=0.3)


@contextlib.contextmanager
def running(launcher: Launcher, app: str, *arguments: str) -> Generator[ServerProcess]:
    """Start the example; Django has no lifespan, so its first request is what makes it serve."""
    with launch(launcher, app, *arguments, env=QUICK, serving=False) as server:
        server.await_port()
        server.await_listening()
        assert server.get("/readyz").status == 200
        yield server


WAYS = [
    pytest.param(UVICORN, "shop.asgi:application", (), id="uvicorn"),
    pytest.param(
        GUNICORN, "shop.wsgi:application", ("-k", "gthread", "--threads", "8"), id="gthread"
    ),
    pytest.param(GUNICORN, "shop.wsgi:application", ("-k", "gevent"), id="gevent"),
    pytest.param(GUNICORN, "shop.asgi:application", ("-k", "asgi"), id="gunicorn-asgi"),
    pytest.param(
        GUNICORN,
        "shop.asgi:application",
        ("-k", "uvicorn_worker.UvicornWorker"),
        id="uvicorn-worker",
    ),
    *(
        pytest.param(launcher, "shop.asgi:application", (), id=launcher.name)
        for launcher in (HYPERCORN_WORKERS, GRANIAN, RUN_UVICORN, RUN_HYPERCORN, RUN_GRANIAN)
    ),
]


@pytest.mark.parametrize(("launcher", "app", "arguments"), WAYS)
def test_it_stops_as_it_says(launcher: Launcher, app: str, arguments: tuple[str, ...]) -> None:
    """Lame duck, drain, farewell, exit; the slow request is answered."""
    with (
        running(launcher, app, *arguments) as server,
        contextlib.closing(server.client()) as slow,
        contextlib.closing(server.client()) as stream,
        contextlib.closing(server.client()) as post,
    ):
        assert server.get("/").body == b"hello\n"
        post.ask("POST", "/echo", b"once")
        assert post.reply().body == b"once"
        stream.ask("GET", "/events")
        stream.read_until(b"\n\n")
        slow.ask("GET", "/slow?seconds=3")
        give_up = time.monotonic() + LIMIT
        server.terminate()
        server.log.wait_event("lame duck")
        while server.get("/readyz").status == 200:  # the arbiter has said it; a worker is waking up
            assert time.monotonic() < give_up
        assert server.get("/livez").status == 200
        assert server.get("/").status == 200
        told = stream.reply()
        assert told.complete
        assert b"event: reconnect\n" in told.body
        done = slow.reply()
        assert (done.body, done.closes) == (b"done\n", True)
        assert server.wait() == 0
    reports = [line.fields for line in server.log.lines if line.event == "drain report"]
    assert sum(int(report["told"]) for report in reports) == 1
    assert {report["clean"] for report in reports} == {"True"}, server.log.text
    assert "Traceback" not in server.log.text


UNDER_GUNICORN = [way for way in WAYS if way.values[0] is GUNICORN and way.id != "gevent"]


def _leaves_when_told_twice(server: ServerProcess) -> None:
    """Its workers have just been forked, and nobody waits for the delay."""
    server.await_port()
    server.log.wait("Booting worker", count=2)
    server.terminate()
    server.log.wait_event("lame duck")
    server.terminate()
    assert server.wait(LIMIT / 2) == 0


@pytest.mark.parametrize(("launcher", "app", "arguments"), UNDER_GUNICORN)
def test_workers_that_are_told_before_they_serve(
    launcher: Launcher, app: str, arguments: tuple[str, ...]
) -> None:
    """The arbiter stops while they load the app: they hear of it all the same, and leave."""
    long = QUICK | settings(grace_period=60, propagation_delay=30)
    with launch(launcher, app, *arguments, "-w", "2", env=long, serving=False) as server:
        _leaves_when_told_twice(server)


DEAF_AT_FIRST = """
import time

from graceful.integrations import gunicorn as graceful_gunicorn


def post_fork(server, worker):
    time.sleep(2)


graceful_gunicorn.install(globals())
"""
"""Until it has handlers of its own, a worker has the arbiter's: they swallow what it is told."""


@pytest.mark.parametrize(("launcher", "app", "arguments"), UNDER_GUNICORN)
def test_workers_that_are_told_before_they_can_hear(
    launcher: Launcher, app: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """What the arbiter has written down is there when they can."""
    (tmp_path / "conf.py").write_text(DEAF_AT_FIRST)
    given = (*arguments, "-w", "2", "-c", str(tmp_path / "conf.py"))
    long = QUICK | settings(grace_period=60, propagation_delay=30)
    with launch(launcher, app, *given, env=long, serving=False) as server:
        _leaves_when_told_twice(server)


@pytest.mark.parametrize(("launcher", "app", "arguments"), UNDER_GUNICORN)
def test_workers_that_nobody_has_asked_are_unready_too(
    launcher: Launcher, app: str, arguments: tuple[str, ...]
) -> None:
    """The first request that a worker gets may come in lame duck."""
    long = QUICK | settings(grace_period=60, propagation_delay=30)  # also to load the app in
    with launch(launcher, app, *arguments, "-w", "2", env=long, serving=False) as server:
        server.await_port()
        server.log.wait("Booting worker", count=2)
        server.terminate()
        server.log.wait_event("lame duck")
        server.await_unready(in_a_row=20)
        assert server.get("/livez").status == 200
        server.terminate()
        assert server.wait() == 0


@pytest.mark.parametrize(
    "app",
    [("shop.wsgi:application", "sync"), ("shop.asgi:application", "asgi")],
    ids=["wsgi", "asgi"],
)
def test_gunicorn_does_not_start_with_settings_that_contradict(
    app: tuple[str, str], tmp_path: Path
) -> None:
    """Those of `install` and of the project: one line names both places."""
    file = tmp_path / "gunicorn.conf.py"
    file.write_text(
        "from graceful.integrations import gunicorn as graceful_gunicorn\n"
        "graceful_gunicorn.install(globals(), grace_period=77)\n"
    )
    name, kind = app
    command = ("-m", "gunicorn", "-c", str(file), "-b", "127.0.0.1:0", "--no-control-socket")
    ran = subprocess.run(
        [sys.executable, *command, "--chdir", str(PROJECT), "-k", kind, name],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert ran.returncode == 3
    told = f"graceful: grace_period is 77.0 in install(...) in {file} and 30 in settings.GRACEFUL"
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py of the example."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def test_the_example_has_a_plan_and_no_findings() -> None:
    """What a newcomer runs first."""
    plan = manage("graceful")
    assert plan.returncode == 0, plan.stderr
    assert "5.0 s  DRAINING" in plan.stdout
    assert "Findings\n  none\n" in plan.stdout
    check = manage("check", "--deploy", "--tag", "graceful", "--fail-level", "WARNING")
    assert check.returncode == 0, check.stderr


def test_a_budget_that_does_not_fit_is_one_line_everywhere() -> None:
    """At `check`, in the plan, and when the server starts."""
    wrong = {"GRACEFUL_GRACE_PERIOD": "4"}
    line = "propagation_delay 5 s (from settings.GRACEFUL) leaves nothing of grace_period 4 s"
    check = manage("check", "--deploy", **wrong)
    assert check.returncode == 1
    assert f"(graceful.E001) {line} (from $GRACEFUL_GRACE_PERIOD)\n\tHINT: lower" in check.stderr
    plan = manage("graceful", **wrong)
    assert plan.returncode == 1
    assert plan.stderr.startswith(f"CommandError: {line}")
    with launch(UVICORN, "shop.asgi:application", env=wrong, serving=False) as server:
        server.await_port()
        server.await_listening()
        assert line in server.log.text
        for path in ("/readyz", "/"):
            reply = server.get(path)
            assert (reply.status, reply.body.decode().startswith(line)) == (503, True)
