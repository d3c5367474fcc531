"""What findings say: the core's own words where it judges, and numbers that solve the problem."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graceful.core.budget import SettingsError, Sourced, resolve
from graceful.doctor import CATALOGUE, Finding, Source, examine, read

FILES = Path(__file__).parent / "files"


def findings(*paths: str) -> list[Finding]:
    """Of files that are looked at together."""
    sources: list[Source] = []
    for path in paths:
        with (FILES / path).open("rb") as stream:
            sources.append(read(stream, path))
    return list(examine(sources).findings)


def one(id_: str, *paths: str) -> Finding:
    """The first finding of a rule."""
    return next(finding for finding in findings(*paths) if finding.id == id_)


def test_a_budget_is_judged_in_the_core_s_words() -> None:
    """As the process itself would say it at start."""
    found = one("settings", "bad/settings.yaml")
    with pytest.raises(SettingsError) as error:
        resolve(
            {
                "grace_period": Sourced("30", "$GRACEFUL_GRACE_PERIOD"),
                "drain_timeout": Sourced("25", "$GRACEFUL_DRAIN_TIMEOUT"),
                "propagation_delay": Sourced("10", "$GRACEFUL_PROPAGATION_DELAY"),
            }
        )
    assert f"{found.text}; {found.fix}" == str(error.value)


@pytest.mark.parametrize(
    ("path", "fix"),
    [
        (
            "bad/grace-exceeded.yaml",
            "terminationGracePeriodSeconds: 60, or GRACEFUL_GRACE_PERIOD=20",
        ),
        ("bad/compose.yaml", "stop_grace_period: 30s, or GRACEFUL_GRACE_PERIOD=10"),
        ("bad/web.service", "TimeoutStopSec=60, or GRACEFUL_GRACE_PERIOD=30"),
        ("bad/task.json", '"stopTimeout": 60, or GRACEFUL_GRACE_PERIOD=30'),
    ],
)
def test_a_fix_is_written_as_its_file_writes_it(path: str, fix: str) -> None:
    """So that it can be pasted."""
    assert one("grace-exceeded", path).fix == fix


@pytest.mark.parametrize("which", ["terminationGracePeriodSeconds: 60", "GRACEFUL_GRACE_PERIOD=20"])
def test_either_fix_of_a_grace_period_works(which: str) -> None:
    """What is advised is not found again."""
    text = (FILES / "bad/grace-exceeded.yaml").read_text().partition("---")[0]
    if which.startswith("GRACEFUL"):
        text = text.replace('value: "60"', 'value: "20"')
    else:
        text = re.sub(r"terminationGracePeriodSeconds: \d+", which, text)
    assert examine([Source("x", text, "kubernetes")]).findings == ()


def test_a_liveness_probe_that_is_told_to_fail_more_often_is_not_told_again() -> None:
    """The number in the fix is enough."""
    text = (FILES / "bad/probes.yaml").read_text()
    found = one("liveness-cuts-drain", "bad/probes.yaml")
    number = re.search(r"failureThreshold: (\d+)", found.fix)
    assert number
    mended = text.replace("periodSeconds: 5", f"periodSeconds: 5\n            {number[0]}", 1)
    again = examine([Source("x", mended, "kubernetes")]).findings
    told = {f.subject for f in again if f.id == "liveness-cuts-drain"}
    assert found.subject == "Deployment same, container web"
    assert found.subject not in told
    assert told, "the others are still told"


def test_the_numbers_of_a_mesh_are_those_of_the_budget() -> None:
    """Delay and drain: the proxy has to outlive both."""
    found = one("mesh-leaves-first", "bad/sidecars.yaml")
    assert found.numbers == {"proxy": 10.0, "needed": 26.0}
    assert "terminationDrainDuration: 26s" in found.fix


def test_timeouts_are_compared_across_files() -> None:
    """The server's in one file, the balancer's in another."""
    found = one("idle-order", "bad/edge/compose.yaml", "bad/edge/haproxy.cfg")
    assert found.numbers == {"server": 5.0, "balancer": 75.0}
    assert found.place.file == "bad/edge/compose.yaml"
    alone = [f.id for f in findings("bad/edge/compose.yaml")]
    assert "idle-order" not in alone


def test_what_keeps_a_sidecar_is_the_platform_s() -> None:
    """An init container in a pod, a dependency in a task."""
    pod = one("sidecar-leaves-first", "bad/sidecars.yaml")
    assert pod.fix == "initContainers: sql with restartPolicy: Always"
    assert pod.text == "it gets SIGTERM together with web, whose database connections go through it"
    task = one("sidecar-leaves-first", "bad/task.json")
    assert task.fix == '"dependsOn": [{"containerName": "proxy", "condition": "START"}]'


def test_the_sum_of_a_check_is_shown() -> None:
    """Where there is something to add up."""
    assert "inter 2 s × fall 3 = 6 s" in one("check-slow", "bad/haproxy.cfg").text
    assert "after health_interval 30 s, but" in one("check-slow", "bad/Caddyfile").text


def test_the_catalogue_is_written_for_people() -> None:
    """Ids are words, titles have no full stop, stories do."""
    for rule in CATALOGUE:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.id)
        assert not rule.title.endswith(".")
        assert rule.story.endswith((".", '"].'))
        assert len(rule.title) < 80


def test_every_finding_says_what_to_do() -> None:
    """No full stop at the end, for both are put into sentences."""
    paths = [str(p.relative_to(FILES)) for p in (FILES / "bad").iterdir() if p.is_file()]
    for path in paths:
        if path.endswith(".expect"):
            continue
        for finding in findings(path):
            assert finding.text
            assert finding.fix
            assert not finding.text.endswith(".")
            assert not finding.fix.endswith(".")
            assert "None" not in f"{finding.text} {finding.fix}"
