"""Plays of SGLang going on with an answer; from its source (engines.md 3.1), never seen live."""

import pytest

from support.cutting import CHAT, HELLO, MESSAGES, TEXT, broken, chat, plan, received
from understudy.core.snapshot import EngineKind
from understudy.core.transcript import Means, Refusal, Shape, Spent

SGLANG = EngineKind.SGLANG


def silent(path: str, body: object) -> None:
    """Answer nothing: there is nothing to ask."""
    raise AssertionError((path, body))


def test_a_chat_goes_on_with_its_final_message() -> None:
    played = plan(SGLANG, broken(CHAT, chat(max_tokens=10), received("Once", pieces=3)), silent)
    assert (played.means, played.going_on.path, played.going_on.shape) == (Means.SGLANG_CHAT, CHAT, Shape.OPENAI_CHAT)
    assert played.body["messages"] == [HELLO, {"role": "assistant", "content": "Once"}]
    assert (played.body["continue_final_message"], played.body["max_tokens"]) == (True, 7)


def test_a_clients_own_beginning_is_joined_only_with_the_flag() -> None:
    """Without it the engine had read the message as the user's."""
    begun = [HELLO, {"role": "assistant", "content": "Well. "}]
    played = plan(SGLANG, broken(CHAT, chat(messages=begun, continue_final_message=True), received("Once")), silent)
    assert played.body["messages"][-1]["content"] == "Well. Once"
    assert plan(SGLANG, broken(CHAT, chat(messages=begun), received("Once")), silent).outcome is Refusal.NO_MEANS


@pytest.mark.parametrize(("ask", "left"), [({"max_tokens": 10}, 7), ({}, 13)])
def test_a_prompt_goes_on_as_text(ask: dict[str, int], left: int) -> None:
    played = plan(SGLANG, broken(TEXT, {"prompt": ["It is"], **ask}, received(" so", pieces=3)), silent)
    assert (played.means, played.body["prompt"], played.body["max_tokens"]) == (Means.SGLANG_TEXT, "It is so", left)


def test_a_prompt_that_has_more_than_the_default_had_no_such_default() -> None:
    assert "max_tokens" not in plan(SGLANG, broken(TEXT, {"prompt": "It is"}, received(" so", pieces=30)), silent).body


def test_an_answer_with_all_its_tokens_is_spent() -> None:
    for path, ask in ((CHAT, chat(max_tokens=3)), (TEXT, {"prompt": "It is", "max_tokens": 3})):
        assert plan(SGLANG, broken(path, ask, received("Once", pieces=3)), silent).outcome == Spent(None, 3)


def test_other_paths_and_thoughts_are_refused() -> None:
    assert plan(SGLANG, broken(MESSAGES, chat(), received("Once")), silent).outcome is Refusal.NO_MEANS
    assert plan(SGLANG, broken(CHAT, chat(), received("Once", "Hm")), silent).outcome is Refusal.CASE
    assert plan(SGLANG, broken(CHAT, chat(messages="none"), received("Once")), silent).outcome is Refusal.NO_MEANS
