"""A request's body tells what a continuation must heed, however oddly it is written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.transcript import Case, Refusal, Shape, Wish
from understudy.dialects.wish import STOP_CHARACTERS_MAX, read_wish, shape_of

CHAT, TEXT, OLLAMA, GENERATE, MESSAGES = "/v1/chat/completions", "/v1/completions", "/api/chat", "/api/generate", "/v1/messages"
TOOLS = [{"type": "function", "function": {"name": "now"}}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


def wish_of(path: str, **ask: Any) -> Wish:
    wish = read_wish(path, json.dumps(ask).encode())
    assert isinstance(wish, Wish)
    return wish


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        (CHAT, Shape.OPENAI_CHAT),
        (CHAT + "?a=b", Shape.OPENAI_CHAT),
        (TEXT, Shape.OPENAI_TEXT),
        (OLLAMA, Shape.OLLAMA_CHAT),
        (GENERATE, Shape.OLLAMA_TEXT),
        (MESSAGES, Shape.ANTHROPIC),
        ("/v1/embeddings", None),
        ("/v1/responses", None),
        ("/v1/rerank", None),
        ("/api/embed", None),
    ],
)
def test_only_generated_text_has_a_shape(path: str, shape: Shape | None) -> None:
    assert shape_of(path) is shape
    if shape is None:
        assert read_wish(path, b"{}") is Refusal.NOT_TEXT


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b'"x"', b"[" * 100_000])
def test_a_body_that_is_no_object_cannot_be_read(body: bytes) -> None:
    assert read_wish(CHAT, body) is Refusal.UNREADABLE


@pytest.mark.parametrize(
    ("path", "ask", "tokens_max"),
    [
        (CHAT, {}, None),
        (CHAT, {"max_tokens": 7}, 7),
        (CHAT, {"max_tokens": 7, "max_completion_tokens": 5}, 5),
        (CHAT, {"max_tokens": 7, "max_completion_tokens": None}, 7),
        (CHAT, {"n_predict": 9}, 9),
        (CHAT, {"max_tokens": -1}, None),
        (CHAT, {"max_tokens": 0}, None),
        (CHAT, {"max_tokens": True}, None),
        (CHAT, {"max_tokens": "7"}, 7),
        (CHAT, {"max_tokens": 7.0}, 7),
        (CHAT, {"max_tokens": "many"}, None),
        (CHAT, {"options": {"num_predict": 7}}, None),
        (OLLAMA, {"options": {"num_predict": 7}}, 7),
        (OLLAMA, {"options": {"num_predict": -2}}, None),
        (OLLAMA, {"options": "x", "max_tokens": 7}, None),
        (MESSAGES, {"max_tokens": 7}, 7),
    ],
)
def test_the_bound_is_read_where_the_dialect_has_it(path: str, ask: dict[str, Any], tokens_max: int | None) -> None:
    assert wish_of(path, **ask).tokens_max == tokens_max


@pytest.mark.parametrize(
    ("path", "ask", "stops"),
    [
        (CHAT, {"stop": "END"}, ("END",)),
        (CHAT, {"stop": ["END", "", None, 7, "\n"]}, ("END", "\n")),
        (CHAT, {"stop": None}, ()),
        (OLLAMA, {"options": {"stop": ["END"]}}, ("END",)),
        (OLLAMA, {"stop": "END"}, ()),
        (MESSAGES, {"stop_sequences": ["END"]}, ("END",)),
    ],
)
def test_stop_strings_are_read_where_the_dialect_has_them(path: str, ask: dict[str, Any], stops: tuple[str, ...]) -> None:
    assert wish_of(path, **ask).stops == stops


def test_usage_is_wanted_when_it_is_asked_for_or_the_answer_is_collected() -> None:
    assert wish_of(CHAT, stream=True, stream_options={"include_usage": True}).wants_usage
    assert wish_of(TEXT, stream=False).wants_usage
    assert not wish_of(CHAT, stream=True).wants_usage
    assert not wish_of(CHAT, stream=True, stream_options=None).wants_usage
    assert not wish_of(OLLAMA).wants_usage
    assert wish_of(CHAT, return_token_ids=True).wants_token_ids
    assert not wish_of(CHAT).wants_token_ids


@pytest.mark.parametrize(
    ("path", "ask", "cases"),
    [
        (CHAT, {"n": 2}, {Case.SEVERAL_CHOICES}),
        (CHAT, {"n": "2"}, {Case.SEVERAL_CHOICES}),
        (CHAT, {"n": 1}, set()),
        (TEXT, {"best_of": 2}, {Case.SEVERAL_CHOICES}),
        (TEXT, {"use_beam_search": True}, {Case.SEVERAL_CHOICES}),
        (TEXT, {"prompt": ["a", "b"]}, {Case.SEVERAL_CHOICES}),
        (TEXT, {"prompt": ["a"]}, set()),
        (TEXT, {"prompt": "a"}, set()),
        (TEXT, {"prompt": [1, 2]}, {Case.PROMPT_FORM}),
        (TEXT, {"prompt": [[1], [2]]}, {Case.PROMPT_FORM}),
        (TEXT, {"prompt": ["a", 1]}, {Case.PROMPT_FORM}),
        (TEXT, {"echo": True}, {Case.PROMPT_FORM}),
        (TEXT, {"suffix": "x"}, {Case.PROMPT_FORM}),
        (TEXT, {"suffix": "", "echo": False}, set()),
        (GENERATE, {"prompt": "a", "context": [1]}, {Case.PROMPT_FORM}),
        (GENERATE, {"prompt": "a", "suffix": "b"}, {Case.PROMPT_FORM}),
        (GENERATE, {"prompt": "a", "raw": True, "context": []}, set()),
        (CHAT, {"include_reasoning": False}, {Case.PROMPT_FORM}),
        (CHAT, {"tools": TOOLS}, {Case.TOOLS_OFFERED}),
        (CHAT, {"tools": []}, set()),
        (CHAT, {"tools": None, "tool_choice": "required"}, set()),
        (CHAT, {"tools": TOOLS, "tool_choice": "none"}, set()),
        (CHAT, {"tools": TOOLS, "tool_choice": "auto"}, {Case.TOOLS_OFFERED}),
        (CHAT, {"tools": TOOLS, "tool_choice": "required"}, {Case.TOOLS_OFFERED, Case.GRAMMAR}),
        (CHAT, {"tools": TOOLS, "tool_choice": {"type": "function"}}, {Case.TOOLS_OFFERED, Case.GRAMMAR}),
        (CHAT, {"functions": [{"name": "now"}]}, {Case.TOOLS_OFFERED}),
        (CHAT, {"functions": [{"name": "now"}], "function_call": "none"}, set()),
        (MESSAGES, {"tools": TOOLS, "tool_choice": {"type": "none"}}, set()),
        (MESSAGES, {"tools": TOOLS, "tool_choice": {"type": "auto"}}, {Case.TOOLS_OFFERED}),
        (MESSAGES, {"tools": TOOLS, "tool_choice": {"type": "any"}}, {Case.TOOLS_OFFERED, Case.GRAMMAR}),
        (OLLAMA, {"tools": TOOLS}, {Case.TOOLS_OFFERED}),
        (CHAT, {"response_format": {"type": "text"}}, set()),
        (CHAT, {"response_format": None}, set()),
        (CHAT, {"response_format": {"type": "json_object"}}, {Case.JSON_MODE}),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {}}}, {Case.JSON_MODE}),
        (CHAT, {"response_format": {"type": "structural_tag"}}, {Case.GRAMMAR}),
        (CHAT, {"response_format": {"type": ["odd"]}}, {Case.GRAMMAR}),
        (CHAT, {"json_schema": {"type": "object"}}, {Case.JSON_MODE}),
        (CHAT, {"guided_json": {"type": "object"}}, {Case.JSON_MODE}),
        (CHAT, {"structured_outputs": {"json": {"type": "object"}}}, {Case.JSON_MODE}),
        (CHAT, {"structured_outputs": {"choice": ["a"]}}, {Case.GRAMMAR}),
        (CHAT, {"structured_outputs": {"regex": None}}, set()),
        (CHAT, {"structured_outputs": "odd"}, {Case.GRAMMAR}),
        (MESSAGES, {"output_config": {"format": {"type": "json_schema"}}}, {Case.JSON_MODE}),
        (OLLAMA, {"format": "json"}, {Case.JSON_MODE}),
        (OLLAMA, {"format": {"type": "object"}}, {Case.JSON_MODE}),
        (OLLAMA, {"format": ""}, set()),
        (CHAT, {"format": "json"}, set()),
        (CHAT, {"grammar": "root ::= x"}, {Case.GRAMMAR}),
        (CHAT, {"guided_regex": "x"}, {Case.GRAMMAR}),
        (CHAT, {"guided_choice": ["x"]}, {Case.GRAMMAR}),
        (CHAT, {"regex": "x"}, {Case.GRAMMAR}),
        (CHAT, {"logprobs": True}, {Case.LOGPROBS}),
        (CHAT, {"logprobs": False, "top_logprobs": 0}, set()),
        (CHAT, {"top_logprobs": 3}, {Case.LOGPROBS}),
        (TEXT, {"logprobs": 0}, {Case.LOGPROBS}),
        (TEXT, {"logprobs": None}, set()),
        (CHAT, {"n_probs": 2}, {Case.LOGPROBS}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}]}, {Case.IMAGES}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, {Case.AUDIO}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "video_url"}, {"type": "file"}]}]}, {Case.IMAGES}),
        (CHAT, {"messages": [{"role": "user", "content": [{"text": "a"}, "odd", None]}, "odd", None]}, set()),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": ["odd"]}]}]}, {Case.IMAGES}),
        (MESSAGES, {"messages": [{"content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]}, {Case.IMAGES}),
        (OLLAMA, {"messages": [{"role": "user", "content": "a", "images": ["x"]}]}, {Case.IMAGES}),
        (GENERATE, {"prompt": "a", "images": ["x"]}, {Case.IMAGES}),
        (CHAT, {"modalities": ["text", "audio"], "audio": {}}, {Case.AUDIO}),
        (CHAT, {"modalities": ["text"]}, set()),
    ],
)
def test_what_makes_a_continuation_hard_is_told(path: str, ask: dict[str, Any], cases: set[Case]) -> None:
    assert wish_of(path, **ask).cases == cases


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda deeper: st.lists(deeper, max_size=3)
)
KEYS = [
    "max_tokens",
    "stop",
    "n",
    "tools",
    "tool_choice",
    "response_format",
    "structured_outputs",
    "logprobs",
    "messages",
    "prompt",
    "options",
    "format",
    "modalities",
    "stream",
    "stream_options",
    "output_config",
    "images",
    "context",
    "stop_sequences",
    "audio",
]


@given(
    path=st.sampled_from([CHAT, TEXT, OLLAMA, GENERATE, MESSAGES]),
    ask=st.dictionaries(
        st.sampled_from(KEYS), JSON | st.dictionaries(st.sampled_from(["type", "content", "x"]), JSON, max_size=2)
    ),
)
def test_no_body_is_too_odd(path: str, ask: dict[str, Any]) -> None:
    assert isinstance(read_wish(path, json.dumps(ask).encode()), Wish)


def test_a_stop_string_beyond_its_bound_makes_the_answer_one_that_is_not_continued() -> None:
    bound = STOP_CHARACTERS_MAX
    assert wish_of(CHAT, stop="x" * bound).stops == ("x" * bound,)
    wish = wish_of(CHAT, stop=["a", "x" * (bound + 1)])
    assert (wish.stops, wish.cases) == ((), frozenset({Case.PROMPT_FORM}))
