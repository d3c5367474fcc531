"""Small apps, bare and wrapped as README has it, for the throughput benchmark."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from graceful.integrations.starlette import GracefulMiddleware


async def hello(request: Request) -> Response:
    """Answer at once: the worst case for whatever stands in front."""
    return PlainTextResponse("hello\n")


class Item(BaseModel):
    """What an API answers."""

    number: int
    name: str
    tags: list[str]
    price: float


def api() -> FastAPI:
    """Return an API with one typed route: a parameter is parsed and the answer validated."""
    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int, q: str = "") -> Item:
        return Item(number=number, name=q, tags=["a", "b"], price=1.5)

    return app


ROUTES = [Route("/", hello)]

bare = Starlette(routes=ROUTES)
wrapped = Starlette(routes=ROUTES, middleware=[Middleware(GracefulMiddleware)])
outermost = GracefulMiddleware(Starlette(routes=ROUTES))

bare_api, wrapped_api = api(), api()
wrapped_api.add_middleware(GracefulMiddleware)
