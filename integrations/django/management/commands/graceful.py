"""`manage.py graceful`: the plan of this project. How it would stop, and what stands in the way."""

from __future__ import annotations

from typing import Any

from django.core.checks import ERROR, CheckMessage
from django.core.management.base import BaseCommand, CommandError

from graceful.core.budget import SETTINGS, Settings, SettingsError
from graceful.core.plan import steps

from ...checks import findings
from ...conf import configuration

__all__ = ["Command"]


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Prints and changes nothing; exits with 1 where something is an error."""

    help = "Show how this project stops: settings in force, the timeline, and what is wrong."
    requires_system_checks = ()  # its own findings are part of what it prints

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the plan."""
        try:
            settings = configuration().settings()
        except SettingsError as error:
            raise CommandError(str(error)) from error
        self._print("Settings in force", setting_lines(settings))
        self._print("The longest stop", timeline_lines(settings))
        found = findings()
        self._print("Findings", finding_lines(found) or ["  none"])
        errors = sum(message.level >= ERROR for message in found)
        if errors:
            raise CommandError(f"{errors} of the findings would lose requests")

    def _print(self, title: str, lines: list[str]) -> None:
        self.stdout.write(title)
        for line in lines:
            self.stdout.write(line)
        self.stdout.write("")


def setting_lines(settings: Settings) -> list[str]:
    """Return each setting with its value and where that came from."""
    rows = [(row.name, _value(settings, row.name), settings.source(row.name)) for row in SETTINGS]
    name, value = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"  {row[0]:<{name}}  {row[1]:>{value}}  {row[2]}" for row in rows]


def _value(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    if name == "drain_timeout" and value is None:
        return f"{settings.drain:g} s, the rest"
    if value is None:
        return "off"
    return f"{value:g} s" if isinstance(value, float) else str(value)


def timeline_lines(settings: Settings) -> list[str]:
    """Return the steps of a stop with their seconds after SIGTERM."""
    found = steps(settings)
    phase = max(len(step.phase) for step in found)
    return [f"  {step.at:>6.1f} s  {step.phase:<{phase}}  {step.text}" for step in found]


def finding_lines(messages: list[CheckMessage]) -> list[str]:
    """Return the findings of the checks, errors first, each with its fix."""
    lines: list[str] = []
    for message in sorted(messages, key=lambda message: -message.level):
        lines += [f"  {message.id}  {message.msg}", f"    fix: {message.hint}"]
    return lines
