"""The app of a process whose daphne has lost a name that the integration imports."""

from __future__ import annotations

import daphne.http_protocol

del daphne.http_protocol.HTTPFactory

from .daphne_apps import app  # noqa: E402 - graceful must find it like this

__all__ = ["app"]
