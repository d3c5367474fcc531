"""What people read at 3 a.m., and where it goes under each way of configuring logging."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

from graceful.core.budget import Sourced, resolve
from graceful.core.phases import Phase
from graceful.core.records import (
    BudgetShort,
    DrainReport,
    ExchangeCut,
    FarewellsSent,
    Fault,
    Notice,
    PhaseChanged,
    Record,
    Rung,
    Started,
    Straggler,
)
from graceful.observers import STDERR_HANDLER, Broadcast, LogObserver, render_plain

STACK = '  File "app.py", line 3, in slow\n    time.sleep(60)'
SLOW = Straggler("http", "GET /slow", "10.0.0.7:51", 31.23456, "draining", STACK)
HOLD = Straggler("hold", "nightly export", "", 4.0, "draining")

REPORT = DrainReport(
    cause="SIGTERM",
    clean=True,
    seconds=7.12345,
    grace_period=30.0,
    propagation_delay=5.0,
    lame_duck_seconds=5.0,
    drain_seconds=2.12345,
    in_flight_at_signal=3,
    streams_at_drain=4,
    served=9,
    late_refused=0,
    told=4,
    farewells_failed=0,
    streams_left_to_finish=0,
    last_request_after=None,
    delay_too_short=False,
    p50=0.0041,
    p99=None,
)
LAME_DUCK = PhaseChanged(Phase.SERVING, Phase.LAME_DUCK, "SIGTERM", 0.0, 3, 4, 5.0)

EVERYTHING: list[Record] = [
    Started({"grace_period": 30.0, "probe_port": None}, {"grace_period": "$X"}, "uvicorn 0.54"),
    LAME_DUCK,
    Rung(1, "SIGTERM", "unready now", 0.0),
    FarewellsSent(4, 1, 1, 5.0, 10.2),
    ExchangeCut((SLOW, HOLD), 25.0),
    BudgetShort(31.0, 20.0, 400),
    Notice("no signals here"),
    Fault("check 'database'", "TimeoutError: 1 s"),
    replace(REPORT, clean=False, cut=(SLOW,), holds=("x",), warnings=("raise it",)),
    replace(REPORT, clean=False, cut=(SLOW,), outcome="left_by_watchdog"),
]


ROOT = logging.RootLogger(logging.WARNING)
"""What stands in for the root logger, whose own handlers pytest sets and needs."""


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """Our logger as a fresh interpreter has it: nothing is configured."""
    ours = logging.getLogger("graceful")
    monkeypatch.setattr(ours, "parent", ROOT)
    ours.setLevel(logging.NOTSET)  # forgets what it has cached of its parent's level
    yield ours
    ours.handlers[:] = ROOT.handlers[:] = []
    ours.propagate, ours.disabled = True, False
    ROOT.setLevel(logging.WARNING)
    ours.setLevel(logging.NOTSET)
    logging.disable(logging.NOTSET)
    structlog.reset_defaults()


class Collector(logging.Handler):
    """A handler as a program would have one."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def collect(*records: Record) -> list[logging.LogRecord]:
    """Return the log records that a configured program receives."""
    collector = Collector()
    logger = logging.getLogger("graceful")
    logger.addHandler(collector)
    logger.setLevel(logging.DEBUG)
    for record in records:
        LogObserver()(record)
    logger.removeHandler(collector)
    return collector.records


def one(record: Record) -> logging.LogRecord:
    """Return the only log record that `record` becomes."""
    (line,) = collect(record)
    return line


# -- wording and levels ----------------------------------------------------------------------


def test_started_is_one_line_with_every_setting_and_the_sources_of_those_not_default() -> None:
    """The start-up line shows every value in force, and where the ones not default came from."""
    settings = resolve({"propagation_delay": Sourced("4", "$GRACEFUL_PROPAGATION_DELAY")})
    line = one(Started(settings.values(), settings.sources, "uvicorn 0.54"))
    message = line.getMessage()
    assert line.levelno == logging.INFO
    assert message.startswith('serving server="uvicorn 0.54" grace_period=30 propagation_delay=4 ')
    assert all(f" {name}=" in message for name in settings.values())
    assert "drain_timeout=rest" in message
    assert "probe_port=off" in message
    assert message.endswith(' sources="propagation_delay from $GRACEFUL_PROPAGATION_DELAY"')
    assert "\n" not in message


