"""Errors are told in every engine's shape, and nothing else is taken for one."""

import pytest

from understudy.dialects.contract import Mark, StreamKind
from understudy.dialects.events import has_error, is_sound, read_event, read_json
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


SOUND = [
    b'data: {"a": 1}\n\n',
    b'data: {"a": NaN}\n\n',
    b"data: [DONE]\n\n",
    b": ping\n\n",
    b"\n",
    b'event: x\ndata: {"a": [1]}\n\n',
    b"data:\n\n",
]
UNSOUND = [b'data: {"a": [}\n\n', b'data: {"a": "x\n\n', b"data: so\n\n", b'data: {"a": 1}{\n\n', b'data: {"choices": [{"ind\n\n']


@pytest.mark.parametrize("event", SOUND)
def test_what_a_client_can_read_is_sound(event: bytes) -> None:
    assert is_sound(event, StreamKind.SSE)
    assert is_sound(event + SOUND[0], StreamKind.SSE)


@pytest.mark.parametrize("event", UNSOUND)
def test_one_event_that_cannot_be_read_is_found_among_others(event: bytes) -> None:
    assert not is_sound(event, StreamKind.SSE)
    assert not is_sound(SOUND[0] + event + SOUND[0], StreamKind.SSE)


@pytest.mark.parametrize(("lines", "expected"), [(b'{"a": 1}\n\n{"b": 2}\n', True), (b'{"a": 1}\n{"b": \n', False)])
def test_lines_are_sound_each_by_itself(lines: bytes, expected: bool) -> None:
    assert is_sound(lines, StreamKind.NDJSON) is expected
