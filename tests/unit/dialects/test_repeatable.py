"""A request's body tells whether its answer depends on chance, however oddly it is written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.dialects.repeatable import is_repeatable
from understudy.dialects.routes import GENERATING_PATHS

CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
OLLAMA, GENERATE = "/api/chat", "/api/generate"
SAID = [{"role": "user", "content": "x"}]
PATHS = [path for _, paths in GENERATING_PATHS for path in paths]


def repeats(path: str, **ask: Any) -> bool:
    return is_repeatable(path, json.dumps(ask).encode())


@pytest.mark.parametrize("path", [CHAT, TEXT, RESPONSES, CHAT + "?a=b"])
@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        ({}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": -0.0}, True),
        ({"temperature": 0.0001}, False),
        ({"temperature": 1, "seed": 7}, True),
        ({"seed": 0}, True),
        ({"seed": 7.0}, True),
        ({"seed": 7.5}, False),
        ({"seed": 2**32 - 2}, True),
        ({"seed": 2**32 - 1}, False),
        ({"seed": 2**40}, False),
        ({"seed": -1}, False),
        ({"seed": -7}, False),
        ({"temperature": 0, "seed": -1}, True),
        ({"seed": None}, False),
        ({"temperature": None, "seed": 7}, True),
        ({"temperature": "0"}, False),
        ({"temperature": False}, False),
        ({"seed": "7"}, False),
        ({"options": {"seed": 7, "temperature": 0}}, False),
        ({"messages": [{"role": "user", "content": '"temperature":0'}]}, False),
    ],
)
def test_temperature_0_or_a_seed_fixes_an_answer(path: str, ask: dict[str, Any], *, expected: bool) -> None:
    assert repeats(path, **ask) is expected


@pytest.mark.parametrize(("path", "said"), [(OLLAMA, {"messages": SAID}), (GENERATE, {"prompt": "x"})])
@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        ({"options": {"temperature": 0}}, True),
        ({"options": {"seed": 7, "num_ctx": 4096}}, True),
        ({"options": {"seed": -1}}, False),
        ({"options": {"num_ctx": 4096}}, False),
        ({"options": None}, False),
        ({"options": []}, False),
        ({"temperature": 0, "seed": 7}, False),
    ],
)
def test_ollama_has_both_among_its_options(path: str, said: dict[str, Any], ask: dict[str, Any], *, expected: bool) -> None:
    assert repeats(path, **said, **ask) is expected


@pytest.mark.parametrize("said", [{}, {"messages": []}, {"prompt": ""}, {"prompt": None}])
def test_a_request_to_load_a_model_is_no_question(said: dict[str, Any]) -> None:
    assert not repeats(OLLAMA, options={"temperature": 0}, keep_alive=0, **said)
    assert not repeats(GENERATE, options={"temperature": 0}, keep_alive=0, **said)


def test_anthropics_api_has_no_seed() -> None:
    assert repeats(MESSAGES, temperature=0, max_tokens=9)
    assert not repeats(MESSAGES, temperature=1, seed=7)


@pytest.mark.parametrize("more", [{"background": True}, {"previous_response_id": "r1"}, {"conversation": {"id": "c1"}}])
def test_an_answer_that_comes_later_or_depends_on_what_the_server_keeps_is_not_repeatable(more: dict[str, Any]) -> None:
    assert repeats(RESPONSES, temperature=0, input="x")
    assert repeats(RESPONSES, temperature=0, input="x", **dict.fromkeys(more))
    assert not repeats(RESPONSES, temperature=0, input="x", **more)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank", "/api/embed", "/api/embeddings"])
def test_what_is_measured_involves_no_chance(path: str) -> None:
    assert is_repeatable(path, b'{"input": "x"}')


@pytest.mark.parametrize("path", ["/v1/models", "/v1/files", "/api/pull", "/", ""])
def test_other_paths_generate_nothing(path: str) -> None:
    assert not repeats(path, temperature=0, seed=7)


def test_every_generating_path_can_have_a_fixed_answer() -> None:
    ask = {"temperature": 0, "options": {"temperature": 0}, "prompt": "x", "messages": SAID}
    assert [path for path in PATHS if not repeats(path, **ask)] == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"temperature":0',
        b'{"temperature":NaN,"seed":7}',
        b'{"seed":1e999}',
        b'{"seed":' + b"9" * 5000 + b"}",
        b'{"seed":7,"x":' + b"[" * 100_000 + b"}",
        b'["temperature"]',
    ],
)
def test_what_cannot_be_read_is_not_repeatable(body: bytes) -> None:
    assert not any(is_repeatable(path, body) for path in (CHAT, OLLAMA, MESSAGES))


def test_of_a_repeated_key_the_last_counts() -> None:
    assert is_repeatable(CHAT, b'{"temperature":1,"temperature":0}')
    assert not is_repeatable(CHAT, b'{"temperature":0,"temperature":1}')


@given(st.binary(), st.sampled_from(PATHS))
def test_no_body_is_too_odd(rest: bytes, path: str) -> None:
    assert is_repeatable(path, b'{"seed":7,"temperature"' + rest) in (True, False)
