"""How answers and exceptions are named."""

from __future__ import annotations

import errno

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from graceful.rehearsal.outcomes import Outcome, is_our_own, of_answer, of_error

KEY = ConnectionKey("127.0.0.1", 80, False, True, None, None, None)


def unconnected(number: int) -> aiohttp.ClientConnectorError:
    """What aiohttp raises where no connection came about."""
    return aiohttp.ClientConnectorError(KEY, OSError(number, "reason"))


@pytest.mark.parametrize(
    ("status", "whole", "times_seen", "outcome"),
    [
        (200, True, None, Outcome.OK),
        (200, True, "1", Outcome.OK),
        (200, True, "once", Outcome.OK),
        (200, True, "2", Outcome.REPEATED),
        (200, False, None, Outcome.TRUNCATED),
        (503, True, None, Outcome.STATUS),
        (503, False, "2", Outcome.STATUS),
        (304, True, None, Outcome.STATUS),
    ],
)
def test_only_a_whole_200_that_ran_once_is_ok(
    status: int, whole: bool, times_seen: str | None, outcome: Outcome
) -> None:
    """A 503 is lost, however politely it is said."""
    assert of_answer(status, whole=whole, times_seen=times_seen)[0] is outcome


@pytest.mark.parametrize(
    ("error", "answered", "outcome"),
    [
        (unconnected(errno.ECONNREFUSED), False, Outcome.REFUSED),
        (unconnected(errno.ECONNRESET), False, Outcome.RESET),
        (aiohttp.ServerDisconnectedError(), False, Outcome.RESET),
        (aiohttp.ClientOSError(errno.EPIPE, "Broken pipe"), False, Outcome.RESET),
        (aiohttp.ClientPayloadError("incomplete"), True, Outcome.TRUNCATED),
        (aiohttp.ClientOSError(errno.ECONNRESET, "reset"), True, Outcome.TRUNCATED),
        (TimeoutError(), False, Outcome.TIMED_OUT),
        (aiohttp.ServerTimeoutError(), True, Outcome.TIMED_OUT),
    ],
)
def test_exceptions_are_told_apart_by_what_had_happened(
    error: Exception, answered: bool, outcome: Outcome
) -> None:
    """Refused before a connection, reset before an answer, truncated within one."""
    named, detail = of_error(error, answered=answered)
    assert named is outcome
    assert detail


def test_a_client_that_has_run_out_of_something_is_not_the_app_s_loss() -> None:
    assert is_our_own(OSError(errno.EMFILE, "Too many open files"))
    assert not is_our_own(ConnectionResetError(errno.ECONNRESET, "Connection reset"))
    assert not is_our_own(TimeoutError())
