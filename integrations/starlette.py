"""Starlette and FastAPI: `app.add_middleware(GracefulMiddleware, ...)`, with nothing else to do.

Starlette runs user middleware inside its ServerErrorMiddleware, which passes on what it does not
catch; the settings error of a constructor inside the lifespan call is kept and answered as
`lifespan.startup.failed` by the ASGI shell.
"""

from __future__ import annotations

try:
    from starlette.requests import HTTPConnection
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error}: pip install 'graceful-drain[starlette]'", name=error.name
    ) from error

from graceful._asgi_exchange import AsgiExchange
from graceful.asgi import GracefulMiddleware
from graceful.context import current_exchange

__all__ = ["GracefulMiddleware", "exchange_of"]


def exchange_of(connection: HTTPConnection) -> AsgiExchange:
    """Return the exchange of a request or WebSocket (`request.state.graceful`, but typed).

    Raises:
        LookupError: the app is not wrapped in GracefulMiddleware.
    """
    exchange = current_exchange()
    if not isinstance(exchange, AsgiExchange):
        raise LookupError("this app is not wrapped: app.add_middleware(GracefulMiddleware)")
    return exchange
