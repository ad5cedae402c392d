"""One event says what it adds, whichever engine wrote it."""

import pytest

from understudy.core.transcript import Shape
from understudy.dialects.contract import StreamKind
from understudy.dialects.pieces import Piece, counts_of, read_piece, stream_kind_of

CHAT, TEXT, OLLAMA, GENERATE, MESSAGES = (
    Shape.OPENAI_CHAT,
    Shape.OPENAI_TEXT,
    Shape.OLLAMA_CHAT,
    Shape.OLLAMA_TEXT,
    Shape.ANTHROPIC,
)


def delta(members: str) -> bytes:
    return b'{"choices":[{"index":0,"delta":{%b}}]}' % members.encode()


@pytest.mark.parametrize(
    ("shape", "data", "piece"),
    [
        (CHAT, delta('"content":"a"'), Piece("a")),
        (CHAT, delta('"role":"assistant","content":null'), Piece()),
        (CHAT, delta('"content":"","reasoning":"b"'), Piece(reasoning="b", reasoning_keys=("reasoning",))),
        (CHAT, delta('"reasoning_content":"b"'), Piece(reasoning="b", reasoning_keys=("reasoning_content",))),
        (
            CHAT,
            delta('"reasoning_content":"b","reasoning":"b"'),
            Piece(reasoning="b", reasoning_keys=("reasoning_content", "reasoning")),
        ),
        (CHAT, delta('"content":"a","citations":[],"annotations":null'), Piece("a")),
        (CHAT, delta('"content":"a","citations":[1]'), Piece("a", is_unreadable=True)),
        (CHAT, delta('"citations":[1]'), Piece(is_unreadable=True)),
        (CHAT, delta('"content":["a"]'), Piece(is_unreadable=True)),
        (CHAT, delta('"refusal":"no"'), Piece("no", is_unreadable=True)),
        (
            CHAT,
            delta('"function_call":{"name":"now"}'),
            Piece(tool_calls=[{"index": 0, "function": {"name": "now"}}], is_unreadable=True),
        ),
        (
            CHAT,
            delta('"tool_calls":[7],"function_call":{"name":"now"},"citations":[1]'),
            Piece(tool_calls=[7], is_unreadable=True),
        ),
        (CHAT, delta('"audio":{"data":"x"}'), Piece(has_audio=True)),
        (CHAT, delta('"content":"\\ud83d"'), Piece(is_unreadable=True)),
        (CHAT, delta('"content":"\\ud83d","citations":[1]'), Piece(is_unreadable=True)),
        (CHAT, b'{"choices":[7]}', Piece(is_unreadable=True)),
        (CHAT, b'{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":NaN}]}', None),
        (CHAT, b"[DONE]", Piece(is_done=True)),
        (CHAT, b'{"choices":[{"index":0},{"index":1}]}', Piece(index=1)),
        (CHAT, b'{"choices":[],"usage":{"prompt_tokens":1}}', Piece(usage={"prompt_tokens": 1})),
        (
            TEXT,
            b'{"choices":[{"text":"a","finish_reason":"stop","stop_reason":7}]}',
            Piece("a", finish="stop", why={"stop_reason": 7}),
        ),
        (TEXT, b'{"choices":[{"text":"a","matched_stop":2}]}', Piece("a", why={"stop_reason": 2})),
        (TEXT, b'{"choices":[{"text":"a"}],"timings":{"predicted_n":5}}', Piece("a", tokens=5)),
        (
            TEXT,
            b'{"choices":[{"text":"a"}],"timings":{"cache_n":3,"prompt_n":4,"predicted_n":5}}',
            Piece("a", tokens=5, timed=(7, 5)),
        ),
        (TEXT, b'{"choices":[{"text":"a"}],"timings":{"prompt_n":4}}', Piece("a")),
        (TEXT, b'{"choices":[{"text":"a","token_ids":[1],"prompt_token_ids":[2]}]}', Piece("a", ids=[1], prompt_ids=[2])),
        (OLLAMA, b'{"created_at":"x","message":{"role":"assistant","content":"a"},"done":false}', Piece("a", created_at="x")),
        (OLLAMA, b'{"message":{"content":"","thinking":"b"},"done":false}', Piece(reasoning="b")),
        (OLLAMA, b'{"message":{"content":"","tool_calls":[1]},"done":false}', Piece(tool_calls=[1])),
        (OLLAMA, b'{"message":{"content":"a","tool_name":""},"done":false}', Piece("a")),
        (OLLAMA, b'{"message":{"content":"a","tool_name":"now"},"done":false}', Piece("a", is_unreadable=True)),
        (OLLAMA, b'{"message":{"content":"","images":["x"]},"done":false}', Piece(is_unreadable=True)),
        (GENERATE, b'{"response":"a","thinking":"b","done":false}', Piece("a", "b")),
        (GENERATE, b'{"image":"x","done":false}', Piece(is_unreadable=True)),
        (
            GENERATE,
            b'{"response":"","done":true,"done_reason":"length","context":[1],"eval_count":2}',
            Piece(finish="length", usage={"eval_count": 2}, is_done=True),
        ),
        (GENERATE, b'{"response":"","done":true}', Piece(finish="stop", usage={}, is_done=True)),
        (MESSAGES, b'{"type":"ping"}', Piece()),
        (MESSAGES, b'{"type":"message_stop"}', Piece(is_done=True)),
        (
            MESSAGES,
            b'{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"a"}}',
            Piece("a", block_index=1),
        ),
        (MESSAGES, b'{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"b"}}', Piece(reasoning="b")),
        (MESSAGES, b'{"type":"content_block_start","content_block":{"type":"text","text":7}}', None),
        (MESSAGES, b'{"type":"content_block_start","content_block":{"type":["text"]}}', None),
        (
            MESSAGES,
            b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}',
            Piece(finish="end_turn", usage={"output_tokens": 3}, why={"stop_sequence": None}),
        ),
    ],
)
def test_each_event_is_read_as_what_it_adds(shape: Shape, data: bytes, piece: Piece | None) -> None:
    read = read_piece(shape, b"", data)
    if piece is None:
        assert read.text == ("a" if shape is CHAT else "")
        assert read.is_unreadable is (shape is MESSAGES)
    else:
        assert read == piece


