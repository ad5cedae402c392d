"""Plays of conversations in which an engine is asked to load a model, without any network."""

import json
from collections.abc import Iterator, Mapping

import pytest

from support.probing import answer, play
from understudy.core.health import Seen
from understudy.core.snapshot import BackendState, Condition, EngineKind, Model
from understudy.core.warmth import Footprint, Load
from understudy.engines.contract import ProbeAnswer
from understudy.engines.vllm import probe_vllm
from understudy.engines.warming import Conversing, Warmed, WarmRequest, footprint, is_asleep, lets_go, warm

Answers = Mapping[str, ProbeAnswer | list[ProbeAnswer | None] | None]

OLLAMA, LLAMACPP, VLLM = EngineKind.OLLAMA, EngineKind.LLAMACPP, EngineKind.VLLM
DATE = "Wed, 26 Aug 2026 10:00:00 GMT"
LOADED = answer({"model": "m", "created_at": "2026-08-26T10:00:01Z", "response": "", "done": True, "done_reason": "load"})
ASLEEP = answer(b'vllm:engine_sleep_state{engine="0",sleep_state="awake"} 0.0\n')
AWAKE = answer(b'vllm:engine_sleep_state{engine="0",sleep_state="awake"} 1.0\n')
LEVEL_2 = answer(
    b'vllm:engine_sleep_state{engine="0",model_name="tiny",sleep_state="awake"} 0.0\n'
    b'vllm:engine_sleep_state{engine="0",model_name="tiny",sleep_state="weights_offloaded"} 0.0\n'
    b'vllm:engine_sleep_state{engine="0",model_name="tiny",sleep_state="discard_all"} 1.0\n'
)


def talk(conversing: Conversing[Warmed], answers: Answers) -> tuple[Warmed, list[WarmRequest]]:
    """Answer by path, in turn where there are several answers (the last one stays); a path without one is 404."""
    sent: list[WarmRequest] = []
    turns: dict[str, Iterator[ProbeAnswer | None]] = {}
    last: dict[str, ProbeAnswer | None] = {}
    for path, given in answers.items():
        turns[path] = iter(given if isinstance(given, list) else [given])
        last[path] = answer({}, 404)
    try:
        request = next(conversing)
        while True:
            sent.append(request)
            last[request.path] = next(turns.get(request.path, iter(())), last.get(request.path, answer({}, 404)))
            request = conversing.send(last[request.path])
    except StopIteration as end:
        warmed: Warmed = end.value
    return warmed, sent


def ps(*entries: dict[str, object]) -> ProbeAnswer:
    return answer({"models": list(entries)}, date=DATE)


def entry(until: object, **fields: object) -> dict[str, object]:
    return {"name": "qwen:latest", "model": "qwen:latest", "size": 900, "size_vram": 900, "expires_at": until, **fields}


def load(model: str, keep_s: float, *, is_renewal: bool = False, beside: tuple[str, ...] = ()) -> Load:
    return Load("pi", model, model, keep_s, is_renewal, frozenset(beside))


# --- Ollama


def test_a_model_that_is_not_loaded_is_loaded_without_a_prompt_and_kept() -> None:
    warmed, sent = talk(warm(OLLAMA, load("qwen", 1200.0)), {"/api/ps": ps(), "/api/generate": LOADED})
    assert warmed == Warmed(is_warm=True, lasts_s=1200.0)
    assert [(one.method, one.path) for one in sent] == [("GET", "/api/ps"), ("POST", "/api/generate")]
    assert json.loads(sent[1].body) == {"model": "qwen", "keep_alive": "1200s", "stream": False}


def test_a_loaded_model_is_kept_with_the_context_that_it_has_so_that_it_is_not_loaded_anew() -> None:
    listed = ps(entry("2026-08-26T10:04:59.123456789Z", context_length=8192))
    warmed, sent = talk(warm(OLLAMA, load("qwen", 1200.0, is_renewal=True)), {"/api/ps": listed, "/api/generate": LOADED})
    assert warmed.is_warm
    assert json.loads(sent[1].body)["options"] == {"num_ctx": 8192}


