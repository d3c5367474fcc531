"""A real browser that looks at a page: Chromium without a window, asked over its own protocol."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

__all__ = ["Browser", "open_browser"]

LIMIT = 30.0
"""Seconds after which a browser that has not answered will not any more."""


class Browser:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self.complaints: list[str] = []
        """What it wrote to its console: errors and warnings."""
        self._socket = socket
        self._numbers = itertools.count(1)
        self._came: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> Any:
        """Return the result of one command of the protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(LIMIT))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        kind, params = message["method"], message.get("params", {})
        self._came.append(kind)
        if kind == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
        elif kind in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.complaints.append(json.dumps(params))

    def show(self, page: Path, *, width: int, dark: bool) -> None:
        """Load `page` in a window of this width and wait until it is there."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self._came.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while "Page.loadEventFired" not in self._came:
            self._note(json.loads(self._socket.recv(LIMIT)))

    def run(self, script: str) -> Any:
        """Return the value of a piece of JavaScript."""
        done = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def overlaps(self, selector: str) -> list[str]:
        """Return pairs of texts that lie on each other."""
        found = self.run(OVERLAPS.replace("SELECTOR", json.dumps(selector)))
        assert isinstance(found, list)
        return found  # pyright: ignore[reportUnknownVariableType]


OVERLAPS = """(() => {
  const boxes = [...document.querySelectorAll(SELECTOR)]
    .filter(e => e.textContent.trim()).map(e => [e.textContent.trim(), e.getBoundingClientRect()]);
  const pairs = [];
  boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
    const w = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const h = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (w > 1 && h > 3) pairs.push(`${a} | ${b}`);
  }));
  return pairs;
})()"""


@contextlib.contextmanager
def open_browser(folder: Path) -> Generator[Browser]:
    """Start Chromium with a profile in `folder`; where there is none, skip, but not in CI."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed, and CI=true says that it must be")
        pytest.skip("chromium is not installed")
    process = subprocess.Popen(
        [
            program,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with connect(_address(folder, process), open_timeout=LIMIT, max_size=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(LIMIT)


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """Return where the first tab listens."""
    from urllib.request import urlopen

    file, give_up = folder / "DevToolsActivePort", time.monotonic() + LIMIT
    while not file.exists() or not file.read_text().strip():
        assert process.poll() is None, "the browser has ended"
        assert time.monotonic() < give_up, "the browser does not come up"
        time.sleep(0.05)
    port = int(file.read_text().split()[0])
    while True:
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=LIMIT) as answer:
            tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
        if tabs:
            return str(tabs[0]["webSocketDebuggerUrl"])
        assert time.monotonic() < give_up, "the browser has no tab"
        time.sleep(0.05)
