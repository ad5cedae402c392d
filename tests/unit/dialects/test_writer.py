"""What a continuation adds is written with the first backend's fields, in OpenAI's and Ollama's shapes."""

from typing import Any

import pytest

from support.spliced import events, ndjson, read, received, sse
from understudy.core.transcript import Case, Shape, Transcript, Wish
from understudy.dialects.pieces import Piece
from understudy.dialects.writer import Counts, OllamaWriter, OpenAIWriter

CHAT, TEXT, OLLAMA, GENERATE = Shape.OPENAI_CHAT, Shape.OPENAI_TEXT, Shape.OLLAMA_CHAT, Shape.OLLAMA_TEXT
NONE = Counts()


def chat_writer(name: str = "llamacpp/chat.sse", **wish: Any) -> OpenAIWriter:
    return OpenAIWriter(Wish(CHAT, **wish), received(CHAT, b"".join(events(name)[:2])))


def choice(written: tuple[bytes, bytes]) -> dict[str, Any]:
    """Return the one choice of the one event that was written, for the client and for the transcript."""
    data, kept = written
    assert data == kept
    (event,) = read(data)
    (found,) = event["choices"]
    assert isinstance(found, dict)
    return found


def test_what_adds_nothing_is_not_written() -> None:
    assert chat_writer().write(Piece(usage={"prompt_tokens": 1}), NONE) == (b"", b"")
    assert OllamaWriter(Wish(OLLAMA), Transcript(), None, 0.0).write(Piece(), NONE) == (b"", b"")


def test_text_and_finish_may_share_an_event_as_they_did_upstream() -> None:
    assert choice(chat_writer().write(Piece("x", finish="length"), NONE)) == {
        "finish_reason": "length",
        "index": 0,
        "delta": {"content": "x"},
    }


def test_a_choice_keeps_its_index() -> None:
    transcript = received(CHAT, sse({"id": "a", "choices": [{"index": 3, "delta": {"content": "x"}, "finish_reason": None}]}))
    assert choice(OpenAIWriter(Wish(CHAT), transcript).write(Piece("y"), NONE))["index"] == 3


@pytest.mark.parametrize(
    ("first", "keys"),
    [({"reasoning": "a"}, ["reasoning"]), ({"reasoning_content": "a"}, ["reasoning_content"]), ({"content": "a"}, ["reasoning"])],
)
def test_reasoning_keeps_the_name_that_the_first_backend_gave_it(first: dict[str, str], keys: list[str]) -> None:
    transcript = received(CHAT, sse({"choices": [{"index": 0, "delta": first}]}))
    written = OpenAIWriter(Wish(CHAT), transcript).write(Piece(reasoning="b"), NONE)
    assert choice(written)["delta"] == dict.fromkeys(keys, "b")


def test_a_completion_has_no_place_for_reasoning_and_calls() -> None:
    writer = OpenAIWriter(Wish(TEXT), received(TEXT, events("vllm/completions.sse")[0]))
    assert not writer.can_write(Piece(reasoning="a"))
    assert not writer.can_write(Piece(tool_calls=[1]))
    assert writer.can_write(Piece("a"))
    assert chat_writer().can_write(Piece(reasoning="a", tool_calls=[1]))


def test_probabilities_pass_where_they_were_asked_for() -> None:
    piece = Piece("a", logprobs={"content": []})
    assert choice(chat_writer(cases=frozenset({Case.LOGPROBS})).write(piece, NONE))["logprobs"] == {"content": []}
    assert choice(chat_writer("vllm/chat.sse").write(piece, NONE))["logprobs"] is None
    assert "logprobs" not in choice(chat_writer().write(piece, NONE))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vllm/chat.sse", {"stop_reason": "X"}), ("sglang/chat.sse", {"matched_stop": "X"}), ("llamacpp/chat.sse", {})],
)
def test_what_stopped_it_stands_where_the_first_engine_has_it(name: str, expected: dict[str, str]) -> None:
    writer = chat_writer(name)
    finish = choice(writer.write(Piece(finish="stop", why={"stop_reason": "X", "stop_sequence": "X"}), NONE))
    assert {key: finish[key] for key in finish if "stop" in key} == expected


