"""The public API as a user writes it. Nothing here is run: mypy and pyright, strict, read it."""

from __future__ import annotations

from typing import assert_type

from fastapi import FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

import graceful
from graceful.asgi import GracefulMiddleware
from graceful.core.inflight import Exchange
from graceful.core.records import DrainReport, PhaseChanged, Record
from graceful.integrations import starlette as integration

# -- wrapping --------------------------------------------------------------------------------


async def raw_app(scope: Scope, receive: Receive, send: Send) -> None:
    """An app without a framework."""


async def ping_database() -> None:
    """A readiness check."""


def ping_cache() -> bool:
    """A sync check."""
    return True


async def notify() -> None:
    """A hook."""


def flush() -> None:
    """A sync hook."""


def on_record(record: Record) -> None:
    """An observer."""
    if isinstance(record, DrainReport):
        assert_type(record.exit_status, int)
    elif isinstance(record, PhaseChanged):
        assert_type(record.new, graceful.Phase)


async def farewell(exchange: Exchange) -> str | None:
    """What one WebSocket client is sent."""
    return None if exchange.policy == "finish" else "moved"


wrapped: ASGIApp = GracefulMiddleware(raw_app)
twice: ASGIApp = GracefulMiddleware(wrapped, grace_period=30, drain_timeout=None)
everything: ASGIApp = GracefulMiddleware(
    raw_app,
    checks={"database": ping_database},
    farewell=farewell,
    sse_event="moved",
    on_lame_duck=notify,
    on_drain=[notify, flush],
    on_cleanup=(flush,),
    observers=[on_record],
    grace_period=60,
    propagation_delay=7.5,
    readiness_path=None,
    readiness_mode="wrap",
    probe_port=8081,
)
GracefulMiddleware(raw_app, farewell="bye")
GracefulMiddleware(raw_app, farewell=b"bye")
GracefulMiddleware(raw_app, checks={"cache": ping_cache})
GracefulMiddleware(raw_app, grace_periode=30)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
GracefulMiddleware(raw_app, grace_period="30 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

api = FastAPI()
api.add_middleware(integration.GracefulMiddleware)
api.add_middleware(GracefulMiddleware, grace_period=30, on_cleanup=notify)
site = Starlette(middleware=[Middleware(GracefulMiddleware, propagation_delay=5)])

# -- in handlers -----------------------------------------------------------------------------


@api.get("/feed")
async def feed(request: Request) -> dict[str, float]:
    """Ask everything that a handler may ask."""
    exchange = integration.exchange_of(request)
    exchange.finish()
    assert_type(exchange.retry_after_ms, int)
    here = graceful.current_exchange()
    assert_type(here, Exchange | None)
    if here is not None:
        here.declare_stream(boundary=b"\n")
    assert_type(graceful.draining(), bool)
    await graceful.wait_draining()
    async with graceful.hold("export"):
        return {"left": graceful.remaining()}


@api.websocket("/ws")
async def socket(websocket: WebSocket) -> None:
    """A push-only WebSocket."""
    await websocket.accept()
    try:
        while not graceful.draining():
            await websocket.send_text("tick")
    except graceful.StreamClosed as error:
        assert_type(error.errno, int | None)


def in_a_thread() -> None:
    """What sync code may do."""
    with graceful.hold("import") as held:
        assert_type(held, graceful.hold)


# -- code that stops the process ---------------------------------------------------------------


def operate() -> None:
    """The lifecycle, from any thread."""
    lifecycle = graceful.current()
    assert_type(lifecycle, graceful.Lifecycle)
    assert_type(lifecycle.phase, graceful.Phase)
    assert_type(lifecycle.settings, graceful.Settings)
    lifecycle.add_hook("cleanup", notify, timeout=2)
    lifecycle.add_hook("drain", flush)
    forget = lifecycle.observe(on_record)
    forget()
    lifecycle.lame_duck()
    lifecycle.recover()
    lifecycle.terminate("deploy")
    lifecycle.terminate()
