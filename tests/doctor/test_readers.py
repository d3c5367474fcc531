"""The parts that readers share: command lines, durations, the tree of YAML."""

from __future__ import annotations

import math

import pytest

from graceful.doctor import Source, examine, units
from graceful.doctor.commands import of_arguments, of_line, of_script
from graceful.doctor.model import Place
from graceful.doctor.yamltree import documents

HERE = Place("here", 1)


@pytest.mark.parametrize(
    ("words", "server", "options"),
    [
        (["uvicorn", "a:b"], "uvicorn", {}),
        (["/venv/bin/uvicorn", "a:b", "--workers=2"], "uvicorn", {"workers": "2"}),
        (["python3.13", "-u", "-m", "gunicorn", "-w4", "a:b"], "gunicorn", {"workers": "4"}),
        (["python", "-mhypercorn", "-k", "trio", "a"], "hypercorn", {"worker-class": "trio"}),
        (["tini", "-g", "--", "granian", "a:b"], "granian", {}),
        (["env", "A=1", "B=2", "daphne", "a:b"], "daphne", {}),
        (["gosu", "app", "waitress-serve", "a:b"], "waitress", {}),
        (["poetry", "run", "uvicorn", "a:b", "--reload"], "uvicorn", {"reload": ""}),
        (["uv", "run", "--no-sync", "uvicorn", "a:b"], "uvicorn", {}),
        (["opentelemetry-instrument", "--x", "gunicorn", "a"], "gunicorn", {}),
        (["newrelic-admin", "run-program", "gunicorn", "a"], "gunicorn", {}),
        (["fastapi", "run", "a.py"], "uvicorn", {}),
        (["flask", "--app", "a", "run"], "development", {}),
        (["python", "manage.py", "runserver"], "development", {}),
        (["python", "manage.py", "migrate"], None, {}),
        (["python", "-c", "uvicorn"], None, {}),
        (["celery", "-A", "a", "worker"], None, {}),
        (["./start.sh", "uvicorn"], None, {}),
        (["graceful", "run", "uvicorn", "a:b"], "uvicorn", {}),
        (["python", "-m", "graceful.cli", "run", "--", "uvicorn", "a:b"], "uvicorn", {}),
    ],
)
def test_the_server_is_found_behind_what_starts_it(
    words: list[str], server: str | None, options: dict[str, str]
) -> None:
    """Wrappers, interpreters and package managers are looked through."""
    command = of_arguments(words, HERE)
    assert command is not None
    assert (command.server.name if command.server else None) == server
    assert command.server is None or options.items() <= command.server.options.items()
    assert command.shell == ""


@pytest.mark.parametrize(
    ("words", "shell"),
    [
        (["sh", "-c", "uvicorn a:b"], "sh"),
        (["/bin/sh", "-ec", "cd /srv && uvicorn a:b"], "sh"),
        (["sh", "-c", "exec uvicorn a:b"], ""),
        (["sh", "-c", "cd /srv && exec uvicorn a:b"], ""),
        (["sh", "-c", "trap 'kill $!' TERM; uvicorn a:b & wait"], ""),
        (["bash", "-c", "cd /srv && uvicorn a:b"], ""),
        (["bash", "-lc", "uvicorn a:b | tee log"], "bash"),
        (["bash", "-c", "uvicorn a:b & wait"], "bash"),
        (["dumb-init", "sh", "-c", "uvicorn a:b"], ""),
        (["dumb-init", "--single-child", "sh", "-c", "uvicorn a:b"], "sh"),
        (["tini", "--", "sh", "-c", "uvicorn a:b"], "sh"),
        (["sh", "start.sh"], ""),
        (["sh", "-c"], ""),
        (["sh", "-c", ""], ""),
    ],
)
def test_a_shell_that_stays_is_told_from_one_that_goes(words: list[str], shell: str) -> None:
    """dash stays also for a single command; bash becomes its last one, unless it is piped."""
    command = of_arguments(words, HERE)
    assert command is not None
    assert command.shell == shell


def test_the_server_is_found_in_a_script() -> None:
    """Wherever it stands."""
    command = of_script("set -e\nA=1 ./migrate.sh;\nuvicorn a:b \\\n  --port 80 || true", HERE)
    assert command.server is not None
    assert (command.server.name, command.server.options) == ("uvicorn", {"port": "80"})
    assert command.shell == "sh"


