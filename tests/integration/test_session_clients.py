"""People's own clients talk in a session: they send what is new, or all that they remember, and the engine is given it once.

Every conversation changes its backend in the middle. What a client does to an answer before it sends it back (parts, empty
fields, other ids) is the client's own doing here.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, Protocol

import anthropic
import httpx
import ollama
import openai
import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from support.answers import whole
from support.daemon import Daemon, backend, settings
from support.engine_ollama import Habits, OllamaDialect
from support.engine_vllm import VllmDialect
from support.scripted_model import START, ScriptedModel, words_of
from support.waiting import until
from support.wire import chat
from support.writing_engine import WritingEngine

NO_KEY = "none"
SYSTEM = "You are brief."
WEATHER = "What is the weather in Paris?"
RESULT = "12 degrees and rain"
LOOK: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look out of a window.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
NUMBERS = itertools.count(1)


def write(prompt: str) -> str:
    """Call a tool where the weather is asked for, think where thought is, else say made-up words."""
    said = prompt.split(START)[-2]
    if said.startswith("user") and WEATHER in said and f"{START}tools" in prompt:
        return 'I look.<tool_call>{"name": "look", "arguments": {"city": "Paris"}}</tool_call>'
    return ("<think>Hm, well.</think>" if "think" in said else "") + words_of(prompt.encode(), 8)


class Stage:
    """A daemon with two Ollamas, which speak all dialects, and a vLLM with another model; each play has a session of its own."""

    def __init__(self, daemon: Daemon, engines: list[WritingEngine]) -> None:
        self.daemon = daemon
        self.engines = engines
        self.session = ""
        self._exchanges = 0

    def begin(self) -> None:
        """Begin a session of its own; its first answers come from gpu0."""
        for engine in self.engines:
            engine.fresh()
        self.session = f"talk-{next(NUMBERS)}"
        self.daemon.wait_condition("up")
        # Once this one stands in the log, all earlier ones do.
        self.daemon.ask(body=chat(), headers={"X-Request-ID": self.session})
        self.daemon.wait_event("exchange.finished", request_id=self.session)
        self._exchanges = len(self.daemon.events("exchange.finished"))
        for engine in self.engines:
            engine.generated.clear()

    def turn_away(self) -> None:
        """Have gpu0 refuse the next request, whose conversation goes to gpu1 with it."""
        self.engines[0].then(whole(429, {"error": "busy"}))

    def last(self) -> dict[str, Any]:
        """Return the last request that an engine has answered: the longest, because conversations grow."""
        chats = (body for engine in self.engines for _, body in engine.generated if "messages" in body)
        return max(chats, key=lambda body: len(flatly(body)))

    def mergings(self, count: int) -> list[str]:
        """Return what became of the messages of the session's requests, which are `count`."""

        def told() -> list[dict[str, Any]]:
            return self.daemon.events("exchange.finished")[self._exchanges :]

        until(lambda: len(told()) >= count, f"{count} exchanges; {told()}")
        return [event["session"] for event in told()]


def flatly(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (role, text) of a request's messages, Anthropic's system prompt first."""
    system = [("system", flat(body["system"]))] if body.get("system") else []
    return system + [(message["role"], flat(message["content"])) for message in body["messages"]]


def flat(content: Any) -> str:
    """Return the text of a content, whatever its form."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Share one daemon among the plays of this file."""
    folder = tmp_path_factory.mktemp("clients")
    with ExitStack() as stack:
        model = ScriptedModel(write=write)
        habits = Habits(is_native=True, thinks=True)
        engines = [WritingEngine(f"gpu{n}", OllamaDialect(model, habits), engine="ollama") for n in range(2)]
        engines.append(WritingEngine("big", VllmDialect(model), engine="vllm", models=("big",)))
        backends = [backend(stack.enter_context(engine), "vllm" if engine.name == "big" else "ollama") for engine in engines]
        wanted = settings(*backends, sessions={"store": f"file:{folder / 'kept'}"})
        yield Stage(stack.enter_context(Daemon(wanted, folder)), engines)


@pytest.fixture
def stage(shared_stage: Stage) -> Stage:
    """Begin a session of its own."""
    shared_stage.begin()
    return shared_stage


# The clients. Each takes messages of its own kind and returns the answer as its users put it into their history.


class Client(Protocol):
    """One library, with the session in its default headers."""

    def close(self) -> None: ...
    def user(self, text: str) -> Any: ...
    def say(self, messages: list[Any], system: str, *, stream: bool) -> Any: ...
    def text(self, answer: Any) -> str: ...


class Dicts:
    """What the libraries have in common whose questions are plain dicts."""

    def user(self, text: str) -> Any:
        return {"role": "user", "content": text}

    def with_system(self, messages: list[Any], system: str) -> list[Any]:
        return [{"role": "system", "content": system}, *messages] if system else messages


class OpenaiClient(Dicts):
    """The openai package; a streamed answer is joined by its user, whole ones are its own objects."""

    model = "tiny"

    def __init__(self, url: str, session: str) -> None:
        headers = {"X-Session-ID": session}
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key=NO_KEY, max_retries=0, timeout=20, default_headers=headers)

    def close(self) -> None:
        self.client.close()

    def say(self, messages: list[Any], system: str, *, stream: bool, tools: Any = openai.omit) -> Any:
        asked = self.with_system(messages, system)
        if not stream:
            return self.client.chat.completions.create(model=self.model, messages=asked, tools=tools).choices[0].message
        chunks = self.client.chat.completions.create(model=self.model, messages=asked, stream=True)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        return {"role": "assistant", "content": text}

    def text(self, answer: Any) -> str:
        return str(answer["content"] if isinstance(answer, dict) else answer.content)

    def result(self, answer: Any) -> Any:
        return {"role": "tool", "tool_call_id": answer.tool_calls[0].id, "content": RESULT}


