"""The waitress example answers, and stops as its docstring promises."""

from __future__ import annotations

from tests.servers.harness import ASKED, Launcher, launch, reserved_port, settings

WAITRESS = Launcher(name="waitress example", command=("examples.waitress_app",), announces="")


def test_it_answers_and_stops() -> None:
    """Unready at once, serving through the delay, exit status 0."""
    env = ASKED | settings(linger=0.2)
    with reserved_port() as port, launch(WAITRESS, "", str(port), serving=False, env=env) as server:
        server.port = port
        server.log.wait_event("serving")
        assert server.get("/readyz").status == 200
        server.terminate()
        server.log.wait_event("lame duck")
        assert (server.get("/readyz").status, server.get("/").status) == (503, 200)
        assert server.wait() == 0
        assert server.log.report()["clean"].lower() == "true"
