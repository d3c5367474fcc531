"""The names of uvicorn's that the integration relies on: this fails when a new version moves one.

Everything here is checked on the installed uvicorn itself, not through the integration.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from uvicorn.config import Config
from uvicorn.server import Server

from graceful.asgi import GracefulMiddleware
from graceful.integrations.uvicorn import UvicornServer, detect


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer 200."""
    if scope["type"] != "http":
        raise RuntimeError("HTTP only")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def quiet_server(**options: Any) -> Server:
    """Return a server that has not been started."""
    return Server(Config(app, port=0, log_level="critical", **options))


def test_the_handler_of_sigterm_is_a_method_of_the_server() -> None:
    """So the server is found behind it."""
    server = quiet_server()
    with server.capture_signals():
        handler = signal.getsignal(signal.SIGTERM)
    assert getattr(handler, "__self__", None) is server
    found = detect(handler)
    assert isinstance(found, UvicornServer)
    assert found.name == f"uvicorn {uvicorn.__version__}"


def test_the_options_that_are_read() -> None:
    """`timeout_graceful_shutdown`, `should_reload` and `lifespan` of the configuration."""
    config = quiet_server(timeout_graceful_shutdown=7, lifespan="on").config
    assert config.timeout_graceful_shutdown == 7
    assert config.lifespan == "on"
    assert config.should_reload is False


def test_shutdown_is_looked_up_on_the_instance_and_awaited() -> None:
    """`shutdown(sockets=...)` is what a stop goes through, and it can be replaced."""
    assert list(inspect.signature(Server.shutdown).parameters) == ["self", "sockets"]
    assert inspect.iscoroutinefunction(Server.shutdown)
    server = quiet_server()
    original = server.shutdown
    seen: list[object] = []

    async def shutdown(sockets: Any = None) -> None:
        seen.append(sockets)
        await original(sockets=sockets)

    server.shutdown = shutdown  # type: ignore[method-assign]

    async def run() -> None:
        async with running(server):
            pass

    asyncio.run(run())
    assert seen == [None]


@contextlib.asynccontextmanager
async def running(server: Server) -> AsyncGenerator[None]:
    """Run `server` on this loop until the block is left."""
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield
    server.should_exit = True
    await serving


def test_the_attributes_of_a_running_server() -> None:
    """`servers` with their listening sockets, `server_state.connections` of live clients."""
    server = quiet_server()

    async def look() -> None:
        async with running(server):
            (listener,) = [s for each in server.servers for s in each.sockets]
            assert listener.fileno() > 0
            assert not server.server_state.connections
            reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            await reader.readuntil(b"ok")
            assert len(server.server_state.connections) == 1
        assert not server.server_state.connections
        writer.close()
        await writer.wait_closed()

    asyncio.run(look())


def test_a_server_in_a_thread_is_found_in_the_tasks_of_its_loop() -> None:
    """`Server.serve` is awaited there, and its frame has the server as `self`."""
    server = quiet_server()
    found: list[object] = []

    async def look() -> None:
        async with running(server):
            found.append(detect(signal.SIG_DFL))

    asyncio.run(look())
    assert isinstance(found[0], UvicornServer)


@pytest.mark.parametrize("proxy_headers", [True, False])
def test_requests_come_by_methods_while_the_app_is_served(proxy_headers: bool) -> None:
    """From uvicorn to the middleware; before and after they are the objects that uvicorn made."""
    wrapped = GracefulMiddleware(app)
    server = Server(Config(wrapped, port=0, log_level="critical", proxy_headers=proxy_headers))
    server.config.load()
    loaded = cast("Any", server.config.loaded_app)

    async def look() -> None:
        async with running(server):
            assert server.config.loaded_app == loaded.__call__
            if proxy_headers:
                assert loaded.app == wrapped.__call__
            (listener,) = [s for each in server.servers for s in each.sockets]
            reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            await reader.readuntil(b"ok")
            writer.close()
            await writer.wait_closed()

    for _ in range(2):  # a configuration may be served again
        asyncio.run(look())
        assert server.config.loaded_app is loaded
        assert not proxy_headers or loaded.app is wrapped
        server = Server(server.config)


@pytest.mark.parametrize("proxy_headers", [True, False])
def test_a_framework_comes_by_its_method_of_the_moment(
    proxy_headers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever measures calls may replace the method of a framework's app as late as he likes."""
    calls: list[object] = []

    class Framework(Starlette):
        """What others patch."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await super().__call__(scope, receive, send)

    async def measured(self: Framework, scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["type"])
        await super(Framework, self).__call__(scope, receive, send)

    framework = Framework(middleware=[Middleware(GracefulMiddleware)])
    server = Server(Config(framework, port=0, log_level="critical", proxy_headers=proxy_headers))
    server.config.load()
    loaded = cast("Any", server.config.loaded_app)

    async def look() -> None:
        async with running(server):
            outermost = cast("Any", server.config.loaded_app)
            called = loaded.app if proxy_headers else outermost
            assert outermost is not loaded
            assert called is not framework
            (listener,) = [s for each in server.servers for s in each.sockets]
            reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            for _ in range(2):
                writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
                await reader.readuntil(b"Not Found")
                monkeypatch.setattr(Framework, "__call__", measured)
            writer.close()
            await writer.wait_closed()

    asyncio.run(look())
    assert calls == ["http"]
    assert server.config.loaded_app is loaded
    assert not proxy_headers or loaded.app is framework


def test_an_app_that_is_a_function_is_called_as_it_is() -> None:
    """There is no method to be had."""
    wrapped = GracefulMiddleware(app)

    async def function(scope: Any, receive: Any, send: Any) -> None:
        await wrapped(scope, receive, send)

    server = Server(Config(function, port=0, log_level="critical"))

    async def look() -> None:
        async with running(server):
            assert cast("Any", server.config.loaded_app).__self__.app is function

    asyncio.run(look())


def test_a_uvicorn_that_has_no_such_name_serves_all_the_same() -> None:
    """The method is only quicker."""
    server = quiet_server()
    server.config.load()
    del server.config.loaded_app
    attached = UvicornServer(server)
    attached.attach(cast("Any", None))
    attached.detach()


def test_no_server_is_found_where_none_runs() -> None:
    """Neither behind a default handler nor on a loop of somebody else's."""

    async def look() -> object:
        return detect(signal.SIG_DFL)

    assert asyncio.run(look()) is None
