"""The sums, the verdict and what it explains."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from graceful.rehearsal.outcomes import Outcome
from graceful.rehearsal.result import Result, explain, largest_slot_share

from .findings import CLEAN, LOSS, LOSSY, RESTART, STREAM


def test_nothing_lost_is_ok_and_says_of_how_much() -> None:
    """The line that people look for."""
    assert CLEAN.ok
    assert CLEAN.verdict == "0 requests lost of 1,234, 0 messages lost, 1 of 1 streams moved"
    assert list(explain(CLEAN)) == []


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (LOSSY, "2 requests lost of 1,202"),
        (replace(CLEAN, streams=[replace(STREAM, messages_lost=3)]), "3 messages lost"),
        (replace(CLEAN, streams=[replace(STREAM, told=False)]), "0 of 1 streams moved"),
        (replace(CLEAN, stranded=2), "2 stream clients could not reconnect"),
        (replace(CLEAN, restarts=[replace(RESTART, killed=True)]), "1 of 1 instances needed SIGK"),
        (replace(CLEAN, restarts=[replace(RESTART, failed=True)]), "1 fault not survived"),
    ],
)
def test_each_kind_of_loss_alone_is_not_ok(bad: Result, said: str) -> None:
    """Requests, messages, streams that were cut or stranded, SIGKILL, and what a fault showed."""
    assert not bad.ok
    assert said in bad.verdict


def test_a_stream_that_comes_back_to_the_same_process_has_not_moved() -> None:
    """It was told too early, but nothing is lost by it."""
    back = replace(CLEAN, streams=[replace(STREAM, moved=False)])
    assert back.ok
    assert "0 of 1 streams moved" in back.verdict


def test_a_stream_that_ends_without_a_restart_is_not_counted_as_moved() -> None:
    """An app may end its streams for reasons of its own."""
    own = replace(CLEAN, streams=[replace(STREAM, restart=None, told=False)])
    assert own.ok
    assert "streams moved" not in own.verdict


def test_a_loss_is_explained() -> None:
    """Kind, path, instance, what, and how long after SIGTERM."""
    (line,) = explain(replace(LOSSY, requests={"post": {"reset": 1}}, losses=[LOSS]))
    assert line == (
        "lost: post /echo, i1, reset (ServerDisconnectedError: Server disconnected) on a "
        "kept-alive connection, 1.25 s after the SIGTERM of restart 1"
    )


def test_equal_losses_are_one_line() -> None:
    """A hundred of them say what one says, and when it began and ended."""
    losses = [LOSS, replace(LOSS, kind="quick", fresh=True), replace(LOSS, after_sigterm=2.5)]
    (line,) = explain(replace(LOSSY, requests={"post": {"reset": 3}}, losses=losses))
    assert line == (
        "lost: 3 requests (2 post, 1 quick), i1, reset (ServerDisconnectedError: Server "
        "disconnected) on 2 kept-alive and 1 fresh connections, 1.25 to 2.50 s after the SIGTERM "
        "of restart 1"
    )


def test_a_refused_request_had_no_connection() -> None:
    """So nothing is said about one."""
    refused = replace(LOSS, outcome=Outcome.REFUSED, detail="could not connect")
    (line,) = explain(replace(LOSSY, requests={"post": {"refused": 1}}, losses=[refused]))
    assert "refused (could not connect), 1.25 s after" in line


def test_only_a_few_kinds_of_loss_are_explained_and_the_rest_is_counted() -> None:
    """A thousand lines explain less than five."""
    losses = [replace(LOSS, restart=n, detail=f"reason {n}") for n in range(9)]
    many = replace(CLEAN, requests={"post": {"reset": 12}}, losses=losses)
    lines = list(explain(many, limit=2))
    assert len(lines) == 3
    assert lines[-1] == "… and 10 more"


def test_a_loss_before_any_restart_says_so() -> None:
    """Then the app is not the one that is being tested."""
    early = replace(LOSS, restart=None, after_sigterm=None, instance=None, fresh=True)
    (line,) = explain(replace(LOSSY, requests={"post": {"reset": 1}}, losses=[early]))
    assert line.endswith("on a fresh connection, 3.00 s after the start, before any restart")


def test_streams_that_were_cut_are_explained() -> None:
    """By how they ended."""
    cut = replace(STREAM, told=False, ended="sse truncated")
    (line,) = explain(replace(CLEAN, streams=[cut, cut, STREAM]))
    assert line == "2 streams ended without being told to reconnect: sse truncated"


@pytest.mark.parametrize(
    ("farewells", "share"),
    [([], 0.0), ([5.0], 1.0), ([5.01, 5.09, 5.11, 5.31], 0.5), ([5.05, 5.15, 5.25, 5.35], 0.25)],
)
def test_the_largest_slot_tells_a_herd_from_a_trickle(farewells: list[float], share: float) -> None:
    """Slots of 100 ms, counted from SIGTERM."""
    assert largest_slot_share(farewells) == share


def test_the_whole_result_is_json() -> None:
    """With the sums that readers would otherwise repeat."""
    plain = json.loads(json.dumps(LOSSY.to_dict()))
    assert plain["ok"] is False
    assert plain["lost"] == 2
    assert plain["total"] == 1202
    assert plain["losses"][0]["outcome"] == "reset"
    assert plain["restarts"][0]["readiness_flip"] == 0.012
    assert plain["streams"][0]["ended"] == "close 1012"


def test_a_reload_must_not_show() -> None:
    """The port stays served: readiness that fails, or a worker that stays, is a finding."""
    calm = replace(RESTART, not_ready=0)
    assert replace(CLEAN, signal="SIGHUP", restarts=[calm]).ok
    flipped = replace(CLEAN, signal="SIGHUP", restarts=[replace(calm, not_ready=3), calm])
    assert not flipped.ok
    assert "3 readiness answers other than 200" in flipped.verdict
    stuck = replace(CLEAN, signal="SIGHUP", restarts=[replace(calm, left_behind=True), calm])
    assert not stuck.ok
    assert "1 of 2 reloads left an old worker behind" in stuck.verdict
    assert replace(CLEAN, restarts=[RESTART]).ok, "a restart has to be unready"


def test_what_a_fault_costs_by_its_nature_is_excused() -> None:
    """And nothing else is."""
    lost = {"requests_lost": 2, "fault": "kill-9", "excused": 2}
    lossy = replace(LOSSY, restarts=[replace(RESTART, **lost)])  # type: ignore[arg-type]
    assert lossy.ok
    assert "2 losses are what the faults cost" in lossy.verdict
    assert not replace(lossy, stranded=1).ok
    assert not replace(lossy, restarts=[replace(lossy.restarts[0], excused=1)]).ok