@pytest.mark.parametrize("shape", list(Shape))
@pytest.mark.parametrize(
    "data", [b'{"error":{"message":"x"}}', b'{"error":"x"}', b'{"type":"error","error":{}}', b'{"object":"error"}']
)
def test_every_engines_error_is_one_in_every_shape(shape: Shape, data: bytes) -> None:
    assert read_piece(shape, b"", data).is_error
    assert read_piece(shape, b"error", b"x").is_error


@pytest.mark.parametrize("shape", list(Shape))
@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b"7", b"null", b'{"a":1}', b'{"choices":7,"done":7,"delta":7}', b"[" * 100_000]
)
def test_what_says_nothing_known_is_unreadable(shape: Shape, data: bytes) -> None:
    assert read_piece(shape, b"", data) == Piece(is_unreadable=True)


def test_an_error_beside_choices_is_one_unless_it_is_null() -> None:
    assert read_piece(CHAT, b"", b'{"choices":[],"error":{"message":"x"}}').is_error
    assert not read_piece(CHAT, b"", b'{"choices":[],"error":null}').is_error
    assert read_piece(OLLAMA, b"", b'{"done":false,"error":"x"}').is_error


def test_a_block_of_a_call_is_a_tool_call_and_a_hidden_one_unreadable() -> None:
    block = {"type": "tool_use", "id": "a", "name": "now", "input": {}}
    data = b'{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"a","name":"now","input":{}}}'
    assert read_piece(MESSAGES, b"", data) == Piece(tool_calls=[block], block=block, block_index=1)
    data = b'{"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"x"}}'
    assert read_piece(MESSAGES, b"", data).is_unreadable
    data = b'{"type":"content_block_delta","delta":{"type":"citations_delta","citation":{}}}'
    assert read_piece(MESSAGES, b"", data).is_unreadable


def test_an_events_name_stands_for_a_type_that_is_missing() -> None:
    assert read_piece(MESSAGES, b"message_stop", b"{}").is_done


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, (None, None)),
        ({}, (None, None)),
        ({"prompt_tokens": 3, "completion_tokens": 2}, (3, 2)),
        ({"prompt_eval_count": 3, "eval_count": 2}, (3, 2)),
        ({"input_tokens": 1, "cache_read_input_tokens": 28, "cache_creation_input_tokens": None, "output_tokens": 0}, (29, 0)),
        ({"prompt_tokens": None, "completion_tokens": "2"}, (None, None)),
    ],
)
def test_tokens_are_counted_in_every_dialects_words(
    usage: dict[str, object] | None, counts: tuple[int | None, int | None]
) -> None:
    assert counts_of(usage) == counts


def test_only_ollamas_own_shapes_are_lines() -> None:
    lines = {shape for shape in Shape if stream_kind_of(shape) is StreamKind.NDJSON}
    assert lines == {Shape.OLLAMA_CHAT, Shape.OLLAMA_TEXT}
