"""`install` in a configuration: with hooks of the user's, with what is wrong, and in a reload."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from graceful.integrations.gunicorn_config import OWN

from .contract import APP
from .harness import (
    ASKED,
    LIMIT,
    ROOT,
    Launcher,
    ServerProcess,
    clean_environment,
    launch,
    settings,
)
from .launchers import GUNICORN_ASGI, GUNICORN_GTHREAD, GUNICORN_SYNC, GUNICORN_UVICORN
from .test_gunicorn_ladder import await_flipped
from .test_gunicorn_retire import WSGI_APP, app_of, await_replaced, in_flight, on, worker_of

QUICK = {
    **settings(propagation_delay=0.3, stream_window=0.2, linger=0.2),
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""Of a configuration that changes within a second, and not in length, Python would run the bytecode
of before."""

IMPORT = "from graceful.integrations import gunicorn as graceful_gunicorn\n"
INSTALL = IMPORT + "graceful_gunicorn.install(globals(), grace_period=20)\n"

AGREES = """
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from graceful.integrations.starlette import GracefulMiddleware as ForStarlette
from graceful.wsgi import GracefulMiddleware

def pid(environ, start):
    start("200 OK", [])
    return [str(os.getpid()).encode()]

async def async_pid(request):
    return PlainTextResponse(str(os.getpid()))

wsgi = GracefulMiddleware(pid, grace_period=20)
asgi = Starlette(routes=[Route("/pid", async_pid), Route("/", async_pid)])
asgi.add_middleware(ForStarlette, grace_period=20)
"""

SAY = """
import os

def say(text):
    os.write(2, f"@ {os.getpid()} {text}\\n".encode())

"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file that is not written yet."""
    return tmp_path / "gunicorn.conf.py"


def refused(file: Path, text: str, app: str = WSGI_APP, *arguments: str) -> str:
    """Return what gunicorn says of a configuration with which it must not start."""
    file.write_text(textwrap.dedent(text))
    command = ("gunicorn", "-c", str(file), "-b", "127.0.0.1:0", "--no-control-socket")
    ran = subprocess.run(
        [sys.executable, "-m", *command, *arguments, app],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ran.returncode not in (0, -signal.SIGKILL)
    assert "Traceback" not in ran.stderr
    return ran.stderr


@contextlib.contextmanager
def running(file: Path, text: str, launcher: Launcher = GUNICORN_ASGI) -> Generator[ServerProcess]:
    """Start gunicorn with one worker and this configuration."""
    file.write_text(textwrap.dedent(text))
    more = ("-w", "1", "-c", str(file))
    with launch(launcher, app_of(launcher), *more, env=QUICK) as server:
        assert server.get("/readyz").status == 200
        yield server


def last_report(server: ServerProcess) -> Mapping[str, str]:
    """Return the arbiter's: workers that were replaced have had their own."""
    return [line.fields for line in server.log.lines if line.event == "drain report"][-1]


# -- hooks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_users_hooks_run_beside_ours(file: Path, place: str) -> None:
    """Wherever they stand in the file."""
    hooks = SAY + textwrap.dedent(
        """
        def when_ready(server): say("when ready")
        def post_worker_init(worker): say("post worker init")
        def worker_exit(server, worker): say("worker exit")
        def on_exit(server): say("on exit")
        """
    )
    text = hooks + INSTALL if place == "before" else INSTALL + hooks
    with running(file, text, GUNICORN_GTHREAD) as server:
        server.terminate()
        assert server.wait() == 0
        assert server.log.marks() == ["when ready", "post worker init", "worker exit", "on exit"]
        assert server.log.index("drain report") < server.log.index("on exit")
        assert server.log.events("lame duck", "drain report") == ["lame duck", "drain report"]


def test_a_hook_that_raises_stops_nothing(file: Path) -> None:
    """It is named, the report is written, and the status is as ever."""
    hooks = "def worker_exit(server, worker): 1 / 0\ndef on_exit(server): [][1]\n"
    with running(file, INSTALL + hooks, GUNICORN_GTHREAD) as server:
        server.terminate()
        assert server.wait() == 0
        assert "ZeroDivisionError" in server.log.text
        assert "IndexError" in server.log.text
        assert server.log.report()["clean"].lower() == "true"
        assert "Traceback" not in server.log.text


@pytest.mark.parametrize("launcher", [GUNICORN_GTHREAD, GUNICORN_SYNC], ids=["gthread", "sync"])
def test_a_worker_calls_the_method_of_the_middleware(file: Path, launcher: Launcher) -> None:
    """Not the object, which costs each request more."""
    hook = "def worker_exit(server, worker): say(type(worker.wsgi).__name__)\n"
    with running(file, INSTALL + SAY + hook, launcher) as server:
        server.terminate()
        assert server.wait() == 0
        assert server.log.marks() == ["method"]


AN_OBJECT = """
class Framework:
    def __call__(self, environ, start):
        Framework.__call__ = patched
        start("200 OK", [])
        return [b"as written"]

def patched(self, environ, start):
    start("200 OK", [])
    return [b"patched"]

app = Framework()
"""


@pytest.mark.parametrize("launcher", [GUNICORN_GTHREAD, GUNICORN_SYNC], ids=["gthread", "sync"])
def test_a_worker_calls_the_method_of_an_app(
    file: Path, tmp_path: Path, launcher: Launcher
) -> None:
    """The one that it has at the time: what measures requests may replace it at any."""
    (tmp_path / "framework.py").write_text(AN_OBJECT)
    hooks = """
        def post_worker_init(worker): say(type(worker.wsgi).__name__)
        def post_request(worker, req, environ, resp): say(type(worker.wsgi).__name__)
        """
    file.write_text(INSTALL + SAY + textwrap.dedent(hooks))
    path = QUICK | {"PYTHONPATH": str(tmp_path)}
    with launch(launcher, "framework:app", "-w", "1", "-c", str(file), env=path) as server:
        assert server.get("/").body == b"as written"
        assert server.get("/").body == b"patched"
        server.terminate()
        assert server.wait() == 0
        assert server.log.marks()[:2] == ["Framework", "function"]


# -- what is wrong -------------------------------------------------------------------------------


def test_installing_twice(file: Path) -> None:
    """One line that says so."""
    assert "installs graceful twice" in refused(file, INSTALL * 2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("grace_perod=30", "did you mean 'grace_period'", id="unknown"),
        pytest.param("grace_period=5, propagation_delay=10", "leaves nothing", id="sum"),
        pytest.param("grace_period='soon'", "grace_period", id="no number"),
    ],
)
def test_settings_that_are_wrong(file: Path, text: str, told: str) -> None:
    """The file is named, and so is what to do."""
    said = refused(file, IMPORT + f"graceful_gunicorn.install(globals(), {text})\n")
    assert told in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("seconds", "grace"), [(5, 20), (30, 60)])
