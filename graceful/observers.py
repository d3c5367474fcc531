"""Who is told what happened: the observer protocol, the log, and the last words past logging.

Records come from `graceful.core.records`; this file only words them. Rules of this file
- An observer never stops anything: what it raises is reported once and forgotten.
- Event names are few and fixed, so that they can be searched for; what varies is a field.
- No field has the name of an attribute of `logging.LogRecord` (`name`, `args`, …): structlog's
  standard library bridge passes fields as `extra`, where such names are an error.
- Nothing happens at import or construction. Where a line goes is decided when it is written,
  because programs configure logging before, while or after they build their app.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, cast

import structlog
from structlog.typing import EventDict

from .core.lifecycle import plain
from .core.phases import Phase
from .core.records import (
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

__all__ = ["Broadcast", "LogObserver", "Observer", "render_plain"]

LOGGER: Final = "graceful"

STDERR_HANDLER: Final = "graceful.stderr"
"""The name by which the handler of last resort is recognised, also by those who want it gone."""


class Observer(Protocol):
    """Is told everything that happens, from whichever thread it happens in; must be quick."""

    def __call__(self, record: Record, /) -> None: ...


class Broadcast:
    """Tells several observers."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = tuple(observers)  # replaced, never changed: threads publish, too
        self._reported: tuple[Observer, ...] = ()

    def add(self, observer: Observer) -> None:
        """Tell `observer` from now on."""
        self._observers = (*self._observers, observer)

    def remove(self, observer: Observer) -> None:
        """Tell `observer` no more. Harmless when it isn't there."""
        self._observers = tuple(o for o in self._observers if o != observer)

    def publish(self, record: Record) -> None:
        """Tell every observer, whatever the others do."""
        for observer in self._observers:
            try:
                observer(record)
            except Exception as error:
                self._report(observer, error)

    def _report(self, culprit: Observer, error: Exception) -> None:
        if culprit in self._reported:
            return
        self._reported = (*self._reported, culprit)
        name = getattr(culprit, "__qualname__", type(culprit).__qualname__)
        fault = Fault(f"observer {name}", f"{type(error).__name__}: {error}")
        others = [o for o in self._observers if o not in self._reported]
        heard = [_told(other, fault) for other in others]  # all of them, not up to the first
        if not any(heard):
            with suppress(Exception):
                logging.getLogger(LOGGER).error(render_plain(fault).rstrip())


def _told(observer: Observer, record: Record) -> bool:
    try:
        observer(record)
    except Exception:
        return False
    return True


class LogObserver:
    """Writes each record as a structured log event.

    With structlog configured the events go through structlog. Otherwise they go to the standard
    library's logger `graceful`, and so wherever the program's logging sends them; where they would
    reach no handler, a handler of last resort writes them to stderr, because bare uvicorn (and
    gunicorn, and Django) drop INFO of loggers that are not their own.
    """

    __slots__ = ()

    def __call__(self, record: Record) -> None:
        write = _write_structlog if structlog.is_configured() else _write_stdlib
        for line in _lines(record):
            write(line)


def render_plain(record: Record) -> str:
    """Return `record` as text, for a bare write when logging is stuck.

    Only builds strings: no logging, no lock, no file.
    """
    return "".join(f"{LOGGER}: {_text(line)}\n" for line in _lines(record))


# -- the wording -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """One log event. `stack` is the only text in it that may have more than one line."""

    level: int
    event: str
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    stack: str = ""


def _lines(record: Record) -> Iterator[_Line]:
    match record:
        case Started():
            yield _started(record)
        case PhaseChanged():
            yield _phase_changed(record)
        case Rung():
            level = logging.WARNING if record.rung >= 3 else logging.INFO
            fields = _pick(record, "cause", "rung", "effect", "after", "flipped_in")
            yield _Line(level, "told to stop", fields)
        case FarewellsSent():
            level = logging.WARNING if record.failed else logging.INFO
            fields = _pick(record, "told", "left_to_finish", "failed", "window", "after")
            yield _Line(level, "farewells sent", fields)
        case ExchangeCut():
            yield from _cut(record)
        case BudgetShort():
            fields = _pick(record, "p99", "drain", "requests")
            hint = "requests here take longer than the drain allows: raise grace_period"
            yield _Line(logging.WARNING, "budget short", {**fields, "hint": hint})
        case Notice():
            level = logging.WARNING if record.level == "warning" else logging.INFO
            yield _Line(level, plain(record.text))
        case Fault():
            yield _Line(logging.WARNING, "failed", _pick(record, "what", "error"))
        case DrainReport():
            yield _drain_report(record)


