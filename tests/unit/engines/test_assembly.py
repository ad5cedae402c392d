"""A request for a whole answer becomes one for a stream where the whole that comes out is known to be the engine's own."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.snapshot import EngineKind
from understudy.engines.assembly import CHAT, OLLAMA_CHAT, OLLAMA_TEXT, TEXT, as_streamed, assemble

LLAMACPP, OLLAMA, VLLM = EngineKind.LLAMACPP, EngineKind.OLLAMA, EngineKind.VLLM
TOOL = {"type": "function", "function": {"name": "now"}}


def chat(**more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}).encode()


def text(**more: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": "hi", **more}).encode()


def test_the_members_that_ask_for_a_stream_are_added_and_nothing_else_changes() -> None:
    body = b' {"model" : "m", "messages":[{"role":"user","content":"\\u00e9\xc3\xa9"}], "seed":1e0 }\n'
    assert as_streamed(LLAMACPP, CHAT, body) == (
        b' {"timings_per_token":true,"stream_options":{"include_usage":true},"stream":true,"model" : "m", '
        b'"messages":[{"role":"user","content":"\\u00e9\xc3\xa9"}], "seed":1e0 }\n'
    )


def test_members_that_are_there_are_replaced_where_they_stand() -> None:
    body = b'{"model":"m","stream" : false,"stream_options":null,"messages":[{"role":"user","content":"stream"}]}'
    assert as_streamed(OLLAMA, CHAT, body) == (
        b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"stream"}]}'
    )
    assert as_streamed(OLLAMA, OLLAMA_TEXT, text(stream=False)) == b'{"model": "m", "prompt": "hi", "stream":true}'


def test_a_body_in_which_the_member_cannot_be_told_from_another_is_left_alone() -> None:
    twice = b'{"model":"m","stream":false,"messages":[{"role":"user","content":"hi","stream":1}]}'
    escaped = b'{"model":"m","str\\u0065am":false,"messages":[{"role":"user","content":"hi"}]}'
    nested = b'{"model":"m","str\\u0065am":false,"messages":[{"role":"user","stream":false}]}'
    assert [as_streamed(OLLAMA, CHAT, body) for body in (twice, escaped, nested)] == [None, None, None]


@pytest.mark.parametrize(
    ("engine", "path", "body"),
    [
        (LLAMACPP, CHAT, chat(n=1, logprobs=False, tools=[], top_logprobs=0, stop=["x"], stream=False)),
        (LLAMACPP, CHAT, chat(response_format={"type": "json_object"}, functions=None, unheard_of=None)),
        (LLAMACPP, CHAT, chat(messages=[{"role": "assistant", "content": "a"}, {"role": "user", "content": [{"type": "text"}]}])),
        (LLAMACPP, TEXT, text(n_predict=5, echo=False)),
        (OLLAMA, CHAT, chat(tools=[TOOL], tool_choice="auto")),
        (OLLAMA, TEXT, text(suffix="there")),
        (OLLAMA, OLLAMA_CHAT, chat(stream=False, tools=[TOOL], think=True, format="json", options={"seed": 1}, keep_alive=-1)),
        (OLLAMA, OLLAMA_TEXT, text(stream=False, raw=True, images=["aa"], context=[1])),
    ],
)
def test_what_leaves_the_shape_alone_is_asked_for_as_a_stream(engine: EngineKind, path: str, body: bytes) -> None:
    streamed = as_streamed(engine, path, body)
    assert streamed is not None
    wanted, asked = json.loads(streamed), json.loads(body)
    assert wanted.pop("stream") is True
    asked.pop("stream", None)
    for key in ("stream_options", "timings_per_token"):
        wanted.pop(key, None)
    assert wanted == asked


@pytest.mark.parametrize(
    ("engine", "path", "body"),
    [
        (LLAMACPP, CHAT, chat(stream=True)),
        (LLAMACPP, CHAT, chat(n=2)),
        (LLAMACPP, CHAT, chat(logprobs=True)),
        (LLAMACPP, CHAT, chat(tools=[TOOL])),
        (LLAMACPP, CHAT, chat(verbose=True)),
        (LLAMACPP, CHAT, chat(stream_options={"include_usage": False})),
        (LLAMACPP, CHAT, chat(reasoning_format="deepseek-legacy")),
        (LLAMACPP, CHAT, chat(unheard_of=1)),
        (LLAMACPP, CHAT, chat(messages=[])),
        (LLAMACPP, CHAT, chat(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])),
        (LLAMACPP, CHAT, chat(messages=7)),
        (LLAMACPP, TEXT, text(prompt=["a", "b"])),
        (LLAMACPP, TEXT, text(prompt=[1, 2])),
        (LLAMACPP, TEXT, text(echo=True)),
        (LLAMACPP, TEXT, text(suffix="there")),
        (LLAMACPP, "/v1/messages", chat(max_tokens=5)),
        (LLAMACPP, "/v1/responses", chat()),
        (LLAMACPP, "/v1/embeddings", text()),
        (OLLAMA, CHAT, chat(_debug_render_only=True)),
        (OLLAMA, CHAT, chat(model="gpt-oss:120b-cloud")),
        (OLLAMA, OLLAMA_CHAT, chat(stream=False, model="kimi:cloud")),
        (OLLAMA, OLLAMA_CHAT, chat(stream=False, messages=[])),
        (OLLAMA, OLLAMA_CHAT, chat(stream=False, logprobs=True)),
        (OLLAMA, OLLAMA_TEXT, text(stream=False, prompt="")),
        (OLLAMA, OLLAMA_TEXT, b'{"model":"m","stream":false}'),
        (OLLAMA, OLLAMA_TEXT, text(stream=False, width=64)),
        (EngineKind.SGLANG, CHAT, chat()),
        (EngineKind.OPENAI, CHAT, chat()),
        (EngineKind.AUTO, CHAT, chat()),
        (LLAMACPP, CHAT, b"nonsense"),
        (LLAMACPP, CHAT, b"[]"),
        (LLAMACPP, CHAT, b""),
        (LLAMACPP, CHAT, b'{"model":"m","messages":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    ],
)
def test_what_is_not_known_to_come_out_equal_is_asked_for_whole(engine: EngineKind, path: str, body: bytes) -> None:
    assert as_streamed(engine, path, body) is None


@pytest.mark.parametrize(("version", "is_streamed"), [("0.32.0", True), ("0.32.15", True), ("0.33.0", False), ("", False)])
def test_vllm_is_asked_for_a_stream_in_versions_whose_whole_answers_are_known(version: str, is_streamed: bool) -> None:
    assert (as_streamed(VLLM, CHAT, chat(top_k=5, logprobs=False), version) is not None) is is_streamed
    assert (as_streamed(VLLM, TEXT, text(min_tokens=5), version) is not None) is is_streamed


@pytest.mark.parametrize(
    "body", [chat(logprobs=True), chat(tools=[TOOL]), chat(echo=True), chat(return_token_ids=True), chat(use_beam_search=True)]
)
def test_what_changes_vllms_shape_is_asked_for_whole(body: bytes) -> None:
    assert as_streamed(VLLM, CHAT, body, "0.32.0") is None


def test_no_logprobs_are_false_but_not_0() -> None:
    """In vLLM's text completions 0 asks for those of the tokens themselves."""
    assert as_streamed(VLLM, TEXT, text(logprobs=0), "0.32.0") is None


