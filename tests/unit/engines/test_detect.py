"""Plays of telling engines apart by what they say of themselves."""

import pytest

from support.probing import answer, play
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind
from understudy.engines import probe
from understudy.engines.contract import ProbeAnswer
from understudy.engines.detect import detect

ABSENT = answer({"detail": "Not Found"}, 404)
OLLAMA_LIST = answer({"object": "list", "data": [{"id": "m:latest", "owned_by": "library"}]})
LOADING = answer(b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}', 503, server="llama.cpp")


@pytest.mark.parametrize(
    ("answers", "engine"),
    [
        ({"/v1/models": answer({"data": [{"id": "m", "owned_by": "vllm"}]}, server="uvicorn")}, EngineKind.VLLM),
        ({"/v1/models": answer({"data": [{"id": "m", "owned_by": "sglang"}]}, server="uvicorn")}, EngineKind.SGLANG),
        ({"/v1/models": answer({"data": [{"id": "m", "owned_by": "llamacpp"}]}, server="nginx")}, EngineKind.LLAMACPP),
        ({"/v1/models": LOADING}, EngineKind.LLAMACPP),
        ({"/v1/models": answer(b"", 401, server="llama.cpp")}, EngineKind.LLAMACPP),
        ({"/v1/models": OLLAMA_LIST, "/": answer(b"Ollama is running")}, EngineKind.OLLAMA),
        ({"/v1/models": answer(b'{"object":"list","data":null}'), "/": answer(b"Ollama is running")}, EngineKind.OLLAMA),
        ({"/v1/models": answer(b"", 503), "/": answer(b"SGLang is running")}, EngineKind.SGLANG),
        # llama-cpp-python, LiteLLM and the like.
        ({"/v1/models": answer({"data": [{"id": "m", "owned_by": "me"}]})}, EngineKind.OPENAI),
        ({"/v1/models": answer(b"<html>")}, EngineKind.OPENAI),
        ({}, EngineKind.OPENAI),
        # Without the greeting an Ollama cannot be told from others, so nothing is said.
        ({"/v1/models": OLLAMA_LIST, "/": None}, None),
        ({"/v1/models": None}, None),
    ],
)
def test_an_engine_is_told_by_what_it_says_of_itself(answers: dict[str, ProbeAnswer | None], engine: EngineKind | None) -> None:
    assert play(detect(), answers).told == (engine, answers.get("/v1/models", ABSENT))


def test_a_silent_address_is_asked_once() -> None:
    dialogue = play(probe(EngineKind.AUTO), {"/v1/models": None})
    assert dialogue.asked == ["/v1/models"]
    assert (dialogue.told.engine, dialogue.told.reason) == (EngineKind.AUTO, "")


def test_a_detected_engine_is_probed_as_itself_and_what_was_known_of_another_is_dropped() -> None:
    answers: dict[str, ProbeAnswer | None] = {
        "/v1/models": OLLAMA_LIST,
        "/": answer(b"Ollama is running"),
        "/api/version": answer({"version": "0.32.15"}),
        "/api/tags": answer({"models": [{"name": "m:latest"}]}),
        "/v1/messages": answer(b"", 405),
    }
    before = play(probe(EngineKind.OPENAI), {"/v1/models": answer({"data": [{"id": "m"}]})}).told
    dialogue = play(probe(EngineKind.AUTO, before), answers)
    assert dialogue.told.engine is EngineKind.OLLAMA
    assert len(dialogue.told.dialects) == 3
    assert len(dialogue.asked) <= 8


@pytest.mark.parametrize(
    "broken", [answer(b"<html>oops</html>"), answer({"models": "?"}), answer(b"", 500)], ids=["markup", "another shape", "500"]
)
def test_one_that_only_answers_badly_is_not_told_to_be_a_generic_server(broken: ProbeAnswer) -> None:
    healthy = answer(b"")
    told = play(
        probe(EngineKind.AUTO), {"/v1/models": broken, "/health": healthy, "/version": answer({"version": "0.32.0"})}
    ).told
    assert (told.seen, told.engine) == (Seen.BAD, EngineKind.AUTO)
    assert told.reason


KNOWN = (EngineKind.VLLM, EngineKind.LLAMACPP, EngineKind.SGLANG, EngineKind.OLLAMA)


@pytest.mark.parametrize("before", KNOWN)
@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_engine_that_is_known_is_no_generic_server_because_its_list_is_gone(before: EngineKind, status: int) -> None:
    """An ingress that is being redeployed answers so to everything."""
    told = play(probe(EngineKind.AUTO, before=before), {"/v1/models": answer(b"404 page not found", status)}).told
    assert (told.seen, told.engine) == (Seen.BAD, EngineKind.AUTO)
    assert told.reason == f"answered {status} to /v1/models, as no {before} does; if it is another engine now, set engine: openai"


def test_a_server_of_which_nothing_was_told_before_may_be_without_a_list() -> None:
    for before in (EngineKind.AUTO, EngineKind.OPENAI):
        told = play(probe(EngineKind.AUTO, before=before), {}).told
        assert (told.seen, told.engine, told.models) == (Seen.GOOD, EngineKind.OPENAI, None)


@pytest.mark.parametrize(
    ("answers", "engine"),
    [
        ({"/v1/models": LOADING, "/health": LOADING}, EngineKind.LLAMACPP),
        ({"/v1/models": answer({"data": [{"id": "m", "owned_by": "me"}]})}, EngineKind.OPENAI),
    ],
    ids=["its signature", "a list that no such engine gives"],
)
def test_what_tells_another_engine_changes_it(answers: dict[str, ProbeAnswer | None], engine: EngineKind) -> None:
    assert play(probe(EngineKind.AUTO, before=EngineKind.VLLM), answers).told.engine is engine


@pytest.mark.parametrize("before", KNOWN)
def test_an_engine_that_is_known_and_refuses_a_key_or_is_at_its_limit_stays_what_it_is(before: EngineKind) -> None:
    refused = play(probe(EngineKind.AUTO, before=before), {"/v1/models": answer(b"login", 401)}).told
    assert (refused.seen, refused.engine, refused.wants_key) == (Seen.BAD, before, True)
    busy = play(probe(EngineKind.AUTO, before=before), {"/v1/models": answer(b"", 429)}).told
    assert (busy.seen, busy.engine) == (Seen.GOOD, before)


def test_a_generic_server_that_is_looked_at_anew_keeps_what_is_known_while_its_greeting_does_not_come() -> None:
    answers: dict[str, ProbeAnswer | None] = {"/v1/models": answer({"data": [{"id": "m"}]}), "/": None}
    known = play(probe(EngineKind.OPENAI), answers).told
    assert play(probe(EngineKind.AUTO, known, before=EngineKind.OPENAI), answers).told == known


def test_one_that_only_answers_badly_and_signs_it_is_told() -> None:
    told = play(probe(EngineKind.AUTO), {"/v1/models": LOADING, "/health": LOADING}).told
    assert (told.seen, told.engine) == (Seen.LOADING, EngineKind.LLAMACPP)
