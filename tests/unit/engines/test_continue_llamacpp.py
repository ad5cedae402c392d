"""Plays of llama.cpp going on with an answer; the shapes of its answers from build 11549, each character one token."""

from typing import Any

import pytest

from support.cutting import CHAT, HELLO, MESSAGES, TEXT, broken, chat, plan, received
from understudy.core.snapshot import EngineKind
from understudy.core.transcript import Means, Refusal, Shape, Spent
from understudy.engines.broken import Abilities

LLAMA = EngineKind.LLAMACPP
THINK = "<think>\n\n</think>\n\n"


class Llama:
    """A server whose template is ChatML; `open_with` stands before what an open assistant's message has."""

    def __init__(self, *, open_with: str = "", trims: bool = False, closes: bool = False, keeps_thoughts: bool = True) -> None:
        self.open_with = open_with
        self.trims = trims
        self.closes = closes
        self.keeps_thoughts = keeps_thoughts

    def __call__(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        if path == "/apply-template":
            return {"prompt": self.render(body["messages"])}
        if path == "/tokenize":
            return {"tokens": [ord(character) for character in body["content"]]}
        if path == "/detokenize":
            return {"content": "".join(map(chr, body["tokens"]))}
        return None

    def render(self, messages: list[dict[str, Any]]) -> str:
        prompt = "".join(f"<{message['role']}>{message['content']}</>" for message in messages[:-1])
        last = messages[-1]
        if last["role"] != "assistant" or self.closes:
            return f"{prompt}<{last['role']}>{last['content']}</><assistant>"
        text = last["content"].rstrip() if self.trims else last["content"]
        thought = last.get("reasoning_content", "")
        if not thought:
            return f"{prompt}<assistant>{self.open_with}{text}"
        if not self.keeps_thoughts:
            return f"{prompt}<assistant>{text}"
        return f"{prompt}<assistant><think>{thought}" + (f"</think>{text}" if text else "")


def test_a_chat_goes_on_with_the_partial_as_its_last_message() -> None:
    played = plan(LLAMA, broken(CHAT, chat(temperature=0), received("Once")), Llama())
    assert (played.means, played.going_on.path, played.going_on.shape) == (Means.LLAMACPP_CHAT, CHAT, Shape.OPENAI_CHAT)
    assert played.body["messages"] == [HELLO, {"role": "assistant", "content": "Once"}]
    assert played.body["continue_final_message"] is True
    assert played.body["add_generation_prompt"] is False
    assert (played.body["stream"], played.body["stream_options"], played.body["temperature"]) == (
        True,
        {"include_usage": True},
        0,
    )
    # Nobody wants to know how many tokens that is.
    assert played.paths == ["/apply-template", "/apply-template"]
    assert played.going_on.delivered_tokens is None


def test_what_the_template_does_is_asked_once() -> None:
    abilities = Abilities()
    for _ in range(2):
        played = plan(LLAMA, broken(CHAT, chat(), received("Once")), Llama(), abilities)
    assert played.paths == []
    assert plan(LLAMA, broken(CHAT, chat(tools=[{"type": "function"}]), received("Once")), Llama(), abilities).paths != []


def test_what_is_left_of_a_bound_is_asked_for() -> None:
    played = plan(LLAMA, broken(CHAT, chat(max_tokens=10), received("Once")), Llama())
    assert (played.going_on.delivered_tokens, played.body["max_tokens"]) == (4, 6)
    assert played.paths[-2:] == ["/tokenize", "/tokenize"]


def test_an_answer_with_all_its_tokens_is_spent() -> None:
    assert plan(LLAMA, broken(CHAT, chat(max_tokens=4), received("Once")), Llama()).outcome == Spent(None, 4)
    assert plan(LLAMA, broken(TEXT, {"prompt": "It is", "max_tokens": 4}, received("Once")), Llama()).outcome == Spent(5, 4)


def test_a_client_that_began_the_answer_itself_has_the_partial_joined_to_it() -> None:
    begun = [HELLO, {"role": "assistant", "content": "Well. "}]
    played = plan(LLAMA, broken(CHAT, chat(messages=begun), received("Once")), Llama())
    assert played.body["messages"] == [HELLO, {"role": "assistant", "content": "Well. Once"}]


def test_where_the_template_puts_something_before_the_partial_the_text_goes_on() -> None:
    """Thinking templates open a last message with an empty thought, which the model that wrote the text had not seen."""
    played = plan(LLAMA, broken(CHAT, chat(max_tokens=10, max_completion_tokens=10), received("Once")), Llama(open_with=THINK))
    assert (played.means, played.going_on.path, played.going_on.shape) == (Means.LLAMACPP_TEXT, TEXT, Shape.OPENAI_TEXT)
    assert played.body["prompt"] == "<user>Tell of the coast.</><assistant>Once"
    assert "messages" not in played.body
    assert (played.body["max_tokens"], "max_completion_tokens" in played.body) == (6, False)


def test_tools_need_the_chat_even_then() -> None:
    played = plan(LLAMA, broken(CHAT, chat(tools=[{"type": "function"}]), received("Once")), Llama(open_with=THINK))
    assert played.means is Means.LLAMACPP_CHAT


def test_a_means_that_was_refused_is_not_tried_again() -> None:
    one = broken(CHAT, chat(), received("Once"), failed=frozenset({Means.LLAMACPP_CHAT}))
    assert plan(LLAMA, one, Llama()).means is Means.LLAMACPP_TEXT


def test_white_space_that_the_template_trims_is_swallowed_when_it_comes_again() -> None:
    played = plan(LLAMA, broken(CHAT, chat(), received("Once \n")), Llama(trims=True))
    assert (played.body["messages"][-1]["content"], played.going_on.swallow) == ("Once", " \n")


@pytest.mark.parametrize(("text", "kind"), [("", "reasoning"), ("Once", "reasoned")])
def test_thoughts_go_on_where_the_template_keeps_them(text: str, kind: str) -> None:
    one = broken(CHAT, chat(), received(text, "Hm"))
    played = plan(LLAMA, one, Llama())
    assert played.body["messages"][-1] == {"role": "assistant", "content": text, "reasoning_content": "Hm"}, kind
    assert plan(LLAMA, one, Llama(keeps_thoughts=False)).outcome is Refusal.NO_MEANS


def test_a_template_that_closes_the_last_message_leaves_no_means_for_tools() -> None:
    one = broken(CHAT, chat(tools=[{"type": "function"}]), received("Once"))
    assert plan(LLAMA, one, Llama(closes=True)).outcome is Refusal.NO_MEANS


def test_a_prompt_goes_on_as_text() -> None:
    played = plan(LLAMA, broken(TEXT, {"model": "tiny", "prompt": "It is", "stream": True}, received(" so")), Llama())
    assert (played.body["prompt"], played.going_on.delivered_tokens) == ("It is so", 3)


def test_a_message_of_anthropics_goes_on_with_its_tools_in_the_trial() -> None:
    tools = [{"name": "f", "description": "d", "input_schema": {"type": "object"}}]
    ask = chat(max_tokens=10, tools=tools, tool_choice={"type": "auto"})
    played = plan(LLAMA, broken(MESSAGES, ask, received("Once")), Llama())
    trial = played.asked[0][1]
    assert trial["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    ]
    assert (played.going_on.path, played.body["max_tokens"], played.body["tools"]) == (MESSAGES, 6, tools)
    # The words of OpenAI's dialect mean nothing here.
    assert "continue_final_message" not in played.body


def test_ids_of_another_engine_go_on_where_this_one_reads_them_alike() -> None:
    prompt = [ord(character) for character in "It is"]
    ask = {"model": "tiny", "prompt": "It is", "max_tokens": 10}
    one = broken(TEXT, ask, received(" s", ids=(prompt, [ord(" "), ord("s"), ord("o")])), is_exact=True)
    played = plan(LLAMA, one, Llama())
    assert (played.means, played.body["prompt"]) == (Means.LLAMACPP_IDS, [*prompt, 32, 115, 111])
    assert (played.going_on.undelivered, played.going_on.delivered_tokens, played.body["max_tokens"]) == ("o", 3, 7)
    other = broken(TEXT, ask, received(" s", ids=([1, *prompt], [32, 115])), is_exact=True)
    assert plan(LLAMA, other, Llama()).means is Means.LLAMACPP_TEXT


def test_a_server_that_tells_nothing_is_not_asked_to_go_on() -> None:
    assert plan(LLAMA, broken(CHAT, chat(), received("Once")), lambda _path, _body: None).outcome is Refusal.NO_MEANS


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
    outcome = plan(LLAMA, broken(TEXT, {"prompt": "It is", **more}, transcript), Llama()).outcome
    assert outcome == Spent(5, completion)