@pytest.mark.parametrize("until", ["2318-12-07T00:47:16.854775807+02:00", "2026-08-26T12:20:00+02:00"])
def test_a_model_that_somebody_keeps_longer_is_left_alone(until: str) -> None:
    warmed, sent = talk(warm(OLLAMA, load("qwen", 1200.0, is_renewal=True)), {"/api/ps": ps(entry(until))})
    assert warmed.is_warm
    assert warmed.lasts_s >= 1200.0
    assert [one.path for one in sent] == ["/api/ps"]


@pytest.mark.parametrize("until", ["soon", "2026-08-26T10:30:00", 7, None])
def test_an_end_that_cannot_be_read_is_no_end_to_rely_on(until: object) -> None:
    listed = ps(entry(until))
    _, sent = talk(warm(OLLAMA, load("qwen:latest", 60.0)), {"/api/ps": listed, "/api/generate": LOADED})
    assert [one.path for one in sent] == ["/api/ps", "/api/generate"]


def test_a_renewal_never_loads() -> None:
    warmed, sent = talk(warm(OLLAMA, load("qwen", 60.0, is_renewal=True)), {"/api/ps": ps(), "/api/generate": LOADED})
    assert warmed == Warmed(is_warm=False, reason="is no longer loaded")
    assert [one.path for one in sent] == ["/api/ps"]


def test_a_model_is_not_loaded_beside_one_that_was_loaded_since_that_was_decided() -> None:
    listed = ps(entry("2026-08-26T10:05:00Z"), {"name": "llama3:8b"})
    warmed, sent = talk(warm(OLLAMA, load("a", 60.0, beside=("qwen",))), {"/api/ps": listed, "/api/generate": LOADED})
    assert warmed == Warmed(is_warm=False, reason="memory is not known to hold it beside llama3:8b")
    assert [one.path for one in sent] == ["/api/ps"]
    both = ("qwen:latest", "llama3:8b")
    assert talk(warm(OLLAMA, load("a", 60.0, beside=both)), {"/api/ps": listed, "/api/generate": LOADED})[0].is_warm


def test_a_model_that_only_embeds_is_loaded_by_embedding_nothing() -> None:
    refusal = answer({"error": '"bge" does not support generate'}, 400)
    answers = {"/api/ps": ps(), "/api/generate": refusal, "/api/embed": answer({"model": "bge", "embeddings": []})}
    warmed, sent = talk(warm(OLLAMA, load("bge", 60.0)), answers)
    assert warmed.is_warm
    assert json.loads(sent[2].body) == {"model": "bge", "input": "", "keep_alive": "60s", "stream": False}


def test_what_ollama_says_of_a_model_that_does_not_fit_is_the_reason() -> None:
    words = "model requires more system memory (44.0 GiB) than is available (7.6 GiB)"
    warmed, _ = talk(warm(OLLAMA, load("big", 60.0)), {"/api/ps": ps(), "/api/generate": answer({"error": words}, 500)})
    assert warmed == Warmed(is_warm=False, reason=f"answered 500: {words}")


def test_an_error_under_a_200_and_no_answer_at_all_are_no_success() -> None:
    warmed, _ = talk(warm(OLLAMA, load("m", 60.0)), {"/api/ps": ps(), "/api/generate": answer({"error": "unexpected EOF"})})
    assert warmed.reason == "answered 200: unexpected EOF"
    warmed, _ = talk(warm(OLLAMA, load("m", 60.0)), {"/api/ps": None, "/api/generate": None})
    assert warmed == Warmed(is_warm=False, reason="no answer")


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"models": null}', b'{"models": [{"name": 7}]}'])
def test_a_list_that_cannot_be_read_shows_nothing_loaded(body: bytes) -> None:
    warmed, _ = talk(warm(OLLAMA, load("m", 60.0)), {"/api/ps": answer(body), "/api/generate": LOADED})
    assert warmed.is_warm


