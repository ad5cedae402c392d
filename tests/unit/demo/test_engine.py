"""The small engine answers repeatably, in both dialects, and refuses as real engines do."""

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from understudy.demo.engine import EMBEDDING_DIMENSIONS, Engine, compose, embed, main, read_prompt

MESSAGES = [{"role": "user", "content": "who is there?"}]


@pytest.fixture
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    """Talk to one engine that does not pause."""
    async with TestClient(TestServer(Engine("demo", token_delay_s=0.0).make_app())) as client:
        yield client


async def ask(client: TestClient[Any, Any], path: str, **body: Any) -> tuple[int, bytes]:
    """Post a JSON body and return status and body."""
    async with client.post(path, json=body) as response:
        return response.status, await response.read()


def events(body: bytes) -> list[Any]:
    """Read the events of an OpenAI stream, without its end."""
    *rest, done = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
    assert done == b"[DONE]"
    return [json.loads(event) for event in rest]


def test_the_same_question_gets_the_same_answer_and_another_one_another() -> None:
    assert compose("a", "demo", None) == compose("a", "demo", None)
    assert len({compose(text, "demo", None).text for text in "abcdef"}) > 1
    assert embed("a") == embed("a") != embed("b")


def test_an_answer_is_cut_to_the_asked_length_and_says_so() -> None:
    part = compose("a", "demo", 3)
    assert (len(part.tokens), part.reason) == (3, "length")
    assert compose("a", "demo", 1000).reason == "stop"


@pytest.mark.parametrize(
    ("messages", "prompt"),
    [
        ([], ""),
        (["text"], ""),
        ([{"content": "hello"}], "hello"),
        ([{"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "a b"),
        ([{"content": None}], ""),
    ],
)
def test_the_prompt_is_the_last_message_in_either_form(messages: list[Any], prompt: str) -> None:
    assert read_prompt(messages) == prompt


async def test_it_looks_like_an_ollama_to_probes(client: TestClient[Any, Any]) -> None:
    async with client.get("/") as response:
        assert await response.text() == "Ollama is running"
    async with client.get("/api/version") as response:
        assert set(await response.json()) == {"version"}
    for path in ("/api/tags", "/api/ps"):
        async with client.get(path) as response:
            assert [model["name"] for model in (await response.json())["models"]] == ["demo:latest"]
    async with client.get("/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["demo:latest"]


async def test_a_streamed_chat_adds_up_to_the_whole_one(client: TestClient[Any, Any]) -> None:
    _, whole = await ask(client, "/v1/chat/completions", model="demo", messages=MESSAGES)
    _, streamed = await ask(
        client, "/v1/chat/completions", model="demo", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    *chunks, usage = events(streamed)
    assert (
        "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
        == json.loads(whole)["choices"][0]["message"]["content"]
    )
    assert [c["choices"][0]["finish_reason"] for c in chunks][-1] == "stop"
    assert usage["usage"] == json.loads(whole)["usage"]


async def test_a_streamed_completion_adds_up_to_the_whole_one(client: TestClient[Any, Any]) -> None:
    _, whole = await ask(client, "/v1/completions", model="demo", prompt="who", max_tokens=4)
    _, streamed = await ask(client, "/v1/completions", model="demo", prompt="who", max_tokens=4, stream=True)
    assert "".join(c["choices"][0]["text"] for c in events(streamed)) == json.loads(whole)["choices"][0]["text"]
    assert events(streamed)[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(("path", "asked"), [("/api/chat", {"messages": MESSAGES}), ("/api/generate", {"prompt": "who"})])
async def test_ollama_lines_add_up_to_the_whole_answer(client: TestClient[Any, Any], path: str, asked: dict[str, Any]) -> None:
    _, whole = await ask(client, path, model="demo:latest", stream=False, **asked)
    _, streamed = await ask(client, path, model="demo:latest", **asked)
    lines = [json.loads(line) for line in streamed.splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    said = [line["message"]["content"] if "message" in line else line["response"] for line in [*lines, json.loads(whole)]]
    assert "".join(said[:-1]) == said[-1]
    assert lines[-1]["eval_count"] == len(lines) - 1


@pytest.mark.parametrize(("path", "asked"), [("/api/chat", {"messages": []}), ("/api/generate", {})])
async def test_a_request_without_a_prompt_only_loads_the_model(
    client: TestClient[Any, Any], path: str, asked: dict[str, Any]
) -> None:
    _, body = await ask(client, path, model="demo", **asked)
    assert json.loads(body)["done_reason"] == "load"


async def test_embeddings_have_one_vector_a_text(client: TestClient[Any, Any]) -> None:
    _, many = await ask(client, "/v1/embeddings", model="demo", input=["a", "b"])
    assert [len(entry["embedding"]) for entry in json.loads(many)["data"]] == [EMBEDDING_DIMENSIONS] * 2
    _, one = await ask(client, "/api/embed", model="demo", input="a")
    assert json.loads(one)["embeddings"] == [embed("a")]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
async def test_an_unknown_model_is_refused_in_the_openai_shape(client: TestClient[Any, Any], path: str) -> None:
    status, body = await ask(client, path, model="other", messages=MESSAGES)
    assert (status, json.loads(body)["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed"])
async def test_an_unknown_model_is_refused_in_ollamas_shape(client: TestClient[Any, Any], path: str) -> None:
    status, body = await ask(client, path, model="other", messages=MESSAGES)
    assert (status, json.loads(body)) == (404, {"error": "model 'other' not found"})


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"{}", b'{"model": 7}', b'{"model": ""}', b'{"model": "demo", "messages": "hi"}', b"\xff"]
)
async def test_a_malformed_body_is_400(client: TestClient[Any, Any], body: bytes) -> None:
    async with client.post("/v1/chat/completions", data=body) as response:
        assert response.status == 400


def test_a_port_that_cannot_be_had_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert [main(["--port", str(number)]) for number in (port, 70000)] == [1, 1]
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 2
