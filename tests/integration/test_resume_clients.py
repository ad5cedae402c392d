"""People's own clients read an answer that broke and went on as one answer, and see an exception when it could not."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from support.breaks import Break, Kind
from support.resume_stage import Stage, Stages
from support.writing_cast import CHAT, MESSAGES, OLLAMA_CHAT, OLLAMA_TEXT, QUESTION, TEXT, Scene

NO_KEY = "none"
KINDS = (Kind.RESET, Kind.ERROR, Kind.CLEAN_END, Kind.INSIDE_CHARACTER)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """Share stages among the plays of this file."""
    made = Stages(tmp_path_factory.mktemp("stages"))
    yield made
    made.close()


def openai_chat(url: str) -> str:
    """Stream a chat with the openai client; the stream must be one answer with one id and one finish."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=NO_KEY, max_retries=0, timeout=20) as client:
        messages: Any = QUESTION
        chunks = list(client.chat.completions.create(model="tiny", messages=messages, stream=True))
    assert len({chunk.id for chunk in chunks}) == 1
    finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert finishes == ["stop"]
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def openai_text(url: str) -> str:
    """Stream a completion with the openai client."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=NO_KEY, max_retries=0, timeout=20) as client:
        chunks = list(client.completions.create(model="tiny", prompt="Once upon a time", max_tokens=500, stream=True))
    return "".join(choice.text for chunk in chunks for choice in chunk.choices)


def ollama_chat(url: str) -> str:
    """Stream a chat with the ollama client."""
    with ollama.Client(host=url, timeout=20) as client:
        parts = list(client.chat(model="tiny", messages=QUESTION, stream=True))
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    return "".join(part.message.content or "" for part in parts)


def ollama_generate(url: str) -> str:
    """Stream a generation with the ollama client."""
    with ollama.Client(host=url, timeout=20) as client:
        parts = list(client.generate(model="tiny", prompt="Once upon a time", stream=True))
    assert parts[-1].done
    return "".join(part.response for part in parts)


def anthropic_message(url: str) -> str:
    """Stream a message with the anthropic client."""
    messages: Any = QUESTION[1:]
    with (
        anthropic.Anthropic(base_url=url, api_key=NO_KEY, max_retries=0, timeout=20) as client,
        client.messages.stream(model="tiny", max_tokens=500, messages=messages) as stream,
    ):
        text = "".join(stream.text_stream)
        assert stream.get_final_message().stop_reason == "end_turn"
    return text


def langchain_openai(url: str) -> str:
    """Stream with LangChain's ChatOpenAI."""
    with httpx.Client(timeout=20) as http:
        model = ChatOpenAI(base_url=f"{url}/v1", api_key=SecretStr(NO_KEY), model="tiny", max_retries=0, http_client=http)
        return "".join(str(chunk.content) for chunk in model.stream("who is there?"))


def langchain_ollama(url: str) -> str:
    """Stream with LangChain's ChatOllama."""
    model = ChatOllama(base_url=url, model="tiny")
    try:
        return "".join(str(chunk.content) for chunk in model.stream("who is there?"))
    finally:
        # LangChain leaves its client open for ever, and a test must not leave a socket behind.
        assert model._client is not None
        model._client.close()  # type: ignore[no-untyped-call]  # the ollama package leaves this one method without types


CLIENTS: dict[str, tuple[Any, tuple[Scene, ...]]] = {
    "openai chat": (
        openai_chat,
        (Scene("vllm", "vllm", CHAT), Scene("ollama", "vllm", CHAT), Scene("llamacpp", "llamacpp", CHAT)),
    ),
    "openai completion": (openai_text, (Scene("vllm", "vllm", TEXT), Scene("llamacpp", "llamacpp", TEXT))),
    "ollama chat": (ollama_chat, (Scene("ollama", "ollama", OLLAMA_CHAT), Scene("native ollama", "native ollama", OLLAMA_CHAT))),
    "ollama generate": (ollama_generate, (Scene("ollama", "ollama", OLLAMA_TEXT),)),
    "anthropic": (anthropic_message, (Scene("llamacpp", "llamacpp", MESSAGES),)),
    "LangChain's ChatOpenAI": (langchain_openai, (Scene("vllm", "vllm", CHAT), Scene("ollama", "ollama", CHAT))),
    "LangChain's ChatOllama": (langchain_ollama, (Scene("ollama", "ollama", OLLAMA_CHAT),)),
}
PLAYS = [(name, scene) for name, (_, scenes) in CLIENTS.items() for scene in scenes]


def broken(stage: Stage, kind: Kind, after: int) -> None:
    """Break the first engine's next answer."""
    stage.fresh()
    stage.engines[0].breaks(kind, after=after)


@pytest.mark.parametrize(("client", "scene"), PLAYS, ids=str)
def test_the_client_reads_one_whole_answer(stages: Stages, client: str, scene: Scene) -> None:
    stage = stages.of(scene)
    read = CLIENTS[client][0]
    uncut = read(stage.daemon.url)
    assert len(uncut) > 60
    for after in (1, 2, 7, 16, 30):
        for kind in KINDS:
            broken(stage, kind, after)
            assert read(stage.daemon.url) == uncut, f"{kind} after {after} pieces"
            assert stage.engines[1].generated, f"{kind} after {after} pieces"


@pytest.mark.parametrize(("client", "scene"), PLAYS, ids=str)
def test_the_client_raises_when_nobody_goes_on(stages: Stages, client: str, scene: Scene) -> None:
    stage = stages.of(scene)
    read = CLIENTS[client][0]
    for kind in (*KINDS, Kind.MALFORMED):
        broken(stage, kind, 6)
        # Whoever is asked to go on breaks before its first piece, every time.
        for engine in stage.engines:
            engine.breaks_always = Break(Kind.RESET, 0)
        with pytest.raises((openai.APIError, ollama.ResponseError, anthropic.APIError, httpx.TransportError)):
            read(stage.daemon.url)
