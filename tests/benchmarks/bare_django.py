"""A Django project of one view: with our middleware, or without it."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

__all__ = ["application"]

OURS = "graceful.integrations.django.GracefulMiddleware"
USUAL = (
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
)


def home(request: Any) -> HttpResponse:
    """A quick request."""
    return HttpResponse(b"hello\n")


urlpatterns = [path("", home)]


def application(*, wrapped: bool) -> Any:
    """Return the project as a WSGI app. Once in a process."""
    settings.configure(
        SECRET_KEY="benchmark",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=[OURS, *USUAL] if wrapped else list(USUAL),
        DATABASES={},
    )
    django.setup()
    return get_wsgi_application()
