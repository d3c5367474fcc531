"""What people see while a rehearsal runs: the interface, plain lines, and nothing at all.

A view is told events and shown snapshots; it asks for nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Protocol, Self

__all__ = ["InstanceState", "PlainView", "SilentView", "Snapshot", "View"]


@dataclass(frozen=True, kw_only=True)
class InstanceState:
    """One instance at one moment."""

    name: str
    port: int
    phase: str
    in_rotation: bool
    served: int
    lost: int
    streams: int


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The rehearsal at one moment."""

    seconds: float
    """Since its start."""
    instances: Sequence[InstanceState]
    ok: int
    lost: int
    in_flight: int
    restarts: int
    """Restarts that are over."""
    restarts_planned: int


class View(Protocol):
    """Shows a rehearsal to somebody."""

    def __enter__(self) -> Self:
        """The rehearsal begins."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The rehearsal is over."""
        ...

    def event(self, seconds: float, text: str) -> None:
        """Something noteworthy happened `seconds` after the start."""
        ...

    def update(self, snapshot: Snapshot) -> None:
        """This is how things are now; comes a few times a second."""
        ...


class SilentView:
    """Shows nothing: for tests and benchmarks."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def event(self, seconds: float, text: str) -> None:
        pass

    def update(self, snapshot: Snapshot) -> None:
        pass


class PlainView(SilentView):
    """One line per event, for logs and pipes."""

    def __init__(self, output: IO[str]) -> None:
        self._output = output

    def event(self, seconds: float, text: str) -> None:
        """Write it with its time."""
        print(f"{seconds:8.3f} s  {text}", file=self._output, flush=True)
