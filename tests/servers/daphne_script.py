"""daphne's command, with a log that tests can read: its own takes every record for itself."""

from __future__ import annotations

import logging

from daphne.cli import CommandLineInterface

if __name__ == "__main__":
    logging.getLogger().addHandler(logging.NullHandler())  # who has a handler is left alone
    for name in ("daphne", "asyncio"):
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).addHandler(logging.StreamHandler())
    CommandLineInterface.entrypoint()
