"""The app config: with it in INSTALLED_APPS the checks run and `manage.py graceful` is there."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks as django_checks

__all__ = ["GracefulConfig"]


class GracefulConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """`graceful.integrations.django` in INSTALLED_APPS."""

    name = "graceful.integrations.django"
    label = "graceful"
    verbose_name = "graceful"

    def ready(self) -> None:
        """Register the system checks."""
        from . import checks

        for check in checks.ALWAYS:
            django_checks.register(check, checks.TAG)
        for check in checks.DEPLOY:
            django_checks.register(check, checks.TAG, deploy=True)
