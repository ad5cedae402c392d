"""Ollama's lines become the object that it answers without a stream: the last line, with the text of all."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.dialects.assembled_ollama import assemble

TAIL = b'"total_duration":9,"load_duration":1,"prompt_eval_count":26,"prompt_eval_duration":2,"eval_count":3,"eval_duration":4}\n'
HEAD = b'{"model":"m","created_at":"2026-08-21T10:00:00.00000%dZ",'


def line(number: int, rest: bytes) -> bytes:
    """Write one line of an answer."""
    return HEAD % number + rest + b"\n"


def whole(data: bytes, *, is_chat: bool = True, has_tools: bool = False) -> bytes:
    """Assemble `data`, which must work."""
    answer = assemble(data, is_chat=is_chat, has_tools=has_tools)
    assert answer is not None
    body, content_type = answer
    assert content_type == b"application/json; charset=utf-8"
    return body


def read(body: bytes) -> Any:
    return json.loads(body)


def test_a_chat_is_the_last_line_with_all_text_in_ollamas_own_spelling() -> None:
    stream = (
        line(1, b'"message":{"role":"assistant","content":" a \\u003c"},"done":false}')
        + line(2, b'"message":{"role":"assistant","content":"b\\"\xc3\xa9"},"done":false}')
        + line(3, b'"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",' + TAIL.rstrip())
    )
    assert whole(stream) == (
        HEAD % 3
        + b'"message":{"role":"assistant","content":" a \\u003cb\\"\xc3\xa9"},"done":true,"done_reason":"stop",'
        + TAIL.rstrip()
    )


def test_the_last_lines_own_text_belongs_to_it() -> None:
    stream = line(1, b'"response":"a","done":false}') + line(2, b'"response":"b","done":true,"done_reason":"length"}')
    assert read(whole(stream, is_chat=False))["response"] == "ab"


def test_thinking_stands_where_ollama_writes_it() -> None:
    stream = (
        line(1, b'"message":{"role":"assistant","content":"","thinking":" so"},"done":false}')
        + line(2, b'"message":{"role":"assistant","content":"","thinking":"-so"},"done":false}')
        + line(3, b'"message":{"role":"assistant","content":"yes"},"done":true,"done_reason":"stop"}')
    )
    assert b'"message":{"role":"assistant","content":"yes","thinking":" so-so"},' in whole(stream)
    stream = line(1, b'"response":"","thinking":"hm","done":false}') + line(
        2, b'"response":"yes","done":true,"done_reason":"stop","context":[1,2]}'
    )
    assert b'"response":"yes","thinking":"hm","done":true,"done_reason":"stop","context":[1,2]}' in whole(stream, is_chat=False)


def test_tool_calls_of_all_lines_count_when_tools_were_offered() -> None:
    """Without tools in the request Ollama keeps those of the last line only (server/routes.go, ChatHandler)."""
    stream = line(1, b'"message":{"role":"assistant","content":"","tool_calls":[{"id":"1"},{"id":"2"}]},"done":false}') + line(
        2, b'"message":{"role":"assistant","content":"","tool_calls":[{"id":"3"}]},"done":true,"done_reason":"stop"}'
    )
    assert [call["id"] for call in read(whole(stream, has_tools=True))["message"]["tool_calls"]] == ["1", "2", "3"]
    assert [call["id"] for call in read(whole(stream))["message"]["tool_calls"]] == ["3"]


def test_the_seams_mark_is_no_part_of_the_answer() -> None:
    stream = line(1, b'"response":"a","done":false}') + line(
        2, b'"response":"b","understudy_resumed":{"backend":"gpu1","after_characters":1},"done":true,"done_reason":"stop"}'
    )
    assert read(whole(stream, is_chat=False)) == {
        "model": "m",
        "created_at": "2026-08-21T10:00:00.000002Z",
        "response": "ab",
        "done": True,
        "done_reason": "stop",
    }


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\n",
        line(1, b'"response":"a","done":false}'),
        line(1, b'"response":"a","done":false}') + b'{"error":"gone"}\n',
        line(1, b'"response":"a","done":false}') + b'{"error":"gone","done":true}\n',
        line(1, b'"response":7,"done":true}'),
        line(1, b'"response":"a","logprobs":[{"token":"a"}],"done":true}'),
        line(1, b'"response":"a","done":true}') + b"[]\n",
        line(1, b'"response":"a","done":true'),
        b'{"done":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ],
    ids=["nothing", "empty line", "unfinished", "error", "error last", "no text", "logprobs", "no object", "no JSON", "deep"],
)
def test_what_ollama_would_not_have_answered_so_is_not_assembled(stream: bytes) -> None:
    assert assemble(stream, is_chat=False, has_tools=False) is None


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=8), st.booleans())
def test_text_comes_out_as_it_went_in_however_it_was_cut(pieces: list[str], is_ascii: bool) -> None:
    lines = [{"response": piece, 'odd "key"': 1, "done": False} for piece in pieces]
    lines[-1]["done"] = True
    stream = b"".join(json.dumps(each, ensure_ascii=is_ascii).encode() + b"\n" for each in lines)
    assert read(whole(stream, is_chat=False)) == {"response": "".join(pieces), 'odd "key"': 1, "done": True}
