"""`graceful plan`: what it says, and its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from graceful.cli.group import graceful


def run(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(graceful, ["plan", *arguments], env=variables)


def test_kubernetes_fits_the_defaults() -> None:
    result = run("--platform", "kubernetes")
    assert result.exit_code == 0, result.output
    assert "Advised propagation_delay: 5 s" in result.output
    assert max(map(len, result.output.split("\n\n")[1].splitlines())) < 80


def test_what_does_not_fit_has_numbers_and_a_fix() -> None:
    result = run("--platform", "alb", "--format", "json")
    told = json.loads(result.output)
    assert (result.exit_code, told["fits"]) == (1, False)
    assert told["advised"] == {"propagation_delay": 65.0, "grace_period": 74}
    again = run("--platform", "alb", **told["paste"])
    assert again.exit_code == 0, again.output


def test_the_platform_waits_as_long_as_the_process_thinks() -> None:
    """docker kills at 10 s where the process plans 30."""
    output = run("--platform", "docker").output
    assert "set stop_grace_period to at least 30 s" in output
    assert 'GRACEFUL_GRACE_PERIOD: "30"' in output
    assert "stop_grace_period: 30s" in output


def test_a_default_that_is_too_short_is_an_error_and_in_what_is_pasted() -> None:
    """The picture shows where SIGKILL falls; with the grace period given it is a reminder."""
    result = run("--platform", "docker", "--paste", "env")
    assert result.exit_code == 1
    assert "10.0             SIGKILL by docker" in result.output
    assert "# docker: stop_grace_period of at least 30 s" in result.output
    again = run("--platform", "docker", "--grace-period", "30")
    assert again.exit_code == 0
    assert "warning: docker sends SIGKILL after 10 s unless stop_grace_period" in again.output
    assert "30.0             SIGKILL by the platform, never needed" in again.output


def test_settings_that_contradict_are_drawn() -> None:
    """Where SIGKILL falls, what never happens, and what would fit; graceful itself refuses them."""
    result = run("--platform", "kubernetes", "--propagation-delay", "40")
    assert result.exit_code == 1
    assert "graceful would not start with these settings" in result.output
    assert "30.0             SIGKILL by the platform: all that is left is cut" in result.output
    (duck,) = [line for line in result.output.splitlines() if line.startswith("  lame duck ")]
    (kill,) = [line for line in result.output.splitlines() if line.startswith("  SIGKILL ")]
    assert duck.index("x") == kill.index("^")
    assert "x = never happens" in result.output
    assert "x = never happens" not in run().output
    assert (
        "propagation_delay 40 s (from an option of graceful plan) leaves nothing" in result.output
    )
    told = json.loads(run("--propagation-delay", "40", "--format", "json").output)
    assert (told["fits"], told["findings"][0]["severity"]) == (False, "error")
    assert told["sigkill"] == {"at": 30.0, "by": "the platform"}
    assert told["timeline"][-1]["at"] == 30
    assert run(**told["paste"]).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--grace-period", "0"),
        ("--pre-stop", "40"),
        ("--drain-timeout", "0"),
        ("--drain-timeout", "90"),
        ("--stream-window", "90"),
        ("--cleanup-timeout", "40", "--p99", "9"),
        ("--grace-period", "0", "--propagation-delay", "0", "--cleanup-timeout", "0"),
        ("--propagation-delay", "1e7"),
    ],
)
def test_every_contradiction_has_a_picture_and_a_way_out(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    file = tmp_path / "p.html"
    result = run(*arguments, "--format", "json", "--output", str(file))
    assert result.exit_code == 1, result.output
    told = json.loads(result.output)
    assert [finding for finding in told["findings"] if finding["severity"] == "error"]
    assert "SIGKILL" in told["timeline"][-1]["text"]
    assert "SIGKILL" in run(*arguments).output
    assert "graceful would not start" in file.read_text("utf-8")
    assert run(**told["paste"]).exit_code == 0


def test_nothing_at_all_can_be_drawn() -> None:
    zero = [f"--{name}=0" for name in ("grace-period", "propagation-delay", "cleanup-timeout")]
    zero += [f"--{name}=0" for name in ("exit-margin", "linger", "stream-window")]
    assert "SIGKILL" in run(*zero).output
    assert "1e+300" in run("--propagation-delay", "1e300").output


def test_a_value_that_is_no_number_is_still_refused() -> None:
    result = run(GRACEFUL_GRACE_PERIOD="long")
    assert (result.exit_code, "give a number of seconds" in result.output) == (1, True)


def test_a_sum_that_is_too_long() -> None:
    result = run(GRACEFUL_GRACE_PERIOD="8", GRACEFUL_PROPAGATION_DELAY="7")
    assert result.exit_code == 1
    assert "grace_period 8 s" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--platform", "kubernets"), "'kubernetes'"),
        (("--platform", "alb", "--lag", "3"), "with --notice push alb does"),
        (("--platform", "alb", "--ttl", "3"), "no chosen platform uses it; these do: dns"),
        (("--platform", "alb", "--probe-period", "nan"), "finite"),
        (("--platform", "alb", "--failure-threshold", "1.5"), "whole"),
        (("--grace-period=-1",), "zero or more"),
        (("--rate", "5"), "belong together"),
        (("--platform", "istio", "--notice", "pull"), "no chosen platform has a choice"),
        (("--platform", "alb", "--old-ttl", "5"), "dns does"),
        (("--platform", "alb", "--probe-period", "nlb=5"), "nlb is not chosen"),
        (("--platform", "alb", "--probe-period", "abl=5"), "'alb'"),
        (
            ("--platform", "alb,kubernetes", "--probe-period", "alb=5"),
            "with --notice pull alb does",
        ),
        (("--platform", "alb,kubernetes,consul", "--probe-period", "alb=5"), "does not use it"),
        (("--platform", "alb", "--probe-period", "alb=-5"), "zero or more"),
        (("--platform", "alb", "--probe-period", "alb="), "give a number"),
    ],
)
def test_bad_command_lines(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output


def test_traffic() -> None:
    result = run("--rate", "50", "--mean", "0.2", "--p99", "60")
    assert result.exit_code == 1
    assert "(rate x mean): 10;" in result.output
    assert "p99 60 s does not fit" in result.output


def test_a_real_process() -> None:
    command = [
        sys.executable,
        "-m",
        "graceful.cli",
        "plan",
        "--platform",
        "haproxy",
        "--linger",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    assert "haproxy (pull) needs 8 s" in done.stdout


@pytest.mark.parametrize(("name", "begins"), [("p.svg", "<svg "), ("p.html", "<!doctype html>")])
def test_output_is_written_and_the_text_is_said_as_well(
    tmp_path: Path, name: str, begins: str
) -> None:
    result = run("--platform", "kubernetes", "--output", str(tmp_path / name))
    assert result.exit_code == 0, result.output
    assert (tmp_path / name).read_text("utf-8").startswith(begins)
    assert "kubernetes sees" in result.output


def test_output_that_can_not_be_written(tmp_path: Path) -> None:
    unknown = run("--output", str(tmp_path / "plan.pdf"))
    assert (unknown.exit_code, ".html or .svg" in unknown.output) == (2, True)
    nowhere = run("--output", str(tmp_path / "none" / "plan.svg"))
    assert (nowhere.exit_code, "No such file" in nowhere.output) == (2, True)


def test_paste_is_what_was_asked_for() -> None:
    told = json.loads(run("--paste", "systemd", "--paste", "env", "--format", "json").output)
    assert list(told["snippets"]) == ["systemd", "env"]
    assert "TimeoutStopSec=30" in told["snippets"]["systemd"]


def test_a_number_for_one_platform_beats_a_number_for_all() -> None:
    told = json.loads(
        run(
            *("--platform", "kubernetes,alb", "--lag", "alb=15", "--lag", "3", "--format", "json")
        ).output
    )
    assert [path["seconds"] for path in told["platforms"]] == [3, 18]
