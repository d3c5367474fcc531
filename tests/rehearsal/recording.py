"""A view that keeps what it was shown."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from graceful.rehearsal import SilentView
from graceful.rehearsal.view import Snapshot


class RecordingView(SilentView):
    """Keeps events and snapshots for assertions."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.snapshots: list[Snapshot] = []
        self.entered = self.left = False

    def __enter__(self) -> Self:
        self.entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.left = True

    def event(self, seconds: float, text: str) -> None:
        self.events.append(text)

    def update(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
