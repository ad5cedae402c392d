"""Tool calls come in pieces, and each engine cuts them its own way."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.spliced import GOLDEN, ndjson, received, sse
from understudy.core.message import Call
from understudy.core.transcript import CallDraft, Shape, Transcript
from understudy.dialects.calls import CALLS_MAX, add_calls, add_to_block, begin_block, read_call

CHAT, OLLAMA, GENERATE, MESSAGES = Shape.OPENAI_CHAT, Shape.OLLAMA_CHAT, Shape.OLLAMA_TEXT, Shape.ANTHROPIC

Item = dict[str, Any]


def item(arguments: Any = None, *, name: str | None = None, **more: Any) -> Item:
    """One item of a delta's tool_calls; `more` are its id and its index."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**more, "function": function}


def openai(*deltas: list[Item]) -> Transcript:
    """Fold a stream in which each of `deltas` is the tool_calls of one event."""
    return received(CHAT, sse(*({"choices": [{"index": 0, "delta": {"tool_calls": items}}]} for items in deltas)))


def anthropic(*fields: dict[str, Any]) -> Transcript:
    """Fold a stream of content block events, each told by what it has besides its type."""
    kinds = {"content_block": "content_block_start", "delta": "content_block_delta"}
    return received(
        MESSAGES,
        sse(*({"type": next((kinds[key] for key in each if key in kinds), "content_block_stop"), **each} for each in fields)),
    )


def called(transcript: Transcript, *, is_over: bool = False) -> list[tuple[str, str, str]]:
    """Return name, arguments and id of the calls that are whole."""
    calls = [read_call(draft, is_over=is_over) for draft in transcript.calls]
    return [(call.name, call.arguments, call.id) for call in calls if call is not None]


# --- OpenAI's deltas


def test_llamacpp_tells_the_name_first_and_the_arguments_piece_by_piece() -> None:
    """Recorded, b11549: no arguments in the first piece, neither id nor name in the others, and one call after another."""
    transcript = openai(
        [item(index=0, id="a", type="function", name="now")],
        [item('{"zone":', index=0)],
        [item('"utc"}', index=0)],
        [item(index=1, id="b", type="function", name="ping")],
        [item("{}", index=1)],
    )
    assert called(transcript) == [("now", '{"zone":"utc"}', "a"), ("ping", "{}", "b")]
    assert transcript.has_tool_call


def test_a_name_and_an_id_may_grow_while_llamacpp_still_reads_them() -> None:
    """Read in common/chat.cpp: a difference of the id is written with the whole name and the whole id."""
    transcript = openai([item(index=0, id="12", name="no")], [item("{}", index=0, id="1234", name="now")])
    assert called(transcript) == [("now", "{}", "1234")]


def test_sglang_writes_null_for_id_and_name_from_the_second_piece_on() -> None:
    """Read in srt/entrypoints/openai/serving_chat.py, 0.5."""
    transcript = openai(
        [{"id": "call_a", "index": 0, "type": "function", "function": {"name": "now", "arguments": ""}}],
        [{"id": None, "index": 0, "type": "function", "function": {"name": None, "arguments": '{"zone":'}}],
        [{"id": None, "index": 0, "type": "function", "function": {"name": None, "arguments": ' "utc"}'}}],
    )
    assert called(transcript) == [("now", '{"zone": "utc"}', "call_a")]


def test_vllm_may_repeat_the_name_of_a_forced_call_without_any_id() -> None:
    transcript = openai([item("{", name="now", index=0)], [item("}", name="now", index=0)])
    assert called(transcript) == [("now", "{}", "")]


def test_vllm_may_put_several_pieces_into_one_event() -> None:
    transcript = openai([item("{", name="now", index=0, id="a"), item("}", index=0), item("{}", name="ping", index=1, id="b")])
    assert called(transcript) == [("now", "{}", "a"), ("ping", "{}", "b")]


