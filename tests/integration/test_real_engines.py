"""Two real llama.cpp servers behind the daemon, asked by the clients that people really use; killed, frozen and started again."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from support.daemon import Daemon, backend, settings
from support.llama import LlamaServer
from support.process import Output, end
from support.tiny_model import tiny_model
from support.waiting import until
from support.wire import CutShortError, Wire, ask, chat, request_bytes

QUESTIONS = ("good evening", "and who is there?")
NO_KEY = "none"
GREEDY = {"temperature": 0}
# An engine may end a connection that waits for its next request just as that is sent. Nobody is to see so through the daemon.
DIRECT_RETRIES = 2


class Stage:
    """Two real servers and the daemon."""

    def __init__(self, gpu0: LlamaServer, gpu1: LlamaServer, daemon: Daemon) -> None:
        self.gpu0, self.gpu1, self.daemon = gpu0, gpu1, daemon

    def ask(self, words: str = QUESTIONS[0], **more: Any) -> Any:
        """Ask in a chat of twenty tokens."""
        return self.daemon.ask(body=chat(words, max_tokens=20, temperature=0, **more))


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory, models_folder: Path) -> Iterator[Stage]:
    """Run the servers and the daemon once for the file; every play leaves both servers up."""
    model = tiny_model(models_folder)
    with LlamaServer(model, "gpu0") as gpu0, LlamaServer(model, "gpu1") as gpu1:
        wanted = settings(backend(gpu0, "auto"), backend(gpu1, "auto"))
        daemon = Daemon(wanted, tmp_path_factory.mktemp("real"))
        with daemon:
            yield Stage(gpu0, gpu1, daemon)


@pytest.fixture
def stage(shared_stage: Stage) -> Stage:
    """Hand it over with both servers up and the first one chosen."""
    shared_stage.daemon.wait_condition("up")
    until(lambda: shared_stage.ask().backend == "gpu0", "gpu0 in service")
    return shared_stage


@pytest.fixture(scope="module")
def demo_engine() -> Iterator[str]:
    """Run the package's own engine, which speaks Ollama's dialect, and return its URL."""
    command = [sys.executable, "-m", "understudy.demo.engine", "--token-delay-ms", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = Output(process.stdout, "demo")
    try:
        yield f"http://127.0.0.1:{output.wait_line(lambda text: text.startswith('READY'), 20.0).split()[1]}"
    finally:
        end(process)
        output.close()


@pytest.fixture(scope="module")
def ollama_urls(demo_engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Put a daemon of its own before the Ollama engine; return the engine's URL and the daemon's."""
    entry = {"name": "pi", "url": demo_engine, "engine": "auto"}
    with Daemon(settings(entry), tmp_path_factory.mktemp("ollama")) as daemon:
        daemon.wait_condition("up")
        yield demo_engine, daemon.url


def openai_answers(url: str, retries: int = 0) -> list[Any]:
    """Everything the openai client gives for the questions: chats, completions, models; streamed and not."""
    answers: list[Any] = []
    with openai.OpenAI(base_url=f"{url}/v1", api_key=NO_KEY, max_retries=retries, timeout=20) as client:
        for question in QUESTIONS:
            message: Any = {"role": "user", "content": question}
            whole = client.chat.completions.create(model="tiny", messages=[message], max_tokens=30, temperature=0)
            answers.append(
                (whole.choices[0].message.content, whole.choices[0].finish_reason, whole.usage and whole.usage.completion_tokens)
            )
            chunks = client.chat.completions.create(model="tiny", messages=[message], max_tokens=30, temperature=0, stream=True)
            pieces = [
                (c.choices[0].delta.role, c.choices[0].delta.content, c.choices[0].finish_reason) for c in chunks if c.choices
            ]
            answers.append(pieces)
            text = client.completions.create(model="tiny", prompt=question, max_tokens=30, temperature=0, stream=True)
            answers.append([c.choices[0].text for c in text])
        answers.append([model.id for model in client.models.list()])
    return answers


