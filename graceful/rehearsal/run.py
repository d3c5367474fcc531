"""One rehearsal from begin to end: instances, balancer, load, rolls, and everything put away.

Reads as a story; what each step does is in the modules that it names.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import shutil
import signal
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Final

from .balancers import BALANCERS, Balancer
from .client import Fleet, Sessions, open_sessions
from .faults import check_faults
from .instances import Instance, reserved_ports
from .load import Load
from .plan import PORT, Plan, PlanError, RehearsalError
from .result import Result
from .roll import Roller
from .schedule import percentile
from .streams import StreamClients
from .view import InstanceState, SilentView, Snapshot, View

__all__ = ["check", "rehearse"]

REFRESH: Final = 0.25
"""Seconds between two snapshots for the view."""
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""From Ctrl-C, a CI system that gives up, a terminal that is closed, and from its Ctrl-\\."""
LOSSES_KEPT: Final = 1000
"""A thousand losses explain themselves no better than the first of them."""


def rehearse(plan: Plan, view: View | None = None) -> Result:
    """Hold the rehearsal; blocks until it is over and all its processes have ended.

    Raises:
        PlanError: the plan can't work, such as an unknown balancer or command.
        RehearsalError: no statement can be made: the app does not come up, or time ran out.
        KeyboardInterrupt: Ctrl-C; everything has been put away.
    """
    check(plan)
    with asyncio.Runner(loop_factory=_fast_loop()) as runner:
        return runner.run(_within_limits(plan, view or SilentView()))


def check(plan: Plan) -> None:
    """See that what `plan` names is there, before anything is started.

    Raises:
        PlanError: there is no such balancer, fault or command.
    """
    if plan.balancer not in BALANCERS:
        known = ", ".join(BALANCERS)
        raise PlanError(f"balancer = {plan.balancer!r}: there are {known}")
    check_faults(plan)
    program = plan.command[0]
    if PORT not in program and shutil.which(program) is None:
        raise PlanError(f"can't start {program!r}: there is no such program")


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: the client shares the machine with what it measures."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _within_limits(plan: Plan, view: View) -> Result:
    try:
        with view, _terminable():
            async with asyncio.timeout(plan.limit):
                return await _held(plan, view)
    except TimeoutError:
        raise RehearsalError(f"not over after {plan.limit:g} s (time_limit)") from None


@contextlib.contextmanager
def _terminable() -> Generator[None]:
    """Signals end the rehearsal, or our instances would be left behind.

    The first one does: to put everything away takes seconds at most, and another signal would only
    cut that short.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task
    came: list[str] = []

    def end(name: str) -> None:
        if not came:
            task.cancel()
        came.append(name)

    before = {number: signal.getsignal(number) for number in ENDING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(number, end, number.name)
    try:
        yield
    except asyncio.CancelledError:
        if came and task.uncancel() == 0:
            if came[0] == signal.SIGINT.name:
                raise KeyboardInterrupt from None
            raise RehearsalError(f"ended by {came[0]}") from None
        raise
    finally:
        for number, handler in before.items():
            if loop.remove_signal_handler(number):
                signal.signal(number, handler)


async def _held(plan: Plan, view: View) -> Result:
    with _folder(plan) as folder, reserved_ports(plan.instances) as ports:
        instances = [
            Instance(f"i{number}", port, plan, folder) for number, port in enumerate(ports, 1)
        ]
        fleet = Fleet(plan, instances)
        async with (
            _started(fleet, view),
            _balancing(fleet, folder) as balancer,
            open_sessions(balancer) as sessions,
        ):
            return await _Performance(fleet, balancer, sessions, view).hold()


@contextlib.contextmanager
def _folder(plan: Plan) -> Generator[Path]:
    if plan.logs is not None:
        try:
            plan.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PlanError(f"logs = {plan.logs}: {error.strerror}") from error
        yield plan.logs
        return
    with tempfile.TemporaryDirectory(prefix="graceful-rehearsal-") as folder:
        yield Path(folder)


@contextlib.asynccontextmanager
async def _started(fleet: Fleet, view: View) -> AsyncGenerator[None]:
    try:
        for instance in fleet.instances:
            await instance.start()
        for instance in fleet.instances:
            await instance.until_ready()
            fleet.first_ready[instance.name] = fleet.now()
            view.event(fleet.now(), f"{instance.name}: ready on port {instance.port}")
        yield
    finally:
        for instance in fleet.instances:
            await instance.end()


@contextlib.asynccontextmanager
async def _balancing(fleet: Fleet, folder: Path) -> AsyncGenerator[Balancer]:
    balancer = BALANCERS[fleet.plan.balancer](fleet.plan, fleet.instances, folder)
    try:
        await balancer.start()
        yield balancer
    finally:
        await balancer.close()


class _Performance:
    """The part in which load runs."""

    def __init__(self, fleet: Fleet, balancer: Balancer, sessions: Sessions, view: View) -> None:
        self._fleet = fleet
        self._plan = fleet.plan
        self._balancer = balancer
        self._view = view
        self._load = Load(fleet, balancer, sessions)
        self._streams = StreamClients(fleet, balancer, sessions)
        self._roller = Roller(fleet, balancer, self._streams, view)

    async def hold(self) -> Result:
        """Load, rolls, tail; the findings."""
        await self._load.check()
        showing = asyncio.create_task(self._show())
        sending: asyncio.Task[None] | None = None
        try:
            await self._streams.start()
            sending = asyncio.create_task(self._load.run())
            await asyncio.sleep(self._plan.warmup)
            if self._plan.rolls:
                await self._roller.run()
            else:
                await asyncio.sleep(self._plan.duration)
            await asyncio.sleep(self._plan.tail)
            await _ended(sending)
            await self._load.finish()
            stranded = await self._streams.finish()
        finally:
            await _ended(sending)
            await _ended(showing)
            await self._streams.close()
        return self._result(stranded)

    async def _show(self) -> None:
        while True:
            self._view.update(await self._snapshot())
            await asyncio.sleep(REFRESH)

    async def _snapshot(self) -> Snapshot:
        tally, rotation = self._load.tally, await self._balancer.rotation()
        states = [
            InstanceState(
                name=i.name,
                port=i.port,
                phase=i.phase,
                in_rotation=i.name in rotation,
                served=i.served,
                lost=i.lost,
                streams=self._streams.on(i.name),
            )
            for i in self._fleet.instances
        ]
        return Snapshot(
            seconds=self._fleet.now(),
            instances=states,
            ok=tally.total - len(tally.losses),
            lost=len(tally.losses),
            in_flight=tally.in_flight,
            restarts=len(self._roller.stops),
            restarts_planned=self._plan.restarts,
        )

    def _result(self, stranded: int) -> Result:
        tally, records = self._load.tally, self._streams.so_far()
        return Result(
            command=shlex.join(self._plan.command),
            balancer=self._plan.balancer,
            signal=self._plan.signal_name,
            seconds=self._fleet.now(),
            requests=tally.requests(),
            latency=tally.latency(),
            lateness_p99=percentile(tally.lateness, 99),
            losses=tally.losses[:LOSSES_KEPT],
            restarts=list(self._roller.findings(tally, records)),
            streams=records,
            stranded=stranded,
            sent=tally.sent,
            first_ready=self._fleet.first_ready,
        )


async def _ended(task: asyncio.Task[None] | None) -> None:
    """Cancel `task` and wait for its end; its own error is raised here."""
    if task is None:
        return
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
