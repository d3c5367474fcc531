"""Watches one instance from outside while it stops, and notes when each thing was seen.

It asks the readiness path again and again, on fresh connections, from just before SIGTERM until
the process has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from .client import Fleet, Sigterm
from .instances import Instance, Phase
from .readiness import Answer, probe

__all__ = ["Watch"]

QUICK: Final = 0.01
"""Seconds between two looks while the flip of readiness is to be seen: it is measured."""
CALM: Final = 0.05
"""Seconds between two looks later: the refusal needs no such precision, and looks cost."""
PATIENCE: Final = 1.0
"""Seconds until an answer does not come any more."""


class Watch:
    """What was seen of one restart; times are of the fleet's clock."""

    def __init__(self, fleet: Fleet, instance: Instance, say: Callable[[str], None]) -> None:
        self.unready_at: float | None = None
        self.refused_at: float | None = None
        self.not_ready = 0
        """Answers other than 'ready' since the signal, and questions without one."""
        self._fleet = fleet
        self._instance = instance
        self._say = say
        self._sigterm: Sigterm | None = None
        self._first = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look; returns after the first answer."""
        self._task = asyncio.create_task(self._look())
        await self._first.wait()

    def begin(self, sigterm: Sigterm) -> None:
        """From now on what is seen is noted."""
        self._sigterm = sigterm

    async def stop(self) -> None:
        """The process has gone."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        path = self._fleet.plan.readiness_path
        while True:
            asked_at = self._fleet.now()
            answer = await probe(self._instance.port, path, PATIENCE)
            self._first.set()
            if self._sigterm is not None:
                # A flip is known when it is received, silence since the question was asked.
                now = asked_at if answer is Answer.SILENT else self._fleet.now()
                self.not_ready += answer is not Answer.READY
                self._note(answer, max(now, self._sigterm.at), self._sigterm.at)
            seen = self.unready_at or self.refused_at
            await asyncio.sleep(CALM if seen else QUICK)

    def _note(self, answer: Answer, now: float, sigterm_at: float) -> None:
        if answer in (Answer.REFUSED, Answer.SILENT):
            self._gone(answer, now, sigterm_at)
            return
        self.refused_at = None  # one unanswered probe was no refusal
        if answer is not Answer.READY and self.unready_at is None:
            self.unready_at = now
            self._say(f"readiness flipped after {now - sigterm_at:.3f} s")
        if self.unready_at is not None:
            self._instance.phase = Phase.LAME_DUCK

    def _gone(self, answer: Answer, now: float, sigterm_at: float) -> None:
        first = self.refused_at is None
        self.refused_at = now if self.refused_at is None else self.refused_at
        if first and answer is Answer.SILENT:
            return  # perhaps it was in the queue of a listener that was just closed: look again
        if self._instance.phase is not Phase.DRAINING:
            self._instance.phase = Phase.DRAINING
            how = "refused" if answer is Answer.REFUSED else "no longer answered"
            self._say(f"new connections {how} after {self.refused_at - sigterm_at:.3f} s")
