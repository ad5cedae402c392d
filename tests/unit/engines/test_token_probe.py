"""What each engine is asked for one token, and what its answer means."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from support.probing import answer
from understudy.core.snapshot import EngineKind, Model
from understudy.engines.contract import ProbeAnswer
from understudy.engines.token_probe import (
    NOTHING_SPENT,
    TokenAsking,
    TokenFinding,
    TokenRequest,
    TokenSeen,
    ask_expiries,
    ask_token,
)

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
TINY = (Model("tiny"),)
TOKEN = answer({"choices": [{"message": {"content": "Yes"}, "finish_reason": "length"}], "usage": {"completion_tokens": 1}})
OLLAMA_TOKEN = answer(
    {"message": {"role": "assistant", "content": "Yes"}, "done": True, "done_reason": "length", "eval_count": 1}
)
SOON = "2026-10-19T12:05:00.123456789Z"
Answers = Mapping[str, ProbeAnswer | Callable[[TokenRequest], ProbeAnswer | None] | None]


def played(asking: TokenAsking[Any], answers: Answers) -> tuple[Any, list[TokenRequest]]:
    """Answer every question by its path; returns what was told, and the questions."""
    asked: list[TokenRequest] = []
    try:
        request = next(asking)
        while True:
            asked.append(request)
            given = answers.get(request.path, answer({"detail": "Not Found"}, 404))
            request = asking.send(given(request) if callable(given) else given)
    except StopIteration as end:
        return end.value, asked


def told(answers: Answers, engine: EngineKind = EngineKind.SGLANG, models: tuple[Model, ...] | None = TINY) -> TokenFinding:
    found: TokenFinding = played(ask_token(engine, "1.0", models), answers)[0]
    return found


def posted(asked: list[TokenRequest]) -> list[tuple[str, dict[str, Any]]]:
    return [(one.path, json.loads(one.body)) for one in asked if one.body]


# --- OpenAI's path


@pytest.mark.parametrize("engine", [EngineKind.VLLM, EngineKind.SGLANG, EngineKind.LLAMACPP, EngineKind.OPENAI])
def test_engines_are_asked_for_one_token_of_a_chat(engine: EngineKind) -> None:
    found, asked = played(ask_token(engine, "1.0", TINY), {CHAT: TOKEN})
    assert found == TokenFinding(TokenSeen.TOKEN)
    ((path, body),) = posted(asked)
    assert (path, body["model"], body["max_tokens"], body["stream"]) == (CHAT, "tiny", 1, False)


@pytest.mark.parametrize(
    "said",
    [
        {"choices": [{"message": {"content": None, "reasoning_content": "Hm"}}]},
        {"choices": [{"message": {"content": None, "reasoning": "Hm"}}]},
        {"choices": [{"message": {"content": ""}, "finish_reason": "length"}], "usage": {"completion_tokens": 1}},
        {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]},
        {"choices": [{"text": "Yes", "finish_reason": "length"}]},
    ],
)
def test_a_token_is_one_however_it_shows(said: object) -> None:
    assert told({CHAT: answer(said)}).seen is TokenSeen.TOKEN


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        # Ollama's answer to an endless repetition by way of /v1 (engines.md, 2.2).
        (
            {"choices": [{"message": {"content": ""}, "finish_reason": None}], "usage": {"completion_tokens": 0}},
            "gave an answer without a token",
        ),
        ({"choices": []}, "gave an answer without a token"),
        ({}, "gave an answer without a token"),
        ([], "gave an answer of an unknown shape"),
        (b"<html>", "gave an answer that is not JSON"),
        (b"[" * 100_000, "gave an answer that is not JSON"),
        ({"error": {"message": "EngineCore encountered an issue"}}, "answered 200: EngineCore encountered an issue"),
    ],
)
def test_a_success_without_a_token_is_barren(said: object, reason: str) -> None:
    assert told({CHAT: answer(said)}) == TokenFinding(TokenSeen.BARREN, reason)


@pytest.mark.parametrize(
    ("given", "seen", "reason"),
    [
        (answer({"error": {"message": "CUDA error"}}, 500), TokenSeen.BARREN, "answered 500: CUDA error"),
        (answer({"error": {"message": "CUDA out of memory"}}, 500), TokenSeen.BARREN, "answered 500: CUDA out of memory"),
        (answer(b"", 502), TokenSeen.BARREN, "answered 502"),
        (answer({"error": {"message": "slow down"}}, 429), TokenSeen.UNTOLD, "answered 429: slow down"),
        (answer({"message": "The request queue is full."}, 503), TokenSeen.UNTOLD, "answered 503: The request queue is full."),
        (answer({"error": {"message": "Loading model"}}, 503), TokenSeen.LOADING, "answered 503: Loading model"),
        (answer({"error": "Unauthorized"}, 401), TokenSeen.UNTOLD, "answered 401: Unauthorized"),
        (answer(b"", 307), TokenSeen.UNTOLD, "answered 307"),
        (None, TokenSeen.BARREN, ""),
    ],
)
def test_an_answer_that_is_none_means_what_it_says(given: ProbeAnswer | None, seen: TokenSeen, reason: str) -> None:
    assert told({CHAT: given}) == TokenFinding(seen, reason)


def test_a_model_without_a_chat_template_is_asked_to_complete_a_text() -> None:
    refusal = answer({"error": {"message": "no chat template"}}, 400)
    found, asked = played(ask_token(EngineKind.VLLM, "1.0", TINY), {CHAT: refusal, TEXT: answer({"choices": [{"text": "Yes"}]})})
    assert found.seen is TokenSeen.TOKEN
    assert [path for path, _ in posted(asked)] == [CHAT, TEXT]


def test_a_model_that_writes_no_text_tells_nothing() -> None:
    refusal = answer({"error": {"message": "does not support"}}, 400)
    assert told({CHAT: refusal, TEXT: refusal}) == TokenFinding(TokenSeen.UNTOLD, "its model completes no text")


# --- whom


def test_only_what_is_in_memory_is_asked() -> None:
    models = (Model("big", is_loaded=False), Model("small"))
    _, asked = played(ask_token(EngineKind.LLAMACPP, "", models), {CHAT: TOKEN})
    assert [body["model"] for _, body in posted(asked)] == ["small"]
    found, asked = played(ask_token(EngineKind.LLAMACPP, "", models[:1]), {CHAT: TOKEN})
    assert found == TokenFinding(TokenSeen.UNTOLD, "no model is loaded")
    assert not posted(asked)


def test_models_that_share_a_process_are_asked_once_and_the_operators_own_first() -> None:
    models = (Model("base"), Model("lora"))
    _, asked = played(ask_token(EngineKind.VLLM, "", models, wanted=("lora",)), {CHAT: TOKEN})
    assert [body["model"] for _, body in posted(asked)] == ["lora"]


def test_models_in_processes_of_their_own_are_each_asked_and_one_that_hangs_decides() -> None:
    models = (Model("a", "{1}"), Model("alias-of-a", "{1}"), Model("b", "{2}"), Model("c", "{3}"), Model("d", "{4}"))

    def hanging(name: str) -> Callable[[TokenRequest], ProbeAnswer | None]:
        return lambda request: None if json.loads(request.body)["model"] == name else TOKEN

    found, asked = played(ask_token(EngineKind.LLAMACPP, "", models), {CHAT: TOKEN})
    assert (found.seen, [body["model"] for _, body in posted(asked)]) == (TokenSeen.TOKEN, ["a", "b", "c"])
    found, asked = played(ask_token(EngineKind.LLAMACPP, "", models), {CHAT: hanging("b")})
    assert (found.seen, [body["model"] for _, body in posted(asked)]) == (TokenSeen.BARREN, ["a", "b"])


def test_an_unknown_list_is_asked_for_what_the_operator_named_only() -> None:
    _, asked = played(ask_token(EngineKind.OPENAI, "", None, wanted=("mine",)), {CHAT: TOKEN})
    assert [body["model"] for _, body in posted(asked)] == ["mine"]
    assert told({CHAT: TOKEN}, models=None) == TokenFinding(TokenSeen.UNTOLD, "its models are not known")


def test_an_engine_that_is_not_known_yet_is_not_asked() -> None:
    found, asked = played(ask_token(EngineKind.AUTO, "", TINY), {})
    assert (found.seen, asked) == (TokenSeen.UNTOLD, [])


# --- asleep


@pytest.mark.parametrize(
    ("engine", "path", "said"),
    [
        (EngineKind.VLLM, "/metrics", b'vllm:engine_sleep_state{engine="0",sleep_state="awake"} 0.0\n'),
        (EngineKind.LLAMACPP, "/props", {"is_sleeping": True}),
    ],
)
def test_one_that_sleeps_is_not_woken(engine: EngineKind, path: str, said: object) -> None:
    found, asked = played(ask_token(engine, "", TINY), {path: answer(said), CHAT: TOKEN})
    assert (found, posted(asked)) == (TokenFinding(TokenSeen.UNTOLD, "asleep"), [])


@pytest.mark.parametrize("said", [None, answer(b"{", 200), answer({}, 401), answer({"is_sleeping": False})])
def test_one_that_does_not_say_that_it_sleeps_is_asked(said: ProbeAnswer | None) -> None:
    assert told({"/props": said, CHAT: TOKEN}, EngineKind.LLAMACPP).seen is TokenSeen.TOKEN


# --- Ollama


def running(name: str = "tiny:latest", expires_at: str = SOON, **more: object) -> dict[str, object]:
    return {"name": name, "expires_at": expires_at, **more}


def ps(*models: dict[str, object]) -> ProbeAnswer:
    return answer({"models": list(models)})


def ollama(
    answers: Answers,
    version: str = "0.32.15",
    spent: Mapping[str, str] = NOTHING_SPENT,
    models: tuple[Model, ...] = (),
    loadable: tuple[str, ...] = (),
) -> tuple[TokenFinding, list[tuple[str, dict[str, Any]]]]:
    found, asked = played(ask_token(EngineKind.OLLAMA, version, models, spent=spent, loadable=loadable), answers)
    return found, posted(asked)


def test_an_ollama_is_asked_for_what_it_has_loaded_and_how_long_that_stays_is_left_alone() -> None:
    found, asked = ollama({"/api/ps": ps(running(context_length=8192)), "/api/chat": OLLAMA_TOKEN})
    assert found.seen is TokenSeen.TOKEN
    ((path, body),) = asked
    assert (path, body["model"], body["stream"]) == ("/api/chat", "tiny:latest", False)
    assert body["options"] == {"num_predict": 1, "temperature": 0, "num_ctx": 8192}
    assert "keep_alive" not in body


@pytest.mark.parametrize("version", ["0.11.11", "", "unknown"])
def test_an_older_ollama_tells_another_context_than_it_takes(version: str) -> None:
    _, asked = ollama({"/api/ps": ps(running(context_length=8192)), "/api/chat": OLLAMA_TOKEN}, version)
    assert "num_ctx" not in asked[0][1]["options"]


@pytest.mark.parametrize("given", [ps(), answer({"models": None}), answer(b"{"), answer({}, 500), None])
def test_an_ollama_without_a_loaded_model_is_not_asked(given: ProbeAnswer | None) -> None:
    assert ollama({"/api/ps": given}) == (TokenFinding(TokenSeen.UNTOLD, "no model is loaded"), [])


def test_an_ollama_without_a_loaded_model_loads_the_first_that_it_may_and_that_writes_text() -> None:
    embeds = Model("embed:latest", tags_entry='{"capabilities": ["embedding"]}', is_loaded=False)
    models = (embeds, Model("tiny:latest", is_loaded=False), Model("big:latest", is_loaded=False))
    loadable = ("gone:latest", "embed:latest", "tiny:latest", "big:latest")
    found, asked = ollama({"/api/ps": ps(), "/api/chat": OLLAMA_TOKEN}, models=models, loadable=loadable)
    assert found.seen is TokenSeen.TOKEN
    ((path, body),) = asked
    assert (path, body["model"], body["options"]) == ("/api/chat", "tiny:latest", {"num_predict": 1, "temperature": 0})
    assert "keep_alive" not in body
    broken = answer({"error": "llama runner process has terminated: exit status 2"}, 500)
    assert ollama({"/api/ps": ps(), "/api/chat": broken}, models=models, loadable=loadable)[0].seen is TokenSeen.BARREN
    assert ollama({"/api/ps": ps()}, models=models, loadable=("embed:latest",))[0].seen is TokenSeen.UNTOLD
    busy = {"/api/ps": ps(running("big:latest")), "/api/chat": OLLAMA_TOKEN}
    assert [body["model"] for _, body in ollama(busy, models=models, loadable=loadable)[1]] == ["big:latest"]


def test_a_router_without_a_loaded_model_loads_what_it_may() -> None:
    models = (Model("a", is_loaded=False), Model("b", is_loaded=False))
    asking = ask_token(EngineKind.LLAMACPP, "1", models, loadable=("b", "a"))
    found, asked = played(asking, {"/props": answer({}), "/v1/chat/completions": TOKEN})
    assert (found.seen, [body["model"] for _, body in posted(asked)]) == (TokenSeen.TOKEN, ["b"])


def test_a_model_that_loads_is_not_asked() -> None:
    """Ollama lists it from the beginning, and counts its time from now each time that it is asked."""
    times = iter((SOON, "2026-10-19T12:05:00.123999999Z"))
    found, asked = ollama({"/api/ps": lambda _: ps(running(expires_at=next(times)))})
    assert (found.seen, asked) == (TokenSeen.UNTOLD, [])


def test_a_model_that_nobody_has_used_since_the_last_question_is_not_asked_again() -> None:
    """Else questions alone would keep it in memory for ever."""
    answers = {"/api/ps": ps(running()), "/api/chat": OLLAMA_TOKEN}
    spent, _ = played(ask_expiries(EngineKind.OLLAMA), answers)
    assert spent == {"tiny:latest": SOON}
    found, asked = ollama(answers, spent=spent)
    assert (found.seen, asked) == (TokenSeen.UNTOLD, [])
    used = {**answers, "/api/ps": ps(running(expires_at="2026-10-19T12:09:00.5Z"))}
    assert ollama(used, spent=spent)[0].seen is TokenSeen.TOKEN


def test_a_model_that_stays_for_ever_may_be_asked_again_and_again() -> None:
    for_ever = running(expires_at="2318-05-01T12:00:00.5Z")
    answers = {"/api/ps": ps(for_ever), "/api/chat": OLLAMA_TOKEN}
    assert ollama(answers, spent={"tiny:latest": "2318-05-01T12:00:00.5Z"})[0].seen is TokenSeen.TOKEN


def test_a_model_for_embeddings_is_not_asked() -> None:
    models = (
        Model("embed:latest", tags_entry='{"capabilities":["embedding"]}'),
        Model("tiny:latest", tags_entry='{"capabilities":["completion"]}'),
        Model("odd", tags_entry="{"),
    )
    answers = {"/api/ps": ps(running("embed:latest"), running()), "/api/chat": OLLAMA_TOKEN}
    found, asked = ollama(answers, models=models)
    assert (found.seen, [body["model"] for _, body in asked]) == (TokenSeen.TOKEN, ["tiny:latest"])
    found, asked = ollama({"/api/ps": ps(running("embed:latest"))}, models=models)
    assert (found, asked) == (TokenFinding(TokenSeen.UNTOLD, "no loaded model completes text"), [])
    assert ollama({"/api/ps": ps(running("odd")), "/api/chat": OLLAMA_TOKEN}, models=models)[0].seen is TokenSeen.TOKEN


def test_a_runner_that_is_lost_is_barren_and_a_thinking_model_is_not() -> None:
    lost = answer({"error": "model runner has unexpectedly stopped"}, 500)
    found, _ = ollama({"/api/ps": ps(running()), "/api/chat": lost})
    assert found == TokenFinding(TokenSeen.BARREN, "answered 500: model runner has unexpectedly stopped")
    thinking = answer({"message": {"content": "", "thinking": "Hm"}, "done": True})
    assert ollama({"/api/ps": ps(running()), "/api/chat": thinking})[0].seen is TokenSeen.TOKEN
    nothing = answer({"message": {"content": ""}, "done": True, "done_reason": "load"})
    assert ollama({"/api/ps": ps(running()), "/api/chat": nothing})[0].seen is TokenSeen.BARREN


def test_the_other_engines_tell_no_end_of_a_models_time() -> None:
    assert played(ask_expiries(EngineKind.VLLM), {}) == (NOTHING_SPENT, [])