def test_a_timeout_that_would_cut(file: Path, seconds: int, grace: int) -> None:
    """gunicorn's own patience is shorter than the drain, also when it equals gunicorn's default."""
    text = f"graceful_timeout = {seconds}\n" + INSTALL.replace("20", str(grace))
    said = refused(file, text)
    assert f"graceful_timeout = {seconds} s would kill workers" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("hook", ["when_ready = 5", "def when_ready(): pass"])
def test_a_hook_that_is_none(file: Path, hook: str) -> None:
    """gunicorn says it itself."""
    assert "when_ready" in refused(file, INSTALL + hook)


def test_an_unknown_worker_class(file: Path) -> None:
    """One line instead of gunicorn's traceback."""
    said = refused(file, INSTALL + "worker_class = 'nosuch'\n")
    assert "worker_class = 'nosuch' can't be loaded" in said
    assert said.count("\n") == 1


def test_an_app_that_contradicts(file: Path, tmp_path: Path) -> None:
    """Both places are named, and gunicorn does not start."""
    (tmp_path / "contradicts.py").write_text(
        "from graceful.wsgi import GracefulMiddleware\n"
        "app = GracefulMiddleware(lambda environ, start: [], grace_period=60)\n"
    )
    said = refused(file, INSTALL, "contradicts:app", "--pythonpath", str(tmp_path))
    assert f"grace_period is 20.0 in install(...) in {file} and 60 in GracefulMiddl" in said


# -- gunicorn's own settings ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        pytest.param("", 25, id="left alone"),
        pytest.param("graceful_timeout = 90\n", 90, id="long"),
        pytest.param("graceful_timeout = 30\n", 30, id="as gunicorn's own"),
        pytest.param("--graceful-timeout=30", 30, id="argument"),
        pytest.param("GUNICORN_CMD_ARGS", 30, id="variable"),
    ],
)
def test_the_arbiters_patience(file: Path, given: str, chosen: int) -> None:
    """It is what the budget has left after the delay, unless the user's own is long enough."""
    argument = [given] if given.startswith("--") else []
    env = {given: "--graceful-timeout=30"} if given == "GUNICORN_CMD_ARGS" else {}
    given = given if given.endswith("\n") else ""
    hook = SAY + "def when_ready(server): say(server.cfg.graceful_timeout)\n"
    installed = IMPORT + "graceful_gunicorn.install(globals(), grace_period=30)\n"
    file.write_text(given + hook + installed)
    with launch(GUNICORN_SYNC, WSGI_APP, *argument, "-c", str(file), env=env) as server:
        assert server.log.marks() == [str(chosen)]