def test_started_with_defaults_only_names_no_source() -> None:
    """Nothing is said about where defaults come from."""
    settings = resolve()
    assert "sources" not in one(Started(settings.values(), settings.sources, "")).getMessage()


@pytest.mark.parametrize(
    ("old", "new", "level", "event"),
    [
        (Phase.STARTING, Phase.SERVING, logging.DEBUG, "serving"),
        (Phase.LAME_DUCK, Phase.SERVING, logging.INFO, "serving again"),
        (Phase.SERVING, Phase.LAME_DUCK, logging.INFO, "lame duck"),
        (Phase.LAME_DUCK, Phase.DRAINING, logging.INFO, "draining"),
        (Phase.DRAINING, Phase.CLOSING, logging.INFO, "closing"),
        (Phase.CLOSING, Phase.STOPPED, logging.DEBUG, "stopped"),
        (Phase.STOPPED, Phase.STARTING, logging.DEBUG, "starting"),
    ],
)
def test_phase_changes(old: Phase, new: Phase, level: int, event: str) -> None:
    """Each phase has its word; start-up and the very end are told by other records."""
    line = one(PhaseChanged(old, new, "why", 1.23456, 2, 1, None))
    assert (line.levelno, line.getMessage()) == (
        level,
        f"{event} reason=why in_flight=2 streams=1 after=1.235",
    )


def test_a_phase_says_how_long_it_may_last() -> None:
    """A bounded phase shows its bound, rounded to milliseconds."""
    assert one(replace(LAME_DUCK, lasts_up_to=4.99999)).getMessage().endswith(" up_to=5")


@pytest.mark.parametrize(
    ("record", "level", "message"),
    [
        (
            Rung(2, "SIGTERM", "the delay is skipped", 1.0),
            logging.INFO,
            'told to stop cause=SIGTERM rung=2 effect="the delay is skipped" after=1',
        ),
        (
            Rung(3, "SIGTERM", "cut", 2.0),
            logging.WARNING,
            "told to stop cause=SIGTERM rung=3 effect=cut after=2",
        ),
        (
            FarewellsSent(4, 1, 0, 5.0, 10.2),
            logging.INFO,
            "farewells sent told=4 left_to_finish=1 failed=0 window=5 after=10.2",
        ),
        (
            FarewellsSent(4, 1, 2, 5.0, 10.2),
            logging.WARNING,
            "farewells sent told=4 left_to_finish=1 failed=2 window=5 after=10.2",
        ),
        (Notice("no signals here"), logging.WARNING, "no signals here"),
        (Notice("port is taken", level="info"), logging.INFO, "port is taken"),
        (
            Fault("check 'db'", 'E: says "no"'),
            logging.WARNING,
            r'''failed what="check 'db'" error="E: says \"no\""''',
        ),
        (
            BudgetShort(31.0, 20.0, 400),
            logging.WARNING,
            'budget short p99=31 drain=20 requests=400 hint="requests here take longer '
            'than the drain allows: raise grace_period"',
        ),
    ],
)
def test_wording_and_level(record: Record, level: int, message: str) -> None:
    """Each record is one line of event and numbers; what needs somebody is a warning."""
    line = one(record)
    assert (line.levelno, line.getMessage()) == (level, message)


def test_each_straggler_is_an_error_with_its_stack_on_the_lines_that_follow() -> None:
    """What was cut is named one by one, and a stack that many share is shown once."""
    lines = collect(ExchangeCut((SLOW, replace(SLOW, name="GET /too"), HOLD), 25.0))
    assert [line.levelno for line in lines] == [logging.ERROR] * 3
    assert lines[0].getMessage() == (
        'cut what="GET /slow" kind=http client=10.0.0.7:51 age=31.235 phase=draining after=25\n'
        + STACK
    )
    assert lines[1].getMessage().endswith("after=25\n  (same stack as above)")
    assert (
        lines[2].getMessage() == 'cut what="nightly export" kind=hold age=4 phase=draining after=25'
    )


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({}, logging.INFO),
        ({"warnings": ("raise propagation_delay",)}, logging.WARNING),
        ({"clean": False, "holds": ("export",)}, logging.WARNING),
        ({"clean": False, "cut": (SLOW,)}, logging.ERROR),
        ({"clean": False, "outcome": "left_by_watchdog"}, logging.ERROR),
    ],
)
def test_the_level_of_a_drain_report_tells_how_it_went(changes: dict[str, Any], level: int) -> None:
    """Clean is info, something to correct is a warning, something cut is an error."""
    assert one(replace(REPORT, **changes)).levelno == level


