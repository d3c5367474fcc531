"""Reading server-sent events."""

from __future__ import annotations

import pytest

from graceful.rehearsal.eventstream import Event, EventReader

STREAM = b'id: 1\ndata: {"n": 1}\n\n: ping\n\nretry: 250\nevent: reconnect\ndata: a\ndata:b\n\n'
EVENTS = [Event("message", '{"n": 1}', None), Event("reconnect", "a\nb", 250)]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_events_are_whole_however_the_bytes_are_cut(size: int, end: bytes) -> None:
    """Comments are no events; several data lines are one text."""
    stream = STREAM.replace(b"\n", end)
    reader = EventReader()
    chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert [event for chunk in chunks for event in reader.feed(chunk)] == EVENTS
    assert reader.at_boundary


@pytest.mark.parametrize("rest", [b"data: half", b"data: one line\n", b"event: x\ndata: y\n"])
def test_an_event_without_its_blank_line_is_unfinished(rest: bytes) -> None:
    """A stream that ends there was cut inside an event."""
    reader = EventReader()
    assert list(reader.feed(b"data: 1\n\n" + rest)) == [Event("message", "1", None)]
    assert not reader.at_boundary


def test_a_retry_that_is_no_number_is_ignored() -> None:
    """As the standard says."""
    assert list(EventReader().feed(b"retry: soon\n\n")) == [Event("message", "", None)]
