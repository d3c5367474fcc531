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
