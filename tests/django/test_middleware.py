"""What holds for both sides: settings that are wrong, Django's async test client, the handle."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.test import AsyncClient, Client, override_settings

from graceful.core.budget import Settings
from graceful.integrations.django import GracefulMiddleware
from graceful.lifecycle import Lifecycle


def client() -> Any:
    """Return Django's test client, whose answers have types of many kinds."""
    return Client()


def async_client() -> Any:
    """The same for the async path."""
    return AsyncClient()


def test_each_path_is_served_without_a_hop() -> None:
    """Django asks the class what it can do, and the instance what it is."""

    async def get_response(request: object) -> None: ...

    assert GracefulMiddleware.sync_capable
    assert GracefulMiddleware.async_capable
    assert iscoroutinefunction(GracefulMiddleware(get_response))  # pyright: ignore[reportDeprecated]
    other = GracefulMiddleware(print)
    assert not iscoroutinefunction(other)  # pyright: ignore[reportDeprecated]


def test_a_subclass_stays_an_object() -> None:
    """It may have what Django looks for on each middleware, such as `process_view`."""

    class Subclass(GracefulMiddleware):
        def process_view(self, *_: object) -> None: ...

    async def get_response(request: object) -> None: ...

    assert isinstance(Subclass(print), Subclass)
    assert not iscoroutinefunction(Subclass(print))  # pyright: ignore[reportDeprecated]
    assert iscoroutinefunction(Subclass(get_response))  # pyright: ignore[reportDeprecated]


def test_the_async_test_client(lifecycle: Lifecycle) -> None:
    """On as many loops as there are tests, one after the other."""

    async def story() -> None:
        browser = async_client()
        assert (await browser.get("/readyz")).status_code == 200
        assert (await browser.get("/quick")).content == b"1"
        reply = await browser.get("/events")
        parts = aiter(reply.streaming_content)
        assert await anext(parts) == b"data: 1\n\n"
        assert len(lifecycle.tracker) == 1
        reply.close()
        assert len(lifecycle.tracker) == 0
        await parts.aclose()

    for _ in range(2):
        asyncio.run(story())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"propagation_delay": 50}, b"propagation_delay 50 s (from settings.GRACEFUL) leaves"),
        ({"propagation": 5}, b"unknown setting 'propagation' (from settings.GRACEFUL); did you"),
        ({"on_drain": 5}, b"on_drain = 5: give a callable"),
    ],
)
def test_settings_that_are_wrong_are_the_answer(
    lifecycle: Lifecycle, caplog: pytest.LogCaptureFixture, given: dict[str, Any], said: bytes
) -> None:
    """On both paths, and in the log, once."""
    caplog.set_level(logging.WARNING)
    with override_settings(GRACEFUL=given):
        replies = [client().get("/readyz"), client().get("/quick-sync")]

        async def story() -> None:
            replies.append(await async_client().get("/readyz"))
            replies.append(await async_client().get("/quick"))

        asyncio.run(story())
    for reply in replies:
        assert reply.status_code == 503
        assert reply.content.startswith(said)
    (line,) = [r.getMessage() for r in caplog.records if "no request is served" in r.getMessage()]
    assert said.decode() in line


def test_settings_of_the_server_are_added_to(lifecycle: Lifecycle) -> None:
    """Those of gunicorn's `install()`: probes are the app's own, the timeline is the server's."""
    lifecycle.defaults = Settings(grace_period=60.0, sources={"grace_period": "install()"})
    with override_settings(GRACEFUL={"readiness_path": "/up", "stream_window": 5}):
        assert client().get("/up").status_code == 200
    assert lifecycle.settings.grace_period == 60
    assert lifecycle.settings.source("grace_period") == "install()"
    with override_settings(GRACEFUL={"propagation_delay": 20}):
        reply = client().get("/readyz")
    assert reply.status_code == 503
    assert b"comes too late for the server, whose own stop keeps to 5.0" in reply.content
    assert b"as $GRACEFUL_PROPAGATION_DELAY" in reply.content
    with override_settings(GRACEFUL={"grace_period": 20}):
        reply = client().get("/readyz")
    assert reply.status_code == 503
    assert b"60.0 in install() and 20 in settings.GRACEFUL" in reply.content