def test_the_openai_client_gets_the_same_through_the_daemon_and_directly(stage: Stage) -> None:
    assert openai_answers(stage.daemon.url) == openai_answers(stage.gpu0.url, DIRECT_RETRIES)


def anthropic_answers(url: str, retries: int = 0) -> list[Any]:
    """Everything the anthropic client gives for the questions."""
    answers: list[Any] = []
    with anthropic.Anthropic(base_url=url, api_key=NO_KEY, max_retries=retries, timeout=20) as client:
        for question in QUESTIONS:
            message: Any = {"role": "user", "content": question}
            whole = client.messages.create(model="tiny", max_tokens=30, messages=[message], extra_body=GREEDY)
            answers.append(("".join(getattr(block, "text", "") for block in whole.content), whole.stop_reason))
            with client.messages.stream(model="tiny", max_tokens=30, messages=[message], extra_body=GREEDY) as stream:
                answers.append((list(stream.text_stream), stream.get_final_message().stop_reason))
    return answers


def test_the_anthropic_client_gets_the_same_through_the_daemon_and_directly(stage: Stage) -> None:
    answers = anthropic_answers(stage.daemon.url)
    assert answers == anthropic_answers(stage.gpu0.url, DIRECT_RETRIES)
    assert answers[0][0]


def langchain_openai_answers(url: str, retries: int = 0) -> list[Any]:
    """Everything LangChain's ChatOpenAI gives for the questions."""
    with httpx.Client(timeout=20) as http:
        model = ChatOpenAI(
            base_url=f"{url}/v1", api_key=SecretStr(NO_KEY), model="tiny", temperature=0, max_retries=retries, http_client=http
        )
        bound = model.bind(max_tokens=30)
        return [(bound.invoke(question).content, [chunk.content for chunk in bound.stream(question)]) for question in QUESTIONS]


def test_langchain_openai_gets_the_same_through_the_daemon_and_directly(stage: Stage) -> None:
    assert langchain_openai_answers(stage.daemon.url) == langchain_openai_answers(stage.gpu0.url, DIRECT_RETRIES)


def ollama_answers(url: str) -> list[Any]:
    """Everything the ollama client gives for the questions: chats, generations, embeddings, the lists."""
    with ollama.Client(host=url, timeout=20) as client:
        return _ollama_answers(client)


def _ollama_answers(client: ollama.Client) -> list[Any]:
    answers: list[Any] = []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        answers.append(client.chat(model="demo", messages=messages).message.content)
        answers.append([part.message.content for part in client.chat(model="demo", messages=messages, stream=True)])
        answers.append(client.generate(model="demo", prompt=question).response)
        answers.append([(part.response, part.done) for part in client.generate(model="demo", prompt=question, stream=True)])
        answers.append(client.embed(model="demo", input=question).embeddings)
    answers.append([(model.model, model.digest) for model in client.list().models])
    answers.append([model.model for model in client.ps().models])
    return answers


def test_the_ollama_client_gets_the_same_through_the_daemon_and_directly(ollama_urls: tuple[str, str]) -> None:
    direct, through = ollama_urls
    assert ollama_answers(through) == ollama_answers(direct)


def langchain_ollama_answers(url: str) -> list[Any]:
    """Everything LangChain's ChatOllama gives for the questions."""
    model = ChatOllama(base_url=url, model="demo", temperature=0)
    answers = [(model.invoke(question).content, [chunk.content for chunk in model.stream(question)]) for question in QUESTIONS]
    # LangChain leaves its client open for ever, and a test must not leave a socket behind.
    assert model._client is not None
    model._client.close()  # type: ignore[no-untyped-call]  # the ollama package leaves this one method without types
    return answers