# --- llama.cpp


def router(**statuses: str) -> ProbeAnswer:
    return answer({"data": [{"id": name, "status": {"value": status}} for name, status in statuses.items()]})


def test_a_router_is_asked_to_load_and_looked_at_until_it_has() -> None:
    lists: list[ProbeAnswer | None] = [router(m="unloaded"), router(m="loading"), router(m="loading"), router(m="loaded")]
    answers: Answers = {"/v1/models": lists, "/props": answer({"max_instances": 4}), "/models/load": answer({"success": True})}
    warmed, sent = talk(warm(LLAMACPP, load("m", 1200.0)), answers)
    assert warmed == Warmed(is_warm=True)
    assert (sent[2].method, sent[2].path, json.loads(sent[2].body)) == ("POST", "/models/load", {"model": "m"})
    assert [one.after_s for one in sent[3:]] == [0.0, 1.0, 1.0]


def test_a_router_with_all_its_places_taken_is_not_asked_to_push_a_model_out() -> None:
    answers = {"/v1/models": router(m="unloaded", other="sleeping"), "/props": answer({"max_instances": 1})}
    warmed, sent = talk(warm(LLAMACPP, load("m", 1200.0)), answers)
    assert warmed.reason == "would push out one of other (--models-max 1)"
    assert [one.path for one in sent] == ["/v1/models", "/props"]


def test_a_router_without_a_bound_and_an_alias_are_understood() -> None:
    lists: list[ProbeAnswer | None] = [
        answer({"data": [{"id": "m", "aliases": ["chat"], "status": {"value": status}}]}) for status in ("unloaded", "loaded")
    ]
    answers: Answers = {"/v1/models": lists, "/props": answer({"max_instances": 0}), "/models/load": answer({"success": True})}
    warmed, sent = talk(warm(LLAMACPP, load("chat", 1200.0)), answers)
    assert warmed.is_warm
    assert json.loads(sent[2].body) == {"model": "m"}


def test_a_load_that_a_client_has_begun_already_is_waited_for() -> None:
    lists: list[ProbeAnswer | None] = [router(m="unloaded"), router(m="loading"), router(m="loaded")]
    running = answer({"error": {"code": 400, "message": "model is already running"}}, 400)
    assert talk(warm(LLAMACPP, load("m", 1.0)), {"/v1/models": lists, "/models/load": running})[0].is_warm


@pytest.mark.parametrize(
    ("lists", "begun", "reason"),
    [
        ([router(m="unloaded"), router(m="loading"), router(m="unloaded")], answer({"success": True}), "could not be loaded"),
        ([router(m="unloaded")], answer({"error": {"message": "model limit reached"}}, 500), "answered 500: model limit reached"),
        ([router(m="unloaded")], None, "no answer"),
        ([router(m="sleeping")], None, "sleeps (--sleep-idle-seconds)"),
        ([router(other="loaded")], None, "is not listed"),
        ([router(m="loading"), answer({"error": {"message": "broken"}}, 500)], None, "answered 500: broken"),
        ([answer(b"<html>")], None, "a list that is not JSON"),
    ],
)
def test_a_router_that_does_not_load_gives_the_reason(
    lists: list[ProbeAnswer | None], begun: ProbeAnswer | None, reason: str
) -> None:
    warmed, _ = talk(warm(LLAMACPP, load("m", 1.0)), {"/v1/models": lists, "/models/load": begun})
    assert not warmed.is_warm
    assert warmed.reason.startswith(reason)


def test_a_server_of_one_model_is_warm_by_being_up() -> None:
    warmed, sent = talk(warm(LLAMACPP, load("tiny", 1.0)), {"/v1/models": answer({"data": [{"id": "tiny"}]})})
    assert warmed.is_warm
    assert len(sent) == 1


# --- vLLM


