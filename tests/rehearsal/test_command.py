"""`graceful rehearse` as people type it: output and exit status."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

import graceful
from graceful.cli.group import graceful as cli
from graceful.rehearsal import Plan

from .test_instances import STUBBORN
from .test_rehearse import BARE, needs_haproxy

ROOT = Path(__file__).parents[2]
GRACEFUL = [sys.executable, "-c", "from graceful.cli import main; main()"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the console script's function in a process of its own."""
    return subprocess.run(
        [*GRACEFUL, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_the_version_is_the_package_s() -> None:
    """Of the library."""
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"graceful, version {graceful.__version__}\n")


def test_every_option_of_a_plan_is_an_option_of_the_command() -> None:
    """With its default, so the help can't lie."""
    shown = " ".join(CliRunner().invoke(cli, ["rehearse", "--help"]).output.split())
    options = Plan.__dataclass_fields__.keys() - {"command", "trace", "faults"}  # --html, --fault
    assert all(f"--{name.replace('_', '-')}" in shown for name in options)
    assert "[default: 35.0]" in shown


def test_a_run_without_loss_ends_with_status_0_and_json_on_stdout() -> None:
    """People's lines go to stderr then, so that the output can be piped."""
    done = run(
        *("rehearse", "--rolls", "0", "--duration", "1", "--rate", "40", "--websockets", "2"),
        *("--warmup", "0.2", "--tail", "0", "--slow-path", ""),
        *("--json", "-", "--", *BARE),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["lost"] == 0
    assert result["total"] >= 40
    assert "i1: ready on port" in done.stderr
    assert done.stderr.rstrip().endswith(f"0 requests lost of {result['total']}, 0 messages lost")


def test_a_run_with_losses_ends_with_status_1_and_explains_them(tmp_path: Path) -> None:
    """The verdict is the last line; the file has it all."""
    file = tmp_path / "result.json"
    quick = ["--warmup", "0.3", "--lag", "0.5", "--settle", "0.1", "--tail", "0.3"]
    done = run("rehearse", "--rate", "60", "--sse", "2", *quick, "--json", str(file), "--", *BARE)
    assert done.returncode == 1, done.stderr
    result = json.loads(file.read_text())
    assert result["lost"] > 0
    lines = done.stdout.splitlines()
    assert lines[-1] == result["verdict"]
    assert any(line.startswith("lost: ") and "after the SIGTERM" in line for line in lines)
    assert any("ended without being told to reconnect: sse truncated" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rehearse"], "no command given"),
        (["rehearse", "--", "serve"], "the command has no {port}"),
        (["rehearse", "--", "no-such-command", "{port}"], "can't start 'no-such-command'"),
        (["rehearse", "--instances", "0", "--", "x{port}"], "instances = 0"),
        (["rehearse", "--rate", "nan", "--", "x{port}"], "rate = nan"),
        (["rehearse", "--rate", "fast", "--", "x{port}"], "'fast' is not a valid float"),
        (["rehearse", "--balancer", "envoy", "--", "x{port}"], "'envoy' is not one of"),
        (["rehearse", "--json", "/no/such/folder/x", "--", "x{port}"], "no such folder"),
        (["rehearse", "--html", "/", "--", "x{port}"], "can't be written"),
        (["rehearse", "--logs", "/dev/null/x", "--", *BARE], "logs = /dev/null/x: Not a directory"),
        (["rehearse", "--compare", "serve 'x", "--", *BARE], "no closing quotation"),
        (["rehearse", "--compare", "no-such {port}", "--", *BARE], "can't start 'no-such'"),
        (["rehearse", "--", sys.executable, "-c", "exit('no luck')", "{port}"], "    no luck"),
        (["reherse"], "No such command"),
    ],
)
def test_what_can_not_work_ends_with_status_2(arguments: list[str], said: str) -> None:
    """On stderr, without a traceback."""
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("click", ["--version"]), ("aiohttp", ["rehearse", "--rolls", "1"]), ("rich", ["rehearse"])],
)
def test_a_missing_extra_is_one_line_with_the_command(
    module: str, arguments: list[str], tmp_path: Path
) -> None:
    """And status 2."""
    (tmp_path / f"{module}.py").write_text(
        f"raise ModuleNotFoundError('No module named {module}', name='{module}')\n"
    )
    done = run(*arguments, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        f"graceful: needs {module}; run: pip install 'graceful-drain[rehearsal]'\n"
    )


def heeds_hangups() -> None:
    """Whoever runs the tests may have told them to ignore it, as nohup does."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextlib.contextmanager
def running(balancer: str) -> Generator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A rehearsal that would last for minutes, with what it has started: instances, each a parent
    and a worker that ignores SIGTERM, and a balancer."""
    command = [*GRACEFUL, "rehearse", "--rolls", "0", "--duration", "120", "--rate", "10"]
    paths = ["--slow-path", "", "--post-path", "", "--readiness-path", "/"]
    started: list[psutil.Process] = []
    with subprocess.Popen(
        [
            *command,
            *paths,
            "--balancer",
            balancer,
            "--",
            "sh",
            "-c",
            f"{shlex.join(STUBBORN)}; true",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=heeds_hangups,
    ) as process:
        try:
            assert process.stdout
            for name in ("i1", "i2"):
                assert f"{name}: ready on port" in process.stdout.readline()
            while len(started) < STARTED[balancer]:
                assert process.poll() is None
                started = psutil.Process(process.pid).children(recursive=True)
            yield process, started
        finally:
            process.kill()
            for each in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()


STARTED = {"internal": 4, "haproxy": 5}
"""Processes that a rehearsal of two instances has started."""

BEHIND_EACH = pytest.mark.parametrize(
    "balancer", ["internal", pytest.param("haproxy", marks=needs_haproxy)]
)


@BEHIND_EACH
@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 2, "ended by SIGTERM"),
        (signal.SIGHUP, 2, "ended by SIGHUP"),
        (signal.SIGQUIT, 2, "ended by SIGQUIT"),
    ],
)
def test_a_rehearsal_that_is_stopped_leaves_nothing_behind(
    balancer: str, number: int, status: int, said: str
) -> None:
    """Ctrl-C, SIGTERM or a closed terminal, while instances run that ignore SIGTERM."""
    with running(balancer) as (process, started):
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == status
        assert said in errors
        assert "Traceback" not in errors
        assert not left(started)


@BEHIND_EACH
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_impatient_one_leaves_nothing_behind_either(balancer: str, number: int) -> None:
    """The signal again and again, until the rehearsal has ended."""
    with running(balancer) as (process, started):
        while process.poll() is None:
            process.send_signal(number)
            time.sleep(0)
        assert not left(started)


def left(started: list[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run after a while."""
    limit = time.monotonic() + 5
    while (running := [each for each in started if runs(each)]) and time.monotonic() < limit:
        time.sleep(0.02)
    return running


def runs(process: psutil.Process) -> bool:
    """Whether it does; one that nobody has waited for yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
