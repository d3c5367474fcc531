"""`graceful check` as people type it: output, formats, exit status."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from graceful import __version__
from graceful.cli.group import graceful as cli
from graceful.doctor import CATALOGUE, RULES

FILES = Path(__file__).parent / "files"
BAD, GOOD = FILES / "bad", FILES / "good"
GRACE = BAD / "grace-exceeded.yaml"


def check(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["check", *map(str, arguments)], input=stdin)


def test_errors_are_told_by_file_and_line_and_end_with_status_1() -> None:
    """With the numbers, the fix, and what to ask next."""
    done = check(GRACE)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[0] == str(GRACE)
    assert lines[1].split() == [
        "9",
        "error",
        "grace-exceeded",
        *["Deployment", "web,", "container", "api"],
    ]
    assert "grace_period 60 s counts on more than terminationGracePeriodSeconds 20 s" in lines[2]
    assert lines[3].strip() == "fix: terminationGracePeriodSeconds: 60, or GRACEFUL_GRACE_PERIOD=20"
    assert "2 errors, 1 note in 1 file (3 workloads)." in lines
    assert lines[-1] == "graceful check --explain grace-exceeded tells more."
    assert not any(line.endswith(" ") for line in lines)


def test_a_good_file_ends_with_status_0() -> None:
    """And says how much was looked at."""
    done = check(*sorted((GOOD / "gunicorn-cluster").iterdir()))
    assert (done.exit_code, done.output) == (
        0,
        "Nothing found in 3 files (1 workload, 1 balancer).\n",
    )


def test_a_file_with_nothing_to_check_says_so() -> None:
    """'Nothing found' would sound as if it had been looked at."""
    done = check("-", stdin=b"kind: Namespace\nmetadata: {name: x}\n")
    assert done.exit_code == 0
    assert "Nothing to check in 1 file" in done.output


def test_warnings_fail_only_when_strict() -> None:
    """CI can start with errors and get stricter."""
    file = BAD / "sidecars.yaml"
    assert check(file).exit_code == 0
    assert check(file, "--strict").exit_code == 1


def test_a_rule_can_be_left_out() -> None:
    """By id; an unknown one is a mistake."""
    done = check(GRACE, "--ignore", "grace-exceeded", "--ignore", "grace-unused")
    assert (done.exit_code, done.output) == (0, "Nothing found in 1 file (3 workloads).\n")
    mistaken = check(GRACE, "--ignore", "grace-exceded")
    assert mistaken.exit_code == 2
    assert "did you mean 'grace-exceeded'?" in mistaken.output


def test_stdin_is_read_where_a_dash_stands() -> None:
    """As in `helm template . | graceful check -`."""
    done = check("-", stdin=GRACE.read_bytes())
    assert done.exit_code == 1
    assert done.output.startswith("<stdin>\n    9  error")


def test_the_format_can_be_said() -> None:
    """Where neither the name nor the text tells it."""
    text = b"backend a\n server a 1:2\n server b 1:2\n"
    assert "balancer-blind" in check("-", "--as", "haproxy", stdin=text).output
    unknown = check("-", stdin=b"workload\n")
    assert unknown.exit_code == 2
    assert "--as kubernetes|compose" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-file"], "no-such-file: No such file or directory"),
        (["."], ".: Is a directory"),
        ([], "give a file, or - for stdin"),
        (["--explain", "zzz"], "--list shows all of them"),
        (["--as", "ini", "x"], "is not one of"),
    ],
)
def test_what_can_not_be_read_ends_with_status_2(arguments: list[str], said: str) -> None:
    """On stderr, without a traceback."""
    done = check(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_all_unreadable_files_are_told_at_once(tmp_path: Path) -> None:
    """And the others are not judged without them: half a picture would be a wrong one."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("kind: Pod\n a: [\n")
    done = check(GRACE, tmp_path / "absent", tmp_path / "gone")
    assert done.exit_code == 2
    assert done.stderr.count("No such file") == 2
    assert done.stdout == ""
    assert check(GRACE, broken).exit_code == 2


def test_every_rule_is_listed_and_has_a_story() -> None:
    """Each with a severity that the formats know."""
    listed = check("--list").output
    for rule in CATALOGUE:
        assert re.search(rf"^{rule.severity} +{rule.id} +{re.escape(rule.title)}$", listed, re.M)
        told = check("--explain", rule.id)
        assert told.exit_code == 0
        assert rule.story in " ".join(told.output.split())
    assert len(RULES) == len(CATALOGUE)


def test_json_has_everything() -> None:
    """The numbers as numbers."""
    done = check(GRACE, "--format", "json")
    assert done.exit_code == 1
    data = json.loads(done.output)
    assert data["version"] == __version__
    assert data["files"] == [str(GRACE)]
    assert data["counts"] == {"error": 2, "warning": 0, "note": 1}
    first = data["findings"][0]
    assert first["numbers"] == {"grace_period": 60.0, "terminationGracePeriodSeconds": 20.0}
    assert (first["id"], first["line"], first["severity"]) == ("grace-exceeded", 9, "error")
    assert first.keys() == {
        *("id", "severity", "title", "file", "line", "subject", "text", "fix", "numbers")
    }


def test_github_gets_one_annotation_per_finding() -> None:
    """A note is a notice there."""
    lines = check(GRACE, "--format", "github").output.splitlines()
    assert len(lines) == 3
    file = str(GRACE).replace(":", "%3A").replace(",", "%2C")
    assert lines[0].startswith(f"::error file={file},line=9,title=grace-exceeded::Deployment web")
    assert lines[2].startswith("::notice ")
    assert check(GOOD / "web.service", "--format", "github").output == ""


def test_names_in_files_forge_nothing() -> None:
    """Neither a second annotation nor colours on a terminal."""
    text = (
        b'kind: Pod\nmetadata: {name: "a\\n::error::forged\\e[31m"}\n'
        b"spec: {containers: [{command: [uvicorn, 'a:b']}]}\n"
    )
    annotations = check("-", "--format", "github", stdin=text).output
    assert all(line.startswith("::warning file=<stdin>,") for line in annotations.splitlines())
    shown = check("-", stdin=text).output
    assert "\x1b" not in shown
    assert "Pod a\\x0a::error::forged\\x1b[31m" in shown


def test_a_surrogate_in_a_name_is_no_crash() -> None:
    """It can't be encoded."""
    text = (
        b'kind: Pod\nmetadata: {name: "\\ud800"}\nspec: {containers: [{command: [uvicorn, x]}]}\n'
    )
    for format_ in ("text", "json", "github", "sarif"):
        assert check("-", "--format", format_, stdin=text).exit_code == 0


def sarif(*arguments: str | Path) -> dict[str, Any]:
    """The log of one run."""
    log: dict[str, Any] = json.loads(check(*arguments, "--format", "sarif").output)
    return log


def test_sarif_has_the_shape_that_the_standard_asks_for() -> None:
    """SARIF 2.1.0: 3.13 log, 3.14 run, 3.19 driver, 3.27 result, 3.29 location, 3.49 rule."""
    log = sarif(*sorted(BAD.glob("*.yaml")), BAD / "task.json")
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"]
    assert driver["version"] == __version__
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(set(ids)) == len(ids)
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["fullDescription"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning", "note")
    assert run["results"]
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        assert re.fullmatch(r"[\w./%~-]+", physical["artifactLocation"]["uri"])
        assert physical["region"]["startLine"] >= 1


def test_sarif_of_nothing_is_a_run_without_results() -> None:
    """`results: []` says that the tool has looked; leaving it out would say that it has not."""
    (run,) = sarif(GOOD / "web.service")["runs"]
    assert run["results"] == []


def process(
    *arguments: str,
    stdin: bytes = b"",
    pass_fds: Sequence[int] = (),
    preexec_fn: Callable[[], None] | None = None,
    **environment: str,
) -> subprocess.CompletedProcess[bytes]:
    """Run the console script's function in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from graceful.cli import main; main()", "check", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
        cwd=FILES,
        pass_fds=pass_fds,
        preexec_fn=preexec_fn,
        env={**os.environ, **environment},
    )


def test_it_works_as_a_process_of_its_own() -> None:
    """On an output that can write ASCII only, with bytes from a pipe."""
    stdin = (BAD / "probes.yaml").read_bytes()
    done = process("-", "bad/task.json", stdin=stdin, PYTHONIOENCODING="ascii")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith(b"<stdin>\n")
    assert b"\nbad/task.json\n   10  error    shell-swallows-sigterm  task web" in done.stdout
    assert b"periodSeconds 10 \\xd7 failureThreshold 3 = 30 s" in done.stdout
    assert done.stderr == b""


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """As `<(helm template .)` in a shell; its writer may take a while."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = f"(sleep 2; cat {BAD}/probes.yaml) > {pipe}"
    with (
        subprocess.Popen(["sh", "-c", writer]),
        pipe.open("rb") as stream,
    ):
        done = process(
            "--as", "kubernetes", f"/dev/fd/{stream.fileno()}", pass_fds=[stream.fileno()]
        )
    assert done.returncode == 1, done.stderr
    assert done.stderr == b""


def little_memory() -> None:
    """Half a gigabyte, of which Python and its libraries take a part."""
    resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """Without waiting for ever, and without taking all memory."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    done = process(*map(str, sorted(tmp_path.iterdir())), preexec_fn=little_memory)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        f"graceful check: {tmp_path}/loop.yaml: Too many levels of symbolic links",
        f"graceful check: {tmp_path}/pipe.yaml: is empty",
        f"graceful check: {tmp_path}/zero.yaml: is larger than 4,096 KiB; "
        "give the part that matters",
    ]


@pytest.mark.parametrize("module", ["crossplane", "ruamel", "rich"])
def test_a_missing_extra_is_one_line_with_the_command(module: str, tmp_path: Path) -> None:
    """And status 2."""
    (tmp_path / f"{module}.py").write_text(
        f"raise ModuleNotFoundError('No module named {module}', name='{module}')\n"
    )
    done = process("bad/task.json", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.decode() == (
        f"graceful: needs {module}; run: pip install 'graceful-drain[check]'\n"
    )
