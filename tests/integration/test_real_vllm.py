"""The main job against a real vLLM: the same answers through the proxy as directly, and failover when it is killed.

Only `make test-vllm` runs these; everything vLLM sends that matters is recorded in tests/golden/vllm and played everywhere.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from support.daemon import Daemon, backend, settings
from support.endings import whole_story
from support.hf_model import write_hf_model
from support.llama import LlamaServer
from support.relay_that_cuts import CuttingRelay
from support.tiny_model import tiny_model
from support.vllm import VllmServer
from understudy.core.snapshot import EngineKind
from understudy.engines.assembly import CHAT, TEXT, as_streamed, assemble

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

QUESTION = "Tell of the coast."
TOKENS = 40
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    environment = Path(os.environ["UNDERSTUDY_VLLM_VENV"]).absolute()
    with VllmServer(environment, write_hf_model(tmp_path_factory.mktemp("tiny-hf"))) as server:
        yield server


@pytest.fixture(scope="module")
def daemon(vllm: VllmServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon before vLLM, which it has to recognise by itself."""
    slow = {"timeout": "3s"}
    with Daemon(settings(backend(vllm, "auto"), health=slow), tmp_path_factory.mktemp("daemon")) as proxy:
        proxy.wait_condition("up")
        yield proxy


def test_the_probe_tells_vllm_its_version_and_its_model(daemon: Daemon) -> None:
    status = daemon.status()["vllm"]
    assert status["engine"] == "vllm"
    assert status["version"]
    assert [model["id"] for model in daemon.ask("/v1/models", method="GET").json()["data"]] == ["tiny"]


def test_openai_clients_get_what_vllm_would_have_said(vllm: VllmServer, daemon: Daemon) -> None:
    assert whole_answer(daemon.url) == whole_answer(vllm.url)
    assert streamed_answer(daemon.url) == streamed_answer(vllm.url) == whole_answer(vllm.url)


def test_langchain_gets_what_vllm_would_have_said(vllm: VllmServer, daemon: Daemon) -> None:
    answers = [
        ChatOpenAI(base_url=f"{url}/v1", api_key=SecretStr("none"), model="tiny", temperature=0, max_completion_tokens=TOKENS)
        .invoke(QUESTION)
        .content
        for url in (daemon.url, vllm.url)
    ]
    assert answers[0] == answers[1] == whole_answer(vllm.url)


def test_anthropic_clients_get_what_vllm_would_have_said(vllm: VllmServer, daemon: Daemon) -> None:
    assert message(daemon.url) == message(vllm.url)


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    "more",
    [{}, {"stop": ["\n", " se"]}, {"stop": " goko seza"}, {"min_tokens": 9, "n": 1, "logprobs": None}],
    ids=["length", "stops", "a long stop", "flags"],
)
def test_an_assembled_answer_equals_vllms_whole_one(vllm: VllmServer, path: str, more: dict[str, Any]) -> None:
    """Every member, null or not, at every token limit; only id and time differ between two askings."""
    words: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}]} if path == CHAT else {"prompt": QUESTION}
    with httpx.Client(base_url=vllm.url, timeout=60) as client:
        version = client.get("/version").json()["version"]
        for tokens in range(9, TOKENS):
            body = json.dumps({"model": "tiny", "temperature": 0, "max_tokens": tokens, **words, **more}).encode()
            streamed = as_streamed(EngineKind.VLLM, path, body, version)
            assert streamed is not None, f"vLLM {version} is not one whose whole answers are known"
            whole, stream = (client.post(path, content=each, headers=JSON) for each in (body, streamed))
            assembled = assemble(EngineKind.VLLM, path, body, stream.content)
            assert assembled is not None
            assert assembled[0].split(b'"model"')[1] == whole.content.split(b'"model"')[1]
            assert list(json.loads(assembled[0])) == list(whole.json())
            assert assembled[1].decode() == whole.headers["content-type"]


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("resume", [True, "exact"])
@pytest.mark.parametrize(
    "more", [{"max_tokens": TOKENS}, {"stop": ["zozi donu"], "max_tokens": 4 * TOKENS}], ids=["length", "stop"]
)
def test_an_answer_that_is_cut_anywhere_goes_on_as_the_same(
    vllm: VllmServer, tmp_path: Path, path: str, resume: object, more: dict[str, Any]
) -> None:
    """By chat, by text and by ids; while vLLM looks for a stop string it sends half tokens."""
    words: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}]} if path == CHAT else {"prompt": QUESTION}
    body = {"model": "tiny", "temperature": 0, "stream": True, "stream_options": {"include_usage": True}, **words, **more}
    sections = {"health": {"interval": "60s", "timeout": "3s", "max_fails": 0}, "failover": {"resume": resume, "budget": "100%"}}
    with CuttingRelay("gpu0", vllm.port) as relay:
        wanted = settings(backend(relay, "vllm"), backend(vllm, "vllm"), **sections)
        with Daemon(wanted, tmp_path) as proxy:
            proxy.wait_condition("up")
            uncut = whole_story(proxy.ask(path, body))
            resumed = 0
            for after in range(2, len(uncut.events) - 4):
                relay.cut(after)
                story = whole_story(proxy.ask(path, body))
                assert (story.text, story.finish) == (uncut.text, uncut.finish), f"cut after {after} events"
                resumed += bool(story.seams)
    # Before the first text, which comes late while a stop string is looked for, the request is sent again.
    assert resumed > TOKENS // 4


def test_a_prompt_that_is_too_long_is_the_clients_affair(daemon: Daemon) -> None:
    with (
        openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.BadRequestError),
    ):
        client.completions.create(model="tiny", prompt="word " * 8000, max_tokens=1)
    assert daemon.status()["vllm"]["condition"] == "up"


def test_when_vllm_is_killed_the_backup_answers(vllm: VllmServer, models_folder: Path, tmp_path: Path) -> None:
    """Stands last, because it ends the vLLM of this file."""
    with (
        LlamaServer(tiny_model(models_folder), "backup") as backup,
        Daemon(settings(backend(vllm, "vllm"), backend(backup, role="backup", models={"tiny": "tiny"})), tmp_path) as proxy,
    ):
        proxy.wait_condition("up")
        body = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 4, "temperature": 0}
        assert proxy.ask(body=body).backend == "vllm"
        vllm.kill()
        reply = proxy.ask(body=body)
        assert (reply.status, reply.backend) == (200, "backup")


def whole_answer(url: str) -> str:
    """Ask without streaming; returns the text."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": QUESTION}], max_tokens=TOKENS, temperature=0
        )
    return answer.choices[0].message.content or ""


def streamed_answer(url: str) -> str:
    """Ask for a stream; returns the text that its pieces make."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": QUESTION}], max_tokens=TOKENS, temperature=0, stream=True
        )
        return "".join(piece.choices[0].delta.content or "" for piece in stream if piece.choices)


def message(url: str) -> str:
    """Ask in the Anthropic dialect; returns the text."""
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        answer = client.messages.create(
            model="tiny", messages=[{"role": "user", "content": QUESTION}], max_tokens=TOKENS, extra_body={"temperature": 0}
        )
    return "".join(part.text for part in answer.content if part.type == "text")
