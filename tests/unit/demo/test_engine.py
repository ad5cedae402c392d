"""The small engine answers repeatably, in both dialects, and refuses as real engines do."""

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from understudy.demo.engine import Engine, main
from understudy.demo.part import EMBEDDING_DIMENSIONS, embed, render

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


def told(path: str, body: bytes) -> tuple[str, dict[str, Any]]:
    """Return the text of a streamed answer, and what its end says: of its kind of stream whatever counts."""
    if path.startswith("/api"):
        lines = [json.loads(line) for line in body.splitlines()]
        text = "".join(line["message"]["content"] if "message" in line else line["response"] for line in lines)
        return text, {
            "reason": lines[-1]["done_reason"],
            "prompt": lines[-1]["prompt_eval_count"],
            "said": lines[-1]["eval_count"],
        }
    *chunks, usage = events(body)
    choices = [chunk["choices"][0] for chunk in chunks]
    text = "".join(choice["delta"].get("content", "") if "delta" in choice else choice["text"] for choice in choices)
    counts = usage["usage"]
    assert counts["total_tokens"] == counts["prompt_tokens"] + counts["completion_tokens"]
    return text, {
        "reason": choices[-1]["finish_reason"],
        "prompt": counts["prompt_tokens"],
        "said": counts["completion_tokens"],
    }


STREAMED = {"model": "demo", "stream": True, "stream_options": {"include_usage": True}}
ASKED: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": MESSAGES},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/api/generate": {"prompt": "who is there?"},
    "/v1/completions": {"prompt": "who is there?"},
}


async def rendered(client: TestClient[Any, Any], path: str) -> str:
    """Ask for the prompt that a request becomes; for a completion /api/generate tells it."""
    path = path.replace("/v1/completions", "/api/generate")
    status, body = await ask(client, path, model="demo", _debug_render_only=True, **ASKED[path])
    assert status == 200
    said = json.loads(body)
    assert not {"done_reason", "usage", "eval_count"} & said.keys()
    return str(said["_debug_info"]["rendered_template"])


@pytest.mark.parametrize("path", ASKED)
async def test_a_broken_answer_goes_on_from_its_rendered_prompt_as_if_it_had_never_broken(
    client: TestClient[Any, Any], path: str
) -> None:
    _, streamed = await ask(client, path, **STREAMED, **ASKED[path])
    whole, end = told(path, streamed)
    prompt = await rendered(client, path)
    words = end["said"]
    for cut in range(1, words):
        text = whole.split(" ")
        partial = " ".join(text[:cut])
        _, body = await ask(client, "/api/generate", model="demo", raw=True, truncate=False, prompt=prompt + partial)
        rest, rest_end = told("/api/generate", body)
        assert partial + rest == whole
        assert rest_end == {"reason": "stop", "prompt": end["prompt"] + cut, "said": words - cut}


async def test_a_continuation_heeds_its_own_bound(client: TestClient[Any, Any]) -> None:
    prompt = await rendered(client, "/api/chat")
    _, whole = await ask(client, "/api/generate", model="demo", raw=True, prompt=prompt)
    begun = told("/api/generate", whole)[0][:20]
    _, body = await ask(client, "/api/generate", model="demo", raw=True, prompt=prompt + begun, options={"num_predict": 2})
    rest, end = told("/api/generate", body)
    assert told("/api/generate", whole)[0].startswith(begun + rest)
    assert (end["reason"], end["said"]) == ("length", 2)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
async def test_a_last_message_of_the_assistant_is_continued(client: TestClient[Any, Any], path: str) -> None:
    _, streamed = await ask(client, path, **STREAMED, messages=MESSAGES)
    whole, end = told(path, streamed)
    begun = [*MESSAGES, {"role": "assistant", "content": whole[:30]}]
    _, streamed = await ask(client, path, **STREAMED, messages=begun)
    rest, rest_end = told(path, streamed)
    assert whole[:30] + rest == whole
    assert rest_end["prompt"] > end["prompt"]


async def test_the_rendered_chat_shows_that_a_last_message_is_continued(client: TestClient[Any, Any]) -> None:
    begun = [*MESSAGES, {"role": "assistant", "content": "it is I"}]
    _, body = await ask(client, "/api/chat", model="demo", messages=begun, _debug_render_only=True)
    assert json.loads(body)["_debug_info"]["rendered_template"] == render(begun)
    assert render(begun).endswith("it is I")


async def test_a_system_prompt_of_a_generation_is_rendered(client: TestClient[Any, Any]) -> None:
    _, body = await ask(client, "/api/generate", model="demo", system="Be brief.", prompt="who", _debug_render_only=True)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "who"}]
    assert json.loads(body)["_debug_info"]["rendered_template"] == render(chat)


@pytest.mark.parametrize(
    ("path", "asked"), [("/api/chat", {"messages": "hi"}), ("/api/chat", {"messages": []}), ("/api/generate", {})]
)
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
