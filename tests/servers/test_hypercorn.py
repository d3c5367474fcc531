"""The contract on hypercorn, in the ways in which it is run."""

from __future__ import annotations

import pytest

from .contract import STREAMS, ServerContract, WatchedStop
from .launchers_hypercorn import (
    HYPERCORN,
    HYPERCORN_CHILD,
    HYPERCORN_TRIO,
    HYPERCORN_WORKERS,
)


class TestHypercorn(ServerContract):
    """`-w 0`: in its own process, on asyncio."""

    launcher = HYPERCORN


class TestHypercornChild(ServerContract):
    """The default: one worker, and a parent that holds its listener."""

    launcher = HYPERCORN_CHILD


class TestHypercornWorkers(ServerContract):
    """`-w 2`: the parent ends the second worker when the first has ended."""

    launcher = HYPERCORN_WORKERS


class TestHypercornTrio(ServerContract):
    """`-k trio`."""

    launcher = HYPERCORN_TRIO

    @pytest.mark.parametrize("name", STREAMS)
    def test_the_generator_of_a_stream_is_ended(self, stop: WatchedStop, name: str) -> None:
        """Those of open streams; trio gives one that a late client was turned away from no turn."""
        marks = [line.mark for line in stop.log.lines[: stop.log.index("closing")]]
        assert f"{name} ended" in marks

    def test_a_cut_is_named_in_the_log(self, cut: WatchedStop) -> None:
        """Method, path without the query; trio leads to no stack of a task."""
        named = {line.fields["what"] for line in cut.log.lines if line.event == "cut"}
        assert named == {"GET /stuck", "GET /stuck-halfway", "WEBSOCKET /held", "stuck"}
        assert "secret" not in cut.log.text.replace("/background/stuck?token=secret", "")
