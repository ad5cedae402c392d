"""What a client has received is told from the bytes that passed, whatever engine wrote them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.spliced import GOLDEN, events, ndjson, received, sse
from understudy.core.transcript import Shape, Transcript
from understudy.dialects.fold import fold

CHAT, TEXT, OLLAMA, GENERATE, MESSAGES = (
    Shape.OPENAI_CHAT,
    Shape.OPENAI_TEXT,
    Shape.OLLAMA_CHAT,
    Shape.OLLAMA_TEXT,
    Shape.ANTHROPIC,
)
SEAM = b": understudy resumed on gpu1 after 2 characters\n\n"


def chunk(content: str, **more: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": content}, **more}]}


def text_delta(text: str) -> bytes:
    return sse({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})


@pytest.mark.parametrize(
    ("shape", "name", "text", "reasoning", "finish"),
    [
        (CHAT, "llamacpp/chat.sse", " zidi bava fuko mimo", "", "length"),
        (CHAT, "llamacpp/chat_reasoning.sse", "", " nuko ravufabe", "length"),
        (CHAT, "vllm/chat_reasoning.sse", " bava", " nuko", "length"),
        (CHAT, "vllm/chat_keep_alive.sse", " bava", "", "length"),
        (CHAT, "sglang/chat.sse", " zidi", "", "stop"),
        (CHAT, "ollama/v1_chat.sse", " zidi", " nuko", "length"),
        (TEXT, "llamacpp/completions.sse", " gefi sika pire", "", "length"),
        (TEXT, "vllm/completions.sse", " zidi bava", "", "length"),
        (OLLAMA, "ollama/chat.ndjson", " zidi bava", "", "length"),
        (OLLAMA, "ollama/chat_thinking.ndjson", " bava", " nuko", "length"),
        (GENERATE, "ollama/generate.ndjson", " zidi bava", "", "length"),
        (MESSAGES, "llamacpp/messages.sse", " zidi bava fuko", "", "max_tokens"),
        (MESSAGES, "llamacpp/messages_thinking.sse", "", " nuko ravufa", "max_tokens"),
    ],
)
def test_every_engines_stream_is_read(shape: Shape, name: str, text: str, reasoning: str, finish: str) -> None:
    transcript = received(shape, (GOLDEN / name).read_bytes())
    assert (transcript.text, transcript.reasoning, transcript.finish) == (text, reasoning, finish)
    assert transcript.choices == 1
    assert not transcript.is_unreadable


@given(data=st.data(), name=st.sampled_from(["llamacpp/chat.sse", "vllm/chat_reasoning.sse", "sglang/chat.sse"]))
def test_events_may_come_in_any_portions_and_with_any_line_ends(data: st.DataObject, name: str) -> None:
    all_events = events(name)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(all_events)))))
    line_end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    transcript = Transcript()
    for start, end in zip([0, *cuts], [*cuts, len(all_events)], strict=True):
        fold(transcript, CHAT, b"".join(all_events[start:end]).replace(b"\n", line_end))
    whole = received(CHAT, b"".join(all_events))
    assert (transcript.text, transcript.reasoning, transcript.head) == (whole.text, whole.reasoning, whole.head)


def test_the_last_event_may_lack_its_blank_line() -> None:
    assert received(CHAT, sse(chunk("a"), chunk("b"))[:-2]).text == "ab"


def test_what_stays_the_same_is_kept_as_the_first_backend_wrote_it() -> None:
    transcript = received(CHAT, (GOLDEN / "vllm/chat.sse").read_bytes())
    assert list(transcript.head.items()) == [
        ("id", "chatcmpl-8f1c2d"),
        ("object", "chat.completion.chunk"),
        ("created", 1790000000),
        ("model", "tiny"),
        ("choices", []),
    ]
    # Of the first event with text: that of the role has no token_ids.
    assert transcript.choice == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None, "token_ids": None}
    lines = received(GENERATE, (GOLDEN / "ollama/generate.ndjson").read_bytes())
    assert lines.head == {"model": "m", "created_at": "2026-08-21T10:00:00.000001Z", "response": "", "done": False}


def test_an_events_own_fields_are_no_part_of_what_stays() -> None:
    first = {"id": "a", **chunk("x", token_ids=[3]), "usage": {"prompt_tokens": 1}, "timings": {}, "prompt_token_ids": [1]}
    transcript = received(CHAT, sse(first))
    assert transcript.head == {"id": "a", "choices": []}
    assert transcript.choice == {"index": 0, "delta": {}, "token_ids": None}
    assert received(CHAT, sse({"id": "a", **chunk("x"), "usage": None})).head == {"id": "a", "choices": [], "usage": None}


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        (CHAT, b"data: {not json\n\n"),
        (CHAT, b"data: 7\n\n"),
        (CHAT, b'data: {"error":{"message":"x"}}\n\n'),
        (CHAT, b"event: error\n\n"),
        (CHAT, b'data: {"choices":[{"index":0,"delta":{"refusal":"no"}}]}\n\n'),
        (OLLAMA, b'{"error":"x"}\n'),
        (OLLAMA, b"nonsense\n"),
        (MESSAGES, b'event: error\ndata: {"type":"error","error":{}}\n\n'),
        (MESSAGES, b"event: brand_new\ndata: {}\n\n"),
        (MESSAGES, b"event: error\n\n"),
    ],
)
def test_an_event_that_says_who_knows_what_makes_the_whole_unreadable(shape: Shape, data: bytes) -> None:
    assert received(shape, data).is_unreadable


@pytest.mark.parametrize(
    ("shape", "data", "has_gap"),
    [
        (CHAT, sse({"choices": [{"index": 0, "delta": {"content": "b", "citations": [1]}}]}), False),
        (CHAT, sse({"choices": [{"index": 0, "delta": {"refusal": "b"}}]}), False),
        (CHAT, sse({"choices": [{"index": 0, "delta": {"content": ["b"]}}]}), True),
        (CHAT, sse({"error": {"message": "x"}}), False),
        (OLLAMA, ndjson({"message": {"content": "b", "tool_name": "now"}, "done": False}), False),
        (OLLAMA, ndjson({"message": {"content": "", "images": ["x"]}, "done": False}), True),
        (OLLAMA, ndjson({"error": "x"}), False),
        (MESSAGES, sse({"type": "brand_new"}), True),
        (MESSAGES, sse({"type": "error", "error": {}}), False),
    ],
)
def test_what_is_known_of_an_event_stays_and_a_gap_is_told(shape: Shape, data: bytes, has_gap: bool) -> None:
    """Nothing goes on with either, but a client has seen the text."""
    said = {CHAT: sse(chunk("a")), OLLAMA: ndjson({"message": {"content": "a"}, "done": False}), MESSAGES: text_delta("a")}
    transcript = received(shape, said[shape] + data + said[shape])
    assert (transcript.is_unreadable, transcript.has_gap) == (True, has_gap)
    assert transcript.text == ("aba" if b'"b"' in data and not has_gap else "aa")


def test_a_strange_event_of_another_choice_tells_that_there_are_several() -> None:
    strange = {"choices": [{"index": 1, "delta": {"content": "b", "citations": [1]}}]}
    assert received(CHAT, sse(chunk("a"), strange)).choices == 2


def test_comments_pings_and_the_terminator_add_nothing() -> None:
    transcript = received(CHAT, b": ping\n\n:\n\ndata: [DONE]\n\n\n\n")
    assert transcript == Transcript()
    assert not received(MESSAGES, b'event: ping\ndata: {"type": "ping"}\n\n').is_unreadable


def test_tool_calls_and_sound_are_seen_in_every_dialect() -> None:
    assert received(CHAT, sse({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0}]}}]})).has_tool_call
    assert received(CHAT, sse({"choices": [{"index": 0, "delta": {"audio": {"id": "a"}}}]})).has_audio
    assert received(OLLAMA, (GOLDEN / "ollama/chat_tool_call.ndjson").read_bytes()).has_tool_call
    start = b'data: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"now","input":{}}}\n\n'
    assert received(MESSAGES, start).has_tool_call


def test_only_the_first_choices_calls_are_gathered() -> None:
    call = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "now", "arguments": "{}"}}]}
    transcript = received(CHAT, sse({"choices": [{"index": 0, "delta": call}]}, {"choices": [{"index": 1, "delta": call}]}))
    assert (transcript.choices, len(transcript.calls)) == (2, 1)


def test_timings_beside_the_finish_tell_the_tokens() -> None:
    """llama.cpp, recorded: they stand there where no usage was asked for, and the cache's part of the prompt stands apart."""
    timings = {"cache_n": 20, "prompt_n": 9, "predicted_n": 4}
    finish = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "timings": timings}
    assert received(CHAT, sse(chunk("a"), finish)).timed == (29, 4)
    assert received(CHAT, sse({**chunk("a"), "timings": timings})).timed is None


