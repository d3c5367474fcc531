"""The app of a process whose waitress has lost a name that the integration needs."""

from __future__ import annotations

from waitress.trigger import trigger

del trigger.__mro__[1].pull_trigger  # type: ignore[attr-defined]

from .wsgi_contract_app import app  # noqa: E402 - graceful must find it like this

__all__ = ["app"]
