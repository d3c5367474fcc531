"""What a farewell says on the wire, and where a byte stream may be ended with one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graceful.core.budget import SettingsError
from graceful.core.farewell import (
    SERVICE_RESTART,
    EventBoundary,
    can_inject,
    checked_event_name,
    close_reason,
    event_stream,
    sse_farewell,
)


def test_the_close_code_is_service_restart() -> None:
    """1012 of the IANA registry: clients may reconnect."""
    assert SERVICE_RESTART == 1012


def test_a_close_reason_is_json_and_fits_into_a_control_frame() -> None:
    """RFC 6455 allows 123 bytes; a client reads the delay without guessing."""
    assert close_reason(750) == '{"retry_after_ms":750}'
    assert len(close_reason(10**18).encode()) <= 123


def test_an_sse_farewell_sets_the_delay_and_dispatches_an_event() -> None:
    """`retry:` for the browser's own delay, then a named event with data, then its end."""
    assert sse_farewell("reconnect", 750) == (
        b'retry: 750\nevent: reconnect\ndata: {"retry_after_ms":750}\n\n'
    )


@pytest.mark.parametrize("name", ["reconnect", "a b", "grüße"])
def test_an_event_name_is_taken_as_it_is(name: str) -> None:
    """Whatever can stand on one line."""
    assert checked_event_name(name) == name


@pytest.mark.parametrize("name", ["", None, 5, "a\nb", "a\rdata: forged", "a\x00", "\u2028"])
def test_an_event_name_cannot_start_another_field(name: object) -> None:
    """Line breaks and other control characters are refused, with the value and the fix."""
    with pytest.raises(SettingsError) as caught:
        checked_event_name(name)
    assert str(caught.value) == (
        f"sse_event = {name!r}: give a name without line breaks, such as 'reconnect'"
    )


@pytest.mark.parametrize(
    ("headers", "is_one"),
    [
        ([], False),
        ([(b"content-type", b"text/event-stream")], True),
        ([(b"x", b"y"), (b"content-type", b"text/event-stream; charset=utf-8")], True),
        ([(b"content-type", b"Text/Event-Stream")], True),
        ([(b"Content-Type", b"text/event-stream")], True),  # Django's, whatever ASGI says
        ([(b"content-type", b"application/json")], False),
        ([(b"accept", b"text/event-stream")], False),
    ],
)
def test_an_event_stream_is_known_by_its_content_type(
    headers: list[tuple[bytes, bytes]], is_one: bool
) -> None:
    """Media types have no case, and may carry parameters."""
    assert event_stream(headers) is is_one


@pytest.mark.parametrize(
    ("headers", "can"),
    [
        ([], True),
        ([(b"content-type", b"text/event-stream")], True),
        ([(b"content-encoding", b"Identity")], True),
        ([(b"content-encoding", b"gzip")], False),
        ([(b"content-length", b"100")], False),
        ([(b"Content-Length", b"100")], False),
        ([(b"Content-Encoding", b"gzip")], False),
    ],
)
def test_nothing_is_added_to_a_body_that_is_encoded_or_measured(
    headers: list[tuple[bytes, bytes]], can: bool
) -> None:
    """Plain bytes inside gzip, or beyond the length, would break the response."""
    assert can_inject(headers) is can


def boundary_after(*chunks: bytes, end: bytes | None = None) -> bool:
    boundary = EventBoundary(end)
    for chunk in chunks:
        boundary.feed(chunk)
    return boundary.clean


@pytest.mark.parametrize("eol", [b"\n", b"\r", b"\r\n"])
def test_a_blank_line_ends_an_event(eol: bytes) -> None:
    """In each of the three ways to end a line, and not before the blank one."""
    assert not boundary_after(b"data: 1")
    assert not boundary_after(b"data: 1" + eol)
    assert boundary_after(b"data: 1" + eol + eol)
    assert not boundary_after(b"data: 1" + eol + eol + b"data: 2" + eol)


def test_a_stream_that_has_sent_nothing_is_at_a_boundary() -> None:
    """Only headers, or empty chunks: it can be ended now."""
    assert boundary_after()
    assert boundary_after(b"", b"")
    assert boundary_after(b": ping\n\n", b"")
    assert not boundary_after(b"data: 1\n", b"")


def test_a_carriage_return_and_a_line_feed_are_one_end_of_line() -> None:
    """Split over two chunks they are still no blank line."""
    assert not boundary_after(b"data: 1\r", b"\n")
    assert boundary_after(b"data: 1\r", b"\n", b"\r", b"\n")


def test_another_protocol_states_its_own_end() -> None:
    """A line of NDJSON, for a stream that declares itself."""
    assert boundary_after(b'{"a": 1}\n', end=b"\n")
    assert not boundary_after(b'{"a": ', end=b"\n")
    assert boundary_after(b"x--", b"--", end=b"----")


eols = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(st.tuples(st.sampled_from([b"", b"data: 1", b":"]), eols)), st.data())
def test_chunks_do_not_matter(lines: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    """However a body is cut into chunks, the answer is that of the whole body."""
    body = b"".join(text + eol for text, eol in lines)
    whole = boundary_after(body)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    starts, ends = [0, *cuts], [*cuts, len(body)]
    chunks = [body[a:b] for a, b in zip(starts, ends, strict=True)]
    assert boundary_after(*chunks) is whole


@given(st.lists(st.tuples(st.sampled_from([b"data: 1", b":"]), eols), min_size=1), eols)
def test_a_boundary_is_where_a_parser_dispatches(
    lines: list[tuple[bytes, bytes]], eol: bytes
) -> None:
    """Text lines alone are never one; a blank line after them is."""
    body = b"".join(text + end for text, end in lines)
    assert not boundary_after(body)
    last = lines[-1][1]
    if (last, eol) != (b"\r", b"\n"):  # together they are one CRLF
        assert boundary_after(body + eol)


def test_a_close_reason_can_be_read_back() -> None:
    """Clients parse it as JSON."""
    assert json.loads(close_reason(1000)) == {"retry_after_ms": 1000}
