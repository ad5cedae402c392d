"""What comes back of a shadow, read piece by piece."""

import json

import pytest

from support.answers import NDJSON, SSE, compact_sse, sse
from support.faults import SERVER_ERROR
from support.personas import (
    anthropic_events,
    anthropic_message,
    ollama_lines,
    openai_chat,
    openai_chat_events,
    openai_event,
    openai_role,
    openai_text_events,
)
from understudy.controlplane.shadow_answer import FOLD_BYTES, READ_BYTES_MAX, WHOLE_BYTES_MAX, ShadowAnswer
from understudy.core.snapshot import EngineKind
from understudy.dialects import match
from understudy.errors import FailureKind

CHAT = "/v1/chat/completions"
WORDS = "good evening to you all"
STREAMS = {
    CHAT: (SSE, openai_chat_events(WORDS)),
    "/v1/completions": (SSE, openai_text_events(WORDS)),
    "/api/chat": (NDJSON, ollama_lines(WORDS)),
    "/v1/messages": (SSE, anthropic_events(WORDS)),
}


def begun(path: str = CHAT, content_type: str = SSE, status: int = 200) -> ShadowAnswer:
    dialect = match(b"POST", path.encode()).dialect
    assert dialect is not None
    answer = ShadowAnswer(dialect, path, EngineKind.LLAMACPP)
    answer.open(status, content_type, "")
    return answer


def read(answer: ShadowAnswer, *pieces: bytes, broken: FailureKind | None = None) -> ShadowAnswer:
    for piece in pieces:
        if answer.is_over:
            break
        answer.take(piece)
    answer.end(broken)
    return answer


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("piece_bytes", [1, 7, 100_000])
def test_a_streams_text_is_read_however_its_bytes_are_cut(path: str, piece_bytes: int) -> None:
    content_type, events = STREAMS[path]
    data = b"".join(events)
    pieces = [data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)]
    answer = read(begun(path, content_type), *pieces)
    assert (answer.failure, answer.text, answer.characters) == (None, WORDS, len(WORDS))


def test_the_first_content_is_told_by_the_event_that_has_it() -> None:
    answer = begun()
    answer.take(openai_role())
    assert not answer.is_begun
    answer.take(openai_event({"content": "good"}))
    assert answer.is_begun
    assert answer.has_content


def test_a_comment_is_no_progress_and_an_event_behind_one_is() -> None:
    answer = begun()
    assert not answer.take(b": waiting\n\n")
    assert answer.take(openai_event({"content": "good"}))
    assert not answer.take(b": waiting\n\n")
    assert answer.take(b": waiting\n\n" + openai_event({"content": "good"}))


def test_a_long_stream_is_read_as_it_comes_and_leaves_next_to_nothing() -> None:
    answer = begun()
    event = openai_event({"content": " word"})
    count = 20 * FOLD_BYTES // len(event)
    for _ in range(count):
        answer.take(event)
        assert answer._pieces_bytes <= FOLD_BYTES + len(event)
    answer.take(openai_event({}, "stop"))
    answer.take(b"data: [DONE]\n\n")
    answer.end()
    assert (answer.failure, answer.text) == (None, " word" * count)


def test_a_long_last_event_is_read_as_a_whole() -> None:
    path = "/v1/responses"
    finish = compact_sse({"type": "response.completed", "response": {"output": "word " * 40_000}})
    delta = compact_sse({"type": "response.output_text.delta", "delta": "word "})
    pieces = [finish[at : at + 1000] for at in range(0, len(finish), 1000)]
    answer = read(begun(path), *[delta] * 1000, *pieces)
    assert (answer.failure, answer.text) == (None, None)


@pytest.mark.parametrize(
    ("pieces", "broken", "failure"),
    [
        ([openai_role(), openai_event({"content": "good"})], None, FailureKind.UNFINISHED),
        ([openai_role(), openai_event({"content": "good"})], FailureKind.BODY_CUT, FailureKind.BODY_CUT),
        ([openai_role(), openai_event({"content": "good"}), sse(SERVER_ERROR)], None, FailureKind.ERROR_EVENT),
        ([openai_role(), sse(SERVER_ERROR)], None, FailureKind.ERROR_EVENT),
        ([openai_event({"content": "good"}), sse(SERVER_ERROR), b"data: [DONE]\n\n"], None, FailureKind.ERROR_EVENT),
        ([openai_event({"content": "good"}), b'data: {"choices": [\n\n', b"data: [DONE]\n\n"], None, FailureKind.EVENT_MALFORMED),
        ([], None, FailureKind.UNFINISHED),
        ([openai_event({"content": "good"}), openai_event({}, "stop"), b"data: [DONE]\n\n"], FailureKind.BODY_CUT, None),
    ],
)
def test_how_a_stream_ends_tells_whether_it_is_an_answer(
    pieces: list[bytes], broken: FailureKind | None, failure: FailureKind | None
) -> None:
    assert read(begun(), *pieces, broken=broken).failure is failure


