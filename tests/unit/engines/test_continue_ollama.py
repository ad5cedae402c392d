"""Plays of Ollama going on with an answer; the shapes of its answers from version 0.32 (engines.md 3.2, openai/openai.go)."""

from typing import Any

import pytest

from support.cutting import CHAT, HELLO, MESSAGES, TEXT, broken, chat, plan, received
from understudy.core.snapshot import EngineKind
from understudy.core.transcript import Means, Refusal, Shape, Spent
from understudy.engines.broken import Abilities

OLLAMA = EngineKind.OLLAMA
NATIVE, GENERATE = "/api/chat", "/api/generate"
TOOLS = [{"type": "function", "function": {"name": "f"}}]
PROMPT = "<user>Tell of the coast.</><assistant>"


class Ollama:
    """A server that renders ChatML; `opens` where its template leaves the assistant's last message open."""

    def __init__(self, *, opens: bool = True, trims: bool = False) -> None:
        self.opens = opens
        self.trims = trims

    def __call__(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        assert body["_debug_render_only"] is True
        assert body["stream"] is False
        rendered = self.render(body.get("messages") or [{"role": "user", "content": body["prompt"]}])
        return {"model": "tiny", "_debug_info": {"rendered_template": rendered}}

    def render(self, messages: list[dict[str, Any]]) -> str:
        prompt = "".join(f"<{message['role']}>{message['content']}</>" for message in messages)
        if messages[-1]["role"] != "assistant" or not self.opens:
            return f"{prompt}<assistant>"
        prompt = prompt.removesuffix("</>")
        return prompt.rstrip() if self.trims else prompt


def test_a_chat_goes_on_raw_behind_its_own_rendering() -> None:
    ask = chat(options={"num_ctx": 2048, "num_predict": 10, "stop": ["#"]}, keep_alive="5m", think=False)
    played = plan(OLLAMA, broken(NATIVE, ask, received("Once", pieces=3)), Ollama())
    assert (played.means, played.going_on.path, played.going_on.shape) == (Means.OLLAMA_RAW, GENERATE, Shape.OLLAMA_TEXT)
    assert played.body == {
        "model": "tiny",
        "keep_alive": "5m",
        "prompt": f"{PROMPT}Once",
        "raw": True,
        "stream": True,
        "truncate": False,
        "options": {"num_ctx": 2048, "num_predict": 7, "stop": ["#"]},
    }
    # Nothing else counts its tokens.
    assert played.going_on.delivered_tokens is None


def test_the_question_is_the_request_itself_bounded_where_the_word_is_not_known() -> None:
    ask = chat(options={"num_ctx": 2048}, think=True)
    (path, asked), *_ = plan(OLLAMA, broken(NATIVE, ask, received("Once")), Ollama()).asked
    assert (path, asked["messages"], asked["think"]) == (NATIVE, [HELLO], True)
    assert asked["options"] == {"num_ctx": 2048, "num_predict": 1}
    (path, asked), *_ = plan(OLLAMA, broken(CHAT, chat(max_tokens=9), received("Once")), Ollama()).asked
    assert (path, asked["max_tokens"]) == (CHAT, 1)


def test_a_chat_of_v1_has_the_defaults_that_it_had_there() -> None:
    ask = chat(max_tokens=10, stop="#", seed=7, temperature=0, frequency_penalty=None)
    played = plan(OLLAMA, broken(CHAT, ask, received("Once")), Ollama())
    assert played.body["prompt"] == f"{PROMPT}Once"
    assert played.body["options"] == {"temperature": 0, "top_p": 1.0, "seed": 7, "stop": ["#"], "num_predict": 9}
    assert plan(OLLAMA, broken(CHAT, chat(), received("Once")), Ollama()).body["options"] == {"temperature": 1.0, "top_p": 1.0}


def test_a_prompt_of_v1_is_rendered_by_the_path_that_tells() -> None:
    ask = {"model": "tiny", "prompt": ["It is"], "presence_penalty": 0.5}
    played = plan(OLLAMA, broken(TEXT, ask, received("so")), Ollama())
    assert (played.paths, played.body["prompt"]) == ([GENERATE], "<user>It is</><assistant>so")
    assert played.body["options"] == {"temperature": 1.0, "top_p": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.5}


def test_a_prompt_is_rendered_and_a_raw_one_is_not() -> None:
    played = plan(OLLAMA, broken(GENERATE, {"model": "tiny", "prompt": "It is"}, received("so")), Ollama())
    assert (played.paths, played.body["prompt"]) == ([GENERATE], "<user>It is</><assistant>so")
    played = plan(OLLAMA, broken(GENERATE, {"model": "tiny", "prompt": "It is", "raw": True}, received(" so")), Ollama())
    assert (played.paths, played.body["prompt"]) == ([], "It is so")


def test_tools_need_the_chat_which_the_template_must_leave_open() -> None:
    one = broken(NATIVE, chat(tools=TOOLS, options={"num_predict": 10, "num_ctx": 2048}), received("Once"))
    abilities = Abilities()
    played = plan(OLLAMA, one, Ollama(), abilities)
    assert (played.means, played.going_on.path, played.going_on.shape) == (Means.OLLAMA_CHAT, NATIVE, Shape.OLLAMA_CHAT)
    assert played.body["messages"] == [HELLO, {"role": "assistant", "content": "Once"}]
    assert (played.body["options"], played.body["truncate"]) == ({"num_predict": 9, "num_ctx": 2048}, False)
    # Another context size would load the model anew.
    assert all(asked["options"]["num_ctx"] == 2048 for _, asked in played.asked)
    assert plan(OLLAMA, one, Ollama(), abilities).paths == []
    assert plan(OLLAMA, one, Ollama(opens=False)).outcome is Refusal.NO_MEANS


def test_a_clients_own_beginning_is_joined_since_two_messages_would_be_merged() -> None:
    begun = [HELLO, {"role": "assistant", "content": "Well. "}]
    played = plan(OLLAMA, broken(CHAT, chat(messages=begun, tools=TOOLS, max_tokens=10), received("Once\n")), Ollama(trims=True))
    assert played.body["messages"] == [HELLO, {"role": "assistant", "content": "Well. Once"}]
    assert (played.going_on.swallow, played.body["max_tokens"]) == ("\n", 9)
    assert played.going_on.shape is Shape.OPENAI_CHAT


def test_a_message_of_anthropics_goes_on_where_a_native_trial_shows_it() -> None:
    tools = [{"name": "f", "input_schema": {}}]
    one = broken(MESSAGES, chat(max_tokens=10, tools=tools), received("Once"))
    played = plan(OLLAMA, one, Ollama())
    assert (played.means, played.going_on.path, played.body["max_tokens"]) == (Means.OLLAMA_CHAT, MESSAGES, 9)
    assert played.paths == [NATIVE, NATIVE]
    assert played.asked[0][1]["tools"][0]["function"]["name"] == "f"
    assert plan(OLLAMA, one, Ollama(opens=False)).outcome is Refusal.NO_MEANS


def test_json_is_refused_because_a_grammar_may_begin_anew() -> None:
    assert plan(OLLAMA, broken(NATIVE, chat(format="json"), received("{")), Ollama()).outcome is Refusal.CASE


@pytest.mark.parametrize(("path", "ask"), [(NATIVE, chat(options={"num_predict": 1})), (CHAT, chat(max_tokens=1, tools=TOOLS))])
def test_an_answer_with_all_its_tokens_is_spent(path: str, ask: dict[str, Any]) -> None:
    assert plan(OLLAMA, broken(path, ask, received("Once")), Ollama()).outcome == Spent(None, 1)


def test_a_version_that_does_not_render_has_no_means() -> None:
    said = {"message": {"role": "assistant", "content": "Hello"}, "done": True}
    assert plan(OLLAMA, broken(NATIVE, chat(), received("Once")), lambda _path, _body: said).outcome is Refusal.NO_MEANS
