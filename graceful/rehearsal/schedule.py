"""When each request of the load is due, and what it asks for. Pure: no clock, a seed for luck.

The load is an open loop: a request is sent when it is due, however slow the answers to earlier
ones are. A closed loop would send less exactly while an instance is being restarted.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["Arrival", "Kind", "arrivals", "percentile"]


class Kind(StrEnum):
    """The kinds of ordinary request."""

    QUICK = "quick"
    SLOW = "slow"
    POST = "post"


SHARES: Final[Mapping[Kind, float]] = {Kind.QUICK: 0.7, Kind.SLOW: 0.1, Kind.POST: 0.2}
FRESH_SHARE: Final = 0.2
"""Part of the requests that open a connection of their own and close it."""
SLOW_SECONDS: Final = (0.2, 2.0)
"""Shortest and longest slow request: what is in flight when SIGTERM comes."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of the schedule."""

    number: int
    due: float
    """Seconds after the start of the load."""
    kind: Kind
    fresh: bool
    """Whether it opens a connection of its own."""
    seconds: float
    """How long a slow request is asked to take."""


def arrivals(rate: float, kinds: Sequence[Kind], seed: int) -> Iterator[Arrival]:
    """Yield requests for ever, `rate` a second at even distances; the same for the same seed."""
    luck = random.Random(seed)
    shares = [SHARES[kind] for kind in kinds]
    for number in itertools.count():
        yield Arrival(
            number=number,
            due=number / rate,
            kind=luck.choices(kinds, shares)[0],
            fresh=luck.random() < FRESH_SHARE,
            seconds=round(luck.uniform(*SLOW_SECONDS), 2),
        )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of `values`, 0.0 where there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