def test_several_choices_are_counted() -> None:
    assert received(CHAT, sse({"choices": [{"index": 2, "delta": {"content": "a"}}]})).choices == 3
    assert received(CHAT, sse({"choices": [{"index": 0, "delta": {}}, {"index": 1, "delta": {}}]})).choices == 2


def test_a_repetition_is_counted() -> None:
    transcript = received(OLLAMA, (GOLDEN / "ollama/chat_token_repeat.ndjson").read_bytes())
    assert (transcript.piece, transcript.repeats, transcript.pieces) == (" zidi", 31, 31)
    fold(transcript, OLLAMA, ndjson({"message": {"content": "other"}, "done": False}))
    assert (transcript.piece, transcript.repeats, transcript.pieces) == ("other", 1, 32)


def test_tokens_are_known_while_the_engine_tells_them() -> None:
    counted = {**chunk("a"), "timings": {"predicted_n": 4}}
    used = {**chunk("a"), "usage": {"prompt_tokens": 9, "completion_tokens": 6}}
    assert received(CHAT, sse(counted)).tokens == 4
    transcript = received(CHAT, sse(counted, used))
    assert (transcript.tokens, transcript.has_usage_each) == (6, True)
    assert received(CHAT, sse(counted, chunk("b"))).tokens is None


