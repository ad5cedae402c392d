"""Tell what happened: one line an event, as JSON for machines or as text for a person at a terminal.

Built and called by daemon, for events and exchanges alike. The names come from telemetry.events. A line is
handed to telemetry.writer and never waits for the stream. Libraries' own warnings (asyncio, aiohttp) come out as
`library.complained`. Never raises, and never writes prompts, completions or keys: no field given to it holds any.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import msgspec
import structlog

from understudy.core.record import ExchangeRecord
from understudy.telemetry.console import console_line
from understudy.telemetry.events import EVENTS, Event, Level
from understudy.telemetry.exchange_line import bounded, describe, level_of
from understudy.telemetry.writer import LineWriter, WriterLimits

__all__ = ["EVENTS", "Event", "Level", "Log", "configure"]

_NUMBERS = {Level.DEBUG: logging.DEBUG, Level.INFO: logging.INFO, Level.WARNING: logging.WARNING, Level.ERROR: logging.ERROR}
_FIELD_CHARS_MAX = 1000
_EXCEPTION_CHARS_MAX = 8000
_LIST_ITEMS_MAX = 20
_RESERVED = frozenset({"timestamp", "level", "event"})


class UtcStamp:
    """Instants as `2026-01-31T23:59:59.123Z`; each text is made once, which leaves 0.2 µs for a call in the same millisecond."""

    __slots__ = ("_ms", "_now", "_second", "_text", "_whole")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ms = -1
        self._whole = ""
        self._second = -1
        self._text = ""

    def __call__(self) -> str:
        return self.of(self._now())

    def of(self, unix_s: float) -> str:
        """Write an instant, in seconds since the epoch; 0.0 is now."""
        now_ms = int((unix_s or self._now()) * 1000)
        if now_ms == self._ms:
            return self._whole
        self._ms = now_ms
        second = now_ms // 1000
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        self._whole = f"{self._text}.{now_ms % 1000:03d}Z"
        return self._whole


class JsonLines:
    """Fields as one JSON object a line."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder(enc_hook=str)

    def __call__(self, fields: Mapping[str, Any] | msgspec.Struct) -> bytes:
        try:
            return self._encoder.encode(fields) + b"\n"
        except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
            # Half a surrogate pair, which a client can write into a path, is no UTF-8 and must not cost the line.
            return self._encoder.encode(_encodable(fields)) + b"\n"


class ConsoleLines:
    """Fields as one line for a person."""

    def __init__(self, *, is_colored: bool) -> None:
        self._is_colored = is_colored

    def __call__(self, fields: Mapping[str, Any] | msgspec.Struct) -> bytes:
        named = msgspec.structs.asdict(fields) if isinstance(fields, msgspec.Struct) else fields
        return console_line(named, is_colored=self._is_colored).encode("utf-8", "backslashreplace")


def _encodable(fields: Mapping[str, Any] | msgspec.Struct) -> dict[str, Any]:
    named = msgspec.structs.asdict(fields) if isinstance(fields, msgspec.Struct) else fields
    plain = (bool, int, float, type(None))
    return {
        str(name): value if isinstance(value, plain) else str(value).encode("utf-8", "backslashreplace").decode()
        for name, value in named.items()
    }


