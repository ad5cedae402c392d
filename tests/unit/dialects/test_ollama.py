"""Ollama's own API."""

import json
from pathlib import Path

import pytest

from understudy.core.ask import Ask, DialectName
from understudy.dialects.contract import Ending, Mark, StreamKind
from understudy.dialects.ollama import OLLAMA

GOLDEN = Path(__file__).parents[2] / "golden" / "ollama"
CHAT, GENERATE, SHOW = "/api/chat", "/api/generate", "/api/show"
NDJSON = StreamKind.NDJSON
OPENING, CONTENT, FINISH, ERROR = Mark.OPENING, Mark.CONTENT, Mark.FINISH, Mark.ERROR


@pytest.mark.parametrize(
    ("golden", "path", "marks", "ending"),
    [
        ("chat", CHAT, (CONTENT, CONTENT, FINISH), Ending.FINISHED),
        ("chat_thinking", CHAT, (CONTENT, CONTENT, FINISH), Ending.FINISHED),
        ("chat_tool_call", CHAT, (CONTENT, FINISH), Ending.FINISHED),
        ("chat_runner_lost_error", CHAT, (CONTENT, ERROR), Ending.ERROR),
        ("chat_token_repeat", CHAT, (CONTENT,) * 31, Ending.UNFINISHED),
        ("generate", GENERATE, (CONTENT, CONTENT, FINISH), Ending.FINISHED),
        ("generate_load", GENERATE, (FINISH,), Ending.FINISHED),
    ],
)
def test_each_stream_is_read_as_what_it_is(golden: str, path: str, marks: tuple[Mark, ...], ending: Ending) -> None:
    data = (GOLDEN / f"{golden}.ndjson").read_bytes()
    assert OLLAMA.reader(path, NDJSON).feed(data) == marks
    assert OLLAMA.read_ending(path, NDJSON, data) is ending
    assert OLLAMA.has_error(path, NDJSON, data) is golden.endswith("_error")


def test_the_ending_is_told_from_a_tail_that_starts_inside_a_line() -> None:
    data = (GOLDEN / "chat.ndjson").read_bytes()
    assert OLLAMA.read_ending(CHAT, NDJSON, data[data.index(b"bava") :]) is Ending.FINISHED
    assert OLLAMA.read_ending(CHAT, NDJSON, data[data.index(b'"done":true') :]) is Ending.UNFINISHED
    assert OLLAMA.read_ending(CHAT, NDJSON, data.rstrip()) is Ending.FINISHED


def test_the_last_line_may_carry_content_too() -> None:
    line = b'{"message":{"role":"assistant","content":"","tool_calls":[{}]},"done":true,"done_reason":"stop"}\n'
    assert OLLAMA.reader(CHAT, NDJSON).feed(line) == (CONTENT, FINISH)
    assert OLLAMA.reader(CHAT, NDJSON).feed(b'{"message":{"role":"assistant"},"done":false}\n{"x":1}\n') == (OPENING, Mark.OTHER)


def test_chat_and_generate_stream_unless_asked_not_to() -> None:
    assert OLLAMA.read_ask(CHAT, b'{"model":"m"}', "s1") == Ask(DialectName.OLLAMA, CHAT, "m", True, True, "s1")
    assert OLLAMA.read_ask(GENERATE, b'{"model":"m","stream":null}', "") == Ask(DialectName.OLLAMA, GENERATE, "m", True, True, "")
    assert OLLAMA.read_ask(GENERATE, b'{"model":"m","stream":false}', "") == Ask(
        DialectName.OLLAMA, GENERATE, "m", True, False, ""
    )
    assert OLLAMA.read_ask("/api/embed", b'{"model":"m"}', "") == Ask(DialectName.OLLAMA, "/api/embed", "m", True, False, "")


def test_loading_and_unloading_are_generating_requests_too() -> None:
    ask = OLLAMA.read_ask(GENERATE, b'{"model":"m","keep_alive":0}', "")
    assert ask == Ask(DialectName.OLLAMA, GENERATE, "m", True, True, "")


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"m"}', "m"),
        (b'{"name":"m"}', "m"),
        (b'{"name":"n","model":"m"}', "m"),
        (b"", ""),
        (b"x", ""),
        (b'{"model":7}', ""),
    ],
)
def test_show_tells_its_model_and_is_never_wrong(body: bytes, model: str) -> None:
    assert OLLAMA.read_ask(SHOW, body, "") == Ask(DialectName.OLLAMA, SHOW, model, False, False, "")


def test_the_model_is_mapped_under_either_name() -> None:
    assert OLLAMA.with_model(b'{"name":"m"}', "b") == b'{"name":"b"}'
    assert OLLAMA.with_model(b'{"model": "m", "options": {}}', "b") == b'{"model": "b", "options": {}}'


def test_a_generating_body_that_cannot_be_read_is_wrong() -> None:
    assert OLLAMA.read_ask(CHAT, b"[]", "") == "the body is not a JSON object"


def test_errors_have_ollamas_shape() -> None:
    assert json.loads(OLLAMA.error_body(503, "none_usable", "no backend")) == {"error": "no backend"}
    assert OLLAMA.error_event(CHAT, NDJSON, "stalled", "fell silent") == b'{"error":"fell silent"}\n'
    assert OLLAMA.error_event(CHAT, StreamKind.SSE, "stalled", "fell silent") == b'data: {"error":"fell silent"}\n\n'


def test_a_path_without_a_terminator_of_its_own_is_finished() -> None:
    assert OLLAMA.read_ending("/api/embed", NDJSON, b'{"embeddings":[]}') is Ending.FINISHED
