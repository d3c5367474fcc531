"""`caddy`: the real one, with active health checks and without any retry.

It adds no header to the 101 of a WebSocket, so nobody knows which instance that went to. Request
bodies are buffered: its transport (2.6.2) sometimes drops the answer to one that it streams.
"""

from __future__ import annotations

from typing import Final

from .base import PATIENCE
from .proxy import INSTANCE_HEADER
from .silent_proxy import SilentProxy

__all__ = ["Caddy"]

CONFIG: Final = """\
# Written by `graceful rehearse`.
{{
    admin off
    auto_https off
}}

http://127.0.0.1:{port} {{
    reverse_proxy {addresses} {{
        # Not round_robin: two requests at once may each skip the same instance that is left, and
        # get a 503 although it is healthy.
        lb_policy random
        buffer_requests
        header_down {header} {{http.reverse_proxy.upstream.hostport}}
        # Nothing is hidden: a request that fails on its instance has failed.
        lb_try_duration 0
        health_uri {readiness}
        health_interval {interval}ms
        health_timeout {patience:g}s
        transport http {{
            # Idle connections are dropped before a server's own keep-alive ends.
            keepalive {idle}ms
        }}
    }}
}}
"""


class Caddy(SilentProxy):
    """One Caddy process in the foreground."""

    name = "caddy"

    async def start(self) -> None:
        """Start it and wait until every instance has answered through it.

        Raises:
            RehearsalError: it is not on PATH, or it does not come up.
        """
        config = self._folder / "Caddyfile"
        config.write_text(self._config(self.take_port()))
        home = {"XDG_DATA_HOME": str(self._folder), "XDG_CONFIG_HOME": str(self._folder)}
        await self.run("run", "--config", str(config), "--adapter", "caddyfile", env=home)

    def _config(self, port: int) -> str:
        return CONFIG.format(
            port=port,
            addresses=" ".join(f"127.0.0.1:{i.port}" for i in self._instances),
            readiness=self._plan.readiness_path,
            interval=round(self._plan.probe_interval * 1000),
            header=INSTANCE_HEADER,
            patience=PATIENCE,
            idle=round(self._plan.client_keepalive * 1000),
        )
