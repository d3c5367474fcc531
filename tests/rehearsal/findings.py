"""Small findings for the tests of verdicts and tables."""

from __future__ import annotations

from dataclasses import replace

from graceful.rehearsal.outcomes import Loss, Outcome
from graceful.rehearsal.result import Restart, Result, StreamRecord

STREAM = StreamRecord(
    client=0,
    kind="websocket",
    instance="i1",
    connected_at=0.0,
    ended_at=8.0,
    ended="close 1012",
    restart=1,
    told=True,
    told_delay=0.5,
    farewell=6.0,
    reconnected_to="i2",
    moved=True,
    failed_attempts=0,
    messages=20,
    messages_lost=0,
)

LOSS = Loss(
    number=7,
    kind="post",
    path="/echo",
    outcome=Outcome.RESET,
    detail="ServerDisconnectedError: Server disconnected",
    instance="i1",
    fresh=False,
    at=3.0,
    restart=1,
    after_sigterm=1.25,
)

RESTART = Restart(
    number=1,
    roll=1,
    instance="i1",
    sigterm_at=2.0,
    readiness_flip=0.012,
    last_request=1.5,
    last_stream=6.0,
    refused=5.0,
    exit=7.5,
    exit_code=0,
    killed=False,
    left_behind=False,
    not_ready=400,
    ready=8.0,
    in_rotation=9.0,
    requests_lost=0,
    streams_told=1,
    streams_cut=0,
    streams_moved=1,
    messages_lost=0,
    first_farewell=6.0,
    last_farewell=6.0,
    largest_slot_share=1.0,
)

CLEAN = Result(
    command="uvicorn app:app",
    balancer="internal",
    signal="SIGTERM",
    seconds=20.0,
    requests={"quick": {"ok": 1200}, "post": {"ok": 34}},
    latency={"quick": {"p50": 0.001, "p99": 0.01, "max": 1.5}},
    lateness_p99=0.002,
    losses=[],
    restarts=[RESTART],
    streams=[STREAM],
    stranded=0,
)

LOSSY = replace(CLEAN, requests={"quick": {"ok": 1200}, "post": {"reset": 2}}, losses=[LOSS, LOSS])
