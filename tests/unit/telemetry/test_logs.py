"""Events and exchanges come out as lines: the right level, the right fields, and never an exception."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.records import attempt, exchange
from understudy.errors import FailureKind
from understudy.telemetry.logs import Event, Log, UtcStamp, configure


class Stage:
    """A log that writes to a file, and what stands in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        self.log = configure("json", "info", self._fd)

    def configured(self, format_: str = "json", level: str = "info") -> Log:
        self.log.close()
        self.log = configure(format_, level, self._fd)
        return self.log

    def text(self) -> str:
        """End the log and return everything it wrote."""
        self.log.close()
        return self._path.read_text(encoding="utf-8")

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def end(self) -> None:
        self.log.close()
        os.close(self._fd)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "log")
    yield made
    made.end()


def test_an_event_has_time_level_and_name_first(stage: Stage) -> None:
    stage.log.tell(Event.BACKEND_WENT_DOWN, backend="pi", reason="refused the connection")
    (line,) = stage.lines()
    assert list(line) == ["timestamp", "level", "event", "backend", "reason"]
    assert (line["level"], line["event"], line["backend"]) == ("warning", "backend.went_down", "pi")


def test_the_list_gives_the_level(stage: Stage) -> None:
    stage.log.tell("config.refused", mistakes=["a", "b"])
    stage.log.tell("backend.went_up", backend="pi")
    assert [line["level"] for line in stage.lines()] == ["error", "info"]


def test_less_than_the_level_is_not_written(stage: Stage) -> None:
    log = stage.configured(level="warning")
    log.tell(Event.BACKEND_WENT_UP, backend="pi")
    log.exchange_line(exchange(attempt("pi")))
    log.exchange_line(exchange(attempt("pi", FailureKind.REFUSED), attempt("laptop")))
    log.error(Event.CONFIG_REFUSED)
    assert [line["event"] for line in stage.lines()] == ["exchange.finished", "config.refused"]


def test_an_exchange_is_one_line(stage: Stage) -> None:
    stage.log.exchange_line(exchange(attempt("pi")))
    (line,) = stage.lines()
    assert (line["event"], line["level"], line["backend"], line["status"]) == ("exchange.finished", "info", "pi", 200)


def test_an_exchange_reads_well_on_a_console(stage: Stage) -> None:
    stage.configured("console").exchange_line(exchange(attempt("pi", FailureKind.BUSY), attempt("laptop")))
    assert "warning exchange.finished  request_id=request-1" in stage.text()


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_hostile_model_name_stays_on_its_line(stage: Stage, format_: str) -> None:
    log = stage.configured(format_)
    log.exchange_line(exchange(attempt("pi"), model="a\n\x1b[2J\r{}", path="/\udcff\ud800"))
    log.tell(Event.BACKEND_WENT_DOWN, backend="pi", reason="\udcff\nx")
    text = stage.text()
    assert text.count("\n") == 2
    assert "\x1b" not in text


def test_long_texts_and_lists_are_cut(stage: Stage) -> None:
    stage.log.tell(Event.CONFIG_REFUSED, mistakes=["m" * 5000] * 500, reason="r" * 5000)
    (line,) = stage.lines()
    assert len(line["reason"]) == 1000
    assert len(line["mistakes"]) == 21
    assert line["mistakes"][-1] == "and 480 more"


def test_fields_named_like_ours_do_not_replace_them(stage: Stage) -> None:
    stage.log.tell(Event.BACKEND_WENT_UP, level="high", event="party")
    (line,) = stage.lines()
    assert (line["level"], line["level_"], line["event_"]) == ("info", "high", "party")


def test_values_of_any_kind_are_written(stage: Stage) -> None:
    stage.log.tell(Event.DAEMON_STARTED, source=Path("/etc/x"), odd=object, keys={1: 2}, number=float("nan"))
    (line,) = stage.lines()
    assert line["source"] == "/etc/x"


def test_an_error_brings_its_traceback(stage: Stage) -> None:
    stage.log.error(Event.EXCHANGE_FAILED_INTERNALLY, request_id="r", exc_info=ValueError("a bug"))
    (line,) = stage.lines()
    assert line["exception"].endswith("ValueError: a bug")
    assert "exc_info" not in line


def test_a_library_that_warns_is_told(stage: Stage) -> None:
    logging.getLogger("asyncio").warning("socket.send() raised %s", "twice")
    logging.getLogger("httpx").info("not worth a line")
    (line,) = stage.lines()
    assert (line["event"], line["level"], line["library"]) == ("library.complained", "warning", "asyncio")
    assert line["said"] == "socket.send() raised twice"


def test_a_log_that_was_never_closed_keeps_no_later_one_from_the_libraries(stage: Stage) -> None:
    logging.getLogger("asyncio").warning("for the newest")
    later = stage.configured()
    later.adopt_libraries()
    logging.getLogger("asyncio").warning("for the later one")
    assert [line["said"] for line in stage.lines()] == ["for the newest", "for the later one"]
    later.close()
    assert not [each for each in logging.getLogger().handlers if type(each).__module__ == Log.__module__]


def test_a_library_that_formats_its_message_wrongly_is_told_all_the_same(stage: Stage) -> None:
    (handler,) = [each for each in logging.getLogger().handlers if type(each).__module__ == Log.__module__]
    handler.handle(logging.LogRecord("aiohttp", logging.ERROR, "x.py", 1, "%d of %s", ("x",), None))
    (line,) = stage.lines()
    assert (line["level"], line["said"]) == ("error", "%d of %s")


def test_a_closed_log_lets_the_libraries_go(stage: Stage) -> None:
    before = len(logging.getLogger().handlers)
    stage.log.close()
    assert len(logging.getLogger().handlers) == before - 1


def test_a_stream_that_is_closed_raises_nothing() -> None:
    for fd in (None, 900_000):
        log = configure("auto", "info", fd)
        log.tell(Event.DAEMON_STARTED)
        log.exchange_line(exchange(attempt("pi")))
        log.close()
        assert log.dropped_total == 2


def test_auto_is_console_on_a_terminal_and_colored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert b"\x1b[32minfo" in on_a_terminal()


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = on_a_terminal()
    assert b"info    daemon.started" in shown
    assert b"\x1b" not in shown


def on_a_terminal() -> bytes:
    """Return what a log with every default writes to a pseudo-terminal."""
    ours, theirs = os.openpty()
    log = configure("auto", "info", theirs)
    log.tell(Event.DAEMON_STARTED)
    shown = os.read(ours, 1000)
    log.close()
    os.close(ours)
    os.close(theirs)
    return shown


def test_time_is_utc_with_milliseconds() -> None:
    now_s = 1_000_000_000.0
    stamp = UtcStamp(lambda: now_s)
    assert stamp() == "2001-09-09T01:46:40.000Z"
    now_s += 0.5
    assert stamp() == "2001-09-09T01:46:40.500Z"
    now_s += 0.75
    assert stamp() == "2001-09-09T01:46:41.250Z"
