"""`nginx`: the real one. It has no health checks, only failures: readiness means nothing to it.

An instance counts as failed once a connection to it fails, and is tried again some time later. A
request that could not be sent goes to another instance, as in every nginx; one that has been sent
is never sent again if it may not be (POST).
"""

from __future__ import annotations

from typing import Final

from .proxy import INSTANCE_HEADER
from .silent_proxy import SilentProxy

__all__ = ["Nginx"]

CONFIG: Final = """\
# Written by `graceful rehearse`.
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;

events {{
    worker_connections 4096;
}}

http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;

    upstream app {{
{servers}
        # Idle connections are dropped before a server's own keep-alive ends.
        keepalive 64;
        keepalive_timeout {idle}ms;
    }}

    map $http_upgrade $connection_header {{
        default upgrade;
        "" "";
    }}

    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_header;
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 1h;
            add_header {header} $upstream_addr always;
        }}
    }}
}}
"""


class Nginx(SilentProxy):
    """One nginx process in the foreground."""

    name = "nginx"

    async def start(self) -> None:
        """Start it and wait until every instance has answered through it.

        Raises:
            RehearsalError: it is not on PATH, or it does not come up.
        """
        config = self._folder / "nginx.conf"
        config.write_text(self._config(self.take_port()))
        await self.run("-p", str(self._folder), "-e", "stderr", "-c", str(config))

    def _config(self, port: int) -> str:
        seconds = max(1, round(self._plan.probe_interval * self._plan.fall))
        servers = [
            f"        server 127.0.0.1:{i.port} max_fails=1 fail_timeout={seconds}s;"
            for i in self._instances
        ]
        return CONFIG.format(
            folder=self._folder,
            port=port,
            servers="\n".join(servers),
            header=INSTANCE_HEADER,
            idle=round(self._plan.client_keepalive * 1000),
        )