class OpenaiHelper(OpenaiClient):
    """The openai package's helper, which puts a streamed answer together, asking the vLLM.

    Not the Ollamas: these tell the role in every chunk (golden/ollama/v1_chat.sse), and the helper joins roles, too.
    """

    model = "big"

    def say(self, messages: list[Any], system: str, *, stream: bool, tools: Any = openai.omit) -> Any:
        asked = self.with_system(messages, system)
        with self.client.chat.completions.stream(model=self.model, messages=asked, tools=tools) as events:
            return events.get_final_completion().choices[0].message


class OllamaClient(Dicts):
    """The ollama package; a streamed answer is joined by its user."""

    def __init__(self, url: str, session: str) -> None:
        self.client = ollama.Client(host=url, timeout=20, headers={"X-Session-ID": session})

    def close(self) -> None:
        self.client.close()  # type: ignore[no-untyped-call]  # the package leaves this one method without types

    def say(self, messages: list[Any], system: str, *, stream: bool) -> Any:
        asked = self.with_system(messages, system)
        if not stream:
            return self.client.chat(model="tiny", messages=asked).message
        parts = list(self.client.chat(model="tiny", messages=asked, stream=True))
        return {"role": "assistant", "content": "".join(part.message.content or "" for part in parts)}

    def text(self, answer: Any) -> str:
        return str(answer["content"])


class AnthropicClient(Dicts):
    """The anthropic package, whose answers are lists of blocks."""

    def __init__(self, url: str, session: str) -> None:
        headers = {"X-Session-ID": session}
        self.client = anthropic.Anthropic(base_url=url, api_key=NO_KEY, max_retries=0, timeout=20, default_headers=headers)

    def close(self) -> None:
        self.client.close()

    def say(self, messages: list[Any], system: str, *, stream: bool) -> Any:
        asked: dict[str, Any] = {"model": "tiny", "max_tokens": 400, "messages": messages}
        asked |= {"system": system} if system else {}
        if not stream:
            return {"role": "assistant", "content": self.client.messages.create(**asked).content}
        with self.client.messages.stream(**asked) as events:
            return {"role": "assistant", "content": events.get_final_message().content}

    def text(self, answer: Any) -> str:
        return "".join(block.text for block in answer["content"])


class LangChain:
    """What LangChain's models have in common."""

    model: Any

    def user(self, text: str) -> Any:
        return HumanMessage(text)

    def say(self, messages: list[Any], system: str, *, stream: bool, tools: Sequence[Any] = ()) -> Any:
        asked = [SystemMessage(system), *messages] if system else messages
        model = self.model.bind_tools(tools) if tools else self.model
        if not stream:
            return model.invoke(asked)
        first, *others = model.stream(asked)
        return sum(others, first)

    def text(self, answer: Any) -> str:
        return str(answer.content)

    def result(self, answer: Any) -> Any:
        return ToolMessage(RESULT, tool_call_id=answer.tool_calls[0]["id"])


class LangChainOpenai(LangChain):
    """ChatOpenAI."""

    def __init__(self, url: str, session: str) -> None:
        self._http = httpx.Client(timeout=20)
        self.model = ChatOpenAI(
            base_url=f"{url}/v1",
            api_key=SecretStr(NO_KEY),
            model="tiny",
            max_retries=0,
            http_client=self._http,
            default_headers={"X-Session-ID": session},
        )

    def close(self) -> None:
        self._http.close()


class LangChainOllama(LangChain):
    """ChatOllama."""

    def __init__(self, url: str, session: str) -> None:
        self.model = ChatOllama(base_url=url, model="tiny", client_kwargs={"headers": {"X-Session-ID": session}})

    def close(self) -> None:
        # LangChain leaves its clients open for ever.
        self.model._client.close()