def test_a_usage_event_behind_the_finish_is_remembered() -> None:
    finish, usage = chunk("", finish_reason="stop"), {"choices": [], "usage": {"prompt_tokens": 9}}
    assert received(CHAT, sse(chunk("a"), finish, usage)).is_usage_sent
    assert not received(CHAT, sse(chunk("a"), finish)).is_usage_sent


def test_the_names_of_the_reasoning_are_the_first_backends() -> None:
    data = sse(
        {"choices": [{"index": 0, "delta": {"reasoning": "a"}}]}, {"choices": [{"index": 0, "delta": {"reasoning_content": "b"}}]}
    )
    assert received(CHAT, data).reasoning_keys == ("reasoning",)


def test_token_ids_are_kept_up_to_the_last_text() -> None:
    """Ids without text are the beginning of a character: they count once it is complete, and not if it never is."""
    opening = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}], "prompt_token_ids": [1, 2]}
    transcript = received(CHAT, sse(opening, chunk("a", token_ids=[3]), chunk("", token_ids=[4]), chunk("", token_ids=[5])))
    assert (transcript.prompt_ids, transcript.ids, transcript.tokens) == ([1, 2], [3], 1)
    assert transcript.cut_ids == [4, 5]
    fold(transcript, CHAT, sse(chunk("b", token_ids=[6])))
    assert (transcript.ids, transcript.tokens) == ([3, 4, 5, 6], 4)


def test_a_completions_prompt_ids_stand_in_its_choice() -> None:
    first = {"choices": [{"index": 0, "text": "a", "token_ids": [3], "prompt_token_ids": [1, 2]}]}
    transcript = received(TEXT, sse(first))
    assert (transcript.prompt_ids, transcript.ids) == ([1, 2], [3])


def test_ids_of_a_character_that_broke_off_are_forgotten_at_the_seam() -> None:
    opening = {"choices": [], "prompt_token_ids": [1, 2]}
    before = sse(opening, chunk("a", token_ids=[3]), chunk("", token_ids=[4]))
    transcript = received(CHAT, before + SEAM + sse(chunk("b", token_ids=[7])))
    assert transcript.ids == [3, 7]


def test_ids_with_a_gap_are_no_ids() -> None:
    """A backend went on that tells none."""
    opening = {"choices": [], "prompt_token_ids": [1, 2]}
    before = sse(opening, chunk("a", token_ids=[3]))
    transcript = received(CHAT, before + SEAM + sse(chunk("b"), chunk("c")))
    assert (transcript.prompt_ids, transcript.ids, transcript.text) == ([], [], "abc")
    assert transcript.tokens is None


def test_ids_without_those_of_the_prompt_are_not_kept() -> None:
    assert received(CHAT, sse(chunk("a", token_ids=[3]))).ids == []


def test_the_open_content_block_is_known() -> None:
    all_events = events("llamacpp/messages.sse")
    transcript = received(MESSAGES, b"".join(all_events[:3]))
    assert transcript.open_block == (0, "text")
    assert transcript.blocks == 1
    assert transcript.usage == {"cache_read_input_tokens": 28, "input_tokens": 1, "output_tokens": 0}
    assert received(MESSAGES, b"".join(all_events)).open_block is None