class Log:
    """The daemon's log. `render` is JsonLines or ConsoleLines; `now` gives seconds since the epoch.

    Everything but the exchange line goes through structlog's processors (about 10 µs); exchanges are many and their fields
    known, so `exchange_line` encodes them directly.
    """

    def __init__(
        self,
        writer: LineWriter,
        render: JsonLines | ConsoleLines,
        level: Level = Level.INFO,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._writer = writer
        self._render = render
        self._stamp = UtcStamp(now)
        self._least = _NUMBERS[level]
        self._is_loud = {each: number >= self._least for each, number in _NUMBERS.items()}
        self._logger: Any = structlog.wrap_logger(
            _Sink(writer.write),
            processors=[structlog.processors.format_exc_info, self._arrange, self._render_event],
            wrapper_class=structlog.make_filtering_bound_logger(self._least),
            cache_logger_on_first_use=False,
        )

    @property
    def dropped_total(self) -> int:
        """Lines dropped so far because the stream could not take them."""
        return self._writer.dropped_total

    def tell(self, event: str, /, **fields: Any) -> None:
        """Write `event` at the level that telemetry.events gives it."""
        self._write(EVENTS.get(event, Level.WARNING), event, fields)  # type: ignore[call-overload]  # a StrEnum key is its str

    def info(self, event: str, /, **fields: Any) -> None:
        """Write `event` at level info."""
        self._write(Level.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """Write `event` at level warning."""
        self._write(Level.WARNING, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """Write `event` at level error; `exc_info=error` adds its traceback as field `exception`."""
        self._write(Level.ERROR, event, fields)

    def exchange_line(self, record: ExchangeRecord) -> None:
        """Write the one line of a finished exchange; about 4 µs as JSON."""
        level = level_of(record)
        if self._is_loud[level]:
            self._writer.write(self._render(describe(record, level, self._stamp.of(record.finished_unix_s))))

    def adopt_libraries(self) -> None:
        """Write what libraries log at warning and above as `library.complained`, instead of Python's own lines.

        Takes the place of any earlier log that did so.
        """
        root = logging.getLogger()
        for handler in [each for each in root.handlers if isinstance(each, _LibraryHandler)]:
            root.removeHandler(handler)
        root.addHandler(_LibraryHandler(self))

    def close(self) -> None:
        """Write what is pending, at most for 2 s, and let the libraries' logging go; later lines are dropped."""
        root = logging.getLogger()
        for handler in [each for each in root.handlers if isinstance(each, _LibraryHandler) and each.log is self]:
            root.removeHandler(handler)
        self._writer.close()

    def _write(self, level: Level, event: str, fields: Mapping[str, Any]) -> None:
        if not _RESERVED.isdisjoint(fields):
            fields = {f"{name}_" if name in _RESERVED else name: value for name, value in fields.items()}
        self._logger.log(_NUMBERS[level], str(event), **fields)

    def _arrange(self, _logger: object, level: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Put time, level and name first, and bound every text."""
        arranged: dict[str, Any] = {"timestamp": self._stamp(), "level": level, "event": event_dict.pop("event")}
        for name, value in event_dict.items():
            chars_max = _EXCEPTION_CHARS_MAX if name == "exception" else _FIELD_CHARS_MAX
            arranged[name] = _bounded(value, chars_max)
        return arranged

    def _render_event(self, _logger: object, _level: str, event_dict: MutableMapping[str, Any]) -> bytes:
        return self._render(event_dict)


def _bounded(value: object, chars_max: int) -> object:
    """Bound a text, or the texts of a list and their number."""
    if isinstance(value, str):
        return bounded(value, chars_max)
    if isinstance(value, list | tuple):
        shown = [_bounded(item, chars_max) for item in value[:_LIST_ITEMS_MAX]]
        return shown if len(value) <= _LIST_ITEMS_MAX else [*shown, f"and {len(value) - _LIST_ITEMS_MAX} more"]
    return value


class _Sink:
    """What structlog calls with a rendered line, by the name of its level."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.debug = self.info = self.warning = self.error = write


class _LibraryHandler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            said = record.getMessage()
        except (TypeError, ValueError):
            # A library that formats its own message wrongly must not fail for it.
            said = str(record.msg)
        fields: dict[str, Any] = {"library": record.name, "said": said}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        tell = self.log.error if record.levelno >= logging.ERROR else self.log.warning
        tell(Event.LIBRARY_COMPLAINED, **fields)


def configure(format: str = "auto", level: str = "info", stream_fd: int | None = 2) -> Log:  # noqa: A002  # the file's key
    """Make the daemon's log and adopt what libraries log.

    `format` is json, console or auto (console when `stream_fd` is a terminal), `level` one of `Level`. A `stream_fd` that is
    closed or None makes a log that writes nowhere. Colors only on a terminal and without NO_COLOR (no-color.org).
    """
    fd = _own_copy(stream_fd)
    is_terminal = fd is not None and os.isatty(fd)
    is_console = format == "console" or (format == "auto" and is_terminal)
    render = ConsoleLines(is_colored=is_terminal and not os.environ.get("NO_COLOR")) if is_console else JsonLines()
    stamp = UtcStamp(time.time)

    def tell_dropped(lines: int) -> bytes:
        return render({"timestamp": stamp(), "level": EVENTS[Event.LOG_DROPPED], "event": Event.LOG_DROPPED, "lines": lines})

    log = Log(LineWriter(fd, tell_dropped, WriterLimits()), render, Level(level))
    log.adopt_libraries()
    return log


def _own_copy(stream_fd: int | None) -> int | None:
    """Duplicate the stream: its number, once closed by anybody, could come back as a client's socket."""
    try:
        return None if stream_fd is None else os.dup(stream_fd)
    except OSError:
        return None
