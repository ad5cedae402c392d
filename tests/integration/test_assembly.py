"""A real llama.cpp server is asked for answers both ways; what is assembled of the stream must equal what it gives whole."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.llama import LlamaServer
from support.tiny_model import tiny_model
from understudy.core.snapshot import EngineKind
from understudy.engines.assembly import CHAT, TEXT, as_streamed, assemble

GREEDY = {"model": "tiny", "temperature": 0, "cache_prompt": False}
WORDS = 'good evening, "who" is\n\\there? \u00e9 \U0001f600 <&>'
OBJECT = {"type": "object", "properties": {"a": {"enum": ["x \u20ac\n"]}}, "required": ["a"], "additionalProperties": False}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": OBJECT}}


@pytest.fixture(scope="module")
def client(models_folder: Path) -> Iterator[httpx.Client]:
    # llama.cpp closes a connection after 100 answers, and may do so when the next request is on its way.
    limits = httpx.Limits(max_keepalive_connections=0)
    with (
        LlamaServer(tiny_model(models_folder)) as server,
        httpx.Client(base_url=server.url, timeout=20, limits=limits) as client,
    ):
        yield client


def asked(path: str, **more: Any) -> bytes:
    words: dict[str, Any] = {"messages": [{"role": "user", "content": WORDS}]} if path == CHAT else {"prompt": WORDS}
    return json.dumps({**GREEDY, **words, **more}, ensure_ascii=False).encode()


def both(client: httpx.Client, path: str, body: bytes) -> tuple[httpx.Response, tuple[bytes, bytes] | None]:
    """Return the server's whole answer, and the one assembled of its stream."""
    whole = client.post(path, content=body)
    streamed = as_streamed(EngineKind.LLAMACPP, path, body)
    assert streamed is not None
    return whole, assemble(EngineKind.LLAMACPP, path, body, client.post(path, content=streamed).content)


def shape(body: bytes) -> str:
    """Write an answer down without what no two askings have in common: id, times, speeds. The order of members stays."""
    answer = json.loads(body)
    assert answer.pop("id").startswith("chatcmpl-")
    assert answer.pop("created") > 0
    timings = answer.pop("timings")
    counts = {key: timings[key] for key in timings if key.endswith("_n")}
    return json.dumps([answer, list(timings), counts])


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    "more",
    [
        {"max_tokens": 200},
        {"max_tokens": 200, "stop": ["zz", "\u00e9"]},
        {"max_tokens": 60, "stop": "\n"},
        {"n_predict": 25, "stream": False, "n": 1, "seed": 4, "logprobs": None},
        {"max_tokens": 40, "grammar": 'root ::= " a\\n\\"\\\\ " [a-z]+ "  "'},
        {"max_tokens": 400, "json_schema": OBJECT},
    ],
    ids=["length", "stop string", "line end", "flags", "grammar", "schema"],
)
def test_an_assembled_answer_equals_the_whole_one(client: httpx.Client, path: str, more: dict[str, Any]) -> None:
    whole, assembled = both(client, path, asked(path, **more))
    assert whole.status_code == 200
    assert assembled is not None
    assert shape(assembled[0]) == shape(whole.content)
    # Byte for byte, up to the first member that differs between any two askings.
    assert assembled[0].split(b',"created"')[0] == whole.content.split(b',"created"')[0]
    assert assembled[1].decode() == whole.headers["content-type"]


def test_a_chat_in_json_equals_the_whole_one(client: httpx.Client) -> None:
    whole, assembled = both(client, CHAT, asked(CHAT, max_tokens=400, response_format=SCHEMA))
    assert assembled is not None
    assert json.loads(json.loads(assembled[0])["choices"][0]["message"]["content"]) == {"a": "x \u20ac\n"}
    assert shape(assembled[0]) == shape(whole.content)


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("stops", [[], [" se", ". k", " goko sezapa bifu degi"]])
def test_at_every_token_limit_the_answer_is_equal_or_refused(client: httpx.Client, path: str, stops: list[str]) -> None:
    """At a limit llama.cpp's stream lacks what may have become a stop string or a character, which its whole answer has."""
    refused = 0
    for tokens in range(1, 41):
        whole, assembled = both(client, path, asked(path, max_tokens=tokens, stop=stops))
        refused += assembled is None
        assert assembled is None or shape(assembled[0]) == shape(whole.content), tokens
    assert refused < 20


def test_a_refused_request_is_refused_alike_both_ways(client: httpx.Client) -> None:
    body = asked(CHAT, max_tokens=5, grammar="root ::= (")
    streamed = as_streamed(EngineKind.LLAMACPP, CHAT, body)
    assert streamed is not None
    whole, stream = (client.post(CHAT, content=each) for each in (body, streamed))
    assert whole.status_code == stream.status_code == 400
    assert whole.content == stream.content
