"""Programs around hypercorn: those that embed it, and those in which it is another one.

Run:  python -m tests.servers.hypercorn_programs MODE [arguments of hypercorn]
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any

import hypercorn.asyncio
import hypercorn.asyncio.run
import hypercorn.trio
import trio
from hypercorn.__main__ import main
from hypercorn.config import Config

from graceful.integrations.hypercorn import shutdown_trigger

from . import contract_app
from .contract_app import mark

app: Any = contract_app.app


def config() -> Config:
    """Return a configuration with a free port."""
    made = Config()
    made.bind = ["127.0.0.1:0"]
    return made


def embedded() -> None:
    """The plain way."""
    asyncio.run(hypercorn.asyncio.serve(app, config()))
    mark("the program goes on")


def on_trio() -> None:
    """The plain way under trio."""
    trio.run(partial(hypercorn.trio.serve, app, config()))
    mark("the program goes on")


def with_trigger() -> None:
    """With graceful's trigger."""
    asyncio.run(hypercorn.asyncio.serve(app, config(), shutdown_trigger=shutdown_trigger()))
    mark("the program goes on")


def own_trigger() -> None:
    """With a trigger of its own: a line on stdin."""

    async def trigger() -> None:
        await asyncio.to_thread(sys.stdin.readline)

    asyncio.run(hypercorn.asyncio.serve(app, config(), shutdown_trigger=trigger))
    mark("the program goes on")


def without_name() -> None:
    """A hypercorn in which `raise_shutdown` has another name."""
    module: Any = hypercorn.asyncio.run
    code = module.worker_serve.__code__
    names = {"raise_shutdown": "stop_when"}
    module.worker_serve.__code__ = code.replace(
        co_names=tuple(names.get(name, name) for name in code.co_names)
    )
    module.stop_when = module.raise_shutdown
    del module.raise_shutdown


def lacking() -> None:
    """That hypercorn, on its command line."""
    without_name()
    sys.exit(main(sys.argv[2:]))


def lacking_embedded() -> None:
    """That hypercorn, embedded with graceful's trigger."""
    without_name()
    with_trigger()


def untested() -> None:
    """A hypercorn of another version."""
    from graceful.integrations import hypercorn as integration

    module: Any = integration
    module.version = {"hypercorn": "9.9.9"}.get
    sys.exit(main(sys.argv[2:]))


MODES = (embedded, on_trio, with_trigger, own_trigger, lacking, lacking_embedded, untested)

if __name__ == "__main__":
    {mode.__name__: mode for mode in MODES}[sys.argv[1]]()