def test_langchain_ollama_gets_the_same_through_the_daemon_and_directly(ollama_urls: tuple[str, str]) -> None:
    direct, through = ollama_urls
    assert langchain_ollama_answers(through) == langchain_ollama_answers(direct)


def test_a_refused_model_is_the_same_exception_for_the_openai_client(stage: Stage) -> None:
    with openai.OpenAI(base_url=f"{stage.daemon.url}/v1", api_key=NO_KEY, max_retries=0) as client:
        message: Any = {"role": "user", "content": "hello"}
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nobody-has-it", messages=[message])


def test_a_killed_server_is_replaced_for_the_very_next_request_and_comes_back(stage: Stage) -> None:
    expected = stage.ask().text
    stage.gpu0.kill()
    try:
        reply = stage.ask()
        assert (reply.status, reply.backend, reply.text) == (200, "gpu1", expected)
        stage.daemon.wait_condition("down", "gpu0")
        assert stage.ask().attempts == 1
    finally:
        stage.gpu0.start()
    until(lambda: stage.ask().backend == "gpu0", "gpu0 back in service")


def test_a_server_killed_in_mid_stream_ends_the_stream_with_an_error(tmp_path: Path, models_folder: Path) -> None:
    with LlamaServer(tiny_model(models_folder, layers=64), "gpu0") as gpu0, Daemon(settings(backend(gpu0)), tmp_path) as daemon:
        daemon.wait_condition("up")
        with Wire(daemon.port) as wire:
            wire.send(request_bytes("POST", "/v1/chat/completions", chat(stream=True, max_tokens=4000, temperature=0)))
            pieces = wire.read_pieces(wire.read_head())
            body = b"".join(next(pieces) for _ in range(5))
            gpu0.kill()
            rest: list[bytes] = []
            with pytest.raises(CutShortError):
                rest.extend(pieces)
            body += b"".join(rest)
    assert body.endswith(b"\n\n")
    assert body.rstrip().rpartition(b"\n\n")[2].startswith(b'data: {"error"')


def test_a_frozen_server_is_out_within_the_health_times_and_back_when_it_goes_on(stage: Stage) -> None:
    stage.gpu0.freeze()
    try:
        frozen_at_s = time.monotonic()
        stage.daemon.wait_condition("down", "gpu0")
        # interval 0.5 s, timeout 0.5 s, fall 2, and the looks between: well under three seconds.
        assert time.monotonic() - frozen_at_s < 3.0
        reply = stage.ask()
        assert (reply.status, reply.backend, reply.attempts) == (200, "gpu1", 1)
    finally:
        stage.gpu0.thaw()
    stage.daemon.wait_condition("up", "gpu0")
    until(lambda: stage.ask().backend == "gpu0", "gpu0 back in service")


def test_a_server_behind_the_daemon_is_recognised_with_its_model_and_dialects(stage: Stage) -> None:
    entry = stage.daemon.status()["gpu0"]
    assert (entry["engine"], entry["condition"], entry["duty"]) == ("llamacpp", "up", "ready")
    listed = stage.daemon.ask("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == [
        model["id"] for model in ask(stage.gpu0.port, "/v1/models").json()["data"]
    ]


def test_a_client_that_leaves_makes_the_server_stop_generating(tmp_path: Path, models_folder: Path) -> None:
    with LlamaServer(tiny_model(models_folder, layers=64), "gpu0") as gpu0, Daemon(settings(backend(gpu0)), tmp_path) as daemon:
        daemon.wait_condition("up")
        with Wire(daemon.port) as wire:
            wire.send(request_bytes("POST", "/v1/chat/completions", chat(stream=True, max_tokens=4000, temperature=0)))
            next(wire.read_pieces(wire.read_head()))
        daemon.wait_idle(timeout_s=2.0)
        slots = until(
            lambda: [s for s in ask(gpu0.port, "/slots").json() if not s["is_processing"]][1:], "both slots free", timeout_s=3.0
        )
        assert slots
