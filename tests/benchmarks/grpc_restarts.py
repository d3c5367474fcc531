"""gRPC: rolling restarts of two instances behind a client that balances by itself.

    python -m tests.benchmarks.grpc_restarts      # 10 restarts, then 10 of a bare server
    python -m tests.benchmarks.grpc_restarts --restarts 2 --blind    # a client without health

The client is grpc's own: round robin, with health checking as its service config says, and without
retries, so that each RPC that fails is seen. A stream is lost if it ends without being told when to
come back. The bare server calls `server.stop(5)` on SIGTERM. Ends with 1 if graceful lost anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from graceful.integrations import grpc as graceful_grpc
from tests.servers.harness import reserved_port

GRPC: Any = grpc
CALLERS = 16
STREAMS = 100
PUSHBACK = graceful_grpc.PUSHBACK

SETTINGS: Any = {"propagation_delay": 2.0, "stream_window": 1.0, "linger": 0.5}

CONFIG: dict[str, object] = {"loadBalancingConfig": [{"round_robin": dict[str, str]()}]}
HEALTH: dict[str, object] = {"healthCheckConfig": {"serviceName": ""}}

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
]


# -- an instance -----------------------------------------------------------------------------------


async def work(request: bytes, context: Any) -> bytes:
    """Take 50 ms."""
    await asyncio.sleep(0.05)
    return b"done"


async def ticks(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """Go on for ever."""
    while True:
        yield b"tick"
        await asyncio.sleep(0.1)


async def serve(kind: str, port: int) -> None:
    """Serve, with graceful or as gRPC's own examples do."""
    made = {
        "Work": GRPC.unary_unary_rpc_method_handler(work),
        "Ticks": GRPC.unary_stream_rpc_method_handler(ticks),
    }
    interceptors = [graceful_grpc.interceptor()] if kind == "graceful" else []
    server = grpc.aio.server(interceptors=interceptors)
    server.add_generic_rpc_handlers((GRPC.method_handlers_generic_handler("b.S", made),))
    servicer = cast("Any", health).aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    if kind == "graceful":
        await graceful_grpc.serve(server, health=servicer, **SETTINGS)
        return
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await server.start()
    await told.wait()
    await server.stop(5)


class Instance:
    """One process, which is started again on its port."""

    def __init__(self, kind: str, port: int) -> None:
        module = "tests.benchmarks.grpc_restarts"
        self._command = [sys.executable, "-m", module, "--serve", kind, "--port", str(port)]
        self._address = f"127.0.0.1:{port}"
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        with GRPC.insecure_channel(self._address, OPTIONS) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            stub.Check(request, timeout=30, wait_for_ready=True)
        return process

    def restart(self) -> int:
        """Stop it with SIGTERM and start it anew. Returns the exit status."""
        self._process.terminate()
        status = self._process.wait(60)
        self._process = self._start()
        return status

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


# -- the client ------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of all RPCs."""

    unary: int = 0
    unary_lost: int = 0
    streams: int = 0
    streams_told: int = 0
    streams_lost: int = 0
    signalled: float = 0.0
    """When an instance was sent SIGTERM last."""
    first_told: float = math.inf
    """Seconds after SIGTERM at which the first stream was told."""
    errors: dict[str, int] = field(default_factory=dict[str, int])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, error: Any) -> None:
        """Remember how an RPC was lost."""
        text = f"{error.code().name}: {error.details()}"[:80]
        self.errors[text] = self.errors.get(text, 0) + 1


def call(channel: Any, tally: Tally, over: threading.Event) -> None:
    """One RPC after the other."""
    method = channel.unary_unary("/b.S/Work")
    while not over.is_set():
        try:
            method(b"", timeout=30)
            failed: Any = None
        except grpc.RpcError as error:
            failed = error
            time.sleep(0.05)
        with tally.lock:
            tally.unary += 1
            if failed is not None:
                tally.unary_lost += 1
                tally.note(failed)


def listen(channel: Any, tally: Tally, over: threading.Event) -> None:
    """One stream, which comes back when and as it is told."""
    method = channel.unary_stream("/b.S/Ticks")
    while not over.is_set():
        stream = method(b"")
        pause = 0.1
        try:
            for _ in stream:
                if over.is_set():
                    stream.cancel()
                    return
        except grpc.RpcError as error:
            failed: Any = error
            trailing: dict[str, Any] = dict(failed.trailing_metadata() or ())
            told = trailing.get(PUSHBACK)
            with tally.lock:
                tally.streams += 1
                if told is None:
                    tally.streams_lost += 1
                    tally.note(failed)
                else:
                    tally.streams_told += 1
                    after = time.monotonic() - tally.signalled
                    tally.first_told = min(tally.first_told, after)
                    pause = int(told) / 1000
        time.sleep(pause)


@contextlib.contextmanager
def load(ports: list[int], tally: Tally, config: Any) -> Generator[None]:
    """Keep clients busy on one channel."""
    over = threading.Event()
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
    options = [("grpc.service_config", json.dumps(config)), *OPTIONS]
    with GRPC.insecure_channel(f"ipv4:{addresses}", options) as channel:
        GRPC.channel_ready_future(channel).result(30)
        jobs = [call] * CALLERS + [listen] * STREAMS
        threads = [threading.Thread(target=job, args=(channel, tally, over)) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join(30)


def run(kind: str, restarts: int, config: Any) -> Tally:
    """Restart two instances by turns under load."""
    tally, statuses = Tally(), list[int]()
    begun = time.monotonic()
    with reserved_port() as one, reserved_port() as two:
        instances = [Instance(kind, one), Instance(kind, two)]
        try:
            with load([one, two], tally, config):
                time.sleep(1)
                for number in range(restarts):
                    tally.signalled = time.monotonic()
                    statuses.append(instances[number % 2].restart())
                    time.sleep(1)  # until the client has found it
        finally:
            for instance in instances:
                instance.kill()
    print(
        f"{kind:9} {restarts} restarts in {time.monotonic() - begun:.0f} s: "
        f"{tally.unary_lost} of {tally.unary} unary RPCs lost, "
        f"{tally.streams_lost} of {tally.streams} streams that ended were lost "
        f"({tally.streams_told} were told when to come back); exit statuses {statuses}"
    )
    if tally.streams_told:
        told, delay = tally.first_told, SETTINGS["propagation_delay"]
        print(f"          first told {told:.2f} s after SIGTERM; the delay is {delay:g} s")
    for text, count in tally.errors.items():
        print(f"          {count} x {text}")
    return tally


def main() -> int:
    """Run both, or serve one instance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--serve", choices=["graceful", "bare"])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--blind", action="store_true", help="the client asks for no health")
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve, given.port))
        return 0
    config = CONFIG if given.blind else CONFIG | HEALTH
    ours = run("graceful", given.restarts, config)
    bare = run("bare", given.restarts, config)
    lost = ours.unary_lost + ours.streams_lost
    print(
        "the run can fail" if bare.unary_lost + bare.streams_lost else "the bare server lost none"
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