@given(st.dictionaries(st.text(max_size=8) | st.sampled_from(["stream", "n", "tools"]), st.none() | st.booleans() | st.text()))
def test_whatever_a_body_holds_the_request_for_a_stream_asks_for_the_same(more: dict[str, Any]) -> None:
    body = chat(**more)
    streamed = as_streamed(LLAMACPP, CHAT, body)
    if streamed is not None:
        writes = {"stream": True, "stream_options": {"include_usage": True}, "timings_per_token": True}
        assert json.loads(streamed) == {**json.loads(body), **writes}


def test_each_engine_and_path_is_assembled_in_its_own_shape() -> None:
    stream = (
        b'data: {"choices":[{"text":"a","index":0,"finish_reason":null}],"timings":{"predicted_n":1}}\n\n'
        b'data: {"choices":[{"text":"","index":0,"finish_reason":"stop"}],"usage":{}}\n\ndata: [DONE]\n\n'
    )
    lines = (
        b'{"message":{"tool_calls":[1]},"response":"a","done":false}\n{"message":{"role":"assistant"},"response":"",'
        b'"done":true}\n'
    )
    assert assemble(LLAMACPP, TEXT, text(), stream) == (
        b'{"choices":[{"text":"a","index":0,"logprobs":null,"finish_reason":"stop"}],"object":"text_completion","usage":{}}',
        b"application/json; charset=utf-8",
    )
    assert assemble(OLLAMA, TEXT, text(), stream) == (
        b'{"object":"text_completion","choices":[{"text":"a","index":0,"finish_reason":"stop"}],"usage":{}}\n',
        b"application/json",
    )
    told = assemble(OLLAMA, OLLAMA_CHAT, chat(tools=[TOOL]), lines)
    assert told is not None
    assert b'"tool_calls":[1]' in told[0]
    assert assemble(OLLAMA, OLLAMA_CHAT, chat(), lines) == (
        b'{"message":{"role":"assistant","content":""},"response":"","done":true}',
        b"application/json; charset=utf-8",
    )
    assert assemble(OLLAMA, OLLAMA_TEXT, text(), lines) == (
        b'{"response":"a","done":true,"message":{"role":"assistant"}}',
        b"application/json; charset=utf-8",
    )


@pytest.mark.parametrize(("engine", "path"), [(EngineKind.SGLANG, CHAT), (LLAMACPP, "/v1/responses"), (LLAMACPP, OLLAMA_CHAT)])
def test_an_engine_whose_whole_answers_are_unknown_is_not_imitated(engine: EngineKind, path: str) -> None:
    assert assemble(engine, path, chat(), b'{"done":true}\n') is None
