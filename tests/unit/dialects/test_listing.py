"""Lists of several backends become one, under the clients' names."""

import json

import pytest

from understudy.core.snapshot import Model
from understudy.dialects.listing import ollama_list, openai_list
from understudy.dialects.routes import match

VLLM = Model(
    "Qwen/Qwen2.5-7B", openai_entry='{"id":"Qwen/Qwen2.5-7B","object":"model","created":1,"owned_by":"vllm","max_model_len":4096}'
)
OLLAMA = Model(
    "qwen2.5:7b",
    tags_entry='{"name":"qwen2.5:7b","model":"qwen2.5:7b","size":701272,"digest":"d1","details":{"families":["llama"]}}',
    ps_entry='{"name":"qwen2.5:7b","model":"qwen2.5:7b","size":1,"digest":"d1","size_vram":9007199254740993}',
)


def test_entries_keep_all_but_their_name() -> None:
    assert openai_list([("qwen", VLLM)]) == (
        b'{"object":"list","data":[{"id":"qwen","object":"model","created":1,"owned_by":"vllm","max_model_len":4096}]}'
    )
    assert ollama_list([("qwen", OLLAMA)], is_loaded_only=True) == (
        b'{"models":[{"name":"qwen","model":"qwen","size":1,"digest":"d1","size_vram":9007199254740993}]}'
    )


def test_the_first_backend_wins() -> None:
    other = Model("qwen", openai_entry='{"id":"qwen","object":"model","created":2,"owned_by":"llamacpp"}')
    (entry,) = json.loads(openai_list([("qwen", VLLM), ("qwen", other)]))["data"]
    assert entry["owned_by"] == "vllm"


def test_the_default_tag_makes_no_second_name() -> None:
    listed = json.loads(ollama_list([("m:latest", OLLAMA), ("m", OLLAMA)], is_loaded_only=False))
    assert [entry["name"] for entry in listed["models"]] == ["m:latest"]


@pytest.mark.parametrize("entry", ["", "no json", "[1]", '{"id":' + "[" * 5000 + "]" * 5000 + "}"])
def test_a_model_without_a_readable_entry_still_has_its_name_in_openais_list(entry: str) -> None:
    (listed,) = json.loads(openai_list([("m", Model("m", openai_entry=entry))]))["data"]
    assert listed == {"id": "m", "object": "model", "created": 0, "owned_by": "understudy"}
    assert ollama_list([("m", Model("m", tags_entry=entry))], is_loaded_only=False) == b'{"models":[]}'


def test_an_unloaded_model_is_in_tags_but_not_in_ps() -> None:
    models = [("m", Model("m", tags_entry='{"name":"m"}'))]
    for path, count in (("/api/tags", 1), ("/api/ps", 0)):
        dialect = match(b"GET", path.encode()).dialect
        assert dialect is not None
        assert len(json.loads(dialect.list_models(path, models))["models"]) == count


def test_empty_lists_are_lists() -> None:
    """Ollama itself writes `"data": null` here, on which clients fail."""
    assert openai_list([]) == b'{"object":"list","data":[]}'
    assert ollama_list([], is_loaded_only=False) == b'{"models":[]}'
