"""Plays of a llama.cpp server's answers; bytes from build 11549, shapes of the router from tools/server/server-models.cpp."""

import pytest

from support.probing import answer, play
from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind
from understudy.engines.contract import Finding, ProbeAnswer
from understudy.engines.llamacpp import probe_llamacpp

LOADING = answer(b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}', 503, server="llama.cpp")
LIST = (
    b'{"models":[{"name":"tiny.gguf","model":"tiny.gguf"}],"object":"list","data":[{"id":"tiny.gguf","aliases":["tiny.gguf",'
    b'"small"],"tags":[],"object":"model","created":1795192111,"owned_by":"llamacpp","meta":{"n_ctx":4096}}]}'
)
LLAMACPP: dict[str, ProbeAnswer | None] = {
    "/health": answer(b'{"status":"ok"}'),
    "/v1/models": answer(LIST),
    "/props": answer({"total_slots": 2, "build_info": "b11549-abcdef0", "is_sleeping": True}),
}


def names(finding: Finding) -> list[str]:
    assert finding.models is not None
    return [model.name for model in finding.models]


def test_a_llama_cpp_server_is_good_under_its_name_and_its_aliases() -> None:
    """That it sleeps does not matter: the next request wakes it."""
    dialogue = play(probe_llamacpp(), LLAMACPP)
    assert (dialogue.told.seen, dialogue.told.engine, dialogue.told.version) == (Seen.GOOD, EngineKind.LLAMACPP, "b11549-abcdef0")
    assert names(dialogue.told) == ["tiny.gguf", "small"]
    # /slots would wake it.
    assert dialogue.asked == ["/health", "/v1/models", "/props"]


def test_a_llama_cpp_server_that_loads_says_so() -> None:
    finding = play(probe_llamacpp(), dict.fromkeys(LLAMACPP, LOADING)).told
    assert (finding.seen, finding.reason) == (Seen.LOADING, "answered 503: Loading model")


@pytest.mark.parametrize(
    ("build", "speaks"),
    [("b11549-abcdef0", True), ("b4000-abcdef0", False), ("b0-unknown", True), ("", True), ("fork", True)],
)
def test_the_build_tells_whether_it_speaks_anthropic(build: str, speaks: bool) -> None:
    finding = play(probe_llamacpp(), LLAMACPP | {"/props": answer({"build_info": build})}).told
    assert (DialectName.ANTHROPIC in finding.dialects) is speaks


def router(*, autoload: bool) -> dict[str, ProbeAnswer | None]:
    statuses = ("loaded", "loading", "sleeping", "unloaded", "downloading")
    entries = [{"id": status, "owned_by": "llamacpp", "status": {"value": status, "args": []}} for status in statuses]
    props = {"role": "router", "models_autoload": autoload, "build_info": "b11549-abcdef0"}
    return LLAMACPP | {"/v1/models": answer({"data": entries}), "/props": answer(props)}


def test_a_router_serves_what_it_has_and_what_it_would_load() -> None:
    assert names(play(probe_llamacpp(), router(autoload=True)).told) == ["loaded", "loading", "sleeping", "unloaded"]


@pytest.mark.parametrize(
    ("status", "is_loaded"),
    [
        ({"value": "loaded", "args": []}, True),
        ({"value": "loading"}, False),
        ({"value": "sleeping"}, False),
        ({"value": "unloaded"}, False),
        ({}, True),
        (7, True),
    ],
)
def test_a_router_tells_which_models_are_in_memory(status: object, is_loaded: bool) -> None:
    told = play(probe_llamacpp(), router(autoload=True) | {"/v1/models": answer({"data": [{"id": "m", "status": status}]})}).told
    assert told.models is not None
    assert [model.is_loaded for model in told.models] == [is_loaded]


def test_a_server_of_one_model_has_it_in_memory() -> None:
    told = play(probe_llamacpp(), LLAMACPP).told
    assert told.models is not None
    assert all(model.is_loaded for model in told.models)


def test_a_router_that_loads_nothing_by_itself_serves_what_runs() -> None:
    assert names(play(probe_llamacpp(), router(autoload=False)).told) == ["loaded", "loading", "sleeping"]


def test_a_server_that_dies_between_two_questions_is_bad() -> None:
    finding = play(probe_llamacpp(), LLAMACPP | {"/v1/models": None}).told
    assert finding.seen is Seen.BAD
