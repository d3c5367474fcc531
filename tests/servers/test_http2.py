"""uvicorn and gunicorn on HTTP/2: what a stop looks like to clients that keep one connection.

hypercorn and granian, which speak it otherwise, are in test files of their own.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import importlib.util
import ssl
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from graceful.integrations import uvicorn_http2

from .contract import APP as ASGI_APP
from .harness import ASKED, Launcher, ServerProcess, launch, settings, until
from .http2 import ANY_STREAM, Answer, Http2Client, http2
from .launchers import UVICORN, UVICORN_WORKERS, gunicorn
from .wsgi_contract import APP as WSGI_APP

LACKING_APP = "tests.servers.http2_lacking_app:app"

KEEPALIVE = "60"
"""Seconds that a server keeps an idle connection: far longer than any stop may take."""

UVICORN_HTTP2 = Launcher(
    name="uvicorn",
    command=(
        *("uvicorn", "{app}", "--port", "0", "--no-access-log", "--http", "zttp", "--http2"),
        *("--timeout-keep-alive", KEEPALIVE),
    ),
    announces=UVICORN.announces,
)

UVICORN_WORKERS_HTTP2 = replace(
    UVICORN_WORKERS, command=(*UVICORN_HTTP2.command, "--workers", "2"), noise=""
)

HTTP2 = ("--http-protocols", "h2,h1", "--keep-alive", KEEPALIVE)
CLEARTEXT = ("--http2-cleartext", "prior-knowledge", "--forwarded-allow-ips", "127.0.0.1")
GTHREAD = ("-k", "gthread", "--threads", "8")

CLEAR = {
    "uvicorn": (UVICORN_HTTP2, ASGI_APP),
    "uvicorn-workers": (UVICORN_WORKERS_HTTP2, ASGI_APP),
    "asgi": (gunicorn("asgi", "-k", "asgi", *HTTP2, *CLEARTEXT), ASGI_APP),
    "gthread": (gunicorn("gthread", *GTHREAD, *HTTP2, *CLEARTEXT), WSGI_APP),
    "gevent": (gunicorn("gevent", "-k", "gevent", *HTTP2, *CLEARTEXT), WSGI_APP),
}

OVER_TLS = {
    "asgi-tls": (gunicorn("asgi", "-k", "asgi", *HTTP2), ASGI_APP),
    "gthread-tls": (gunicorn("gthread", *GTHREAD, *HTTP2), WSGI_APP),
    "gevent-tls": (gunicorn("gevent", "-k", "gevent", *HTTP2), WSGI_APP),
}

needs_zttp = pytest.mark.skipif(
    importlib.util.find_spec("zttp") is None, reason="zttp is not installed for this Python"
)
NAMES = [
    pytest.param(name, marks=needs_zttp if name.startswith("uvicorn") else ())
    for name in (*CLEAR, *OVER_TLS)
]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate that nobody has signed, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


def trusting() -> ssl.SSLContext:
    """A client's side of TLS that asks for HTTP/2 and for nobody's name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


@dataclass
class Stop:
    """What was seen."""

    busy: Http2Client
    """Has a response under way when the drain begins."""
    idle: Http2Client
    """Asks now and then, and once more when it has been told to go."""
    silent: Http2Client
    """Never asks anything."""
    in_flight: Answer
    answers: Mapping[str, Answer]
    early: list[tuple[int, int]]
    """GOAWAYs that came in the lame duck."""
    status: int
    server: ServerProcess


@pytest.fixture(scope="module", params=NAMES)
def stop(request: pytest.FixtureRequest, certificate: Path) -> Generator[Stop]:
    """One stop of one server, watched on three connections."""
    tls = trusting() if request.param in OVER_TLS else None
    launcher, app = (CLEAR | OVER_TLS)[request.param]
    arguments = ("--certfile", str(certificate), "--keyfile", str(certificate)) if tls else ()
    if tls:
        announces = launcher.announces.replace("http:", "https:")
        launcher = replace(launcher, announces=announces)
    env = ASKED | settings(linger=1.5)
    with (
        launch(launcher, app, *arguments, env=env) as server,
        contextlib.ExitStack() as exits,
    ):
        busy, idle, silent = (exits.enter_context(http2(server.port, tls)) for _ in range(3))
        in_flight = busy.answers[busy.ask("/trickle")]
        while not in_flight.body:
            busy.read()
        before = idle.get("/")
        server.terminate()
        server.log.wait_event("lame duck")
        until(lambda: idle.get("/readyz").status == 503)  # each worker hears in its own time
        unready, lame_duck = idle.answers[max(idle.answers)], idle.get("/")
        behind = busy.ask("/")
        early = [*idle.goaways]
        idle.read_goaway()
        late = idle.get("/")
        drain = busy.get("/")
        for client in (busy, idle, silent):
            client.read_to_end()
        answers = {
            "before": before,
            "unready": unready,
            "lame duck": lame_duck,
            "behind the one in flight": busy.answers[behind],
            "drain, on a busy connection": drain,
            "drain, on an idle connection": late,
        }
        status = server.wait()
        yield Stop(busy, idle, silent, in_flight, answers, early, status, server)


def test_no_answer_speaks_of_the_connection(stop: Stop) -> None:
    """HTTP/2 forbids the header, in every phase."""
    for answer in (stop.in_flight, *stop.answers.values()):
        assert answer.ended
        assert "connection" not in answer.headers


def test_what_is_in_flight_finishes(stop: Stop) -> None:
    """Whole, with its last part in the drain."""
    assert (stop.in_flight.status, stop.in_flight.body) == (200, b"first\nlast\n")


