"""Plays of choosing the means that goes on with an answer; what each one asks is the recipes' own tests'."""

import json
from dataclasses import replace
from typing import Any

import pytest

from support.cutting import CHAT, HELLO, TEXT, broken, chat, plan, received
from understudy.core.snapshot import EngineKind
from understudy.core.transcript import CARRIES, Case, Means, Refusal, Transcript, Wish, is_carried
from understudy.core.transcript import Shape as Reads
from understudy.engines.broken import Abilities, Broken
from understudy.engines.continuation import continuation, with_ids
from understudy.engines.contract import ProbeAnswer

ENGINES = [EngineKind.LLAMACPP, EngineKind.VLLM, EngineKind.SGLANG, EngineKind.OLLAMA]


def silent(path: str, body: object) -> None:
    """Answer nothing: nothing is to be asked."""
    raise AssertionError((path, body))


@pytest.mark.parametrize("engine", ENGINES)
def test_with_nothing_delivered_the_request_is_sent_again(engine: EngineKind) -> None:
    """An empty partial makes llama.cpp write something else, and nothing has been said that a grammar could cut."""
    ask = chat(max_tokens=10, response_format={"type": "json_object"}, return_progress=True, id_slot=1)
    played = plan(engine, broken(CHAT, ask, received(pieces=0)), silent)
    assert (played.going_on.path, played.going_on.shape, played.going_on.delivered_tokens) == (CHAT, Reads.OPENAI_CHAT, 0)
    assert (played.body["messages"], played.body["max_tokens"]) == ([HELLO], 10)
    assert (played.body["stream"], played.body["stream_options"]) == (True, {"include_usage": True})
    assert not {"return_progress", "id_slot"} & set(played.body)
    again = broken(CHAT, ask, received(pieces=0), failed=frozenset({played.means}))
    assert plan(engine, again, silent).outcome is Refusal.NO_MEANS


@pytest.mark.parametrize("engine", ENGINES)
def test_several_choices_are_not_even_asked_for_again(engine: EngineKind) -> None:
    assert plan(engine, broken(CHAT, chat(n=2), received(pieces=0)), silent).outcome is Refusal.CASE


@pytest.mark.parametrize("engine", [EngineKind.OPENAI, EngineKind.AUTO])
@pytest.mark.parametrize("text", ["", "Once"])
def test_an_engine_that_is_not_known_has_no_means(engine: EngineKind, text: str) -> None:
    assert plan(engine, broken(CHAT, chat(), received(text)), silent).outcome is Refusal.NO_MEANS


def test_a_query_is_no_part_of_the_path() -> None:
    assert plan(EngineKind.SGLANG, broken(f"{CHAT}?a=b", chat(), received("Once")), silent).going_on.path == CHAT


def test_a_body_that_is_no_object_is_unreadable() -> None:
    one = Broken(CHAT, b"[]", Wish(Reads.OPENAI_CHAT), Transcript(texts=["Once"]))
    asking = continuation(EngineKind.VLLM, one, Abilities())
    with pytest.raises(StopIteration) as end:
        next(asking)
    assert end.value.value is Refusal.UNREADABLE


@pytest.mark.parametrize("case", Case)
@pytest.mark.parametrize("engine", ENGINES)
def test_no_means_goes_on_with_what_it_does_not_carry(engine: EngineKind, case: Case) -> None:
    """Whatever the engine would answer, a case that none of its means carries is refused without a question."""
    names = [means for means in Means if means.value.startswith(engine.value)]
    ask = chat() if case is not Case.PROMPT_FORM else {"prompt": [1]}
    one = broken(CHAT if "messages" in ask else TEXT, ask, received("Once"))
    one = Broken(one.path, one.body, Wish(one.wish.shape, cases=frozenset({case})), one.transcript)
    if not any(is_carried(means, frozenset({case})) for means in names):
        assert plan(engine, one, silent).outcome is Refusal.CASE


