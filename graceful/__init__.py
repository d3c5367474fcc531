"""Web processes that stop the way the field's best do it.

    from graceful.asgi import GracefulMiddleware    # any ASGI framework, outermost

What handlers may ask is re-exported here: `draining`, `wait_draining`, `remaining`, `hold`,
`current_exchange`. `current()` is the lifecycle of the process.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from .context import (
    StreamClosed,
    current_exchange,
    draining,
    hold,
    remaining,
    wait_draining,
)
from .core.budget import Settings, SettingsError
from .core.phases import Phase
from .core.records import DrainReport
from .lifecycle import Lifecycle, current

__all__ = [
    "DrainReport",
    "Lifecycle",
    "Phase",
    "Settings",
    "SettingsError",
    "StreamClosed",
    "current",
    "current_exchange",
    "draining",
    "hold",
    "remaining",
    "wait_draining",
]

__version__ = "0.1.0"

# Another distribution, named 'graceful' (a REST toolkit for Falcon), installs into the same folder.
if any((Path(folder) / "resources").is_dir() for folder in __path__):
    warnings.warn(
        "the distribution 'graceful' is installed over 'graceful-drain', whose import name is the "
        "same; run: pip uninstall graceful && pip install --force-reinstall graceful-drain",
        RuntimeWarning,
        stacklevel=2,
    )