def test_pieces_of_several_calls_may_come_in_turns() -> None:
    transcript = openai(
        [item("{", name="now", index=0, id="a"), item("{", name="ping", index=1, id="b")],
        [item("}", index=1)],
        [item("}", index=0)],
    )
    assert called(transcript) == [("now", "{}", "a"), ("ping", "{}", "b")]


def test_ollamas_v1_gives_every_call_whole_and_once_gave_all_of_them_index_0() -> None:
    transcript = openai(
        [item('{"a":1}', name="now", index=0, id="call_x", type="function")],
        [item('{"a":1}', name="now", index=0, id="call_y", type="function")],
    )
    assert called(transcript) == [("now", '{"a":1}', "call_x"), ("now", '{"a":1}', "call_y")]


def test_an_id_made_up_for_each_piece_begins_no_new_call() -> None:
    transcript = openai([item("{", name="now", index=0, id="a")], [item("}", index=0, id="b")])
    assert called(transcript) == [("now", "{}", "a")]


def test_an_id_may_come_late() -> None:
    assert called(openai([item("{", name="now", index=0)], [item("}", index=0, id="a")])) == [("now", "{}", "a")]


def test_without_an_index_the_id_tells_and_without_both_the_name() -> None:
    by_id = openai([item("{", name="now", id="a")], [item("{}", name="ping", id="b")], [item("}", id="a")])
    assert called(by_id) == [("now", "{}", "a"), ("ping", "{}", "b")]
    by_name = openai([item("{", name="now")], [item("}")], [item("{}", name="now")], [item("")])
    assert called(by_name) == [("now", "{}", ""), ("now", "{}", "")]


def test_a_piece_with_an_unknown_index_alone_belongs_to_the_last_call() -> None:
    assert called(openai([item("{", name="now")], [item("}", index=0)])) == [("now", "{}", "")]
    assert called(openai([item("{}", name="now", index=0)], [item(index=1, id="b")])) == [("now", "{}", "")]


def test_an_older_function_call_is_one() -> None:
    deltas = [{"function_call": {"name": "now", "arguments": ""}}, {"function_call": {"arguments": "{}"}}]
    transcript = received(CHAT, sse(*({"choices": [{"index": 0, "delta": delta}]} for delta in deltas)))
    assert called(transcript) == [("now", "{}", "")]
    assert (transcript.is_unreadable, transcript.has_gap) == (True, False)


# --- Ollama's lines


def test_ollamas_calls_come_whole_with_arguments_as_an_object() -> None:
    golden = received(OLLAMA, (GOLDEN / "ollama/chat_tool_call.ndjson").read_bytes())
    assert called(golden) == [("now", "{}", "call_1")]
    older = item({"zone": "utc", "n": 1.5}, name="now")
    lines = ndjson({"message": {"content": "", "tool_calls": [older, older]}, "done": False})
    assert called(received(OLLAMA, lines * 2)) == [("now", '{"zone":"utc","n":1.5}', "")] * 4
    lines = ndjson({"response": "", "tool_calls": [item({}, name="now", index=0)], "done": False})
    assert called(received(GENERATE, lines * 2)) == [("now", "{}", "")] * 2


# --- Anthropic's blocks