def test_an_error_in_the_middle_ends_the_reading() -> None:
    answer = begun()
    answer.take(openai_event({"content": "good"}))
    answer.take(sse(SERVER_ERROR))
    for _ in range(FOLD_BYTES // 100):
        answer.take(openai_event({"content": "good"}))
    assert answer.is_over
    answer.end()
    assert answer.failure is FailureKind.ERROR_EVENT


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, openai_chat(WORDS)), ("/v1/messages", anthropic_message(WORDS)), ("/api/generate", {"response": WORDS})],
)
def test_a_whole_answers_text_is_read_and_no_first_content_is_told(path: str, body: object) -> None:
    answer = read(begun(path, "application/json"), json.dumps(body).encode())
    assert (answer.failure, answer.text, answer.characters) == (None, WORDS, len(WORDS))
    assert answer.is_begun
    assert not answer.has_content


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (b"<html>", FailureKind.EVENT_MALFORMED),
        (b"", FailureKind.EVENT_MALFORMED),
        (b'{"error": {"message": "core is dead"}}', FailureKind.ERROR_EVENT),
    ],
)
def test_a_success_that_is_none_is_a_failure(body: bytes, failure: FailureKind) -> None:
    answer = read(begun(content_type="application/json"), body)
    assert (answer.failure, answer.text) == (failure, None)


def test_an_empty_answer_is_one_with_an_empty_text() -> None:
    answer = read(begun(content_type="application/json"), b'{"choices": []}')
    assert (answer.failure, answer.text, answer.characters) == (None, "", 0)
    answer = read(begun(), openai_event({}, "stop"), b"data: [DONE]\n\n")
    assert (answer.failure, answer.text, answer.has_content) == (None, "", False)


def test_a_tool_call_has_no_text_to_compare() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    streamed = read(begun(), openai_event({"tool_calls": [call]}), openai_event({}, "tool_calls"), b"data: [DONE]\n\n")
    assert (streamed.failure, streamed.text) == (None, None)
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    whole = read(begun(content_type="application/json"), json.dumps(body).encode())
    assert (whole.failure, whole.text) == (None, None)


def test_embeddings_are_an_answer_without_a_text() -> None:
    answer = read(begun("/v1/embeddings", "application/json"), b'{"data": [{"embedding": [0.5]}]}')
    assert (answer.failure, answer.text) == (None, None)


@pytest.mark.parametrize(
    ("status", "failure", "is_rejected"),
    [(500, FailureKind.SERVER_ERROR, False), (429, FailureKind.BUSY, False), (400, None, True), (302, None, True)],
)
def test_a_status_that_is_no_success_is_a_failure_or_a_rejection(status: int, failure: object, is_rejected: object) -> None:
    answer = read(begun(content_type="application/json", status=status), b'{"error": {"message": "no"}}')
    assert (answer.failure, answer.is_rejected, answer.text) == (failure, is_rejected, None)


def test_nothing_at_all_is_what_broke_it() -> None:
    dialect = match(b"POST", CHAT.encode()).dialect
    assert dialect is not None
    answer = ShadowAnswer(dialect, CHAT, EngineKind.VLLM)
    answer.end(FailureKind.REFUSED)
    assert (answer.status, answer.failure) == (0, FailureKind.REFUSED)


@pytest.mark.parametrize("content_type", [SSE, "application/json"])
def test_an_endless_answer_is_let_go(content_type: str) -> None:
    answer = begun(content_type=content_type)
    for _ in range(2 * READ_BYTES_MAX // 65536):
        answer.take(b"x" * 65536)
        if answer.is_over:
            break
    assert answer.is_too_large
    answer.end()
    assert (answer.failure, answer.text) == (None, None)


def test_an_endless_error_is_read_as_far_as_it_tells() -> None:
    answer = begun(content_type="text/html", status=503)
    for _ in range(10):
        if not answer.is_over:
            answer.take(b"x" * 65536)
    answer.end()
    assert answer.failure is FailureKind.UNAVAILABLE


def test_a_very_long_whole_answer_is_not_looked_into() -> None:
    answer = begun(content_type="application/json")
    answer.take(json.dumps(openai_chat("x" * WHOLE_BYTES_MAX)).encode())
    answer.end()
    assert (answer.failure, answer.text) == (None, None)