def _started(record: Started) -> _Line:
    off = {"drain_timeout": "rest"}  # None is the rest of the grace period; elsewhere it is 'off'
    settings = {
        key: off.get(key, "off") if value is None else value
        for key, value in record.settings.items()
    }
    sources = [f"{key} from {record.sources[key]}" for key in settings if key in record.sources]
    raw = {"server": record.server or None, **settings, "sources": sources}
    return _Line(logging.INFO, "serving", _clean(raw))


_PHASE_EVENTS: Final[Mapping[Phase, tuple[int, str]]] = {
    # `Started` says that the process serves, and the drain report that it has stopped.
    Phase.STARTING: (logging.DEBUG, "starting"),
    Phase.SERVING: (logging.DEBUG, "serving"),
    Phase.LAME_DUCK: (logging.INFO, "lame duck"),
    Phase.DRAINING: (logging.INFO, "draining"),
    Phase.CLOSING: (logging.INFO, "closing"),
    Phase.STOPPED: (logging.DEBUG, "stopped"),
}


def _phase_changed(record: PhaseChanged) -> _Line:
    level, event = _PHASE_EVENTS[record.new]
    if record.new is Phase.SERVING and record.old is Phase.LAME_DUCK:
        level, event = logging.INFO, "serving again"
    fields = _pick(record, "reason", "in_flight", "streams", "after")
    if record.lasts_up_to is not None:
        fields["up_to"] = round(record.lasts_up_to, 3)
    return _Line(level, event, fields)


def _cut(record: ExchangeCut) -> Iterator[_Line]:
    seen: set[str] = set()
    for straggler in record.stragglers:
        fields = {**_about(straggler), "after": round(record.after, 3)}
        yield _Line(logging.ERROR, "cut", fields, _stack_once(straggler, seen))


def _about(straggler: Straggler) -> dict[str, Any]:
    fields = _pick(straggler, "kind", "client", "age", "phase")
    age = {"older": True} if straggler.older else {}
    return {"what": plain(straggler.name), **{k: v for k, v in fields.items() if v != ""}, **age}


def _stack_once(straggler: Straggler, seen: set[str]) -> str:
    """Return the stack, or a hint where it was shown already: a thousand streams have one."""
    stack = straggler.stack.rstrip()
    if stack in seen:
        return "  (same stack as above)"
    if stack:
        seen.add(stack)
    return stack


_REPORT_FIELDS: Final = (
    "cause",
    "clean",
    "exit_status",
    "seconds",
    "grace_period",
    "propagation_delay",
    "lame_duck_seconds",
    "drain_seconds",
    "in_flight_at_signal",
    "served",
    "late_refused",
    "last_request_after",
    "streams_at_drain",
    "told",
    "streams_left_to_finish",
    "farewells_failed",
    "p50",
    "p99",
)


def _drain_report(record: DrainReport) -> _Line:
    forced = record.outcome == "left_by_watchdog"
    fields = _pick(record, *_REPORT_FIELDS)
    fields |= _clean(
        {
            "cut": len(record.cut),
            "stragglers": [] if forced else [_named(straggler) for straggler in record.cut],
            "holds": list(record.holds),
            "warnings": list(record.warnings),
            "outcome": "the watchdog ended the process" if forced else None,
        }
    )
    # Otherwise each has been shown with its stack when it was cut.
    stacks = _straggler_block(record.cut) if forced else ""
    return _Line(_report_level(record), "drain report", fields, stacks)


def _report_level(record: DrainReport) -> int:
    if record.cut or record.outcome == "left_by_watchdog":
        return logging.ERROR
    return logging.INFO if record.clean and not record.warnings else logging.WARNING


def _named(straggler: Straggler) -> str:
    client = f" from {straggler.client}" if straggler.client else ""
    over = "over " if straggler.older else ""
    return f"{straggler.kind} {straggler.name}{client}, {over}{straggler.age:.1f} s old"


def _straggler_block(stragglers: Iterable[Straggler]) -> str:
    seen: set[str] = set()
    lines: list[str] = []
    for straggler in stragglers:
        lines.append(f"still in flight: {plain(_named(straggler))} ({straggler.phase})")
        if stack := _stack_once(straggler, seen):
            lines.append(stack)
    return "\n".join(lines)


def _pick(record: object, *names: str) -> dict[str, Any]:
    return _clean({name: getattr(record, name) for name in names})


