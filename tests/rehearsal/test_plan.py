"""Options that are refused before a process is started."""

from __future__ import annotations

from typing import Any

import pytest

from graceful.rehearsal.plan import Plan, PlanError
from graceful.rehearsal.schedule import Kind

COMMAND = ("serve", "--bind=127.0.0.1:{port}")


def test_the_port_is_put_into_every_word() -> None:
    """Also in the middle of one, and more than once."""
    plan = Plan(command=("serve", "{port}", "--bind=:{port}"))
    assert plan.command_for(8001) == ["serve", "8001", "--bind=:8001"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"command": ()}, "no command given"),
        ({"command": "serve {port}"}, "give a list of words"),
        ({"command": ("serve",)}, "has no {port}"),
        ({"instances": 0}, "instances = 0"),
        ({"fall": 0}, "fall = 0"),
        ({"rate": -1.0}, "rate = -1.0"),
        ({"lag": float("nan")}, "lag = nan"),
        ({"kill_after": float("inf")}, "kill_after = inf"),
        ({"probe_interval": 0.0}, "probe_interval = 0"),
        ({"reload_signal": "HUB"}, "reload_signal = 'HUB'"),
        ({"quick_path": "index"}, "quick_path = 'index'"),
        ({"quick_path": "/a\r\nX: y"}, "quick_path = "),
        ({"faults": ["kill-9"], "rolls": 0}, "1 faults, but 0 restarts"),
        ({"faults": ["kill-9"] * 3}, "3 faults, but 2 restarts"),
        ({"faults": ["kill-9"], "reload_signal": "HUP"}, "faults are for restarts"),
        ({"readiness_path": ""}, "readiness_path = ''"),
        ({"websockets": 1, "websocket_path": ""}, "websockets = 1"),
        ({"quick_path": "", "slow_path": "", "post_path": ""}, "every kind of request is left out"),
    ],
)
def test_what_can_not_work_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    """The message names the option and its value."""
    with pytest.raises(PlanError, match=said.replace("{", r"\{")):
        Plan(command=options.pop("command", COMMAND), **options)


def test_a_path_that_is_empty_leaves_its_kind_out() -> None:
    """The app may have no slow path."""
    assert list(Plan(command=COMMAND, slow_path="").kinds) == [Kind.QUICK, Kind.POST]


def test_the_time_limit_has_room_for_every_wait() -> None:
    """It must never be what ends an honest rehearsal; a limit that is given holds."""
    plan = Plan(command=COMMAND, rolls=3, instances=2)
    assert plan.limit > 3 * 2 * (plan.kill_after + plan.start_timeout)
    assert Plan(command=COMMAND, time_limit=9.0).limit == 9.0


@pytest.mark.parametrize("given", ["HUP", "hup", "SIGHUP"])
def test_a_signal_has_many_names(given: str) -> None:
    """As `kill` has it."""
    assert Plan(command=COMMAND, reload_signal=given).signal_name == "SIGHUP"
    assert Plan(command=COMMAND).signal_name == "SIGTERM"
