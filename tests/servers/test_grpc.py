"""gRPC: the contract on both kinds of server, and what is special about them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2

from graceful.core.phases import Phase
from graceful.integrations.grpc.health import Health

from .grpc_contract import QUICK, GrpcContract, Stub, launcher, pushback, running
from .harness import LIMIT, Launcher, launch, settings


class TestAio(GrpcContract):
    """`grpc.aio`."""

    kind = "aio"


class TestThreads(GrpcContract):
    """`grpc.server`."""

    kind = "threads"


def test_sync_handlers_on_aio() -> None:
    """They are told when they yield next: `grpc.aio` gives no way to do it earlier."""
    with running("mixed", QUICK) as (server, stub):
        ticks = stub.stream("Ticks")
        next(ticks)
        slow = stub.begin("Slow", b"1")
        server.log.wait_mark("slow")
        server.terminate()
        assert pushback(stub.read(ticks)().error) >= 50
        assert slow.result() == b"slow but whole"
        assert server.wait() == 0
        assert server.log.marks("ticks over")


def test_a_grpcio_that_lacks_a_name() -> None:
    """Streams are told when they yield next, and a line says so."""
    env = {**QUICK, **settings(drain_timeout=1.5, cleanup_timeout=0.5)}
    with running("lacking", env) as (server, stub):
        ticks, silent = stub.stream("Ticks"), stub.stream("Silent")
        next(ticks)
        next(silent)
        ends = [stub.read(ticks), stub.read(silent)]
        server.terminate()
        assert pushback(ends[0]().error) >= 50
        assert "told when the handler yields next" in server.log.wait("gives no way").text
        assert ends[1]().error is not None
        assert server.wait() == 70  # the one that never yields is a straggler


def http_and_grpc(how: str) -> Launcher:
    """Return how the process that serves both is started."""
    return Launcher(
        name=f"gRPC and HTTP {how}",
        command=("tests.servers.grpc_http_app", how),
        announces=r"running on http://127.0.0.1:(\d+)",
    )


@pytest.mark.parametrize("how", ["lifespan", "beside", "first"])
def test_grpc_and_http_share_one_lifecycle(how: str) -> None:
    """One flip, one drain that waits for both, one report."""
    env = settings(propagation_delay=0.5, linger=0.2)
    with launch(http_and_grpc(how), "", env=env) as server:
        found = re.search(r"grpc port (\d+)", server.log.wait("grpc port").text)
        assert found is not None
        with Stub(int(found[1])) as stub, contextlib.closing(server.client()) as client:
            slow = stub.begin("Slow", b"2")
            server.log.wait_mark("slow")
            client.ask("GET", "/slow")
            server.log.wait_mark("http slow")
            ticks = stub.stream("Ticks")
            next(ticks)
            server.terminate()
            stub.await_unhealthy()
            assert server.get("/readyz").status == 503
            assert stub.call("Echo") == b""
            assert pushback(stub.read(ticks)().error) >= 50
            assert client.reply().body == slow.result() == b"slow but whole"
            assert server.wait(LIMIT) == 0
        log = server.log
        assert log.events("lame duck", "draining", "drain report") == [
            "lame duck",
            "draining",
            "drain report",
        ]
        assert log.report()["in_flight_at_signal"] == "3"
        assert log.marks("hook") == ["hook lame duck, unhealthy", "hook drain", "hook cleanup"]
        assert log.marks("both served")


def test_a_watch_of_health_holds_nothing_up() -> None:
    """It is none of the drain's business, and it never ends by itself."""
    with launch(launcher("aio"), "", env=QUICK) as server, Stub(server.port) as stub:
        watch = stub.watch()
        assert next(watch) == "SERVING"
        server.terminate()
        assert server.wait(LIMIT / 2) == 0
        assert server.log.report()["in_flight_at_signal"] == "0"


def test_hooks_wait_for_a_flip_that_is_on_its_way() -> None:
    """A servicer returns at once from a second call while a watching client holds the first."""

    async def flip_twice() -> None:
        servicer: Any = cast(Any, grpc_health).aio.HealthServicer()
        core = SimpleNamespace(phase=Phase.LAME_DUCK, cause="SIGTERM")
        lifecycle: Any = SimpleNamespace(core=core)
        nobody: Any = None
        health = Health(servicer, [""], lifecycle, nobody, nobody, asks=False)
        async with servicer._server_watchers[""]:
            flips = [asyncio.create_task(health.follow()) for _ in range(2)]
            _, waiting = await asyncio.wait(flips, timeout=0.2)
            assert len(waiting) == 2
        await asyncio.gather(*flips)
        reply = await servicer.Check(health_pb2.HealthCheckRequest(), None)
        assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING

    asyncio.run(flip_twice())
