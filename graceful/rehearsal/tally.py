"""Counts what became of the requests while the load runs. Pure: times come as arguments."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from .outcomes import Loss, Outcome, Sent
from .schedule import Kind, percentile

__all__ = ["Tally"]


class Tally:
    """Outcomes, losses and latencies of one run."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[Kind, Outcome]] = Counter()
        self.losses: list[Loss] = []
        self.lateness: list[float] = []
        self.in_flight = 0
        self.sent: list[Sent] = []
        """Every request, where a report is to be drawn."""
        self._latencies: defaultdict[Kind, list[float]] = defaultdict(list)

    def ok(self, kind: Kind, seconds: float) -> None:
        """A request was answered well after `seconds`."""
        self.outcomes[kind, Outcome.OK] += 1
        self._latencies[kind].append(seconds)

    def lost(self, kind: Kind, loss: Loss) -> None:
        """A request was lost."""
        self.outcomes[kind, loss.outcome] += 1
        self.losses.append(loss)

    @property
    def total(self) -> int:
        """Requests that are over."""
        return self.outcomes.total()

    def requests(self) -> Mapping[str, Mapping[str, int]]:
        """Kind → outcome → how many; only what has happened."""
        table: dict[str, dict[str, int]] = {}
        for (kind, outcome), count in sorted(self.outcomes.items()):
            table.setdefault(str(kind), {})[str(outcome)] = count
        return table

    def latency(self) -> Mapping[str, Mapping[str, float]]:
        """Kind → percentiles in seconds."""
        return {
            str(kind): {
                "p50": percentile(values, 50),
                "p99": percentile(values, 99),
                "max": max(values),
            }
            for kind, values in sorted(self._latencies.items())
        }
