"""A FastAPI app that finishes an LLM-like token stream, and moves a feed.

Run:  uvicorn examples.fastapi_app:app
"""

import asyncio
import itertools
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

import graceful
from graceful.integrations.starlette import GracefulMiddleware, exchange_of

app = FastAPI()


async def database_answers() -> bool:
    """Stands for `SELECT 1`."""
    await asyncio.sleep(0)
    return True


async def say_goodbye() -> None:
    """Stands for flushing metrics or closing a pool."""
    await asyncio.sleep(0)


app.add_middleware(
    GracefulMiddleware,
    checks={"database": database_answers},
    farewell='{"type": "reconnect"}',
    on_cleanup=say_goodbye,
)


@app.get("/")
def home() -> dict[str, float | bool]:
    """Say how much time is left for work (sync: FastAPI runs this in a thread)."""
    return {"draining": graceful.draining()}


@app.get("/tokens")
async def tokens(request: Request) -> StreamingResponse:
    """Stream an answer that can't be resumed: a drain waits for its end."""
    exchange_of(request).finish()

    async def words() -> AsyncIterator[str]:
        for word in ("stop", "without", "losing", "a", "word"):
            yield f"data: {word}\n\n"
            await asyncio.sleep(0.2)

    return StreamingResponse(words(), media_type="text/event-stream")


@app.get("/feed")
async def feed() -> StreamingResponse:
    """Stream for ever: a drain tells the client to reconnect."""

    async def numbers() -> AsyncIterator[str]:
        for n in itertools.count(1):
            yield f"id: {n}\ndata: {n}\n\n"
            await asyncio.sleep(0.5)

    return StreamingResponse(numbers(), media_type="text/event-stream")


@app.websocket("/ws")
async def talk(websocket: WebSocket) -> None:
    """Echo until the client leaves or is told to reconnect (close code 1012)."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass
