"""Anthropic's API as the engines speak it."""

import json
from pathlib import Path

import pytest

from understudy.core.ask import Ask, DialectName
from understudy.core.snapshot import Model
from understudy.dialects.anthropic import ANTHROPIC
from understudy.dialects.contract import Ending, Mark, StreamKind

GOLDEN = Path(__file__).parents[2] / "golden"
MESSAGES = "/v1/messages"
SSE = StreamKind.SSE
OPENING, CONTENT, FINISH, DONE, ERROR = Mark.OPENING, Mark.CONTENT, Mark.FINISH, Mark.DONE, Mark.ERROR


@pytest.mark.parametrize(
    ("golden", "marks", "ending"),
    [
        ("llamacpp/messages", (OPENING, OPENING, *[CONTENT] * 3, OPENING, FINISH, DONE), Ending.FINISHED),
        ("llamacpp/messages_thinking", (OPENING, OPENING, *[CONTENT] * 3, OPENING, OPENING, FINISH, DONE), Ending.FINISHED),
        ("llamacpp/messages_error", (OPENING, OPENING, CONTENT, ERROR), Ending.ERROR),
        ("vllm/messages_error", (OPENING, OPENING, CONTENT, ERROR), Ending.ERROR),
    ],
)
def test_each_engines_stream_is_read_as_what_it_is(golden: str, marks: tuple[Mark, ...], ending: Ending) -> None:
    data = (GOLDEN / f"{golden}.sse").read_bytes()
    assert ANTHROPIC.reader(MESSAGES, SSE).feed(data) == marks
    assert ANTHROPIC.read_ending(MESSAGES, SSE, data) is ending
    assert ANTHROPIC.has_error(MESSAGES, SSE, data) is golden.endswith("_error")


def test_a_stream_without_message_stop_is_unfinished() -> None:
    data = (GOLDEN / "llamacpp/messages.sse").read_bytes()
    assert ANTHROPIC.read_ending(MESSAGES, SSE, data[: data.index(b"event: message_stop")]) is Ending.UNFINISHED
    assert (
        ANTHROPIC.read_ending(MESSAGES, SSE, data[: data.index(b"event: message_stop")] + b"data: [DONE]\n\n")
        is Ending.UNFINISHED
    )


@pytest.mark.parametrize(
    ("event", "mark"),
    [
        ({"type": "ping"}, Mark.COMMENT),
        ({"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f", "input": {}}}, CONTENT),
        ({"type": "content_block_start", "content_block": {"type": "text", "text": "a"}}, CONTENT),
        ({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": ""}}, OPENING),
        ({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}}, CONTENT),
        ({"type": "message_delta", "delta": {"stop_reason": None}}, OPENING),
        ({"type": "error", "error": {"type": "overloaded_error"}}, ERROR),
        ({"type": "later"}, Mark.OTHER),
        ({"type": ["x"]}, Mark.OTHER),
    ],
)
def test_events_that_the_recordings_lack(event: dict[str, object], mark: Mark) -> None:
    data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
    assert ANTHROPIC.reader(MESSAGES, SSE).feed(data) == (mark,)


def test_asks_stream_only_when_asked_to() -> None:
    assert ANTHROPIC.read_ask(MESSAGES, b'{"model":"m"}', "s1") == Ask(DialectName.ANTHROPIC, MESSAGES, "m", True, False, "s1")
    assert ANTHROPIC.read_ask(MESSAGES, b"{", "") == "the body is not JSON"


def test_counting_tokens_names_a_model_but_generates_nothing() -> None:
    path = "/v1/messages/count_tokens"
    assert ANTHROPIC.read_ask(path, b'{"model":"m"}', "") == Ask(DialectName.ANTHROPIC, path, "m", False, False, "")
    assert ANTHROPIC.read_ask(path, b"x", "") == Ask(DialectName.ANTHROPIC, path, "", False, False, "")
    assert ANTHROPIC.with_model(b'{"model":"m"}', "b") == b'{"model":"b"}'


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (418, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_errors_have_anthropics_shape_and_words(status: int, kind: str) -> None:
    body = json.loads(ANTHROPIC.error_body(status, "none_usable", "no backend"))
    assert body == {"type": "error", "error": {"type": kind, "message": "no backend"}}


def test_error_events_are_named_error() -> None:
    assert ANTHROPIC.error_event(MESSAGES, SSE, "stalled", "fell silent") == (
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"fell silent"}}\n\n'
    )


def test_the_list_of_models_has_one_shape_for_all() -> None:
    assert json.loads(ANTHROPIC.list_models("/v1/models", [("m", Model("m"))]))["data"][0]["id"] == "m"


def test_a_path_without_a_terminator_of_its_own_is_finished() -> None:
    assert ANTHROPIC.read_ending("/v1/messages/batches", SSE, b"data: {}\n\n") is Ending.FINISHED