def test_a_blocks_input_comes_piece_by_piece() -> None:
    """llama.cpp, recorded, b11549: no input where the block begins, and the end of a block that never began."""
    transcript = anthropic(
        {"index": 0, "content_block": {"type": "text", "text": ""}},
        {"index": 0, "delta": {"type": "text_delta", "text": "so"}},
        {"index": 0},
        {"index": 1, "content_block": {"type": "tool_use", "id": "a", "name": "now"}},
        {"index": 1, "delta": {"type": "input_json_delta", "partial_json": ""}},
        {"index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"zone":'}},
        {"index": 1, "delta": {"type": "input_json_delta", "partial_json": '"utc"}'}},
        {"index": 1},
        {"index": 2},
    )
    assert called(transcript) == [("now", '{"zone":"utc"}', "a")]
    assert (transcript.text, transcript.is_unreadable) == ("so", False)


def test_an_input_may_stand_where_its_block_begins() -> None:
    begun = {"type": "tool_use", "id": "a", "name": "now", "input": {"zone": "utc"}}
    assert called(anthropic({"index": 0, "content_block": begun})) == [("now", '{"zone":"utc"}', "a")]
    empty = {**begun, "input": {}}
    assert called(anthropic({"index": 0, "content_block": empty})) == []
    assert called(anthropic({"index": 0, "content_block": empty}), is_over=True) == [("now", "{}", "a")]


def test_a_servers_own_call_and_deltas_of_other_blocks_are_no_call() -> None:
    transcript = anthropic(
        {"index": 0, "content_block": {"type": "server_tool_use", "id": "a", "name": "web_search", "input": {}}},
        {"index": 0, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"index": 0, "delta": {"type": "signature_delta", "signature": "x"}},
    )
    assert transcript.calls == []
    assert transcript.has_tool_call


# --- what is whole


@pytest.mark.parametrize(
    ("arguments", "torn", "over"),
    [
        ('{"a": 1}', '{"a": 1}', '{"a": 1}'),
        ("{}\n", "{}\n", "{}\n"),
        ('{"a":NaN}', '{"a":NaN}', '{"a":NaN}'),
        ("", None, "{}"),
        (" ", None, "{}"),
        ('{"a": 1', None, '{"a": 1'),
        ("12", None, "12"),
        ("null", None, "null"),
        ("[" * 100_000, None, "[" * 100_000),
    ],
)
def test_only_an_object_is_whole_before_the_answer_is(arguments: str, torn: str | None, over: str) -> None:
    draft = CallDraft(name="now", id="a", pieces=[arguments])
    assert read_call(draft, is_over=False) == (None if torn is None else Call("now", torn, "a"))
    assert read_call(draft, is_over=True) == Call("now", over, "a")


def test_a_call_without_a_name_is_none() -> None:
    assert read_call(CallDraft(id="a", pieces=["{}"]), is_over=True) is None


def test_there_are_only_so_many_calls() -> None:
    drafts: list[CallDraft] = []
    add_calls(drafts, [item("{}", name="now", index=index) for index in range(CALLS_MAX + 1)])
    begin_block(drafts, CALLS_MAX, {"type": "tool_use", "name": "now"})
    add_to_block(drafts, CALLS_MAX, {"partial_json": "{}"})
    assert [draft.place for draft in drafts] == list(range(CALLS_MAX))


# --- anything

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["index", "id", "function"]), inner, max_size=3),
    max_leaves=5,
)
_NAMES = st.sampled_from([None, "", "now", 7])
_ITEMS = _JSON | st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([None, -1, 0, 1, True, "0"]),
        "id": _NAMES,
        "function": _JSON | st.fixed_dictionaries({}, optional={"name": _NAMES, "arguments": _JSON}),
    },
)


@given(st.lists(_ITEMS, max_size=6))
def test_whatever_items_come_nothing_is_raised_and_what_is_read_is_a_call(items: list[Any]) -> None:
    drafts: list[CallDraft] = []
    add_calls(drafts, items)
    for draft in drafts:
        call = read_call(draft, is_over=False)
        assert call is None or (call.name and isinstance(json.loads(call.arguments), dict))
        read_call(draft, is_over=True)


@given(_JSON, _JSON, _JSON, _JSON)
def test_whatever_a_block_says_nothing_is_raised(kind: Any, name: Any, given_input: Any, piece: Any) -> None:
    drafts: list[CallDraft] = []
    begin_block(drafts, 0, {"type": kind, "name": name, "input": given_input})
    begin_block(drafts, 0, {"type": "tool_use", "name": name, "input": given_input})
    add_to_block(drafts, 0, {"partial_json": piece})
    read_call(drafts[-1], is_over=True)
