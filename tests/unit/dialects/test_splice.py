"""A stream goes on where it broke as if it had never broken: one role, one finish, one terminator, usage that adds up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.spliced import events, ndjson, read, received, spliced, sse, text_of
from understudy.core.transcript import Case, Continuation, Means, Shape, Wish
from understudy.dialects.framing import Splitter
from understudy.dialects.splice import Splice, Spliced

CHAT, TEXT, OLLAMA, GENERATE, MESSAGES = (
    Shape.OPENAI_CHAT,
    Shape.OPENAI_TEXT,
    Shape.OLLAMA_CHAT,
    Shape.OLLAMA_TEXT,
    Shape.ANTHROPIC,
)
WHOLE = [
    (CHAT, "llamacpp/chat.sse"),
    (CHAT, "llamacpp/chat_reasoning.sse"),
    (CHAT, "vllm/chat.sse"),
    (CHAT, "vllm/chat_keep_alive.sse"),
    (CHAT, "vllm/chat_reasoning.sse"),
    (CHAT, "sglang/chat.sse"),
    (CHAT, "ollama/v1_chat.sse"),
    (TEXT, "llamacpp/completions.sse"),
    (TEXT, "vllm/completions.sse"),
    (OLLAMA, "ollama/chat.ndjson"),
    (OLLAMA, "ollama/chat_thinking.ndjson"),
    (GENERATE, "ollama/generate.ndjson"),
    (MESSAGES, "llamacpp/messages.sse"),
    (MESSAGES, "llamacpp/messages_thinking.sse"),
]
CROSSED = [
    (CHAT, "vllm/chat.sse", TEXT, "llamacpp/completions.sse"),
    (CHAT, "llamacpp/chat.sse", GENERATE, "ollama/generate.ndjson"),
    (CHAT, "llamacpp/chat.sse", OLLAMA, "ollama/chat.ndjson"),
    (TEXT, "vllm/completions.sse", GENERATE, "ollama/generate.ndjson"),
    (OLLAMA, "ollama/chat.ndjson", GENERATE, "ollama/generate.ndjson"),
]
MARK = b": understudy resumed on gpu1 after 10 characters\n\n"
WITH_USAGE = Wish(CHAT, wants_usage=True)


def chunk(content: str = "", finish: str | None = None, **more: object) -> dict[str, object]:
    """Return a chunk of a backend that goes on, which has its own id."""
    choice = {"index": 0, "delta": {"content": content} if content else {}, "finish_reason": finish, **more}
    return {"id": "other", "model": "other.gguf", "created": 9, "choices": [choice]}


def rest(*contents: str, finish: str = "stop") -> bytes:
    """Return a whole continuation."""
    return sse(*(chunk(content) for content in contents), chunk(finish=finish)) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(("shape", "name"), WHOLE)
def test_every_prefix_and_its_rest_make_the_whole_text(shape: Shape, name: str) -> None:
    """Wherever an answer breaks before its finish, the client has its text once, and its reasoning."""
    all_events = events(name)
    whole = received(shape, b"".join(all_events))
    for cut in range(1, len(all_events)):
        before = b"".join(all_events[:cut])
        if received(shape, before).finish:
            break
        after = b"".join(all_events[cut:])
        result, _ = spliced(Wish(shape, wants_usage=True), before, after)
        client = received(shape, before + result.data)
        assert (client.text, client.reasoning, client.finish) == (whole.text, whole.reasoning, whole.finish)
        assert not client.is_unreadable
        assert result.is_complete
        assert not result.is_error
        assert client.head == whole.head


@pytest.mark.parametrize(("shape", "first", "other", "second"), CROSSED)
def test_another_engines_events_are_written_as_the_first_ones(shape: Shape, first: str, other: Shape, second: str) -> None:
    before = b"".join(events(first)[:2])
    after = b"".join(events(second))
    result, _ = spliced(Wish(shape), before, after, shape=other)
    assert result.is_complete
    assert text_of(shape, before + result.data) == text_of(shape, before) + text_of(other, after)
    assert received(shape, result.data).head.keys() - {"created_at"} <= received(shape, before).head.keys()
    assert received(shape, before + result.data).finish == received(other, after).finish


@given(data=st.data(), golden=st.sampled_from(WHOLE))
def test_a_continuation_reads_the_same_however_it_is_cut(data: st.DataObject, golden: tuple[Shape, str]) -> None:
    shape, name = golden
    all_events = events(name)
    after = b"".join(all_events[2:])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(after)), max_size=12)))
    wish = Wish(shape, stops=("va fu",), wants_usage=True)
    transcript = received(shape, b"".join(all_events[:2]))
    splice = Splice(wish, transcript, Continuation(Means.VLLM_CHAT, "/", b"", shape), backend="gpu1", earlier_s=0.5)
    results = [splice.feed(after[start:end]) for start, end in zip([0, *cuts], [*cuts, len(after)], strict=True)]
    results.append(splice.end())
    at_once, _ = spliced(wish, transcript, after, earlier_s=0.5)
    assert b"".join(result.data for result in results) == at_once.data
    assert results[-1].is_complete is at_once.is_complete


def test_the_clients_stream_keeps_the_first_backends_fields() -> None:
    before = b"".join(events("llamacpp/chat.sse")[:3])
    first = read(before)[1]
    result, _ = spliced(Wish(CHAT), before, rest(" fuko"))
    assert result.data.startswith(MARK)
    assert result.data.count(MARK[:20]) == 1
    chunks = read(result.data)
    assert chunks[-1] == "[DONE]"
    for later in chunks[:-1]:
        assert list(later) == list(first)
        assert {key: later[key] for key in later if key != "choices"} == {key: first[key] for key in first if key != "choices"}
    assert [later["choices"][0] for later in chunks[:-1]] == [
        {"finish_reason": None, "index": 0, "delta": {"content": " fuko"}},
        {"finish_reason": "stop", "index": 0, "delta": {}},
    ]


def test_no_second_role_and_no_null_content_reach_the_client() -> None:
    before = b"".join(events("vllm/chat.sse")[:2])
    result, _ = spliced(Wish(CHAT), before, b"".join(events("llamacpp/chat.sse")))
    assert b"role" not in result.data
    assert b'"content":null' not in result.data


def test_usage_counts_the_prompt_once_and_the_completion_over_all_parts() -> None:
    """The continuation's prompt of 29 holds the two tokens that the client had."""
    before = b"".join(events("llamacpp/chat.sse")[:3])
    result, splice = spliced(WITH_USAGE, before, b"".join(events("llamacpp/chat.sse")[1:]))
    usage = read(result.data)[-2]
    assert usage["choices"] == []
    assert usage["usage"] == {
        "completion_tokens": 6,
        "prompt_tokens": 27,
        "total_tokens": 33,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert (splice.prompt_tokens, splice.completion_tokens) == (29, 4)


@pytest.mark.parametrize(
    ("delivered", "usage"),
    [
        (7, {"prompt_tokens": 19, "completion_tokens": 9, "total_tokens": 28}),
        (99, {"prompt_tokens": 0, "completion_tokens": 101}),
    ],
)
def test_an_engines_own_count_of_what_was_delivered_goes_before_ours(delivered: int, usage: dict[str, int]) -> None:
    before = b"".join(events("vllm/chat.sse")[:2])
    after = b"".join(events("vllm/chat.sse")[1:])
    result, _ = spliced(WITH_USAGE, before, after, delivered_tokens=delivered)
    assert read(result.data)[-2]["usage"].items() >= usage.items()


def test_no_usage_is_written_that_nobody_wants() -> None:
    before = b"".join(events("llamacpp/chat.sse")[:3])
    result, _ = spliced(Wish(CHAT), before, b"".join(events("llamacpp/chat.sse")[3:]))
    assert b"usage" not in result.data


def test_llamacpps_completion_has_its_usage_in_the_finish_whoever_goes_on() -> None:
    before = b"".join(events("llamacpp/completions.sse")[:2])
    usage = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
    after = sse(
        {"choices": [{"index": 0, "text": " x", "finish_reason": "stop"}]},
        {"choices": [], "usage": usage},
    )
    result, _ = spliced(Wish(TEXT), before, after + b"data: [DONE]\n\n")
    first, finish, done = read(result.data)
    assert (first["choices"][0]["text"], first["choices"][0]["finish_reason"]) == (" x", None)
    assert (finish["choices"][0]["text"], finish["choices"][0]["finish_reason"]) == ("", "stop")
    assert finish["usage"] == {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}
    assert done == "[DONE]"


def test_ollamas_last_line_adds_up_in_tokens_and_time() -> None:
    lines = events("ollama/chat.ndjson")
    result, _ = spliced(Wish(OLLAMA), lines[0], b"".join(lines), earlier_s=1.5)
    first, *_, last = read(result.data)
    assert first["understudy_resumed"] == {"backend": "gpu1", "after_characters": 5}
    assert result.data.count(b"understudy_resumed") == 1
    assert last["done_reason"] == "length"
    assert (last["prompt_eval_count"], last["eval_count"]) == (25, 3)
    assert (last["total_duration"], last["eval_duration"]) == (1_548_211_000, 1_500_900_000)
    assert last["created_at"] == "2026-08-21T10:00:00.000003Z"


@pytest.mark.parametrize(
    "ending",
    [b"", b"data: [DONE]\n\n", b": ping\n\n", b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'],
)
def test_an_end_without_a_finish_is_no_end(ending: bytes) -> None:
    before = b"".join(events("llamacpp/chat.sse")[:3])
    result, _ = spliced(Wish(CHAT), before, sse(chunk(" fuko")) + ending)
    assert not result.is_complete
    assert not result.is_error
    assert b"[DONE]" not in result.data


def test_a_finish_without_the_terminator_is_completed_at_a_clean_end() -> None:
    before = b"".join(events("llamacpp/chat.sse")[:3])
    result, _ = spliced(Wish(CHAT), before, sse(chunk(" fuko"), chunk(finish="stop")))
    assert result.is_complete
    assert result.data.endswith(b"data: [DONE]\n\n")


def test_a_last_event_without_its_blank_line_counts_and_half_an_event_does_not() -> None:
    before = b"".join(events("llamacpp/chat.sse")[:3])
    result, _ = spliced(Wish(CHAT), before, sse(chunk(" fuko"), chunk(finish="stop")).removesuffix(b"\n\n"))
    assert result.is_complete
    result, _ = spliced(Wish(CHAT), before, sse(chunk(" fuko"), chunk(" mimo"))[:-20])
    assert not result.is_complete
    assert not result.is_error
    assert text_of(CHAT, result.data) == " fuko"


@pytest.mark.parametrize(
    "failure",
    [
        b'data: {"error":{"code":500,"message":"x"}}\n\ndata: [DONE]\n\n',
        b"event: error\ndata: x\n\n",
        b"event: error\n\n",
        b"data: {not json\n\n",
        sse(chunk("x", finish="abort")),
        sse({"choices": [{"index": 1, "delta": {"content": "x"}}]}),
        sse({"choices": [{"index": 0, "delta": {"refusal": "I cannot"}}]}),
        sse({"choices": [{"index": 0, "delta": {"audio": {"data": "x"}}}]}),
        sse({"choices": [{"index": 0, "delta": {"brand_new": "x"}}]}),
    ],
)
def test_an_error_and_what_cannot_be_understood_end_a_continuation(failure: bytes) -> None:
    before = b"".join(events("llamacpp/chat.sse")[:3])
    result, splice = spliced(Wish(CHAT), before, sse(chunk(" fuko")) + failure + rest(" more"))
    assert result.is_error
    assert not result.is_complete
    assert text_of(CHAT, result.data) == " fuko"
    assert splice.feed(rest(" more")) == Spliced(is_error=True)


def test_an_event_without_an_end_is_an_error_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("understudy.dialects.splice.Splitter", lambda kind: Splitter(kind, 64))
    result, _ = spliced(Wish(CHAT), events("llamacpp/chat.sse")[0], b"data: " + b"x" * 100)
    assert result.is_error


def test_a_stop_string_across_the_seam_ends_the_answer_before_it() -> None:
    """The client has " zidi bava"; the stop string begins in "va". Nothing of its rest is sent, and nothing after."""
    before = b"".join(events("llamacpp/chat.sse")[:3])
    wish = Wish(CHAT, stops=("never", "va\nUser:"))
    result, _ = spliced(wish, before, rest("\n", "User", ": hello", " fuko"))
    assert result.is_complete
    assert text_of(CHAT, result.data) == ""
    finish, done = read(result.data)
    assert (finish["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")


def test_text_that_only_looked_like_a_stop_string_is_sent_in_order() -> None:
    before = b"".join(events("llamacpp/chat.sse")[:3])
    result, _ = spliced(Wish(CHAT, stops=("va\nUser:",)), before, rest("\n", "Use", " it", " now"))
    assert [event["choices"][0]["delta"].get("content") for event in read(result.data)[:-2]] == ["\n", "Use", " it", " now"]
    assert received(CHAT, result.data).finish == "stop"


def test_text_held_for_a_stop_string_comes_with_the_finish() -> None:
    before = b"".join(events("llamacpp/chat.sse")[:3])
    result, _ = spliced(Wish(CHAT, stops=("va\nUser:",)), before, rest("\n", "Use", finish="length"))
    assert text_of(CHAT, result.data) == "\nUse"
    assert result.is_complete


def test_vllms_finish_names_the_stop_string_and_llamacpps_does_not() -> None:
    for name, reason in (("vllm/chat.sse", {"stop_reason": "diX"}), ("llamacpp/chat.sse", {})):
        result, _ = spliced(Wish(CHAT, stops=("diX",)), b"".join(events(name)[:2]), rest("X"))
        choice = read(result.data)[0]["choices"][0]
        assert {key: choice[key] for key in choice if key == "stop_reason"} == reason
        assert "stop_sequence" not in choice


def test_what_the_client_has_already_is_swallowed() -> None:
    """A template has stripped the white space at the end of the text; the model writes it again, in pieces."""
    before = sse(chunk("Yes.\n\n"))
    result, _ = spliced(Wish(CHAT), before, rest("\n", "\nAnd", " no"), swallow="\n\n")
    assert text_of(CHAT, before + result.data) == "Yes.\n\nAnd no"
    result, _ = spliced(Wish(CHAT), before, rest("\n", "And\n"), swallow="\n\n")
    assert text_of(CHAT, result.data) == "And\n"


def test_reasoning_is_swallowed_where_the_model_was_thinking() -> None:
    before = sse({"choices": [{"index": 0, "delta": {"reasoning": "Hm. "}}]})
    after = sse(
        {"choices": [{"index": 0, "delta": {"reasoning_content": " So."}}]},
        chunk(" Yes"),
    )
    result, _ = spliced(Wish(CHAT), before, after, swallow=" ")
    assert [event["choices"][0]["delta"] for event in read(result.data)] == [{"reasoning": "So."}, {"content": " Yes"}]


def test_what_the_engine_takes_for_said_goes_first_and_may_complete_a_stop_string() -> None:
    before = sse(chunk("One"))
    result, _ = spliced(Wish(CHAT), before, rest(" three"), undelivered=" two")
    assert text_of(CHAT, result.data) == " two three"
    result, _ = spliced(Wish(CHAT, stops=("two three",)), before, rest(" three", " four"), undelivered=" two")
    assert (text_of(CHAT, result.data), result.is_complete) == (" ", True)
    result, _ = spliced(Wish(CHAT), before, rest(), undelivered=" two")
    assert (text_of(CHAT, result.data), result.is_complete) == (" two", True)


@pytest.mark.parametrize(("shape", "name"), WHOLE)
def test_an_answer_may_break_twice_anywhere(shape: Shape, name: str) -> None:
    """What the first splice has written is read like any stream; what it held back or had begun to read is lost to it alone."""
    all_events = events(name)
    whole = received(shape, b"".join(all_events))
    wish = Wish(shape, stops=("never",), wants_usage=True)
    for first in range(1, len(all_events)):
        before = b"".join(all_events[:first])
        if received(shape, before).finish:
            break
        for second in range(first, len(all_events)):
            middle, _ = spliced(wish, before, b"".join(all_events[first:second]) + all_events[second][:-9])
            if middle.is_complete or received(shape, before + middle.kept).finish:
                break
            last, _ = spliced(wish, before + middle.kept, b"".join(all_events[second:]))
            client = received(shape, before + middle.data + last.data)
            assert (client.text, client.reasoning, client.finish) == (whole.text, whole.reasoning, whole.finish)
            assert last.is_complete
            assert not client.is_unreadable


def test_usage_adds_up_over_two_breaks() -> None:
    """Each backend counts what was delivered before as its prompt: 29, then 29 + 1, then 29 + 2 tokens."""
    all_events = events("llamacpp/chat.sse")
    before = b"".join(all_events[:2])
    middle, _ = spliced(WITH_USAGE, before, all_events[2])
    usage = {"prompt_tokens": 31, "completion_tokens": 2, "total_tokens": 33}
    after = b"".join(all_events[3:6]) + sse({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
    last, _ = spliced(WITH_USAGE, before + middle.kept, after)
    assert read(last.data)[-2]["usage"] == {"prompt_tokens": 29, "completion_tokens": 4, "total_tokens": 33}


def test_token_ids_stay_in_the_transcript_and_do_not_reach_the_client() -> None:
    before = sse(
        {"choices": [{"index": 0, "delta": {"role": "assistant"}}], "prompt_token_ids": [1, 2]},
        chunk(" a", token_ids=[3]),
    )
    after = sse(
        {"choices": [{"index": 0, "text": "", "token_ids": [4], "prompt_token_ids": [1, 2, 3]}]},
        {"choices": [{"index": 0, "text": " b", "token_ids": [5]}]},
        {"choices": [{"index": 0, "text": "", "token_ids": [], "finish_reason": "stop"}]},
    )
    result, _ = spliced(Wish(CHAT), before, after + b"data: [DONE]\n\n", shape=TEXT)
    assert b"token_ids" not in result.data
    assert result.data.startswith(b": understudy resumed")
    kept = received(CHAT, before + result.kept)
    assert (kept.prompt_ids, kept.ids, kept.text) == ([1, 2], [3, 4, 5], " a b")
    result, _ = spliced(Wish(CHAT, wants_token_ids=True), before, after, shape=TEXT)
    assert result.data == result.kept
    assert b"prompt_token_ids" not in result.data
    assert [event["choices"][0].get("token_ids") for event in read(result.data)[:2]] == [[4], [5]]


def test_the_same_bytes_are_kept_where_there_are_no_token_ids() -> None:
    result, _ = spliced(Wish(CHAT), events("llamacpp/chat.sse")[0], rest(" a"))
    assert result.data == result.kept


def test_a_tool_call_passes_whole_and_in_the_first_dialect() -> None:
    line = {
        "message": {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "now", "arguments": {"tz": 1}}}]}
    }
    after = ndjson({**line, "done": False}, {"message": {"content": ""}, "done": True, "done_reason": "stop"})
    wish = Wish(CHAT, cases=frozenset({Case.TOOLS_OFFERED}))
    result, _ = spliced(wish, b"".join(events("llamacpp/chat.sse")[:3]), after, shape=OLLAMA)
    call, finish, _ = read(result.data)
    assert result.is_content
    assert call["choices"][0]["delta"]["tool_calls"] == [
        {"index": 0, "id": "call_0", "type": "function", "function": {"name": "now", "arguments": '{"tz":1}'}}
    ]
    assert finish["choices"][0]["finish_reason"] == "tool_calls"
    calls = [{"index": 0, "id": "a", "type": "function", "function": {"name": "now", "arguments": "{"}}]
    result, _ = spliced(wish, events("vllm/chat.sse")[1], sse({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}))
    assert read(result.data)[0]["choices"][0]["delta"] == {"tool_calls": calls}


def test_comments_and_a_role_alone_write_nothing() -> None:
    splice = Splice(
        Wish(CHAT),
        received(CHAT, b"".join(events("llamacpp/chat.sse")[:3])),
        Continuation(Means.LLAMACPP_CHAT, "/", b"", CHAT),
        backend="gpu1",
        earlier_s=0.0,
    )
    assert splice.feed(b": ping\n\n" + events("llamacpp/chat.sse")[0]) == Spliced()
