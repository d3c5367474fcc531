"""The README tells the truth: its settings table, its commands and its code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from starlette.testclient import TestClient

from graceful.core.budget import SETTINGS, Setting
from tests.servers.harness import ASKED, Launcher, launch, reserved_port
from tests.servers.launchers import LISTENS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def default_of(row: Setting) -> str:
    """Return a default as the table writes it."""
    if row.default is None:
        return "none"
    return f"`{row.default:g}`" if isinstance(row.default, float) else f"`{row.default}`"


def settings_table() -> str:
    """Return the rows that the README must have."""
    return "\n".join(
        f"| `{row.name}` | {default_of(row)} | `{row.variable}` | {row.meaning} |"
        for row in SETTINGS
    )


def test_the_settings_table_is_the_one_in_the_code() -> None:
    """Every setting, its default, its variable and its meaning stand in the README."""
    table = README.split("| --- | --- | --- | --- |\n| `grace_period`")[1]
    written = "| `grace_period`" + table.split("\n<!-- end of settings -->")[0]
    assert written == settings_table()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^|`)make (\w+)", README, re.M))))
def test_every_make_target_exists(target: str) -> None:
    """What the README tells people to type is in the Makefile."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("extra", sorted(set(re.findall(r"graceful-drain\[([\w,]+)\]", README))))
def test_every_extra_exists(extra: str) -> None:
    """Each extra in a pip command is declared."""
    declared = (ROOT / "pyproject.toml").read_text("utf-8")
    for name in extra.split(","):
        assert re.search(rf"^{name} = \[", declared, re.MULTILINE)


def python_blocks(marker: str) -> list[str]:
    """Return the Python blocks that contain `marker`."""
    return [code for language, code in BLOCKS if language == "python" and marker in code]


ASGI_APPS = [code for code in python_blocks("\napp = ") if "Flask" not in code]


@pytest.mark.parametrize("code", ASGI_APPS)
def test_each_app_works_as_pasted(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app of the README comes up, answers its probe, and stops."""
    if "django" in code:
        settings = ModuleType("project.settings")
        vars(settings).update(SECRET_KEY="x", ROOT_URLCONF="project.settings", urlpatterns=[])
        monkeypatch.setitem(sys.modules, "project.settings", settings)
        monkeypatch.setitem(sys.modules, "project", ModuleType("project"))
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "project.settings")
    scope: dict[str, object] = {}
    exec(code, scope)
    with TestClient(scope["app"]) as client:  # type: ignore[arg-type]
        assert client.get("/readyz").json()["status"] == "ready"


def test_flask_under_gunicorn_works_as_pasted(tmp_path: Path) -> None:
    """The app and the configuration file, each as it stands there, started and stopped."""
    (app,), (config,) = python_blocks("application = Flask"), python_blocks("# gunicorn.conf.py")
    (tmp_path / "app.py").write_text(app)
    (tmp_path / "gunicorn.conf.py").write_text(config)
    command = ("gunicorn", "app:application", "-b", "127.0.0.1:0", "--no-control-socket")
    launcher = Launcher(
        name="gunicorn", command=command, announces=LISTENS, directory=tmp_path, speakers=1
    )
    with launch(launcher, "", env=ASKED) as server:
        assert server.get("/").body == b"hello\n"
        assert server.get("/readyz").status == 200
        server.terminate()
        server.log.wait_event("lame duck")
        server.await_unready()
        assert server.wait() == 0
        assert server.log.report()["clean"] == "True"


def test_waitress_works_as_pasted(tmp_path: Path) -> None:
    """On another port."""
    (code,) = python_blocks("integrations.waitress")
    with reserved_port() as port:
        (tmp_path / "shop.py").write_text(code.replace("0.0.0.0:8080", f"127.0.0.1:{port}"))
        launcher = Launcher(name="waitress", command=("shop",), announces="", directory=tmp_path)
        with launch(launcher, "", env=ASKED, serving=False) as server:
            server.log.wait_event("serving")
            server.port = port
            server.await_listening()
            assert server.get("/readyz").status == 200
            server.terminate()
            server.log.wait_event("lame duck")
            assert server.get("/readyz").status == 503
            assert server.wait() == 0


def test_grpc_works_as_pasted(tmp_path: Path) -> None:
    """On another port: health flips, and the process leaves."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    (code,) = python_blocks("grpc.aio.server")
    with reserved_port() as port:
        here = code.replace("0.0.0.0:50051", f"127.0.0.1:{port}").replace("delay=5", "delay=2")
        (tmp_path / "shop.py").write_text(f"import asyncio\n{here}\n\nasyncio.run(main())\n")
        launcher = Launcher(name="grpc", command=("shop",), announces="", directory=tmp_path)
        with launch(launcher, "", serving=False) as server:
            server.log.wait_event("serving")
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                ask = health_pb2_grpc.HealthStub(channel).Check
                request = health_pb2.HealthCheckRequest()
                assert ask(request, wait_for_ready=True).status == 1
                server.terminate()
                server.log.wait_event("lame duck")
                assert ask(request).status == 2
            assert server.wait() == 0


def test_graceful_run_works_as_pasted(tmp_path: Path) -> None:
    """The first line of the README's, with the README's Starlette app."""
    (line,) = (line for line in README.splitlines() if line.startswith("graceful run uvicorn"))
    (tmp_path / "app.py").write_text(ASGI_APPS[0])
    command = ("graceful.cli", *line.split()[1:], "--port", "0")
    announces = r"Uvicorn running on http://127\.0\.0\.1:(\d+)"
    launcher = Launcher(
        name="run", command=command, announces=announces, directory=tmp_path, speakers=1
    )
    with launch(launcher, "", env=ASKED) as server:
        assert server.get("/readyz").status == 200
        server.terminate()
        server.log.wait_event("lame duck")
        server.await_unready()
        assert server.wait() == 0


def test_python_blocks_compile() -> None:
    """No block has a syntax error, `await` at the top level aside."""
    flags = __import__("ast").PyCF_ALLOW_TOP_LEVEL_AWAIT
    for code in python_blocks(""):
        compile(code, "README.md", "exec", flags=flags)


def test_the_console_script_says_its_version() -> None:
    """`graceful --version` is what the package says."""
    import graceful

    command = [sys.executable, "-m", "graceful.cli", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert graceful.__version__ in said


def test_the_timeline_adds_up() -> None:
    """The seconds in the picture are those of the defaults."""
    from graceful.core.budget import Settings, Timeline

    timeline = Timeline.start(Settings(), 0.0)
    assert (timeline.delay_ends, timeline.drain_deadline, timeline.exits_at) == (5, 26, 29)