def test_a_tool_call_that_has_begun_and_a_grammar_of_the_engines_own_are_carried_by_nobody() -> None:
    for means in Means:
        assert not CARRIES[means] & {Case.TOOL_CALL, Case.GRAMMAR, Case.SEVERAL_CHOICES, Case.AUDIO, Case.PROMPT_FORM}


@pytest.mark.parametrize(
    "answer",
    [None, ProbeAnswer(500), ProbeAnswer(200, {}, b"[]"), ProbeAnswer(200, {}, b'{"prompt":1,"tokens":"x","_debug_info":[]}')],
)
@pytest.mark.parametrize("engine", [EngineKind.LLAMACPP, EngineKind.VLLM, EngineKind.OLLAMA])
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_odd_answers_end_in_an_outcome_after_few_questions(engine: EngineKind, path: str, answer: ProbeAnswer | None) -> None:
    ask: dict[str, Any] = chat(max_tokens=9) if path == CHAT else {"prompt": "It is", "max_tokens": 9}
    one = broken(path, ask, received("Once", ids=([1], [2])), is_exact=True)
    asking = continuation(engine, one, Abilities())
    next(asking)
    with pytest.raises(StopIteration):  # noqa: PT012  # which of the answers is the last is what is looked for
        for _ in range(12):
            asking.send(answer)


def test_ids_are_asked_of_vllm_alone_and_no_other_byte_is_changed() -> None:
    body = b' {"model":"tiny", "temperature": 1e-1}'
    assert with_ids(EngineKind.VLLM, CHAT, body) == b' {"return_token_ids":true,"model":"tiny", "temperature": 1e-1}'
    assert json.loads(with_ids(EngineKind.VLLM, TEXT, b"{}") or b"") == {"return_token_ids": True}
    assert with_ids(EngineKind.LLAMACPP, CHAT, body) is None
    assert with_ids(EngineKind.VLLM, "/v1/embeddings", body) is None
    assert with_ids(EngineKind.VLLM, CHAT, b'{"return_token_ids":true}') is None
    assert with_ids(EngineKind.VLLM, CHAT, b"[]") is None


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("begun_by", [*ENGINES, EngineKind.AUTO])
def test_a_prompt_that_ollama_wraps_goes_on_at_an_ollama_only(begun_by: EngineKind, engine: EngineKind) -> None:
    one = replace(broken(TEXT, {"model": "m", "prompt": "Once"}, received("upon")), begun_by=begun_by)
    is_other = begun_by is not EngineKind.AUTO and (begun_by is EngineKind.OLLAMA) != (engine is EngineKind.OLLAMA)
    outcome = plan(engine, one, lambda path, body: None).outcome
    assert (outcome is Refusal.NO_MEANS) == (is_other or engine is EngineKind.OLLAMA)


@pytest.mark.parametrize(("text", "is_open"), [("<think>It is", True), ("<think>It is</think>So", False), ("Once", False)])
def test_a_thought_that_stands_open_in_the_text_stays_with_its_engine(text: str, is_open: bool) -> None:
    """The next engine's parser would take what follows out of the text."""
    one = broken(CHAT, chat(), received(text))
    others = plan(EngineKind.SGLANG, replace(one, begun_by=EngineKind.OLLAMA), lambda path, body: None).outcome
    assert (others is Refusal.NO_MEANS) == is_open
    own = plan(EngineKind.SGLANG, replace(one, begun_by=EngineKind.SGLANG), lambda path, body: None).outcome
    assert own is not Refusal.NO_MEANS


def test_usage_in_every_event_goes_on_behind_the_seam() -> None:
    ask = chat(stream_options={"continuous_usage_stats": True})
    played = plan(EngineKind.SGLANG, broken(CHAT, ask, received("Once")), lambda path, body: None)
    assert played.body["stream_options"] == {"continuous_usage_stats": True, "include_usage": True}
