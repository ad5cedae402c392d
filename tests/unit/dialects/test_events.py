"""Errors are told in every engine's shape, and nothing else is taken for one."""

import pytest

from understudy.dialects.contract import Mark, StreamKind
from understudy.dialects.events import has_error, read_event, read_json
from understudy.dialects.framing import Event
from understudy.dialects.openai import read_marks


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (b"", b'{"error":{"code":500,"message":"x","type":"server_error"}}'),
        (b"", b'{"error":"text"}'),
        (b"", b'{"object":"error","message":"x"}'),
        (b"", b'{"type":"error","code":"x","message":"x"}'),
        (b"error", b'{"detail":"x"}'),
        (b"error", b"no json"),
        (b"error", None),
    ],
)
def test_every_engines_error_is_one(name: bytes, data: bytes | None) -> None:
    assert read_event(Event(name, data), read_marks) == (Mark.ERROR,)


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[],"error":null}',
        b'{"choices":[{"delta":{"content":"\\"error\\""}}]}',
        b'{"choices":[{"delta":{"content":"error"}}],"object":"chat.completion.chunk"}',
        b'"error"',
        b'["error"]',
    ],
)
def test_a_null_error_or_the_word_in_a_text_is_none(data: bytes) -> None:
    assert read_event(Event(b"", data), read_marks) != (Mark.ERROR,)
    assert not has_error(read_marks, StreamKind.SSE, b"data: " + data + b"\n\n")


@pytest.mark.parametrize("data", [b"", b"no json", b"[1]", b"7", b'{"a":', b"\xff", b'{"a":' + b"[" * 100_000])
def test_what_cannot_be_read_is_other(data: bytes) -> None:
    assert read_event(Event(b"", data), read_marks) == (Mark.OTHER,)


def test_what_engines_write_beside_the_standard_is_read() -> None:
    """Python engines write NaN and lone surrogates; a reader that refused them would hold a good stream back."""
    assert read_json(b'{"a":"\\ud83d"}') == {"a": "\ud83d"}
    assert read_json(b'{"a":-Infinity}') == {"a": float("-inf")}


def test_an_error_cut_off_by_the_end_is_no_error_yet() -> None:
    assert not has_error(read_marks, StreamKind.SSE, b'data: {"error":{"mess')
