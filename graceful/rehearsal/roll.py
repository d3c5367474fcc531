"""Restarts the instances one after another, as a rolling deployment does, and reports each one.

One restart: SIGTERM to the main process, wait for its exit, a new process on the same port, wait
until it is ready and chosen again. The next one begins only then.
One reload: another signal to the main process, wait until the workers that it had are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from .balancers import Balancer
from .client import Fleet, Sigterm
from .faults import FAULTS, Fault
from .instances import Instance, Phase
from .plan import RehearsalError
from .result import Restart, StreamRecord, largest_slot_share
from .streams import StreamClients
from .tally import Tally
from .view import View
from .watch import Watch

__all__ = ["Roller"]

LAST_WORDS: Final = 0.5
"""Seconds for a fault to read what the process has answered before it went."""


class Roller:
    """Does the restarts of a plan."""

    def __init__(
        self, fleet: Fleet, balancer: Balancer, streams: StreamClients, view: View
    ) -> None:
        self.stops: list[Restart] = []
        """As far as the instance itself goes; `findings` adds what the load saw."""
        self._fleet = fleet
        self._plan = fleet.plan
        self._balancer = balancer
        self._streams = streams
        self._view = view

    async def run(self) -> None:
        """Restart every instance, `rolls` times."""
        for roll in range(1, self._plan.rolls + 1):
            for instance in self._fleet.instances:
                stop = self._reload if self._plan.reload_signal else self._restart
                self.stops.append(await stop(instance, roll))
                await asyncio.sleep(self._plan.settle)

    async def _restart(self, instance: Instance, roll: int) -> Restart:
        watch = Watch(self._fleet, instance, lambda text: self._say(instance, text))
        name = self._next_fault()
        fault = FAULTS.get(name, Fault)(instance, self._plan)
        if name:
            self._say(instance, f"fault {name}: {fault.text}")
        sigterm, killed = await self._terminate(instance, watch, fault)
        gone_at, exit_code, last_ok_at = self._fleet.now(), instance.status, instance.last_ok_at
        self._say(instance, f"exited {exit_code} after {gone_at - sigterm.at:.2f} s")
        left_behind = await self._clear(instance)
        await fault.between()
        ready_at = await self._start(instance)
        await self._balancer.until_steady(instance.name)
        self._say_back(instance, sigterm.restart)
        return Restart(
            number=sigterm.restart,
            roll=roll,
            instance=instance.name,
            sigterm_at=sigterm.at,
            readiness_flip=_since(watch.unready_at, sigterm),
            refused=_since(watch.refused_at, sigterm),
            last_request=_since(last_ok_at, sigterm) if last_ok_at > sigterm.at else None,
            exit=gone_at - sigterm.at,
            exit_code=exit_code,
            killed=killed or fault.killed,
            left_behind=left_behind,
            not_ready=watch.not_ready,
            ready=ready_at - sigterm.at,
            in_rotation=self._fleet.now() - sigterm.at,
            fault=name,
            found=fault.found,
            failed=fault.failed,
        )

    def _next_fault(self) -> str:
        faults = self._plan.faults
        return faults[len(self.stops) % len(faults)] if faults else ""

    async def _reload(self, instance: Instance, roll: int) -> Restart:
        name, old = self._plan.signal_name, instance.workers()
        if not old:
            raise RehearsalError(
                f"{instance.name} has no worker processes that {name} could replace"
            )
        watch = Watch(self._fleet, instance, lambda text: self._say(instance, text))
        await watch.start()
        try:
            signalled = self._fleet.reload(instance)
            watch.begin(signalled)
            self._say(instance, f"{name} sent (reload {signalled.restart})")
            replaced = await instance.until_replaced(old, self._plan.kill_after)
        finally:
            await watch.stop()
        seconds = self._fleet.now() - signalled.at
        state = "has replaced its workers" if replaced else "still has old workers"
        self._say(instance, f"{state} after {seconds:.2f} s")
        await self._balancer.until_steady(instance.name)
        self._say_back(instance, signalled.restart)
        return Restart(
            number=signalled.restart,
            roll=roll,
            instance=instance.name,
            sigterm_at=signalled.at,
            readiness_flip=_since(watch.unready_at, signalled),
            refused=_since(watch.refused_at, signalled),
            last_request=None,
            exit=seconds,
            exit_code=0,
            killed=False,
            left_behind=not replaced,
            not_ready=watch.not_ready,
            ready=seconds,
            in_rotation=self._fleet.now() - signalled.at,
        )

    async def _terminate(
        self, instance: Instance, watch: Watch, fault: Fault
    ) -> tuple[Sigterm, bool]:
        """Send SIGTERM and wait until the process has gone; the second item: SIGKILL it was."""
        await watch.start()
        going_on: asyncio.Task[None] | None = None
        try:
            await fault.before()
            sigterm = self._fleet.sigterm(instance)
            watch.begin(sigterm)
            self._say(instance, f"SIGTERM sent (restart {sigterm.restart})")
            going_on = asyncio.create_task(fault.after())
            killed = await self._until_gone(instance)
        finally:
            await watch.stop()
            if going_on is not None:
                await asyncio.wait([going_on], timeout=LAST_WORDS)
                going_on.cancel()
                await asyncio.gather(going_on, return_exceptions=True)
            await fault.close()
        instance.phase = Phase.EXITED
        return sigterm, killed

    async def _until_gone(self, instance: Instance) -> bool:
        if await instance.until_exit(self._plan.kill_after):
            return False
        self._say(instance, f"still there after {self._plan.kill_after:g} s: SIGKILL")
        await instance.end()
        return True

    async def _clear(self, instance: Instance) -> bool:
        left_behind = await instance.clear()
        if left_behind:
            self._say(instance, "left processes behind, which were killed")
        return left_behind

    async def _start(self, instance: Instance) -> float:
        await instance.start()
        await instance.until_ready()
        return self._fleet.now()

    def _say_back(self, instance: Instance, restart: int) -> None:
        ended = [s for s in self._streams.so_far() if s.restart == restart]
        told = sum(s.told for s in ended)
        streams = f"; {told} of {len(ended)} streams had been told to reconnect" if ended else ""
        self._say(instance, f"back in rotation{streams}")

    def _say(self, instance: Instance, text: str) -> None:
        self._view.event(self._fleet.now(), f"{instance.name}: {text}")

    def findings(self, tally: Tally, records: list[StreamRecord]) -> Iterator[Restart]:
        """Yield every restart with what the load lost and how the streams fared."""
        for stop in self.stops:
            streams = [s for s in records if s.restart == stop.number]
            yield _finding(stop, tally, streams)


def _finding(stop: Restart, tally: Tally, streams: list[StreamRecord]) -> Restart:
    farewells = sorted(s.farewell for s in streams if s.farewell is not None)
    lost = [loss for loss in tally.losses if loss.restart == stop.number]
    own = sum(loss.instance in (None, stop.instance) for loss in lost)
    cut = sum(not s.told for s in streams)
    messages = sum(s.messages_lost for s in streams)
    return replace(
        stop,
        requests_lost=len(lost),
        last_stream=max((s.ended_at - stop.sigterm_at for s in streams), default=None),
        streams_told=len(streams) - cut,
        streams_cut=cut,
        streams_moved=sum(s.told and s.moved for s in streams),
        messages_lost=messages,
        first_farewell=farewells[0] if farewells else None,
        last_farewell=farewells[-1] if farewells else None,
        largest_slot_share=largest_slot_share(farewells),
        excused=own + cut + messages if stop.fault and FAULTS[stop.fault].costs else 0,
    )


def _since(moment: float | None, sigterm: Sigterm) -> float | None:
    return None if moment is None else moment - sigterm.at