def test_a_clean_drain_report_is_one_line_of_numbers() -> None:
    """The report leaves out what it does not know, and rounds the rest to milliseconds."""
    assert one(REPORT).getMessage() == (
        "drain report cause=SIGTERM clean=true exit_status=0 seconds=7.123 grace_period=30 "
        "propagation_delay=5 "
        "lame_duck_seconds=5 drain_seconds=2.123 in_flight_at_signal=3 served=9 late_refused=0 "
        "streams_at_drain=4 told=4 streams_left_to_finish=0 farewells_failed=0 p50=0.004 cut=0"
    )


def test_a_drain_report_names_what_was_cut_held_and_wrong() -> None:
    """Stragglers have been shown with their stacks already, so here their names are enough."""
    message = one(
        replace(REPORT, clean=False, cut=(SLOW, HOLD), holds=("x", "y"), warnings=("raise it",))
    ).getMessage()
    assert message.endswith(
        ' cut=2 stragglers="http GET /slow from 10.0.0.7:51, 31.2 s old; '
        'hold nightly export, 4.0 s old" holds="x; y" warnings="raise it"'
    )


def test_an_age_that_nobody_knows_is_not_made_up() -> None:
    """It is what is known for certain, and says so."""
    undated = replace(SLOW, older=True)
    assert "31.2 s old" not in one(ExchangeCut((undated,), 1.0)).getMessage()
    assert (
        " age=31.235 phase=draining older=true " in one(ExchangeCut((undated,), 1.0)).getMessage()
    )
    assert "older" not in one(ExchangeCut((SLOW,), 1.0)).getMessage()
    report = one(replace(REPORT, clean=False, cut=(undated,))).getMessage()
    assert 'stragglers="http GET /slow from 10.0.0.7:51, over 31.2 s old"' in report


def test_the_watchdogs_report_has_the_stacks() -> None:
    """The last words before a forced exit show where each straggler is at that moment."""
    message = one(replace(REPORT, clean=False, cut=(SLOW,), outcome="left_by_watchdog"))
    assert message.getMessage().endswith(
        'cut=1 outcome="the watchdog ended the process"\n'
        f"still in flight: http GET /slow from 10.0.0.7:51, 31.2 s old (draining)\n{STACK}"
    )


@pytest.mark.parametrize(
    "record",
    [
        Notice("a\nserving forged=1\x1b[2J"),
        Fault("check 'a\nb'", "E: x\r\ny"),
        replace(LAME_DUCK, reason="x\ny"),
        replace(REPORT, warnings=("x\ny",), holds=("a\nb",), cut=(replace(SLOW, name="a\nb"),)),
        Started({"readiness_path": "/a\nb"}, {"readiness_path": "x\ny"}, "s\nt"),
        ExchangeCut((replace(SLOW, name="GET /a\nb", client="c\nd", stack=""),), 1.0),
    ],
)
def test_text_from_outside_cannot_forge_a_line(record: Record) -> None:
    """Line breaks and terminal sequences in any text field are escaped."""
    for message in [one(record).getMessage(), render_plain(record).removesuffix("\n")]:
        assert message.isprintable()


def test_no_field_clashes_with_an_attribute_of_a_log_record() -> None:
    """structlog's `render_to_log_kwargs` passes fields as `extra`, which refuses such names."""
    taken = {*vars(logging.makeLogRecord({})), "message", "asctime", "level", "timestamp", "logger"}
    for line in collect(*EVERYTHING):
        assert not taken & {*line.__dict__["graceful"]}