CLIENTS = (OpenaiClient, OllamaClient, AnthropicClient, LangChainOpenai, LangChainOllama)
Made = Callable[[str, str], Any]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole answers"])
@pytest.mark.parametrize("remembers", [True, False], ids=["sends all", "sends what is new"])
@pytest.mark.parametrize("made", CLIENTS)
def test_a_client_and_its_engine_agree_on_the_conversation(stage: Stage, made: Made, *, remembers: bool, stream: bool) -> None:
    """Four turns, the third of which goes to the other backend; one asks for thoughts."""
    client: Client
    with closing(made(stage.daemon.url, stage.session)) as client:
        history: list[Any] = []
        said = [("system", SYSTEM)]
        for turn, question in enumerate(("one", "think of two", "three", "four")):
            if turn == 2:
                stage.turn_away()
            history.append(client.user(question))
            system = SYSTEM if remembers or not turn else ""
            answer = client.say(history if remembers else history[-1:], system, stream=stream)
            assert client.text(answer)
            said.append(("user", question))
            assert flatly(stage.last()) == said
            said.append(("assistant", client.text(answer)))
            history.append(answer)
    assert [len(engine.generated) for engine in stage.engines] == [2, 2, 0]
    assert stage.mergings(4) == ["new", *["recognised" if remembers else "appended"] * 3]


CALLERS = (
    (OpenaiClient, False),
    (OpenaiHelper, True),
    (LangChainOpenai, False),
    (LangChainOpenai, True),
    (LangChainOllama, True),
)


@pytest.mark.parametrize("remembers", [True, False], ids=["sends all", "sends what is new"])
@pytest.mark.parametrize(("made", "stream"), CALLERS)
def test_a_tool_call_and_its_result_stay_together(stage: Stage, made: Made, *, remembers: bool, stream: bool) -> None:
    with closing(made(stage.daemon.url, stage.session)) as client:
        history: list[Any] = []
        for question in (WEATHER, None, "Is that cold?"):
            history.append(client.user(question) if question else client.result(history[-1]))
            answer = client.say(history if remembers else history[-1:], "", stream=stream, tools=[LOOK])
            history.append(answer)
    messages = stage.last()["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant", "user"]
    call = messages[1]["tool_calls"][0]
    # OpenAI's arguments are a text, Ollama's an object.
    assert (call["function"]["name"], str(call["function"]["arguments"]).count("Paris")) == ("look", 1)
    # The ollama package tells no ids.
    assert messages[2].get("tool_call_id", call.get("id")) == call.get("id")
    assert [flat(message["content"]) for message in messages[2:]] == [RESULT, client.text(history[3]), "Is that cold?"]
    assert stage.mergings(3) == ["new", *["recognised" if remembers else "appended"] * 2]


def test_a_conversation_goes_from_client_to_client(stage: Stage) -> None:
    """Each sends what is new in its own dialect, and the next one's engine is given all of it."""
    said: list[tuple[str, str]] = []
    for turn, made in enumerate((*CLIENTS, *reversed(CLIENTS))):
        client: Client
        with closing(made(stage.daemon.url, stage.session)) as client:
            question = f"question {turn}"
            answer = client.say([client.user(question)], "", stream=turn % 2 == 0)
            said.append(("user", question))
            assert flatly(stage.last()) == said
            said.append(("assistant", client.text(answer)))


@pytest.mark.parametrize("made", [OpenaiClient, LangChainOllama])
def test_a_client_that_remembers_only_the_last_turn_is_understood(stage: Stage, made: Made) -> None:
    with closing(made(stage.daemon.url, stage.session)) as client:
        history: list[Any] = []
        said: list[str] = []
        for question in ("one", "two", "three", "four"):
            history.append(client.user(question))
            history.append(client.say(history[-3:], "", stream=False))
            said += [question, client.text(history[-1])]
    assert [text for _, text in flatly(stage.last())] == said[:-1]
    assert stage.mergings(4) == ["new", *["recognised"] * 3]


async def test_many_sessions_of_one_asynchronous_client_stay_apart(stage: Stage) -> None:
    async with openai.AsyncOpenAI(base_url=f"{stage.daemon.url}/v1", api_key=NO_KEY, max_retries=0, timeout=20) as client:

        async def talk(session: str) -> list[str]:
            said: list[str] = []
            for turn in range(3):
                question = f"{session}, {turn}"
                chunks = await client.chat.completions.create(
                    model="tiny",
                    messages=[{"role": "user", "content": question}],
                    stream=True,
                    extra_headers={"X-Session-ID": session},
                )
                said += [question, "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])]
            return said

        talks = await asyncio.gather(*(talk(f"{stage.session} {number}") for number in range(8)))
    given = [[text for _, text in flatly(body)] for engine in stage.engines for _, body in engine.generated]
    assert sorted(given) == sorted(said[:end] for said in talks for end in (1, 3, 5))


def test_ollamas_context_is_the_clients_own_memory(stage: Stage) -> None:
    """Its prompts are left alone, and what was said is kept all the same."""
    client = ollama.Client(host=stage.daemon.url, timeout=20, headers={"X-Session-ID": stage.session})
    first = client.generate(model="tiny", prompt="one")
    second = client.generate(model="tiny", prompt="two", context=first.context)
    client.close()  # type: ignore[no-untyped-call]  # the package leaves this one method without types
    prompts = [body["prompt"] for engine in stage.engines for _, body in engine.generated]
    assert prompts == ["one", "two"]
    with closing(OpenaiClient(stage.daemon.url, stage.session)) as other:
        other.say([other.user("three")], "", stream=False)
    assert [text for _, text in flatly(stage.last())] == ["one", first.response, "two", second.response, "three"]