def test_usage_in_every_event_stays_in_every_event() -> None:
    """VLLM's continuous_usage_stats."""
    used = {"choices": [{"index": 0, "delta": {"content": "a"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    for wants_usage in (True, False):
        writer = OpenAIWriter(Wish(CHAT, wants_usage=wants_usage), received(CHAT, sse(used)))
        data, _ = writer.write(Piece("b", usage={"prompt_tokens": 4, "completion_tokens": 1}), Counts(3, 2))
        (event,) = read(data)
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        assert event.get("usage") == (usage if wants_usage else None)


def test_usage_is_written_at_the_end_where_both_counts_are_known() -> None:
    writer = chat_writer(wants_usage=True)
    assert writer.end(Counts(None, 3)) == b"data: [DONE]\n\n"
    writer.write(Piece(usage={"total_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 2}}), NONE)
    usage, done = read(writer.end(Counts(4, 3)))
    assert list(usage["usage"].items()) == [("total_tokens", 7), ("prompt_tokens", 4), ("completion_tokens", 3)]
    assert done == "[DONE]"


def test_no_more_of_the_prompt_was_cached_than_it_had_tokens() -> None:
    writer = chat_writer(wants_usage=True)
    writer.write(Piece(usage={"prompt_tokens_details": {"cached_tokens": 90, "audio_tokens": 0}}), NONE)
    assert read(writer.end(Counts(40, 3)))[0]["usage"]["prompt_tokens_details"] == {"cached_tokens": 40, "audio_tokens": 0}


def test_an_answer_of_which_nothing_came_has_plain_fields() -> None:
    data, _ = OpenAIWriter(Wish(CHAT), Transcript()).write(Piece("a"), NONE)
    assert read(data) == [
        {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
    ]
    data, _ = OpenAIWriter(Wish(TEXT), Transcript()).write(Piece("a"), NONE)
    assert read(data) == [{"object": "text_completion", "choices": [{"index": 0, "text": "a", "finish_reason": None}]}]


def test_ollamas_whole_calls_become_openais() -> None:
    call = {"id": "x", "function": {"name": "now", "arguments": {"a": 1}}}
    writer = chat_writer()
    calls = choice(writer.write(Piece(tool_calls=[call, "odd"]), NONE))["delta"]["tool_calls"]
    assert calls == [{"index": 0, "id": "x", "type": "function", "function": {"name": "now", "arguments": '{"a":1}'}}, "odd"]
    assert choice(writer.write(Piece(finish="stop"), NONE))["finish_reason"] == "tool_calls"


def test_lines_of_a_chat_have_a_message_and_those_of_a_completion_a_response() -> None:
    piece = Piece("a", "b", tool_calls=[{"function": {"name": "now"}}], created_at="2026-08-21T11:00:00Z")
    chat = OllamaWriter(Wish(OLLAMA), received(OLLAMA, events("ollama/chat.ndjson")[0]), {"backend": "gpu1"}, 0.0)
    assert read(chat.write(piece, NONE)[0]) == [
        {
            "model": "m",
            "created_at": "2026-08-21T11:00:00Z",
            "message": {"role": "assistant", "content": "a", "thinking": "b", "tool_calls": [{"function": {"name": "now"}}]},
            "done": False,
            "understudy_resumed": {"backend": "gpu1"},
        }
    ]
    text = OllamaWriter(Wish(GENERATE), received(GENERATE, events("ollama/generate.ndjson")[0]), None, 0.0)
    assert read(text.write(Piece("a", "b"), NONE)[0]) == [
        {"model": "m", "created_at": "2026-08-21T10:00:00.000001Z", "response": "a", "done": False, "thinking": "b"}
    ]


def test_a_line_of_a_broken_thought_is_no_model_for_later_ones() -> None:
    first = {"model": "m", "response": "", "thinking": "hm", "done": False, "understudy_resumed": {"backend": "old"}}
    writer = OllamaWriter(Wish(GENERATE), received(GENERATE, ndjson(first)), None, 0.0)
    assert read(writer.write(Piece("a"), NONE)[0]) == [{"model": "m", "response": "a", "done": False}]


def test_ollamas_last_line_has_only_the_counters_that_somebody_knows() -> None:
    transcript = received(OLLAMA, events("ollama/chat.ndjson")[0])
    writer = OllamaWriter(Wish(OLLAMA), transcript, None, 2.0)
    (last,) = read(writer.write(Piece(finish="stop", usage={"eval_count": 3, "eval_duration": 5}), Counts(None, 4))[0])
    counters = {key: value for key, value in last.items() if key not in transcript.head}
    assert counters == {"done_reason": "stop", "eval_count": 4, "eval_duration": 2_000_000_005}
    assert writer.end(NONE) == b""
