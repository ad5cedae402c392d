"""OpenAI's API as four engines speak it."""

import json
from pathlib import Path

import pytest

from understudy.core.ask import Ask, DialectName
from understudy.core.snapshot import Model
from understudy.dialects.contract import Ending, Mark, StreamKind
from understudy.dialects.openai import OPENAI

GOLDEN = Path(__file__).parents[2] / "golden"
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
OPENING, CONTENT, FINISH, DONE, ERROR, COMMENT = Mark.OPENING, Mark.CONTENT, Mark.FINISH, Mark.DONE, Mark.ERROR, Mark.COMMENT


@pytest.mark.parametrize(
    ("golden", "path", "marks", "ending"),
    [
        ("llamacpp/chat", CHAT, (OPENING, *[CONTENT] * 4, FINISH, OPENING, DONE), Ending.FINISHED),
        ("llamacpp/chat_reasoning", CHAT, (OPENING, *[CONTENT] * 4, FINISH, DONE), Ending.FINISHED),
        ("llamacpp/chat_error", CHAT, (OPENING, CONTENT, ERROR), Ending.ERROR),
        ("llamacpp/chat_terminated", CHAT, (OPENING, CONTENT, COMMENT), Ending.UNFINISHED),
        ("llamacpp/chat_killed", CHAT, (OPENING, CONTENT), Ending.UNFINISHED),
        ("llamacpp/completions", COMPLETIONS, (*[CONTENT] * 3, FINISH, DONE), Ending.FINISHED),
        ("llamacpp/responses", RESPONSES, (*[OPENING] * 4, *[CONTENT] * 5, OPENING, FINISH), Ending.FINISHED),
        ("llamacpp/responses_reasoning", RESPONSES, (*[OPENING] * 3, *[CONTENT] * 3, OPENING, FINISH), Ending.FINISHED),
        ("vllm/chat", CHAT, (OPENING, CONTENT, CONTENT, FINISH, OPENING, DONE), Ending.FINISHED),
        ("vllm/chat_reasoning", CHAT, (OPENING, OPENING, CONTENT, CONTENT, FINISH, DONE), Ending.FINISHED),
        ("vllm/chat_keep_alive", CHAT, (OPENING, COMMENT, CONTENT, FINISH, DONE), Ending.FINISHED),
        ("vllm/chat_engine_dead_error", CHAT, (OPENING, CONTENT, ERROR, DONE), Ending.ERROR),
        ("vllm/chat_engine_dead_before_content_error", CHAT, (OPENING, ERROR, DONE), Ending.ERROR),
        ("vllm/completions", COMPLETIONS, (CONTENT, CONTENT, FINISH, DONE), Ending.FINISHED),
        ("vllm/responses", RESPONSES, (*[OPENING] * 4, CONTENT, FINISH), Ending.FINISHED),
        ("ollama/v1_chat", CHAT, (CONTENT, CONTENT, FINISH, OPENING, DONE), Ending.FINISHED),
        ("ollama/v1_chat_runner_lost", CHAT, (CONTENT, OPENING), Ending.UNFINISHED),
        ("ollama/v1_chat_token_repeat", CHAT, (CONTENT,) * 31, Ending.UNFINISHED),
        ("sglang/chat", CHAT, (OPENING, CONTENT, FINISH, DONE), Ending.FINISHED),
        ("sglang/chat_abort_error", CHAT, (OPENING, CONTENT, ERROR, DONE), Ending.ERROR),
        ("sglang/chat_queue_full_error", CHAT, (ERROR, DONE), Ending.ERROR),
        ("sglang/top_level_error", CHAT, (ERROR, DONE), Ending.ERROR),
    ],
)
def test_each_engines_stream_is_read_as_what_it_is(golden: str, path: str, marks: tuple[Mark, ...], ending: Ending) -> None:
    data = (GOLDEN / f"{golden}.sse").read_bytes()
    assert OPENAI.reader(path, StreamKind.SSE).feed(data) == marks
    assert OPENAI.read_ending(path, StreamKind.SSE, data) is ending
    assert OPENAI.has_error(path, StreamKind.SSE, data) is golden.endswith("_error")


def test_the_ending_is_told_from_a_tail_that_starts_inside_an_event() -> None:
    data = (GOLDEN / "vllm/chat.sse").read_bytes()
    start, end = data.index(b'"length"') - 20, data.index(b"data: [DONE]")
    assert OPENAI.read_ending(CHAT, StreamKind.SSE, data[start:end]) is Ending.UNFINISHED
    assert OPENAI.read_ending(CHAT, StreamKind.SSE, data[data.index(b"zidi") :]) is Ending.FINISHED