def test_new_streams_are_served(stop: Stop) -> None:
    """In the lame duck, in the drain, and by who has been told to go already."""
    statuses = {when: answer.status for when, answer in stop.answers.items()}
    assert statuses == dict.fromkeys(stop.answers, 200) | {"unready": 503}


def test_connections_are_told_in_the_drain(stop: Stop) -> None:
    """Any stream may still come; and at the end which was the last one that was served."""
    assert stop.early == []
    assert stop.idle.goaways == [(ANY_STREAM, 0), (max(stop.idle.answers), 0)]
    assert stop.silent.goaways == [(ANY_STREAM, 0), (0, 0)]
    assert stop.busy.goaways == [(ANY_STREAM, 0), (max(stop.busy.answers), 0)]


def test_who_waits_for_an_answer_is_told_behind_it(stop: Stop) -> None:
    """Clients built on the `h2` package give up what is in flight on a GOAWAY."""
    (first, *_) = stop.busy.answers
    assert first in stop.busy.ended[0]


def test_a_stream_that_begins_in_the_drain_is_told_behind_it_too() -> None:
    """It is under way when the worker stops accepting, which is when connections are told."""
    launcher, app = CLEAR["asgi"]
    env = settings(propagation_delay=0.3, linger=1.5)
    with (
        launch(launcher, app, env=env) as server,
        http2(server.port) as old,
        http2(server.port) as new,
    ):
        assert new.get("/").status == 200
        before = old.answers[old.ask("/trickle")]
        while not before.body:
            old.read()
        server.terminate()
        server.log.wait_event("draining")
        begun = new.ask("/trickle")
        while not new.answers[begun].body:
            new.read()
        old.read_to_end()
        new.read_to_end()
        assert new.answers[begun].body == b"first\nlast\n"
        assert new.goaways == [(ANY_STREAM, 0), (begun, 0)]
        assert begun in new.ended[0]
        assert server.wait() == 0


def test_idle_connections_do_not_hold_the_process(stop: Stop) -> None:
    """All of them are open until the end, which is a clean one."""
    report = stop.server.log.report()
    assert (stop.status, report["clean"], report["exit_status"]) == (0, "True", "0")
    _, _, stopping = stop.server.log.text.partition("told to stop")  # a look at the port is no TLS
    assert "Traceback" not in stopping, stopping


@pytest.mark.parametrize("name", ["asgi", "gthread", "gevent"])
def test_connections_that_began_with_http1_are_told_too(name: str) -> None:
    """gunicorn serves them in another way; uvicorn has no `Upgrade: h2c`."""
    launcher, app = CLEAR[name]
    upgrade = ("--http2-cleartext", "upgrade")
    env = settings(propagation_delay=0.3, linger=0.5)
    with (
        launch(launcher, app, *upgrade, env=env) as server,
        http2(server.port, upgrade=True) as client,
    ):
        assert client.answer(1).status == 200
        server.terminate()
        client.read_to_end()
        assert client.goaways == [(ANY_STREAM, 0), (1, 0)]
        assert server.wait() == 0


@pytest.mark.parametrize("name", NAMES[: len(CLEAR)])
def test_a_stream_that_never_ends_is_cut(name: str) -> None:
    """At the drain deadline, with a report that says so, and the process ends by itself."""
    launcher, app = CLEAR[name]
    env = settings(propagation_delay=0.3, drain_timeout=1, cleanup_timeout=1, grace_period=6)
    with launch(launcher, app, env=env) as server, http2(server.port) as client:
        stuck = client.answers[client.ask("/stuck")]
        assert app != WSGI_APP or server.log.wait_mark("stuck")
        client_speaks(client, app)
        server.terminate()
        client.read_to_end()
        status = server.wait()
        assert not (stuck.ended and stuck.status == 200)
        reports = [line.fields for line in server.log.lines if line.event == "drain report"]
        assert ("False", "70") in [(each["clean"], each["exit_status"]) for each in reports]
        assert status == (70 if launcher.own_exit_status else 0)


def client_speaks(client: Http2Client, app: str) -> None:
    """Know that the server has the stuck stream, where it serves others beside it."""
    if app == ASGI_APP:
        assert client.get("/").status == 200


def test_connections_that_are_made_otherwise() -> None:
    """Each worker says so, and they end as gunicorn ends them: here at their keep-alive."""
    launcher = gunicorn("gthread", *GTHREAD, *HTTP2, "--keep-alive", "1", *CLEARTEXT)
    env = settings(propagation_delay=0.3, linger=0.2)
    with launch(launcher, LACKING_APP, env=env) as server, http2(server.port) as client:
        server.log.wait("are not told to go: this gunicorn's have no _deferred_events", count=2)
        assert client.get("/").status == 200
        server.terminate()
        client.read_to_end()
        assert all(last != ANY_STREAM for last, _ in client.goaways)
        assert server.wait() == 0
        assert server.log.text.count("are not told to go") == 2


@needs_zttp
def test_a_uvicorn_whose_connections_lack_a_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A line says what is lost, and nothing is written to anybody."""
    protocol: Any = importlib.import_module("uvicorn.protocols.http.zttp_h2_impl").ZttpH2Protocol
    monkeypatch.setattr(uvicorn_http2, "NAMES", (*uvicorn_http2.NAMES, "not_there"))
    with caplog.at_level("WARNING", "uvicorn.error"):
        uvicorn_http2.tell_connections([object.__new__(protocol)])
    assert "are not told to go: this uvicorn's have no" in caplog.text
    assert "not_there" in caplog.text
