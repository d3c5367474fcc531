"""How a service's own suite tests its stop: in memory, and with real servers under load.

pip install 'graceful-drain[pytest,uvicorn,starlette]'
pytest examples/pytest_project
"""

from __future__ import annotations

import pytest
from orders import app, saved

from graceful.testing import AsgiProcess
from graceful.testing.plugin import Rehearsal


def test_an_order_is_finished() -> None:
    saved.clear()
    with AsgiProcess(app) as process:
        order = process.request("POST", "/order")
        process.sigterm()
        process.run()
    assert order.status == 201
    assert saved == ["order", "connections closed"]
    assert process.exit_status == 0


def test_browsers_are_sent_to_another_instance() -> None:
    with AsgiProcess(app) as process:
        prices = process.request("GET", "/prices")
        process.sigterm()
        process.run()
    assert b"event: reconnect\n" in prices.body
    assert prices.complete


def test_a_third_sigterm_cuts_an_order() -> None:
    with AsgiProcess(app) as process:
        order = process.request("POST", "/order")
        for _ in range(3):
            process.sigterm()
        process.run()
    assert order.status == 503
    assert process.exit_status == 70


def test_a_deploy_loses_nothing(
    graceful_rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRACEFUL_PROPAGATION_DELAY", "3")
    result = graceful_rehearsal(
        "uvicorn --app-dir examples/pytest_project orders:app --port {port}",
        sse=5,
        sse_path="/prices",
    )
    assert result.lost == 0
    assert result.streams_cut == 0
