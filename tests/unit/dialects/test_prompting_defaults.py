"""What a client leaves open is filled in under each API's name for it, and in the place where that API has it."""

import json
from typing import Any

import msgspec
import pytest

from understudy.dialects.prompting_defaults import (
    ANTHROPIC,
    DEFAULTS_REFUSED,
    OLLAMA,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    OPENAI_TEXT,
    Naming,
    filled,
)

OPENAI = (OPENAI_CHAT, OPENAI_TEXT, OPENAI_RESPONSES)
BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "num_predict")


def changes(naming: Naming, asked: dict[str, Any], /, **defaults: Any) -> Any:
    members = {key: msgspec.Raw(json.dumps(value).encode()) for key, value in asked.items()}
    pairs = [(key, json.dumps(value)) for key, value in defaults.items()]
    return json.loads(msgspec.json.encode(filled(naming, members, pairs)))


@pytest.mark.parametrize("naming", [*OPENAI, ANTHROPIC])
def test_what_the_client_leaves_open_is_filled_in(naming: Naming) -> None:
    assert changes(naming, {}, temperature=0.7, top_p=0.9) == {"temperature": 0.7, "top_p": 0.9}
    assert changes(naming, {"temperature": 0}, temperature=0.7, top_p=0.9) == {"top_p": 0.9}


@pytest.mark.parametrize("told", [0, False, "", [], {}])
def test_nothing_at_all_but_null_is_the_clients_word(told: Any) -> None:
    assert changes(OPENAI_CHAT, {"x": told}, x=1) == {}
    assert changes(OPENAI_CHAT, {"x": None}, x=1) == {"x": 1}


def test_a_default_of_null_is_none() -> None:
    assert changes(OPENAI_CHAT, {}, temperature=None) == {}
    assert changes(OLLAMA, {}, temperature=None, think=None) == {}


@pytest.mark.parametrize(
    ("naming", "name"),
    [(OPENAI_TEXT, "max_tokens"), (OPENAI_RESPONSES, "max_output_tokens"), (ANTHROPIC, "max_tokens")],
)
@pytest.mark.parametrize("key", BOUNDS)
def test_a_bound_has_each_apis_own_name(naming: Naming, name: str, key: str) -> None:
    assert changes(naming, {}, **{key: 64}) == {name: 64}


def test_a_chat_knows_two_names_of_a_bound() -> None:
    written = {key: changes(OPENAI_CHAT, {}, **{key: 64}) for key in BOUNDS}
    assert written.pop("max_completion_tokens") == {"max_completion_tokens": 64}
    assert all(one == {"max_tokens": 64} for one in written.values())


@pytest.mark.parametrize("naming", [*OPENAI, ANTHROPIC])
@pytest.mark.parametrize("given", BOUNDS)
@pytest.mark.parametrize("key", BOUNDS)
def test_a_bound_of_the_clients_counts_under_any_name(naming: Naming, given: str, key: str) -> None:
    assert changes(naming, {given: 8}, **{key: 64}) == {}
    assert changes(OLLAMA, {"options": {given: 8}}, **{key: 64}) == {}


def test_of_two_names_for_the_same_the_first_counts() -> None:
    assert changes(OPENAI_CHAT, {}, max_completion_tokens=1, max_tokens=2, num_predict=3) == {"max_completion_tokens": 1}
    assert changes(OLLAMA, {}, temperature=0, options={"temperature": 1}) == {"options": {"temperature": 0}}


def test_stop_strings_have_each_apis_own_name_and_form() -> None:
    for naming in OPENAI:
        assert changes(naming, {}, stop="END") == {"stop": "END"}
        assert changes(naming, {}, stop_sequences=["END"]) == {"stop": ["END"]}
    assert changes(ANTHROPIC, {}, stop="END") == {"stop_sequences": ["END"]}
    assert changes(ANTHROPIC, {}, stop=["A", "B"]) == {"stop_sequences": ["A", "B"]}
    assert changes(ANTHROPIC, {"stop_sequences": ["X"]}, stop="END") == {}
    assert changes(OLLAMA, {}, stop="END") == {"options": {"stop": ["END"]}}
    assert changes(OLLAMA, {}, stop_sequences=["END"]) == {"options": {"stop": ["END"]}}


def test_ollama_samples_by_its_options() -> None:
    defaults = {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 1, "repeat_penalty": 1.1, "num_ctx": 8192}
    assert changes(OLLAMA, {}, **defaults) == {"options": defaults}
    assert changes(OLLAMA, {"options": None}, **defaults) == {"options": defaults}
    assert changes(OLLAMA, {"options": {"seed": 7, "x": 1}}, seed=1, top_k=2) == {"options": {"seed": 7, "x": 1, "top_k": 2}}
    assert changes(OLLAMA, {"options": {"seed": None}}, seed=1) == {"options": {"seed": 1}}
    assert changes(OLLAMA, {}, max_tokens=64, repetition_penalty=1.2) == {"options": {"num_predict": 64, "repeat_penalty": 1.2}}
    assert changes(OLLAMA, {"options": {"seed": 7}}, seed=1) == {}


def test_what_ollama_has_beside_its_options_stays_beside_them() -> None:
    beside = {"think": False, "format": "json", "keep_alive": "1h", "truncate": False, "shift": False, "logprobs": True}
    assert changes(OLLAMA, {}, **beside) == beside
    assert changes(OLLAMA, {"think": True}, think=False) == {}


def test_options_may_be_configured_as_such() -> None:
    assert changes(OLLAMA, {"options": {"a": 1}}, options={"a": 2, "b": 3, "stop": "END", "num_predict": 4}) == {
        "options": {"a": 1, "b": 3, "stop": ["END"], "num_predict": 4}
    }
    assert changes(OLLAMA, {}, options=7) == {}


@pytest.mark.parametrize("options", [7, "text", [], True])
def test_options_that_are_no_object_are_the_engines_to_refuse(options: Any) -> None:
    assert changes(OLLAMA, {"options": options}, temperature=1, think=True) == {"think": True}


@pytest.mark.parametrize("naming", [*OPENAI, ANTHROPIC])
def test_what_only_ollama_has_is_left_out_elsewhere(naming: Naming) -> None:
    defaults = {"think": False, "keep_alive": "1h", "format": "json", "num_ctx": 8192, "options": {"temperature": 1}}
    assert changes(naming, {}, **defaults, temperature=0.5) == {"temperature": 0.5}


def test_a_value_is_written_as_it_was_configured() -> None:
    assert filled(OPENAI_CHAT, {}, [("top_p", "1.00"), ("x", '{"é": "\\u00e9"}')]) == {
        "top_p": msgspec.Raw(b"1.00"),
        "x": msgspec.Raw('{"é": "\\u00e9"}'.encode()),
    }


def test_a_configured_text_that_cannot_be_encoded_raises_nothing() -> None:
    assert filled(OPENAI_CHAT, {}, [("x", '"\ud800"')]) == {"x": msgspec.Raw(b'"?"')}


def test_what_only_a_client_can_know_is_refused_and_how_to_sample_is_not() -> None:
    assert {"model", "messages", "prompt", "input", "system", "instructions", "stream", "stream_options", "n"} <= DEFAULTS_REFUSED
    assert not DEFAULTS_REFUSED & {"temperature", "top_p", "stop", *BOUNDS, "options", "think", "response_format"}