# -- where it goes ---------------------------------------------------------------------------


def test_json_formatters_find_the_fields_as_data() -> None:
    """`extra` carries the event and its fields with their own types."""
    fields = one(LAME_DUCK).__dict__["graceful"]
    assert fields["event"] == "lame duck"
    assert fields["up_to"] == 5.0
    assert collect(ExchangeCut((SLOW,), 1.0))[0].__dict__["graceful"]["stack"] == STACK


def test_structlog_gets_events_with_keys_and_values() -> None:
    """With structlog configured, nothing goes to the standard library."""
    structlog.configure()
    with structlog.testing.capture_logs() as events:
        LogObserver()(LAME_DUCK)
        LogObserver()(ExchangeCut((SLOW,), 25.0))
    assert events[0] == {
        "event": "lame duck",
        "log_level": "info",
        "reason": "SIGTERM",
        "in_flight": 3,
        "streams": 4,
        "after": 0.0,
        "up_to": 5.0,
    }
    assert events[1]["stack"] == STACK
    assert events[1]["log_level"] == "error"


def test_structlog_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A JSON renderer can write every record, whole, on one line each."""
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    for record in EVERYTHING:
        LogObserver()(record)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == [
        "serving",
        "lame duck",
        "told to stop",
        "farewells sent",
        "cut",
        "cut",
        "budget short",
        "no signals here",
        "failed",
        "drain report",
        "drain report",
    ]


def test_structlog_on_a_terminal_shows_stacks_on_lines_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """structlog's console renderer prints a straggler's stack below its line."""
    structlog.configure(processors=[structlog.dev.ConsoleRenderer(colors=False)])
    LogObserver()(ExchangeCut((SLOW,), 25.0))
    assert capsys.readouterr().out.endswith(f"\n{STACK}\n")


@pytest.mark.parametrize(
    "wrapper", [structlog.stdlib.BoundLogger, structlog.stdlib.AsyncBoundLogger]
)
def test_structlog_over_the_standard_library(wrapper: type) -> None:
    """Every record passes structlog's bridge to logging, also where its methods are coroutines."""
    collector = Collector()
    ROOT.addHandler(collector)
    ROOT.setLevel(logging.DEBUG)
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=wrapper,
    )
    for record in EVERYTHING:
        LogObserver()(record)
    assert len(collector.records) == len(EVERYTHING) + 1  # two stragglers
    assert {record.name for record in collector.records} == {"graceful"}


def test_a_program_without_logging_gets_a_handler_on_stderr(
    capsys: pytest.CaptureFixture[str], bare: logging.Logger
) -> None:
    """Where INFO would reach no handler, as under bare uvicorn, lines go to stderr, once each."""
    bare.addHandler(quiet := logging.NullHandler())  # as polite libraries give themselves
    LogObserver()(LAME_DUCK)
    LogObserver()(Notice("careful"))
    written = capsys.readouterr().err.splitlines()
    assert [line.split("Z ", 1)[1] for line in written] == [
        "[info     ] lame duck        [graceful] reason=SIGTERM in_flight=3 streams=4 after=0.0 "
        "up_to=5.0",
        "[warning  ] careful          [graceful]",
    ]
    assert [h.get_name() for h in bare.handlers if h is not quiet] == [STDERR_HANDLER]


def test_importing_and_constructing_touch_nothing(bare: logging.Logger) -> None:
    """Nothing is configured before there is something to say."""
    Broadcast([LogObserver()])
    assert bare.handlers == []
    assert bare.level == logging.NOTSET


def test_debug_lines_need_somebody_who_asked(
    capsys: pytest.CaptureFixture[str], bare: logging.Logger
) -> None:
    """The handler of last resort is for what people must see, not for every step."""
    serving = replace(LAME_DUCK, old=Phase.STARTING, new=Phase.SERVING)
    LogObserver()(serving)
    assert capsys.readouterr().err == ""
    bare.setLevel(logging.DEBUG)
    LogObserver()(serving)
    assert "serving" in capsys.readouterr().err


