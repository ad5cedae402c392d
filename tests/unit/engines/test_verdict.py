"""Plays of answers that are no success, and of the reasons they leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.probing import answer
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind
from understudy.engines.contract import Finding, ProbeAnswer
from understudy.engines.verdict import REASON_CHARACTERS_MAX, answered, is_autoloading, judge, read_field


def test_a_success_is_read_on() -> None:
    good = answer({"x": 1}, 204)
    assert judge(EngineKind.VLLM, good) is good


@pytest.mark.parametrize(
    ("failed", "line"),
    [
        (answer({"error": {"message": "Loading model"}}, 503), "answered 503: Loading model"),
        (answer({"error": "disk\n  gone\x1b[31m"}, 500), "answered 500: disk gone[31m"),
        (answer({"detail": "Internal"}, 500), "answered 500: Internal"),
        (answer(b"  <!doctype html><p>x", 502), "answered 502"),
        (answer(b"", 500), "answered 500"),
        (answer({"error": {"message": 5}}, 500), "answered 500"),
    ],
)
def test_a_reason_is_one_short_printable_line(failed: ProbeAnswer, line: str) -> None:
    assert answered(failed) == line


@given(st.binary(max_size=2000), st.integers(400, 599))
def test_no_body_makes_a_reason_long_or_broken(body: bytes, status: int) -> None:
    finding = judge(EngineKind.OPENAI, ProbeAnswer(status, {}, body))
    assert isinstance(finding, Finding)
    assert len(finding.reason) <= REASON_CHARACTERS_MAX
    assert finding.reason.isprintable()


def test_only_loading_is_not_counted_as_broken() -> None:
    loading = answer({"error": {"message": "Loading model", "type": "unavailable_error"}}, 503)
    finding = judge(EngineKind.LLAMACPP, loading)
    assert isinstance(finding, Finding)
    assert finding.seen is Seen.LOADING


def test_fields_of_liars_are_blank() -> None:
    for liar in (
        None,
        answer(b"{"),
        answer([]),
        answer({"version": 5}),
        answer({"version": "x\n"}),
        answer({"version": "1"}, 500),
    ):
        assert read_field(liar, "version") == ""
    assert read_field(answer({"version": "0.1"}), "version") == "0.1"


def test_a_server_that_does_not_say_otherwise_loads_what_is_asked_for() -> None:
    assert is_autoloading(None)
    assert is_autoloading(answer({"models_autoload": "no"}))
    assert not is_autoloading(answer({"models_autoload": False}))