def test_done_finishes_an_answer_and_a_finish_reason_alone_does_not() -> None:
    finish = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    done = b"data: [DONE]\n\n"
    assert OPENAI.read_ending(CHAT, StreamKind.SSE, done) is Ending.FINISHED
    assert OPENAI.read_ending(CHAT, StreamKind.SSE, finish) is Ending.UNFINISHED
    assert OPENAI.read_ending(CHAT, StreamKind.SSE, finish + done) is Ending.FINISHED
    assert OPENAI.read_ending(CHAT, StreamKind.SSE, finish + b"data: [DONE]") is Ending.FINISHED


def test_a_path_without_a_terminator_of_its_own_is_finished_unless_it_reports_an_error() -> None:
    assert OPENAI.read_ending("/v1/audio/speech", StreamKind.SSE, b"data: {}\n\n") is Ending.FINISHED
    assert OPENAI.read_ending("/v1/audio/speech", StreamKind.SSE, b'data: {"error":"x"}\n\n') is Ending.ERROR


@pytest.mark.parametrize(
    "delta",
    [
        {"content": " "},
        {"content": [{"type": "text", "text": "a"}]},
        {"reasoning": "a"},
        {"reasoning_content": "a"},
        {"thinking": "a"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "function": {"name": "f"}}]},
        {"function_call": {"name": "f"}},
        {"audio": {"data": "UklG"}},
        {"role": "assistant", "content": "a"},
    ],
)
def test_whatever_a_client_can_see_is_content(delta: dict[str, object]) -> None:
    data = b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}).encode() + b"\n\n"
    assert OPENAI.reader(CHAT, StreamKind.SSE).feed(data) == (CONTENT,)


@pytest.mark.parametrize("delta", [{}, None, {"role": "assistant", "content": ""}, {"content": None, "tool_calls": []}])
def test_a_role_and_empty_fields_are_only_an_opening(delta: dict[str, object] | None) -> None:
    data = b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"
    assert OPENAI.reader(CHAT, StreamKind.SSE).feed(data) == (OPENING,)


@pytest.mark.parametrize(
    ("event", "mark"),
    [
        ({"type": "response.output_text.delta", "delta": ""}, OPENING),
        ({"type": "response.refusal.delta", "delta": "no"}, CONTENT),
        ({"type": "response.output_item.added", "item": {"type": "function_call", "name": "f"}}, CONTENT),
        ({"type": "response.failed", "response": {"status": "failed"}}, ERROR),
        ({"type": "response.completed", "response": {"error": {"code": "x"}}}, ERROR),
        ({"type": "response.incomplete", "response": {"error": None}}, FINISH),
        ({"type": "error", "code": "x", "message": "x"}, ERROR),
        ({"type": "transcript.text.delta", "delta": "a"}, Mark.OTHER),
        ({"choices": [None]}, Mark.OTHER),
    ],
)
def test_events_of_the_responses_api(event: dict[str, object], mark: Mark) -> None:
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    assert OPENAI.reader(RESPONSES, StreamKind.SSE).feed(data) == (mark,)
    finished = mark is FINISH
    assert (OPENAI.read_ending(RESPONSES, StreamKind.SSE, data) is Ending.FINISHED) is finished


def test_asks_stream_only_when_asked_to() -> None:
    assert OPENAI.read_ask(CHAT, b'{"model":"m"}', "s1") == Ask(DialectName.OPENAI, CHAT, "m", True, False, "s1")
    assert OPENAI.read_ask(CHAT, b'{"model":"m","stream":true}', "") == Ask(DialectName.OPENAI, CHAT, "m", True, True, "")


def test_a_body_that_cannot_be_read_is_wrong_only_where_it_generates() -> None:
    assert OPENAI.read_ask(CHAT, b"--boundary", "") == "the body is not JSON"
    path = "/v1/audio/transcriptions"
    assert OPENAI.read_ask(path, b"--boundary", "s1") == Ask(DialectName.OPENAI, path, "", False, False, "s1")
    assert OPENAI.read_ask(path, b'{"model":"m"}', "") == Ask(DialectName.OPENAI, path, "m", False, False, "")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (502, "server_error"),
        (503, "server_error"),
    ],
)
def test_errors_have_openais_shape(status: int, kind: str) -> None:
    body = json.loads(OPENAI.error_body(status, "none_usable", 'no "backend"'))
    assert body == {"error": {"message": 'no "backend"', "type": kind, "code": "none_usable", "param": None}}


def test_error_events_are_those_that_clients_raise() -> None:
    assert OPENAI.error_event(CHAT, StreamKind.SSE, "stalled", "fell silent") == (
        b'data: {"error":{"message":"fell silent","type":"server_error","code":"stalled","param":null}}\n\n'
    )
    assert OPENAI.error_event(RESPONSES, StreamKind.SSE, "stalled", "fell silent") == (
        b'event: error\ndata: {"type":"error","code":"stalled","message":"fell silent","param":null}\n\n'
    )


def test_the_list_of_models_is_openais() -> None:
    assert json.loads(OPENAI.list_models("/v1/models", [("m", Model("m"))]))["object"] == "list"