def test_what_works_against_the_budget_is_told(file: Path) -> None:
    """Once, as warnings: nothing is cut by these."""
    file.write_text(INSTALL + "timeout = 3\nmax_requests = 500\ngraceful_timeout = 90\n")
    with launch(GUNICORN_SYNC, WSGI_APP, "-c", str(file)) as server:
        server.log.wait(r"timeout = 3 s \(from gunicorn's configuration\) kills a worker")
        server.log.wait("max_requests = 500 .* without max_requests_jitter")
        server.log.wait("graceful_timeout = 90 s .* is longer than the 15 s")


def test_idle_connections_of_a_full_worker_are_told(file: Path) -> None:
    """gunicorn counts them, too, and where they stand is said with each number."""
    file.write_text(INSTALL + "worker_connections = 16\n")
    with launch(GUNICORN_GTHREAD, WSGI_APP, "-c", str(file)) as server:
        told = server.log.wait("worker_connections = 16 .* with 16 threads")
        assert "idle ones too (for keepalive = 2 s)" in told.text


def test_gunicorns_own_settings_are_in_the_line_of_the_start(file: Path) -> None:
    """All that matters when an instance stops, and what of it is no default."""
    file.write_text(INSTALL + "keepalive = 65\npreload_app = True\n")
    with launch(GUNICORN_GTHREAD, WSGI_APP, "-c", str(file), "--timeout", "40") as server:
        line = server.log.wait_event("serving")
        shown = {name: line.fields[name] for name in OWN}
        assert shown == {
            "timeout": "40",
            "graceful_timeout": "15",
            "keepalive": "65",
            "worker_connections": "1000",
            "max_requests": "0",
            "max_requests_jitter": "0",
            "preload_app": "True",
        }
        assert "timeout from gunicorn's configuration" in line.text
        assert "graceful_timeout from the budget" in line.text
        assert "max_requests from" not in line.text


# -- a reload ------------------------------------------------------------------------------------


def test_a_reload_brings_new_settings(file: Path) -> None:
    """To the arbiter as well as to the new worker; the report is still written at the end."""
    with running(file, INSTALL) as server:
        old = worker_of(server)
        text = IMPORT + "graceful_gunicorn.install(globals(), grace_period=40.5)\n"
        file.write_text(text)
        server.send_signal(signal.SIGHUP)
        await_replaced(server, old)
        server.terminate()
        assert server.wait() == 0
        assert last_report(server)["grace_period"] == "40.5"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(INSTALL * 2, "installs graceful twice", id="twice"),
        pytest.param(INSTALL + "worker_class = 'nosuch'\n", "can't be loaded", id="class"),
        pytest.param(INSTALL + "graceful_timeout = 2\n", "would kill workers", id="timeout"),
        pytest.param(INSTALL.replace("20", "'x'"), "grace_period", id="settings"),
    ],
)
def test_a_reload_with_what_is_wrong_kills_no_arbiter(file: Path, text: str, told: str) -> None:
    """It is told, what was there stays, and the instance serves on."""
    command = [part for part in GUNICORN_SYNC.command if part not in ("-k", "sync")]
    with running(file, INSTALL, dataclasses.replace(GUNICORN_SYNC, command=command)) as server:
        old = worker_of(server)
        file.write_text(text)
        server.send_signal(signal.SIGHUP)
        server.log.wait(told)
        await_replaced(server, old)
        server.terminate()
        assert server.wait() == 0
        assert last_report(server)["grace_period"] == "20.0"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("workers = = 2\n", r"SyntaxError: invalid syntax", id="syntax"),
        pytest.param("import no_such\n", "ModuleNotFoundError: No module", id="import"),
        pytest.param("raise SystemExit('not today')\n", "SystemExit: not today", id="exit"),
        pytest.param("workers = 'many'\n", "ValueError: ", id="value"),
        pytest.param(
            "bind = 'nowhere:port'\n", "RuntimeError: 'port' is not a valid", id="address"
        ),
        pytest.param(None, "RuntimeError: .* doesn't exist", id="no file"),
    ],
)
def test_a_configuration_that_cannot_be_read_reloads_nothing(
    file: Path, text: str | None, told: str
) -> None:
    """One line says why, the worker stays, and the next reload is as good as ever."""
    bind = "bind = '127.0.0.1:0'\n"
    command = [part for part in GUNICORN_ASGI.command if part not in ("-b", "127.0.0.1:0")]
    unbound = dataclasses.replace(GUNICORN_ASGI, command=command)
    with running(file, INSTALL + bind, unbound) as server:
        old = worker_of(server)
        if text is None:
            file.unlink()
        else:
            half = IMPORT + "graceful_gunicorn.install(globals(), grace_period=99)\n"
            file.write_text(half + "raw_env = ['GRACEFUL_LINGER=7']\n" + text)
        server.send_signal(signal.SIGHUP)
        line = server.log.wait("nothing is reloaded")
        assert re.search(told, line.text), line.text
        assert worker_of(server) == old
        file.write_text(INSTALL.replace("20", "21") + bind)
        server.send_signal(signal.SIGHUP)
        await_replaced(server, old)
        server.terminate()
        assert server.wait() == 0
        assert last_report(server)["grace_period"] == "21.0"