def test_the_settings_of_graceful_run_are_read() -> None:
    """They beat everything else, so they have to be known."""
    line = "graceful run --grace-period 60 --propagation-delay=7 hypercorn -w 4 a:b"
    command = of_line(line, HERE)
    assert command is not None
    assert command.server is not None
    assert command.server.options == {"workers": "4"}
    assert command.settings == {"grace_period": "60", "propagation_delay": "7"}
    bare = of_line("uvicorn a:b", HERE)
    assert bare is not None
    assert bare.settings is None


@pytest.mark.parametrize(
    ("reader", "text", "seconds"),
    [
        (units.plain, "2.5", 2.5),
        (units.plain, "-1", None),
        (units.plain, "nan", None),
        (units.plain, None, None),
        (units.go, "1m30s", 90.0),
        (units.go, "500ms", 0.5),
        (units.go, "0", 0.0),
        (units.go, "10", None),
        (units.haproxy, "500", 0.5),
        (units.haproxy, "2s", 2.0),
        (units.haproxy, "soon", None),
        (units.nginx, "65", 65.0),
        (units.nginx, "1m 5s", 65.0),
        (units.systemd, "1min 30s", 90.0),
        (units.systemd, "90", 90.0),
        (units.systemd, "infinity", math.inf),
        (units.systemd, "0", math.inf),
        (units.systemd, "9" * 100, None),
    ],
)
def test_durations(reader: object, text: str | None, seconds: float | None) -> None:
    """Each format has its own idea of a bare number."""
    assert callable(reader)
    assert reader(text) == seconds


def test_lines_are_those_of_the_keys_in_every_document() -> None:
    """Also in the second one, in flow style, and for a value that begins a line below."""
    text = "# one\na: 1\n---\n# two\nb:\n  c:\n    - d\n    - {e: f,\n       g: h}\n"
    first, second = documents(Source("x", text, "kubernetes"))
    assert first.at("a").line == 2
    assert second.at("b").line == 5
    assert second.at("b", "c").line == 6
    assert second.at("b", "c").sequence[1].at("g").line == 9
    assert second.at("b", "missing", "more").line == 5
    assert not second.at("b", "missing", "more").there


def test_merged_mappings_keep_their_own_keys() -> None:
    """As compose files are written."""
    text = "x: &x {a: 1, b: 2}\ny: &y {c: 3}\nz:\n  <<: [*x, *y]\n  b: own\n"
    (document,) = documents(Source("x", text, "compose"))
    assert document.at("z").texts() == {"b": "own", "a": "1", "c": "3"}


def test_json_with_tabs_is_read() -> None:
    """YAML would not have them."""
    (document,) = documents(Source("x", '{\n\t"a": [\n\t\t{"b": "\\/"}\n\t]\n}', "ecs"))
    assert document.at("a").sequence[0].at("b").text() == "/"
    assert document.at("a").sequence[0].at("b").line == 3


def test_null_and_local_tags_are_no_text() -> None:
    """`!Ref` is CloudFormation's to know."""
    (document,) = documents(Source("x", "a: ~\nb: null\nc: !Ref X\nd: 'null'\n", "ecs"))
    assert document.texts() == {"d": "null"}


UNIT = """[Service]
Environment=GRACEFUL_GRACE_PERIOD=60
ExecStart=/venv/bin/uvicorn app:app
TimeoutStopSec=60
"""
DROPIN = """[Service]
Environment=GRACEFUL_PROPAGATION_DELAY=5
TimeoutStopSec=20
"""


def test_a_drop_in_belongs_to_its_unit() -> None:
    """Given together they are one; alone a drop-in says nothing of what it does not set."""
    unit = Source("etc/web.service", UNIT, "systemd")
    more = Source("etc/web.service.d/more.conf", DROPIN, "systemd")
    (finding,) = examine([unit, more]).findings
    assert (finding.id, finding.place.file, finding.place.line) == ("grace-exceeded", more.name, 3)
    assert finding.subject == "unit web.service"
    assert examine([unit]).findings == ()
    silent = Source(more.name, DROPIN.replace("TimeoutStopSec=20", "Nice=1"), "systemd")
    assert examine([silent]).findings == ()


def test_a_variable_that_only_a_drop_in_sets_counts() -> None:
    unit = Source("web.service", UNIT, "systemd")
    more = Source(
        "web.service.d/a.conf", "[Service]\nEnvironment=GRACEFUL_GRACE_PERIOD=70", "systemd"
    )
    (finding,) = examine([unit, more]).findings
    assert "grace_period 70 s counts on more than TimeoutStopSec 60 s" in finding.text
