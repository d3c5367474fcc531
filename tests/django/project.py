"""One small Django project for these tests: its settings, as `configure()` sets them up."""

from __future__ import annotations

import django
from django.conf import settings

__all__ = ["OURS", "configure"]

OURS = "graceful.integrations.django.GracefulMiddleware"


def configure() -> None:
    """Configure Django, once in a process."""
    if settings.configured:
        return
    settings.configure(
        SECRET_KEY="tests",
        ALLOWED_HOSTS=["example.org", "testserver"],
        ROOT_URLCONF="tests.django.urls",
        INSTALLED_APPS=["graceful.integrations.django"],
        MIDDLEWARE=[
            OURS,
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.common.CommonMiddleware",
        ],
        DATABASES={},
        USE_TZ=True,
    )
    django.setup()
