"""What a session keeps of an answer, streamed or whole, in every dialect."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.spliced import GOLDEN, events, ndjson, received, sse
from understudy.core.message import Call, ImagePart, Message, OtherPart, Speaker, TextPart, identity, spoken
from understudy.core.transcript import CallDraft, Shape, Transcript
from understudy.dialects.answered import Answered, answer_of, joined, read_answer
from understudy.dialects.fold import fold

CHAT, TEXT, OLLAMA, GENERATE, MESSAGES = (
    Shape.OPENAI_CHAT,
    Shape.OPENAI_TEXT,
    Shape.OLLAMA_CHAT,
    Shape.OLLAMA_TEXT,
    Shape.ANTHROPIC,
)
PATHS = {
    CHAT: "/v1/chat/completions",
    TEXT: "/v1/completions",
    OLLAMA: "/api/chat",
    GENERATE: "/api/generate",
    MESSAGES: "/v1/messages",
}


def said(text: str = "", *calls: Call, reasoning: str = "", is_raw: bool = False) -> Message:
    return spoken(Speaker.ASSISTANT, text, reasoning=reasoning, calls=calls, is_raw=is_raw)


def streamed(shape: Shape, name: str, *, is_raw: bool = False) -> Answered | None:
    return answer_of(shape, received(shape, (GOLDEN / name).read_bytes()), is_raw=is_raw)


def whole(shape: Shape, value: Any, *, is_raw: bool = False) -> Answered | None:
    return read_answer(PATHS[shape], json.dumps(value).encode(), is_raw=is_raw)


# --- streams


@pytest.mark.parametrize(
    ("shape", "name", "answered"),
    [
        (CHAT, "llamacpp/chat.sse", Answered(said(" zidi bava fuko mimo"), 29, 4, "length")),
        (CHAT, "llamacpp/chat_killed.sse", Answered(said(" zidi"))),
        (CHAT, "llamacpp/chat_reasoning.sse", Answered(said(reasoning=" nuko ravufabe"), 31, 4, "length")),
        (CHAT, "vllm/chat_reasoning.sse", Answered(said(" bava", reasoning=" nuko"), 0, 0, "length")),
        (CHAT, "vllm/chat_engine_dead_error.sse", Answered(said(" zidi"))),
        (CHAT, "ollama/v1_chat.sse", Answered(said(" zidi", reasoning=" nuko"), 26, 2, "length")),
        (CHAT, "sglang/chat_queue_full_error.sse", None),
        (TEXT, "llamacpp/completions.sse", Answered(said(" gefi sika pire"), 6, 3, "length")),
        (OLLAMA, "ollama/chat_thinking.ndjson", Answered(said(" bava", reasoning=" nuko"), 26, 2, "length")),
        (OLLAMA, "ollama/chat_tool_call.ndjson", Answered(said("", Call("now", "{}", "call_1")), 26, 2, "length")),
        (GENERATE, "ollama/generate.ndjson", Answered(said(" zidi bava"), 26, 2, "length")),
        (GENERATE, "ollama/generate_load.ndjson", None),
        (MESSAGES, "llamacpp/messages.sse", Answered(said(" zidi bava fuko"), 29, 3, "max_tokens")),
    ],
)
def test_a_stream_is_kept_as_its_client_received_it(shape: Shape, name: str, answered: Answered | None) -> None:
    assert streamed(shape, name) == answered


def test_a_completions_text_is_raw_where_its_prompt_was() -> None:
    for shape, name in ((TEXT, "vllm/completions.sse"), (GENERATE, "ollama/generate.ndjson")):
        raw, plain = streamed(shape, name, is_raw=True), streamed(shape, name)
        assert raw is not None
        assert plain is not None
        assert (raw.message, plain.message) == (said(" zidi bava", is_raw=True), said(" zidi bava"))
    chat = streamed(CHAT, "llamacpp/chat.sse", is_raw=True)
    assert chat is not None
    assert not chat.message.is_raw


def test_nothing_seen_is_no_answer() -> None:
    assert answer_of(CHAT, Transcript()) is None
    assert answer_of(CHAT, Transcript(calls=[CallDraft(0, "now", "a", pieces=["{"])])) is None


def test_several_choices_are_no_answer() -> None:
    """Their texts are not kept apart in a stream."""
    chunks = [{"choices": [{"index": index, "delta": {"content": "a"}}]} for index in (0, 1)]
    assert answer_of(CHAT, received(CHAT, sse(*chunks))) is None


def test_a_call_that_was_cut_is_left_out_and_a_whole_one_before_it_stays() -> None:
    calls = [CallDraft(0, "now", "a", pieces=["{}"]), CallDraft(1, "ping", "b", pieces=['{"n":'])]
    torn = answer_of(CHAT, Transcript(texts=["so"], calls=calls))
    assert torn is not None
    assert torn.message == said("so", Call("now", "{}", "a"))
    for finish in ("abort", "error"):
        assert answer_of(CHAT, Transcript(texts=["so"], calls=calls, finish=finish)) == Answered(torn.message, finish=finish)


def test_a_finished_answers_calls_are_as_the_model_made_them() -> None:
    """The client has them, too, and sends them back."""
    calls = [CallDraft(0, "now", "a"), CallDraft(1, "ping", "b", pieces=['{"n":'])]
    answered = answer_of(CHAT, Transcript(calls=calls, finish="length"))
    assert answered is not None
    assert answered.message == said("", Call("now", "{}", "a"), Call("ping", '{"n":', "b"))


def test_a_refusal_and_fields_that_nobody_knows_keep_the_text() -> None:
    deltas: list[dict[str, Any]] = [{"content": "I "}, {"content": "must", "citations": [1]}, {"refusal": " not"}]
    answered = answer_of(CHAT, received(CHAT, sse(*({"choices": [{"index": 0, "delta": delta}]} for delta in deltas))))
    assert answered is not None
    assert answered.message == said("I must not")


@pytest.mark.parametrize(
    ("facts", "counts"),
    [
        ({"usage": {"prompt_tokens": 9, "completion_tokens": 3}, "timed": (1, 1), "tokens": 1}, (9, 3)),
        ({"usage": {"input_tokens": 1, "cache_read_input_tokens": 8, "output_tokens": 3}}, (9, 3)),
        ({"usage": {}, "timed": (9, 3)}, (9, 3)),
        ({"timed": (9, 3)}, (9, 3)),
        ({"tokens": 3, "prompt_ids": [1, 2]}, (2, 3)),
        ({"usage": {"prompt_tokens": -9, "completion_tokens": 2**70}}, (0, 2**53)),
        ({}, (0, 0)),
    ],
)
def test_tokens_are_the_usages_or_what_else_tells_them(facts: dict[str, Any], counts: tuple[int, int]) -> None:
    answered = answer_of(CHAT, Transcript(texts=["a"], **facts))
    assert answered is not None
    assert (answered.prompt_tokens, answered.completion_tokens) == counts


# --- streams cut anywhere

_CALLS = [
    {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "now", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"zone":'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"utc"}'}}]},
    {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "ping", "arguments": "{"}}]},
    {"tool_calls": [{"index": 1, "function": {"arguments": "}"}}]},
]
_CHAT_EVENTS = [sse({"choices": [{"index": 0, "delta": delta}]}) for delta in ({"content": "so"}, {"reasoning": "hm"}, *_CALLS)]
_BLOCK_EVENTS = [
    sse(event)
    for event in (
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "a", "name": "now", "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"zone":'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"utc"}'}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    )
]
_LINES = [
    ndjson({"message": {"content": "", "thinking": "hm"}, "done": False}),
    ndjson({"message": {"content": "so"}, "done": False}),
    ndjson({"message": {"content": "", "tool_calls": [{"function": {"name": "now", "arguments": {"n": 1}}}]}, "done": False}),
    ndjson({"message": {"content": ""}, "done": True, "done_reason": "stop", "eval_count": 3}),
]
_STREAMS: list[tuple[Shape, list[bytes]]] = [
    (CHAT, [*_CHAT_EVENTS, sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})]),
    (MESSAGES, _BLOCK_EVENTS),
    (OLLAMA, _LINES),
    *((CHAT, events(name)) for name in ("llamacpp/chat.sse", "vllm/chat_reasoning.sse", "ollama/v1_chat.sse", "sglang/chat.sse")),
    *((OLLAMA, events(name)) for name in ("ollama/chat_tool_call.ndjson", "ollama/chat_thinking.ndjson")),
    *((MESSAGES, events(name)) for name in ("llamacpp/messages.sse", "llamacpp/messages_thinking.sse")),
    (TEXT, events("llamacpp/completions.sse")),
    (GENERATE, events("ollama/generate.ndjson")),
]


@pytest.mark.parametrize(("shape", "all_events"), _STREAMS)
def test_a_stream_cut_between_events_has_the_beginning_of_the_text_and_no_invented_call(
    shape: Shape, all_events: list[bytes]
) -> None:
    uncut = answer_of(shape, received(shape, b"".join(all_events)))
    assert uncut is not None
    transcript = Transcript()
    calls = 0
    for event in all_events:
        fold(transcript, shape, event)
        cut = answer_of(shape, transcript)
        message = cut.message if cut is not None else said()
        assert uncut.message.text.startswith(message.text)
        assert uncut.message.reasoning.startswith(message.reasoning)
        assert message.calls == uncut.message.calls[: len(message.calls)]
        assert len(message.calls) >= calls
        calls = len(message.calls)
    assert answer_of(shape, transcript) == uncut


@given(data=st.data(), shape=st.sampled_from(list(Shape)))
def test_whatever_bytes_come_nothing_is_raised(data: st.DataObject, shape: Shape) -> None:
    known = b"".join(event for kind, stream in _STREAMS if kind is shape for event in stream)
    body = bytearray(known)
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(known) - 1), st.integers(0, 255)), max_size=8)):
        body[place] = byte
    answer_of(shape, received(shape, bytes(body)))
    read_answer(PATHS[shape], bytes(body) + data.draw(st.binary(max_size=20)))


# --- whole answers

_USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
_CALL = {"id": "a", "type": "function", "function": {"name": "now", "arguments": '{"zone":"utc"}'}}


def chat(message: Any, **more: Any) -> dict[str, Any]:
    return {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **more}


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ({"role": "assistant", "content": "so"}, said("so")),
        ({"content": "so", "reasoning_content": "hm"}, said("so", reasoning="hm")),
        ({"content": "so", "reasoning": "hm", "reasoning_content": None}, said("so", reasoning="hm")),
        ({"content": None, "reasoning": "hm"}, said(reasoning="hm")),
        ({"content": [{"type": "text", "text": "so"}]}, said("so")),
        ({"content": None, "refusal": "no"}, said("no")),
        ({"content": "", "tool_calls": [_CALL]}, said("", Call("now", '{"zone":"utc"}', "a"))),
        ({"content": None, "tool_calls": [_CALL, _CALL]}, said("", *[Call("now", '{"zone":"utc"}', "a")] * 2)),
        ({"content": None, "function_call": {"name": "now", "arguments": ""}}, said("", Call("now"))),
        ({"content": "\ud83d\ude00", "tool_calls": []}, said("\N{GRINNING FACE}")),
    ],
)
def test_a_whole_chat_is_read_in_every_engines_words(message: Any, kept: Message) -> None:
    assert whole(CHAT, chat(message, usage=_USAGE)) == Answered(kept, 9, 3, "stop")
    assert whole(CHAT, chat(message)) == Answered(kept, finish="stop")


def test_of_several_choices_the_first_is_read_wherever_it_stands() -> None:
    choices = [{"index": index, "message": {"content": str(index)}, "finish_reason": "stop"} for index in (1, 0)]
    assert whole(CHAT, {"choices": choices}) == Answered(said("0"), finish="stop")
    assert whole(TEXT, {"choices": [{"text": "a"}, {"text": "b"}]}) == Answered(said("a"))
    assert whole(CHAT, {"choices": choices[:1]}) is None


def test_a_whole_completion_is_its_text() -> None:
    body = {"choices": [{"index": 0, "text": " so", "finish_reason": "length"}], "usage": _USAGE}
    assert whole(TEXT, body, is_raw=True) == Answered(said(" so", is_raw=True), 9, 3, "length")


def test_ollama_answers_with_one_object() -> None:
    message = {"role": "assistant", "content": "so", "thinking": "hm", "tool_calls": [{"function": {"name": "now"}}]}
    counters = {"done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 3, "context": [1, 2]}
    kept = said("so", Call("now"), reasoning="hm")
    assert whole(OLLAMA, {"message": message, **counters}) == Answered(kept, 9, 3, "stop")
    body = {"response": "so", "thinking": "hm", **counters}
    assert whole(GENERATE, body, is_raw=True) == Answered(said("so", reasoning="hm", is_raw=True), 9, 3, "stop")
    assert whole(GENERATE, {"response": "so", "done": True}) == Answered(said("so"), finish="stop")
    assert whole(GENERATE, {"response": "so"}) == Answered(said("so"))


def test_llamacpp_answers_ollamas_chat_with_openais() -> None:
    assert whole(OLLAMA, chat({"content": "so"}, usage=_USAGE)) == Answered(said("so"), 9, 3, "stop")


def test_a_whole_message_is_read_block_by_block() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "text", "text": "so"},
        {"type": "tool_use", "id": "a", "name": "now", "input": {}},
    ]
    usage = {"cache_read_input_tokens": 8, "input_tokens": 1, "output_tokens": 3}
    body = {"type": "message", "role": "assistant", "content": blocks, "stop_reason": "tool_use", "usage": usage}
    assert whole(MESSAGES, body) == Answered(said("so", Call("now", "{}", "a"), reasoning="hm"), 9, 3, "tool_use")


@pytest.mark.parametrize("shape", list(Shape))
@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"x", b"[]", b"7", b"null", b"{}", b'{"a":1}\n{"a":2}', b"[" * 100_000, b"\xff"),
        *(b'{"error":{"message":"x"}}', b'{"error":"x"}', b'{"type":"error","error":{}}', b'{"object":"error","message":"x"}'),
        b'{"choices":7,"message":7,"response":7,"content":7,"usage":7}',
        b'{"choices":[7],"message":[7],"content":[7]}',
        b'{"choices":[],"message":{},"response":"","content":[]}',
        b'{"choices":[{"index":0,"text":7,"message":{"content":7}}],"message":{"content":7}}',
        b'{"choices":[{"index":0,"message":{"tool_calls":[{}]}}],"message":{"tool_calls":[{}]},"content":[{"type":"tool_use"}]}',
    ],
)
def test_what_says_nothing_readable_is_no_answer(shape: Shape, body: bytes) -> None:
    assert read_answer(PATHS[shape], body) is None


def test_other_paths_have_no_answer_to_keep() -> None:
    body = json.dumps(chat({"content": "so"})).encode()
    assert read_answer("/v1/embeddings", body) is None
    assert read_answer("/v1/chat/completions?a=b", body) is not None


def test_what_strict_json_forbids_is_read_as_clients_read_it() -> None:
    body = b'{"choices":[{"index":0,"message":{"content":"a\\ud83d"},"logprobs":NaN}],"usage":{"prompt_tokens":9}}'
    assert read_answer(PATHS[CHAT], body) == Answered(said("a\ufffd"), 9)


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_streamed_and_a_whole_answer_are_one_message(finish: str) -> None:
    """A client may stream one turn and not the next; what it sends back must be recognised either way."""
    ended = sse({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    stream = answer_of(CHAT, received(CHAT, b"".join(_CHAT_EVENTS) + ended))
    calls = [_CALL, {"id": "b", "type": "function", "function": {"name": "ping", "arguments": "{}"}}]
    plain = whole(CHAT, chat({"content": "so", "reasoning": "hm", "tool_calls": calls}))
    assert stream is not None
    assert plain is not None
    assert stream.message == plain.message
    assert identity(stream.message) == identity(plain.message)


# --- prefills


def test_a_prefill_and_what_goes_on_from_it_are_one_message() -> None:
    image, other = ImagePart(data="x"), OtherPart("openai", "{}")
    assert joined(said("Once "), said("upon")) == said("Once upon")
    assert joined(said(), said("upon")) == said("upon")
    assert joined(said("Once "), said("")) == said("Once ")
    before = Message(Speaker.ASSISTANT, (TextPart("a"), image, TextPart("b")), reasoning="h", calls=(Call("now"),), name="x")
    answer = Message(Speaker.ASSISTANT, (TextPart("c"), other), reasoning="m", calls=(Call("ping"),), tokens=3)
    assert joined(before, answer) == Message(
        Speaker.ASSISTANT,
        (TextPart("a"), image, TextPart("bc"), other),
        reasoning="hm",
        calls=(Call("now"), Call("ping")),
        name="x",
        tokens=3,
    )


def test_a_whole_answer_that_begins_with_the_prefill_says_it_once() -> None:
    """llama.cpp, observed, b11549: white space around the prefill included."""
    assert joined(said("Once "), said("Once upon")) == said("Once upon")
    before = Message(Speaker.ASSISTANT, (TextPart("On"), TextPart("ce")), reasoning="hm")
    assert joined(before, said("Once upon", reasoning="hm, yes")) == said("Once upon", reasoning="hm, yes")
    assert joined(before, said("Once upon", reasoning=", yes")) == said("Once upon", reasoning="hm, yes")


def test_a_stream_that_begins_like_the_prefill_goes_on_from_it() -> None:
    assert joined(said("ha"), said("haha"), is_streamed=True) == said("hahaha")
