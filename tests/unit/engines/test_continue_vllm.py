"""Plays of vLLM going on with an answer; the shapes of its answers from version 0.32, each character one token."""

from typing import Any

import pytest

from support.cutting import CHAT, HELLO, MESSAGES, TEXT, broken, chat, plan, received
from understudy.core.snapshot import EngineKind
from understudy.core.transcript import Means, Refusal, Shape, Spent
from understudy.engines.broken import Abilities

VLLM = EngineKind.VLLM
TOOLS = [{"type": "function", "function": {"name": "f"}}]
CONTEXT = 4096
PROMPT = "<user>Tell of the coast.</><assistant>"


def ids(text: str) -> list[int]:
    return [ord(character) for character in text]


class Vllm:
    """A server whose template is ChatML; `open_with` stands before what an open assistant's message has."""

    def __init__(self, *, open_with: str = "", trims: bool = False, context: int | None = CONTEXT) -> None:
        self.open_with = open_with
        self.context = context
        self.trims = trims

    def __call__(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        if path == "/tokenize":
            text = self.render(body) if "messages" in body else body["prompt"]
            return {"count": len(text), "max_model_len": self.context, "tokens": ids(text), "token_strs": None}
        if path == "/detokenize":
            return {"prompt": "".join(map(chr, body["tokens"]))}
        return None

    def render(self, body: dict[str, Any]) -> str:
        *before, last = body["messages"]
        prompt = "".join(tool["function"]["name"] for tool in body.get("tools", ()))
        prompt += "".join(f"<{message['role']}>{message['content']}</>" for message in before)
        if not body.get("continue_final_message"):
            return f"{prompt}<{last['role']}>{last['content']}</><assistant>"
        text = last["content"].rstrip() if self.trims else last["content"]
        return f"{prompt}<{last['role']}>{self.open_with}{text}"


def test_a_chat_goes_on_with_its_final_message() -> None:
    played = plan(VLLM, broken(CHAT, chat(max_tokens=10, min_tokens=6), received("Once")), Vllm())
    assert (played.means, played.going_on.path, played.going_on.shape) == (Means.VLLM_CHAT, CHAT, Shape.OPENAI_CHAT)
    assert played.body["messages"] == [HELLO, {"role": "assistant", "content": "Once"}]
    # Without these two it would begin a new turn.
    assert (played.body["continue_final_message"], played.body["add_generation_prompt"]) == (True, False)
    assert (played.body["max_tokens"], played.body["min_tokens"], played.going_on.delivered_tokens) == (6, 2, 4)
    assert "return_token_ids" not in played.body


def test_what_the_template_does_is_asked_once_and_a_count_each_time() -> None:
    abilities = Abilities()
    plan(VLLM, broken(CHAT, chat(max_tokens=10), received("Once")), Vllm(), abilities)
    assert plan(VLLM, broken(CHAT, chat(max_tokens=10), received("Once")), Vllm(), abilities).paths == ["/tokenize"] * 2
    assert plan(VLLM, broken(CHAT, chat(), received("Once")), Vllm(), abilities).paths == []


def test_a_request_is_counted_with_its_own_tools_whoever_asked_before() -> None:
    abilities, model = Abilities(), Vllm()
    for count in (1, 20):
        ask = chat(max_tokens=10, tools=TOOLS * count)
        assert plan(VLLM, broken(CHAT, ask, received("Once")), model, abilities).going_on.delivered_tokens == 4


def test_an_assistants_message_of_the_clients_own_is_joined_only_where_it_was_gone_on_with() -> None:
    begun = [HELLO, {"role": "assistant", "content": "Well. "}]
    played = plan(VLLM, broken(CHAT, chat(messages=begun), received("Once")), Vllm())
    assert played.body["messages"] == [*begun, {"role": "assistant", "content": "Once"}]
    flags = {"continue_final_message": True, "add_generation_prompt": False}
    played = plan(VLLM, broken(CHAT, chat(messages=begun, **flags), received("Once")), Vllm())
    assert played.body["messages"] == [HELLO, {"role": "assistant", "content": "Well. Once"}]


@pytest.mark.parametrize("engine", [Vllm(open_with="<think></think>"), Vllm(trims=True)])
def test_where_the_template_changes_the_partial_its_text_goes_on(engine: Vllm) -> None:
    played = plan(VLLM, broken(CHAT, chat(max_completion_tokens=10), received("Once\n")), engine)
    assert (played.means, played.going_on.path, played.going_on.shape) == (Means.VLLM_TEXT, TEXT, Shape.OPENAI_TEXT)
    assert played.body["prompt"] == f"{PROMPT}Once\n"
    # A rendered prompt has its first token already.
    assert played.body["add_special_tokens"] is False
    assert (played.body["max_tokens"], "max_completion_tokens" in played.body, "messages" in played.body) == (5, False, False)


def test_tools_go_on_in_a_chat_that_trims_and_what_comes_again_is_swallowed() -> None:
    played = plan(VLLM, broken(CHAT, chat(tools=TOOLS), received("Once\n")), Vllm(trims=True))
    assert (played.means, played.body["messages"][-1]["content"]) == (Means.VLLM_CHAT, "Once")
    assert played.going_on.swallow == "\n"


@pytest.mark.parametrize("known", [([], []), (ids(PROMPT), ids("Once"))])
def test_without_a_bound_all_that_the_context_holds_is_asked_for(known: tuple[list[int], list[int]]) -> None:
    """With none, or null, it would be 16 tokens, and the answer would look whole."""
    one = broken(CHAT, chat(), received("Once", ids=known), failed=frozenset({Means.VLLM_CHAT}))
    assert plan(VLLM, one, Vllm()).body["max_tokens"] == CONTEXT - len(PROMPT) - len("Once")
    assert plan(VLLM, one, Vllm(context=len(PROMPT) + 4)).outcome == Spent(len(known[0]) or None, 4 if known[0] else None)
    assert plan(VLLM, one, Vllm(context=None)).outcome is Refusal.NO_MEANS


@pytest.mark.parametrize(("said", "left"), [("one two", 9), ("one two three four five", CONTEXT - 28)])
def test_a_prompt_goes_on_within_the_sixteen_tokens_that_it_has_by_default(said: str, left: int) -> None:
    one = broken(TEXT, {"model": "tiny", "prompt": "It is"}, received(said, pieces=len(said)))
    played = plan(VLLM, one, Vllm())
    assert (played.body["prompt"], played.body["max_tokens"]) == (f"It is{said}", left)
    # It was tokenised with its first token, and is so again.
    assert "add_special_tokens" not in played.body


@pytest.mark.parametrize(
    ("text", "temperature", "sent"),
    [
        ("so it", 0, "so"),
        ("so it", 0.7, "so it"),
        ("so ", 0.7, "so"),
        ("s " + "x" * 99, 0, None),
    ],
)
def test_half_a_token_before_a_stop_string_is_written_again(text: str, temperature: float, sent: str | None) -> None:
    ask = chat(stop=["###"], temperature=temperature)
    played = plan(VLLM, broken(CHAT, ask, received(text)), Vllm())
    sent = text if sent is None else sent
    assert played.body["messages"][-1]["content"] == sent
    assert played.going_on.swallow == text.removeprefix(sent)


@pytest.mark.parametrize("text", ["so", " so", " "])
def test_an_answer_that_is_half_a_token_is_written_again_behind_its_prompt(text: str) -> None:
    one = broken(CHAT, chat(stop=["###"], temperature=0), received(text))
    played = plan(VLLM, one, Vllm())
    assert (played.means, played.body["prompt"], played.going_on.swallow) == (Means.VLLM_TEXT, PROMPT, text)
    one = broken(CHAT, chat(stop=["###"], temperature=0, tools=TOOLS), received(text))
    assert plan(VLLM, one, Vllm()).body["messages"][-1]["content"] == text


def test_exact_goes_on_with_the_tokens_themselves() -> None:
    one = broken(CHAT, chat(max_tokens=10), received("On", ids=(ids(PROMPT), ids("Onc"))), is_exact=True)
    played = plan(VLLM, one, Vllm())
    assert (played.means, played.body["prompt"]) == (Means.VLLM_IDS, ids(f"{PROMPT}Onc"))
    # The client has not got what the engine held back.
    assert (played.going_on.undelivered, played.going_on.delivered_tokens, played.body["max_tokens"]) == ("c", 3, 7)
    # For a second break.
    assert played.body["return_token_ids"] is True


@pytest.mark.parametrize("known", [(ids("<s>" + PROMPT), ids("On")), (ids(PROMPT), ids("Xx")), (ids(PROMPT), [])])
def test_ids_of_another_prompt_or_text_do_not_go_on(known: tuple[list[int], list[int]]) -> None:
    assert plan(VLLM, broken(CHAT, chat(), received("On", ids=known), is_exact=True), Vllm()).means is Means.VLLM_CHAT


def test_an_answer_with_all_its_tokens_is_spent() -> None:
    assert plan(VLLM, broken(CHAT, chat(max_tokens=4), received("Once")), Vllm()).outcome == Spent(None, 4)
    assert plan(VLLM, broken(TEXT, {"prompt": "a", "max_tokens": 4}, received("Once")), Vllm()).outcome == Spent(1, 4)
    known = (ids(PROMPT), ids("Once"))
    assert plan(VLLM, broken(CHAT, chat(max_tokens=4), received("Once", ids=known)), Vllm()).outcome == Spent(len(PROMPT), 4)


def test_thoughts_json_and_messages_of_anthropics_are_refused() -> None:
    assert plan(VLLM, broken(CHAT, chat(), received("Once", "Hm")), Vllm()).outcome is Refusal.CASE
    ask = chat(response_format={"type": "json_object"})
    assert plan(VLLM, broken(CHAT, ask, received("{")), Vllm()).outcome is Refusal.CASE
    assert plan(VLLM, broken(MESSAGES, chat(max_tokens=9), received("Once")), Vllm()).outcome is Refusal.NO_MEANS


def test_a_server_that_tells_nothing_is_not_asked_to_go_on() -> None:
    abilities = Abilities()
    assert plan(VLLM, broken(CHAT, chat(), received("Once")), lambda _path, _body: None, abilities).outcome is Refusal.NO_MEANS
    # It may only have been busy.
    assert not abilities.shown


@pytest.mark.parametrize(
    ("finish", "more", "completion"),
    [
        ("length", {"max_tokens": 9}, 9),
        ("length", {}, 4),
        ("stop", {}, 5),
        ("stop", {"stop": ["!"]}, None),
    ],
)
def test_an_answer_with_its_finish_is_counted(finish: str, more: dict[str, Any], completion: int | None) -> None:
    """The token that ended it counts, those of a stop string are nowhere to be seen."""
    transcript = received("Once")
    transcript.finish = finish
    outcome = plan(VLLM, broken(TEXT, {"prompt": "It is", **more}, transcript), Vllm()).outcome
    assert outcome == Spent(5, completion)


def test_what_is_swallowed_is_not_counted_as_delivered_though_the_engine_told_the_count() -> None:
    """It is written again, so that it stands in the continuation's own count."""
    transcript = received("Once upon")
    transcript.tokens = 9
    played = plan(VLLM, broken(CHAT, chat(stop=["!"], temperature=0, max_tokens=20), transcript), Vllm())
    assert (played.going_on.swallow, played.going_on.delivered_tokens, played.body["max_tokens"]) == (" upon", 4, 16)