def test_stderr_is_the_one_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program (or a test) that replaces sys.stderr gets the lines there."""
    first, second = io.StringIO(), io.StringIO()
    for stream in (first, second):
        monkeypatch.setattr(sys, "stderr", stream)
        LogObserver()(LAME_DUCK)
    assert first.getvalue().count("lame duck") == second.getvalue().count("lame duck") == 1


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Escape sequences go to terminals, unless NO_COLOR asks for none."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, plain = io.StringIO(), io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    for stream in (terminal, plain):
        monkeypatch.setattr(sys, "stderr", stream)
        LogObserver()(LAME_DUCK)
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b[" not in plain.getvalue()
    terminal.truncate(0)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    LogObserver()(LAME_DUCK)
    assert "\x1b[" not in terminal.getvalue()


def test_a_program_without_stderr_is_left_in_peace(
    monkeypatch: pytest.MonkeyPatch, bare: logging.Logger
) -> None:
    """A daemon may have no stderr at all."""
    monkeypatch.setattr(sys, "stderr", None)
    LogObserver()(LAME_DUCK)
    assert bare.handlers


def test_logging_configured_later_takes_over(
    capsys: pytest.CaptureFixture[str], bare: logging.Logger
) -> None:
    """Once the program has a handler of its own, ours goes and no line is doubled."""
    LogObserver()(LAME_DUCK)
    capsys.readouterr()
    collector = Collector()
    ROOT.addHandler(collector)
    LogObserver()(LAME_DUCK)
    assert capsys.readouterr().err == ""
    assert len(collector.records) == 1
    assert bare.handlers == []


def test_a_root_logger_at_its_default_level_is_no_wish_for_silence() -> None:
    """`logging.basicConfig()` leaves WARNING on the root logger; the stop is shown all the same."""
    collector = Collector()
    ROOT.addHandler(collector)
    LogObserver()(LAME_DUCK)
    assert [record.getMessage().split()[0] for record in collector.records] == ["lame"]


def silence_ours() -> None:
    """Set a level on our logger."""
    logging.getLogger("graceful").setLevel(logging.WARNING)


def silence_root() -> None:
    """Set a level on the root logger that is not the one it starts with."""
    ROOT.setLevel(logging.ERROR)


def silence_all() -> None:
    """Use logging's own big switch."""
    logging.disable(logging.INFO)