def _clean(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields fit for any log: short floats, one-line strings, nothing that says nothing."""
    return {k: _tidy(v) for k, v in raw.items() if v is not None and v != []}


def _tidy(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list):
        return [plain(part) for part in cast("list[str]", value)]
    return value


def _text(line: _Line) -> str:
    """Return `event key=value …` (logfmt), and the stack on the lines that follow."""
    words = [line.event, *(f"{key}={_logfmt(value)}" for key, value in line.fields.items())]
    return " ".join(words) + (f"\n{line.stack}" if line.stack else "")


def _logfmt(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value).removesuffix(".0")
        case _:
            text = str(_joined(value))
    if text and not any(c in ' "=' for c in text):
        return text
    return '"' + text.replace('"', r"\"") + '"'


def _joined(value: Any) -> Any:
    return "; ".join(cast("list[str]", value)) if isinstance(value, list) else value


# -- the way to a reader ---------------------------------------------------------------------


def _write_structlog(line: _Line) -> None:
    wrapper = _sync_wrapper(structlog.get_config()["wrapper_class"])
    logger = structlog.wrap_logger(None, wrapper_class=wrapper, logger_factory_args=(LOGGER,))
    # structlog's console shows `stack` on lines of its own; JSON has it as a string.
    stack = {"stack": line.stack} if line.stack else {}
    write = getattr(logger, logging.getLevelName(line.level).lower())
    write(line.event, **line.fields, **stack)


def _sync_wrapper(wrapper: Any) -> Any:
    """Return what the program wraps its loggers in, or the twin whose methods need no loop."""
    mro: tuple[type, ...] = getattr(wrapper, "__mro__", ())
    return structlog.stdlib.BoundLogger if structlog.stdlib.AsyncBoundLogger in mro else wrapper


def _write_stdlib(line: _Line) -> None:
    logger = logging.getLogger(LOGGER)
    # Only logging's configuration sets `disabled`, and by default it does so to every logger that
    # it doesn't mention: an accident, which would make the stop silent.
    logger.disabled = False
    if not _wanted(logger, line.level):
        return
    _settle_handler(logger)
    about = {"event": line.event, **line.fields}
    if line.stack:
        about["stack"] = line.stack
    record = logger.makeRecord(
        LOGGER, line.level, __file__, 0, _text(line), (), None, extra={"graceful": about}
    )
    logger.handle(record)  # past the logger's level, which `_wanted` has judged


def _wanted(logger: logging.Logger, level: int) -> bool:
    """Whether a line of `level` is to be written.

    INFO passes unless somebody chose a level: WARNING on the root logger is what logging starts
    with, and means that nobody has.
    """
    if logger.isEnabledFor(level):
        return True
    root = logger.parent
    chosen = logger.level or (root is not None and root.level != logging.WARNING)
    return not chosen and level >= logging.INFO and logger.manager.disable < level


def _chain(logger: logging.Logger) -> Iterator[logging.Handler]:
    current: logging.Logger | None = logger
    while current is not None:
        yield from current.handlers
        current = current.parent if current.propagate else None


def _heard(logger: logging.Logger, level: int) -> bool:
    """Whether a handler of the program's own takes records of `level`."""
    return any(
        handler.level <= level
        and handler.get_name() != STDERR_HANDLER
        and not isinstance(handler, logging.NullHandler)
        for handler in _chain(logger)
    )


def _settle_handler(logger: logging.Logger) -> None:
    """Add the handler of last resort where it is needed, and remove it where it no longer is."""
    ours = [handler for handler in logger.handlers if handler.get_name() == STDERR_HANDLER]
    if not _heard(logger, logging.INFO):
        if not ours:
            logger.addHandler(_StderrHandler())
        return
    for handler in ours:
        logger.removeHandler(handler)
        handler.close()


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to whatever `sys.stderr` is at that moment, and never what another handler writes."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.set_name(STDERR_HANDLER)

    def emit(self, record: logging.LogRecord) -> None:
        logger = logging.getLogger(record.name)
        ours = (h for h in _chain(logger) if h.get_name() == STDERR_HANDLER)
        if _heard(logger, record.levelno) or next(ours, self) is not self:
            return
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return _console(colours=_has_colours(self.stream)).format(record)


def _console(*, colours: bool) -> logging.Formatter:
    render = structlog.dev.ConsoleRenderer(
        colors=colours,
        sort_keys=False,
        pad_event_to=16,
        exception_formatter=structlog.dev.plain_traceback,
    )
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return structlog.stdlib.ProcessorFormatter(processors=[_unpack, strip, render])


def _unpack(logger: object, method: str, entry: EventDict) -> EventDict:
    """Make of a log record what the console renderer shows in columns."""
    record: logging.LogRecord = entry["_record"]
    when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    about: dict[str, Any] = getattr(record, "graceful", {})
    entry.update(timestamp=when.replace("+00:00", "Z"), level=method, logger=record.name)
    entry.update({key: _joined(value) for key, value in about.items()})
    return entry


def _has_colours(stream: Any) -> bool:
    if stream is None or sys.platform == "win32" or os.environ.get("NO_COLOR"):
        return False
    return bool(stream.isatty())
