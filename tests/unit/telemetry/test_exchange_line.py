"""One finished exchange as fields, and how loud its line is."""

import msgspec
import pytest

from support.records import attempt, exchange
from understudy.core.transcript import Refusal
from understudy.errors import MEANING, FailureKind
from understudy.telemetry.events import Level
from understudy.telemetry.exchange_line import bounded, describe, level_of


def test_an_answer_at_the_first_try_is_information() -> None:
    assert level_of(exchange(attempt("pi"))) is Level.INFO


def test_an_answer_saved_by_another_backend_is_a_warning() -> None:
    assert level_of(exchange(attempt("pi", FailureKind.REFUSED), attempt("laptop"))) is Level.WARNING


def test_a_closed_idle_connection_is_no_warning() -> None:
    assert level_of(exchange(attempt("pi", FailureKind.STALE_REUSE), attempt("pi"))) is Level.INFO


@pytest.mark.parametrize(
    ("failure", "level"),
    [
        (FailureKind.REFUSED, Level.ERROR),
        (FailureKind.NONE_USABLE, Level.ERROR),
        (FailureKind.INTERNAL, Level.ERROR),
        (FailureKind.STOPPING, Level.WARNING),
        (FailureKind.CLIENT_GONE, Level.INFO),
        (FailureKind.MODEL_UNKNOWN, Level.INFO),
    ],
)
def test_a_failure_is_as_loud_as_its_side(failure: FailureKind, level: Level) -> None:
    assert level_of(exchange(attempt("pi", failure), status=502, failure=failure)) is level


@pytest.mark.parametrize("kind", list(MEANING))
def test_every_failure_has_a_level(kind: FailureKind) -> None:
    assert level_of(exchange(status=502, failure=kind)) in Level


def test_every_field_is_told() -> None:
    record = exchange(attempt("pi", FailureKind.REFUSED), attempt("laptop"))
    record.waited_s = 0.5
    record.resumed_on = ("laptop",)
    record.not_resumed = Refusal.NO_BACKEND
    record.prefilled_tokens = 77
    record.merging = "appended"
    record.session_loss = "full"
    record.cached = "hit"
    record.color = "green"
    line = describe(record, Level.WARNING, "2026-01-31T23:59:59.123Z")
    assert msgspec.to_builtins(line) == {
        "timestamp": "2026-01-31T23:59:59.123Z",
        "level": "warning",
        "event": "exchange.finished",
        "request_id": "request-1",
        "dialect": "openai",
        "method": "POST",
        "path": "/v1/chat/completions",
        "model": "qwen2.5",
        "streaming": True,
        "backend": "laptop",
        "attempts": 2,
        "tried": ["pi:refused"],
        "last_resort": False,
        "status": 200,
        "ttft_s": 0.1842,
        "duration_s": 6.0234,
        "waited_s": 0.5,
        "received_bytes": 1234,
        "sent_bytes": 48211,
        "why": "",
        "resumed_on": ["laptop"],
        "not_resumed": "no_backend",
        "prefilled_tokens": 77,
        "session": "appended",
        "session_loss": "full",
        "cached": "hit",
        "color": "green",
    }


def test_one_that_took_too_long_is_said_louder() -> None:
    record = exchange(attempt("pi"))
    assert level_of(record) is Level.INFO
    record.is_slow = True
    assert level_of(record) is Level.WARNING


def test_what_a_client_wrote_is_cut() -> None:
    record = exchange(model="m" * 10_000, path="/" * 10_000)
    record.request_id = "r" * 10_000
    line = describe(record, Level.INFO, "")
    assert [len(text) for text in (line.model, line.path, line.request_id)] == [200, 200, 200]


def test_a_text_that_fits_is_left_alone() -> None:
    assert bounded("a" * 200) == "a" * 200
    assert bounded("a" * 201) == "a" * 199 + "…"


def test_a_turn_that_is_lost_and_an_answer_that_is_stale_are_warnings() -> None:
    lost, stale, hit = exchange(attempt("pi")), exchange(), exchange()
    lost.session_loss, stale.cached, hit.cached = "full", "stale", "hit"
    assert [level_of(one) for one in (lost, stale, hit)] == [Level.WARNING, Level.WARNING, Level.INFO]


def test_an_answer_that_did_not_break_has_no_word_of_it() -> None:
    line = describe(exchange(attempt("pi")), Level.INFO, "")
    assert (line.resumed_on, line.not_resumed, line.prefilled_tokens) == ([], "", 0)


def test_an_answer_that_went_on_elsewhere_is_a_warning() -> None:
    record = exchange(attempt("pi", FailureKind.BODY_CUT, 200), attempt("laptop"))
    record.resumed_on = ("laptop",)
    assert level_of(record) is Level.WARNING