@pytest.mark.parametrize("choose", [silence_ours, silence_root, silence_all])
def test_a_level_that_somebody_chose_is_respected(
    choose: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """INFO stays away where a level was set, while errors still arrive."""
    choose()
    LogObserver()(LAME_DUCK)
    assert capsys.readouterr().err == ""
    LogObserver()(replace(REPORT, clean=False, cut=(SLOW,)))
    assert "drain report" in capsys.readouterr().err


def test_a_chosen_info_level_without_a_handler_is_heard(capsys: pytest.CaptureFixture[str]) -> None:
    """Who sets INFO on our logger and forgets the handler still sees the lines."""
    logging.getLogger("graceful").setLevel(logging.INFO)
    LogObserver()(LAME_DUCK)
    assert capsys.readouterr().err.count("lame duck") == 1


def test_a_handler_for_errors_only_doubles_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """INFO goes to stderr and the error goes to the program's handler: each line to one reader."""
    errors = Collector(logging.ERROR)
    ROOT.addHandler(errors)
    LogObserver()(LAME_DUCK)
    LogObserver()(replace(REPORT, clean=False, cut=(SLOW,)))
    assert "drain report" not in capsys.readouterr().err
    assert len(errors.records) == 1


def test_a_handler_where_nothing_propagates_to_is_no_reader(
    capsys: pytest.CaptureFixture[str], bare: logging.Logger
) -> None:
    """The walk up the loggers ends where propagation does, as logging's own does."""
    collector = Collector()
    ROOT.addHandler(collector)
    bare.propagate = False
    LogObserver()(LAME_DUCK)
    assert collector.records == []
    assert "lame duck" in capsys.readouterr().err


def test_disable_existing_loggers_does_not_silence_the_stop(bare: logging.Logger) -> None:
    """`dictConfig` disables loggers that it doesn't mention, unless told not to: an accident."""
    bare.disabled = True
    collector = Collector()
    ROOT.addHandler(collector)
    LogObserver()(LAME_DUCK)
    assert len(collector.records) == 1


def test_two_handlers_of_ours_write_once(
    capsys: pytest.CaptureFixture[str], bare: logging.Logger
) -> None:
    """Two threads that both found no handler add two; a line is still written once."""
    LogObserver()(LAME_DUCK)
    (ours,) = bare.handlers
    bare.addHandler(type(ours)())
    capsys.readouterr()
    LogObserver()(LAME_DUCK)
    assert capsys.readouterr().err.count("lame duck") == 1


def test_other_code_that_logs_to_our_logger_is_rendered_too(
    capsys: pytest.CaptureFixture[str], bare: logging.Logger
) -> None:
    """A plain log call to the logger or a child of it is shown in the same columns."""
    LogObserver()(LAME_DUCK)
    capsys.readouterr()
    bare.getChild("driver").warning("plain %s", "words")
    assert capsys.readouterr().err.endswith("[warning  ] plain words      [graceful.driver]\n")


# -- last words ------------------------------------------------------------------------------


def test_the_bare_report_is_a_line_of_numbers_and_the_stacks() -> None:
    """Past logging, the watchdog writes the same facts as text."""
    report = replace(REPORT, clean=False, cut=(SLOW, HOLD), outcome="left_by_watchdog")
    first, *rest = render_plain(report).splitlines()
    known = "graceful: drain report cause=SIGTERM clean=false exit_status=70 seconds=7.123 "
    assert first.startswith(known)
    assert rest == [
        "still in flight: http GET /slow from 10.0.0.7:51, 31.2 s old (draining)",
        *STACK.splitlines(),
        "still in flight: hold nightly export, 4.0 s old (draining)",
    ]


def test_the_bare_report_needs_no_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text is made although every way into logging is blocked."""

    def stuck(*args: object, **kwargs: object) -> None:
        raise AssertionError("logging was used")

    with monkeypatch.context() as patch:
        patch.setattr(logging, "getLogger", stuck)
        patch.setattr(logging.Logger, "handle", stuck)
        patch.setattr(structlog, "get_logger", stuck)
        texts = [render_plain(record) for record in EVERYTHING]
    assert all(text.startswith("graceful: ") for text in texts)


# -- several observers -----------------------------------------------------------------------


class Broken:
    """An observer with a bug."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, record: Record) -> None:
        self.calls += 1
        raise ValueError(f"bug {self.calls}")


def test_an_observer_that_raises_is_reported_once_and_stops_nobody() -> None:
    """The others hear every record, and once that one of them fails."""
    broken, before, after = Broken(), list[Record](), list[Record]()
    broadcast = Broadcast([before.append, broken, after.append])
    broadcast.publish(LAME_DUCK)
    broadcast.publish(REPORT)
    fault = Fault("observer Broken", "ValueError: bug 1")
    assert before == [LAME_DUCK, fault, REPORT]
    assert after == [fault, LAME_DUCK, REPORT]
    assert broken.calls == 2


def test_when_all_observers_raise_logging_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A failure that no other observer can report goes to the plain logger."""
    broadcast = Broadcast([Broken(), Broken()])
    broadcast.publish(LAME_DUCK)
    broadcast.publish(LAME_DUCK)
    assert capsys.readouterr().err == (
        'graceful: failed what="observer Broken" error="ValueError: bug 1"\n'
        'graceful: failed what="observer Broken" error="ValueError: bug 2"\n'
    )


def test_even_broken_logging_stops_nothing(bare: logging.Logger) -> None:
    """A handler that raises while a failure is reported is the end of that report, not of us."""

    class Exploding(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    bare.addHandler(Exploding())
    Broadcast([LogObserver()]).publish(LAME_DUCK)


def test_observers_come_and_go() -> None:
    """An observer hears what is published between `add` and `remove`."""
    heard: list[Record] = []
    broadcast = Broadcast()
    broadcast.publish(LAME_DUCK)
    broadcast.add(heard.append)
    broadcast.publish(REPORT)
    broadcast.remove(heard.append)
    broadcast.remove(heard.append)
    broadcast.publish(LAME_DUCK)
    assert heard == [REPORT]
