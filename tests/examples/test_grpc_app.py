"""The gRPC example answers, and stops as its docstrings promise."""

from __future__ import annotations

import json

from tests.servers.grpc_contract import Stub, pushback
from tests.servers.harness import Launcher, launch, reserved_port, settings

GRPC = Launcher(name="grpc example", command=("examples.grpc_app",), announces="")


def test_it_answers_and_stops() -> None:
    """Unhealthy at once, serving through the delay, the feed told, exit status 0."""
    env = settings(propagation_delay=0.5, stream_window=0.2, linger=0.2)
    with reserved_port() as port, launch(GRPC, "", str(port), serving=False, env=env) as server:
        server.log.wait_event("serving")
        with Stub(port, "/shop.Orders/") as stub:
            stub.await_healthy("shop.Orders")
            assert stub.health() == "SERVING"
            feed = stub.stream("Watch", b"{}")
            assert json.loads(next(feed)) == {"order": 0, "state": "new"}
            server.terminate()
            server.log.wait_event("lame duck")
            stub.await_unhealthy("shop.Orders")
            order = json.loads(stub.call("Get", b'{"order": 7}'))
            assert order == {"order": 7, "state": "paid"}
            end = stub.read(feed)()
            delay = pushback(end.error)
            assert json.loads(end.messages[-1]) == {"reconnect": delay}
        assert server.wait() == 0
        assert server.log.report()["told"] == "1"
