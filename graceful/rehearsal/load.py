"""Sends the ordinary requests when they are due, and hands every outcome to the tally.

Nothing is sent twice, and no answer is waited for before the next request is sent.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Final

import aiohttp

from .balancers import Balancer, Route
from .client import Fleet, Sessions
from .outcomes import (
    REQUEST_ID,
    TIMES_SEEN,
    Loss,
    Outcome,
    Sent,
    is_our_own,
    of_answer,
    of_error,
)
from .plan import SECONDS, RehearsalError
from .schedule import Arrival, Kind, arrivals
from .tally import Tally

__all__ = ["Load"]

BODY_SIZES: Final = (64, 8192)
"""Bytes of a POST's body, taken in turn: one fits a packet, one does not."""
BODIES: Final = tuple(os.urandom(size // 2).hex().encode() for size in BODY_SIZES)


class Load:
    """The open-loop load of ordinary requests."""

    def __init__(self, fleet: Fleet, balancer: Balancer, sessions: Sessions) -> None:
        self.tally = Tally()
        self._fleet = fleet
        self._plan = fleet.plan
        self._balancer = balancer
        self._sessions = sessions
        self._timeout = aiohttp.ClientTimeout(total=self._plan.request_timeout)
        self._run_id = os.urandom(4).hex()
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    async def check(self) -> None:
        """Ask for every kind once, before anything counts.

        Raises:
            RehearsalError: the app does not answer as the kind needs it.
        """
        for kind, path in self._plan.kinds.items() if self._plan.rate else ():
            asked = Arrival(number=0, due=0.0, kind=kind, fresh=True, seconds=0.0)
            outcome, detail = await self._exchange(asked, self._path(asked), self._balancer.route())
            if outcome is not Outcome.OK:
                raise RehearsalError(
                    f"{kind} {path} is not answered as the load needs it: {outcome} ({detail}); "
                    f"give another path, or --{kind}-path '' to leave this kind out"
                )

    async def run(self) -> None:
        """Send requests until cancelled; those in flight go on, see `finish`.

        Raises:
            RehearsalError: this machine can't send them.
        """
        if not self._plan.rate:
            return
        began = time.monotonic()
        for arrival in self._schedule():
            due = began + arrival.due
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            self._spawn(arrival, due)

    def _schedule(self) -> Iterator[Arrival]:
        return arrivals(self._plan.rate, list(self._plan.kinds), self._plan.seed)

    def _spawn(self, arrival: Arrival, due: float) -> None:
        task = asyncio.create_task(self._request(arrival, due))
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._error = error

    async def finish(self) -> None:
        """Wait for the requests in flight: each ends by itself or by its timeout."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._error:
            raise self._error

    async def _request(self, arrival: Arrival, due: float) -> None:
        began, at = time.monotonic(), self._fleet.now()
        self.tally.lateness.append(began - due)
        route = self._balancer.route()
        path = self._path(arrival)
        self.tally.in_flight += 1
        try:
            outcome, detail = await self._exchange(arrival, path, route)
        finally:
            self.tally.in_flight -= 1
        seconds, instance = time.monotonic() - began, route.instance if route else None
        if self._plan.trace:
            self.tally.sent.append(Sent(at, seconds, arrival.kind, instance, outcome))
        if outcome is Outcome.OK:
            self._win(arrival, instance, seconds)
        else:
            self._lose(arrival, path, instance, outcome, detail)

    async def _exchange(
        self, arrival: Arrival, path: str, route: Route | None
    ) -> tuple[Outcome, str]:
        if route is None:
            return Outcome.REFUSED, "no instance is in the rotation"
        post = arrival.kind is Kind.POST
        body = BODIES[arrival.number % len(BODIES)] if post else None
        session = self._sessions.fresh if arrival.fresh else self._sessions.kept_alive
        answered = False
        try:
            async with session.request(
                "POST" if post else "GET",
                route.origin + path,
                data=body,
                headers=self._headers(arrival),
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                answered = True
                self._balancer.answered(route, response.headers)
                received = await response.read()
                seen = response.headers.get(TIMES_SEEN)
                return of_answer(response.status, whole=body in (None, received), times_seen=seen)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if is_our_own(error):
                raise RehearsalError(
                    f"this machine could not send a request ({error}): lower the rate, or raise "
                    "its limits (ulimit -n)"
                ) from error
            return of_error(error, answered=answered)

    def _headers(self, arrival: Arrival) -> dict[str, str]:
        headers = {REQUEST_ID: f"{self._run_id}-{arrival.number}"}
        if arrival.fresh:
            headers["connection"] = "close"
        return headers

    def _path(self, arrival: Arrival) -> str:
        return self._plan.kinds[arrival.kind].replace(SECONDS, str(arrival.seconds))

    def _win(self, arrival: Arrival, name: str | None, seconds: float) -> None:
        self.tally.ok(arrival.kind, seconds)
        if instance := self._fleet.get(name):
            instance.served += 1
            instance.last_ok_at = self._fleet.now()

    def _lose(
        self, arrival: Arrival, path: str, name: str | None, outcome: Outcome, detail: str
    ) -> None:
        now, latest = self._fleet.now(), self._fleet.latest
        if instance := self._fleet.get(name):
            instance.lost += 1
        self.tally.lost(
            arrival.kind,
            Loss(
                number=arrival.number,
                kind=arrival.kind,
                path=path,
                outcome=outcome,
                detail=detail,
                instance=name,
                fresh=arrival.fresh,
                at=now,
                restart=latest.restart if latest else None,
                after_sigterm=now - latest.at if latest else None,
            ),
        )