def test_a_vllm_that_sleeps_is_woken_and_looked_at_until_it_is_awake() -> None:
    warmed, sent = talk(warm(VLLM, load("m", 1.0)), {"/metrics": [ASLEEP, ASLEEP, AWAKE], "/wake_up": answer()})
    assert warmed.is_warm
    assert [(one.method, one.path) for one in sent[:2]] == [("GET", "/metrics"), ("POST", "/wake_up")]
    assert [one.after_s for one in sent[2:]] == [1.0, 1.0]


def test_a_vllm_that_has_dropped_its_weights_is_not_woken_to_answer_nonsense() -> None:
    warmed, sent = talk(warm(VLLM, load("m", 1.0)), {"/metrics": LEVEL_2, "/wake_up": answer()})
    assert warmed.reason == "sleeps at level 2: its weights are gone, restart it"
    assert len(sent) == 1


def test_a_vllm_without_the_means_to_wake_it_says_which_setting_gives_them() -> None:
    warmed, _ = talk(warm(VLLM, load("m", 1.0)), {"/metrics": ASLEEP})
    assert warmed.reason == "sleeps and has no /wake_up; start it with VLLM_SERVER_DEV_MODE=1"


@pytest.mark.parametrize(
    ("metrics", "woken", "reason"),
    [
        ([ASLEEP], answer({"error": "out of memory"}, 500), "answered 500: out of memory"),
        ([ASLEEP], None, "no answer"),
        ([ASLEEP, None], answer(), "no answer"),
        ([None], answer(), "no answer"),
    ],
)
def test_a_vllm_that_does_not_wake_gives_the_reason(
    metrics: list[ProbeAnswer | None], woken: ProbeAnswer | None, reason: str
) -> None:
    assert talk(warm(VLLM, load("m", 1.0)), {"/metrics": metrics, "/wake_up": woken})[0] == Warmed(is_warm=False, reason=reason)


def test_a_vllm_that_is_awake_is_asked_nothing_more() -> None:
    warmed, sent = talk(warm(VLLM, load("m", 1.0)), {"/metrics": AWAKE})
    assert (warmed.is_warm, len(sent)) == (True, 1)


def test_sleep_is_what_the_probe_calls_so() -> None:
    answers = {"/health": answer(), "/v1/models": answer({"data": [{"id": "m"}]}), "/metrics": ASLEEP}
    finding = play(probe_vllm(), answers).told
    assert (finding.seen, finding.is_asleep) == (Seen.LOADING, True)
    assert is_asleep(BackendState(Condition.DOWN, engine=finding.engine, is_asleep=True))
    assert not is_asleep(BackendState(Condition.DOWN, engine=finding.engine))
    assert not is_asleep(BackendState(Condition.UP, engine=finding.engine, is_asleep=True))


# --- the others, and memory


@pytest.mark.parametrize("engine", [EngineKind.SGLANG, EngineKind.OPENAI, EngineKind.AUTO])
def test_an_engine_that_is_loaded_by_being_up_is_asked_nothing(engine: EngineKind) -> None:
    assert talk(warm(engine, load("m", 1.0)), {}) == (Warmed(is_warm=True), [])


def test_only_ollama_lets_go_by_itself() -> None:
    assert [engine for engine in EngineKind if lets_go(engine)] == [OLLAMA]


def test_sizes_are_read_where_the_lists_tell_them() -> None:
    model = Model("m", tags_entry='{"name": "m", "size": 700}', ps_entry='{"name": "m", "size": 900, "size_vram": 0}')
    assert footprint(model) == Footprint("m", is_loaded=True, loaded_bytes=900, file_bytes=700)
    assert footprint(Model("m", '{"id": "m"}', is_loaded=False)) == Footprint("m", is_loaded=False)
    assert footprint(Model("m", tags_entry='{"size": "many"}', ps_entry='{"size": -1}')) == Footprint("m", is_loaded=True)
    assert footprint(Model("m", tags_entry="{", ps_entry="[]")) == Footprint("m", is_loaded=True)