def test_a_hook_of_a_reload_that_raises_stops_nothing(file: Path) -> None:
    """gunicorn alone ends its arbiter, and every worker with it."""
    with running(file, INSTALL + "def on_reload(server): 1 / 0\n") as server:
        old = worker_of(server)
        server.send_signal(signal.SIGHUP)
        server.log.wait("ZeroDivisionError")
        await_replaced(server, old)


@on(GUNICORN_ASGI, GUNICORN_UVICORN, GUNICORN_GTHREAD)
def test_a_reload_that_contradicts_the_app_is_followed(
    file: Path, tmp_path: Path, launcher: Launcher
) -> None:
    """New workers would all refuse to start, and gunicorn ends its arbiter then."""
    (tmp_path / "agrees.py").write_text(AGREES)
    file.write_text(INSTALL)
    app = "agrees:wsgi" if launcher is GUNICORN_GTHREAD else "agrees:asgi"
    more = ("-w", "2", "-c", str(file), "--pythonpath", str(tmp_path))
    with launch(launcher, app, *more, env=QUICK) as server:
        server.log.wait("Booting worker", count=2)
        old = worker_of(server)
        file.write_text(INSTALL.replace("20", "40"))
        server.send_signal(signal.SIGHUP)
        told = server.log.wait("grace_period is 40.0 in install.* and 20 in GracefulMiddleware")
        assert "until then install(...) holds" in told.text
        await_replaced(server, old)
        server.log.wait("Booting worker", count=4)
        server.terminate()
        assert server.wait() == 0
        assert last_report(server)["grace_period"] == "40.0"
        assert server.log.text.count("until then install(...) holds") == 1


@on(GUNICORN_ASGI, GUNICORN_GTHREAD)
def test_a_reload_leaves_a_preloaded_app_its_settings(file: Path, launcher: Launcher) -> None:
    """It was built before the fork, and is not built again."""
    with running(file, "preload_app = True\n" + INSTALL, launcher) as server:
        old = worker_of(server)
        file.write_text("preload_app = True\n" + INSTALL.replace("20", "40"))
        server.send_signal(signal.SIGHUP)
        server.log.wait("keeps its settings .grace_period 20.0, not 40.0")
        await_replaced(server, old)
        server.terminate()
        assert server.wait() == 0
        assert last_report(server)["grace_period"] == "20.0"


def test_a_sigterm_during_a_reload_is_heard_at_once(file: Path) -> None:
    """gunicorn waits for its old workers and hears nothing: readiness must not wait with it."""
    with running(file, INSTALL) as server, in_flight(server, "/stuck") as stuck:
        old = worker_of(server)
        server.send_signal(signal.SIGHUP)
        server.log.wait_mark("startup", count=2)
        server.log.wait(f"only worker {old} goes")
        server.terminate()
        give_up = time.monotonic() + 3
        while server.get("/readyz").status != 503:
            assert time.monotonic() < give_up, server.log.text
        stuck.close()
        assert server.wait() == 0


# -- how the app is loaded -----------------------------------------------------------------------


@on(GUNICORN_ASGI, GUNICORN_GTHREAD)
def test_an_app_loaded_before_the_fork(launcher: Launcher) -> None:
    """`--preload`: the app is built in the arbiter, whose life is not the workers'."""
    arguments = ("-w", "2", "--preload")
    with launch(launcher, app_of(launcher), *arguments, env=QUICK | ASKED) as server:
        assert server.get("/readyz").status == 200
        with in_flight(server, "/slow") as slow:
            server.terminate()
            await_flipped(server)
            assert slow.reply().body == b"slow but whole\n"
        assert server.wait() == 0
        assert server.log.report()["in_flight_at_signal"] == "1"


def test_a_whole_configuration_comes_with_us() -> None:
    """`-c python:…` and variables, with no file at all."""
    assert "python:graceful.integrations.gunicorn_conf" in GUNICORN_ASGI.command
    assert os.path.exists(ROOT / "integrations" / "gunicorn_conf.py")
    with launch(GUNICORN_ASGI, APP, env=QUICK) as server:
        line = server.log.lines[server.log.index("serving")]
        assert line.fields["propagation_delay"] == "0.3"
        server.terminate()
        assert server.wait() == 0
