"""For the tests of people who use graceful: stop an app object in memory, in no time.

    from graceful.testing import AsgiProcess

    def test_an_export_is_finished() -> None:
        with AsgiProcess(app) as process:
            export = process.request("GET", "/export")
            process.sigterm()
            process.run()
        assert export.status == 200
        assert process.report.clean

Time is a clock of the process's own, which jumps to whatever is due next: thirty seconds of grace
take milliseconds, and things happen in the same order each time. No signal is sent and no handler
installed. For real servers there is `graceful rehearse`; `plugin.py` has its fixture for pytest.
"""

from __future__ import annotations

from .asgi import AsgiCall, AsgiProcess, WebSocketCall
from .clock import FakeClock, NothingLeft
from .wsgi import WsgiCall, WsgiProcess

__all__ = [
    "AsgiCall",
    "AsgiProcess",
    "FakeClock",
    "NothingLeft",
    "WebSocketCall",
    "WsgiCall",
    "WsgiProcess",
]
