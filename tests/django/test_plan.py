"""`manage.py graceful`, and the timeline that it prints."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core import management
from django.core.management.base import CommandError
from django.test import override_settings

from graceful.core.budget import Settings
from graceful.core.plan import steps

from .project import OURS

PLAN = """\
Settings in force
  grace_period                 30 s  default
  propagation_delay             6 s  settings.GRACEFUL
  pre_stop                      0 s  default
  stream_window                 4 s  $GRACEFUL_STREAM_WINDOW
  linger                        1 s  default
  drain_timeout      20 s, the rest  default
  cleanup_timeout               3 s  default
  exit_margin                   1 s  default
  readiness_path            /readyz  default
  liveness_path                 off  settings.GRACEFUL
  readiness_mode                own  default
  check_timeout                 1 s  default
  probe_port                    off  default
  liveness_stall               30 s  default

The longest stop
     0.0 s  LAME_DUCK  SIGTERM: readiness says 503, serving goes on
     6.0 s  DRAINING   no new connections; what is in flight finishes
     6.0 s  DRAINING   streams are told to reconnect, spread over 4 s
     7.0 s  DRAINING   linger over: with nothing in flight the server stops here
    26.0 s  CLOSING    what is still in flight is cut; clean-up hooks
    29.0 s             the watchdog names what is left and leaves
    30.0 s             SIGKILL by the platform, never needed

Findings
  none

"""


def plan(**settings: Any) -> str:
    """Return what the command prints for a project with these settings."""
    out = io.StringIO()
    with override_settings(**settings):
        management.call_command("graceful", stdout=out)
    return out.getvalue()


def test_the_plan_of_a_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting with its place, every second that matters, and nothing to find."""
    monkeypatch.setenv("GRACEFUL_STREAM_WINDOW", "4")
    assert plan(GRACEFUL={"propagation_delay": 6, "liveness_path": None}) == PLAN


def test_findings_have_their_fix() -> None:
    """Warnings let the command succeed."""
    text = plan(MIDDLEWARE=["django.middleware.common.CommonMiddleware", OURS])
    assert "  graceful.W002  GracefulMiddleware is number 2 of 2" in text
    assert f"    fix: move '{OURS}' to the first place" in text
    assert "graceful.W004" in text


def test_an_error_fails_the_command() -> None:
    """After the plan has been printed."""
    with pytest.raises(CommandError, match="1 of the findings would lose requests"):
        plan(MIDDLEWARE=[OURS, OURS])


def test_settings_without_a_plan_are_told_in_one_line() -> None:
    """With the numbers and the fix."""
    with pytest.raises(CommandError, match=r"leaves nothing of grace_period 30 s .*; lower prop"):
        plan(GRACEFUL={"propagation_delay": 50})


def test_steps_are_in_order_and_end_with_the_grace_period() -> None:
    """Whatever the settings are, also with nothing of what is optional."""
    for settings in (
        Settings(),
        Settings(pre_stop=4.0),
        Settings(propagation_delay=0.0, stream_window=0.0, linger=0.0),
        Settings(drain_timeout=5.0, grace_period=90.0),
    ):
        found = steps(settings)
        times = [step.at for step in found]
        assert times == sorted(times)
        assert times[-1] - times[0] == settings.grace_period
        assert sum(step.text.startswith("SIGTERM") for step in found) == 1
    (began, *_) = steps(Settings(pre_stop=4.0))
    assert (began.at, began.phase) == (-4.0, "")
    texts = [step.text for step in steps(Settings(drain_timeout=5.0))]
    assert "clean-up is over" in texts
