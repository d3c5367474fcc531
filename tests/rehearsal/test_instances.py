"""Processes under test: ports, start, exit, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from graceful.rehearsal import Plan, PlanError, RehearsalError
from graceful.rehearsal.instances import Instance, Phase, reserved_ports

STUBBORN = (sys.executable, str(Path(__file__).with_name("stubborn.py")), "{port}")


@contextlib.asynccontextmanager
async def started(plan: Plan, folder: Path) -> AsyncGenerator[Instance]:
    """Start one instance and see to its end."""
    with reserved_ports(1) as (port,):
        instance = Instance("i1", port, plan, folder)
        await instance.start()
        try:
            yield instance
        finally:
            await instance.end()


def python(code: str) -> tuple[str, ...]:
    """Return a command that runs `code` and has a port."""
    return (sys.executable, "-c", code, "{port}")


def gone(pid: int) -> bool:
    """Whether a process that is nobody's child here ends; a zombie has ended."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout
        if not state.strip() or state.startswith("Z"):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the port is let go")
def test_a_reserved_port_can_be_listened_on_but_is_no_source_port() -> None:
    """Otherwise the load's own connections could take it while its instance restarts."""
    with reserved_ports(2) as ports:
        assert len(set(ports)) == 2
        for port in ports:
            with socket.create_server(("127.0.0.1", port)):
                socket.create_connection(("127.0.0.1", port)).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))


def test_an_instance_is_ready_when_its_readiness_path_says_so(tmp_path: Path) -> None:
    """And exits by SIGTERM or, where that is ignored, by SIGKILL."""

    async def life() -> tuple[Phase, bool, int]:
        plan = Plan(command=STUBBORN, readiness_path="/")
        async with started(plan, tmp_path) as instance:
            await instance.until_ready()
            phase = instance.phase
            instance.terminate()
            gone = await instance.until_exit(0.1)
            await instance.end()
            return phase, gone, instance.status

    assert asyncio.run(life()) == (Phase.SERVING, False, -9)


def test_sigterm_goes_to_the_main_process_and_the_end_to_the_whole_group(tmp_path: Path) -> None:
    """A child that outlives its parent is found and killed."""
    child = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"

    async def life() -> tuple[int, bool]:
        async with started(Plan(command=python(child)), tmp_path) as instance:
            assert await instance.until_exit(10)
            pid = int(instance.log.read_text())
            os.kill(pid, 0)
            return pid, await instance.clear()

    pid, left_behind = asyncio.run(life())
    assert left_behind
    assert gone(pid)


def test_an_app_that_dies_at_start_is_quoted(tmp_path: Path) -> None:
    """With its exit code and the last of what it said, of this start only."""
    code = "import sys; print(*range(50), sep='\\n'); sys.exit('no database')"

    async def life() -> None:
        (tmp_path / "i1.log").write_text("an earlier start\n")
        async with started(Plan(command=python(code)), tmp_path) as instance:
            await instance.until_ready()

    with pytest.raises(RehearsalError) as caught:
        asyncio.run(life())
    assert "i1 (port" in str(caught.value)
    assert "exited with 1 while starting" in str(caught.value)
    assert "    no database" in str(caught.value)
    assert "    49" in str(caught.value)
    assert "\n    0\n" not in str(caught.value), "only the end of it"
    assert "an earlier start" not in str(caught.value)


def test_an_app_that_never_becomes_ready_is_quoted_too(tmp_path: Path) -> None:
    """With what is amiss."""

    async def life() -> None:
        plan = Plan(command=python("import time; time.sleep(60)"), start_timeout=0.2)
        async with started(plan, tmp_path) as instance:
            await instance.until_ready()

    with pytest.raises(RehearsalError, match=r"not ready .*: nothing listens .*\n.*no output"):
        asyncio.run(life())


def test_an_app_without_a_readiness_path_is_found_out_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the option that helps, long before the limit of a start."""
    monkeypatch.setattr("graceful.rehearsal.instances.MISSING", 0.1)

    async def life() -> None:
        plan = Plan(command=(sys.executable, "-m", "http.server", "{port}"), start_timeout=60)
        async with started(plan, tmp_path) as instance:
            await instance.until_ready()

    with pytest.raises(RehearsalError, match=r"there is no /readyz \(404\); give --readiness-path"):
        asyncio.run(life())


def test_a_command_that_does_not_exist_is_an_error_of_the_plan(tmp_path: Path) -> None:
    """One line."""

    async def life() -> None:
        async with started(Plan(command=("no-such-command", "{port}")), tmp_path):
            pass

    with pytest.raises(PlanError, match="can't start 'no-such-command': No such file"):
        asyncio.run(life())
