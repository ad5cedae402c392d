"""Plays of what engines tell of their work; bytes of llama.cpp from build 11549, of vLLM from 0.32, of SGLang from its source."""

from typing import Any

import pytest

from support.probing import answer, play
from understudy.core.snapshot import EngineKind
from understudy.engines.contract import ProbeAnswer
from understudy.engines.progress import FIGURES_MAX, Figures, progress, tells_progress

VLLM = b"""# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:num_requests_running{engine="0",model_name="tiny"} 1.0
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 512.0
vllm:generation_tokens_total{engine="0",model_name="tiny"} 40.0
http_requests_total{handler="/metrics",method="GET",status="2xx"} 7.0
process_cpu_seconds_total 12.5
"""
SGLANG = b"""sglang:num_running_reqs{model_name="tiny"} 1.0
sglang:realtime_tokens_total{mode="prefill_compute",model_name="tiny"} 8192.0
process_cpu_seconds_total 12.5
"""


def slots(**changed: Any) -> ProbeAnswer:
    """The answer of a server with two slots, of which the second prefills."""
    busy = {
        "id": 1,
        "n_ctx": 4096,
        "is_processing": True,
        "id_task": 2,
        "n_prompt_tokens": 3781,
        "n_prompt_tokens_processed": 2048,
        "params": {"temperature": 0.8},
        "next_token": [{"has_next_token": True, "n_remain": 300, "n_decoded": 0}],
    }
    return answer([{"id": 0, "n_ctx": 4096, "speculative": False, "is_processing": False}, busy | changed])


def told(engine: EngineKind, given: ProbeAnswer | None) -> Figures | None:
    return play(progress(engine), {"/slots": given, "/metrics": given}).told


def test_each_engine_is_asked_one_question_that_it_knows() -> None:
    assert play(progress(EngineKind.LLAMACPP), {}).asked == ["/slots"]
    assert play(progress(EngineKind.VLLM), {}).asked == ["/metrics"]
    assert play(progress(EngineKind.SGLANG), {}).asked == ["/metrics"]


@pytest.mark.parametrize("engine", [EngineKind.OLLAMA, EngineKind.OPENAI, EngineKind.AUTO])
def test_engines_without_figures_are_asked_nothing(engine: EngineKind) -> None:
    assert not tells_progress(engine)
    dialogue = play(progress(engine), {})
    assert (dialogue.told, dialogue.asked) == (None, [])


@pytest.mark.parametrize("engine", [EngineKind.LLAMACPP, EngineKind.VLLM, EngineKind.SGLANG])
def test_engines_with_figures_say_so(engine: EngineKind) -> None:
    assert tells_progress(engine)


@pytest.mark.parametrize(
    "changed",
    [
        {"n_prompt_tokens_processed": 3781},
        {"n_prompt_tokens": 2048},
        {"next_token": [{"n_decoded": 1}]},
        {"next_token": {"n_decoded": 1}},
        {"id_task": 3},
    ],
)
def test_a_slot_that_goes_on_changes_the_figures(changed: dict[str, Any]) -> None:
    before = told(EngineKind.LLAMACPP, slots())
    assert before is not None
    assert before == told(EngineKind.LLAMACPP, slots())
    assert before != told(EngineKind.LLAMACPP, slots(**changed))


def test_what_is_configured_is_no_figure() -> None:
    assert told(EngineKind.LLAMACPP, slots(params={})) == told(EngineKind.LLAMACPP, slots())


@pytest.mark.parametrize(
    ("engine", "metrics", "was", "now"),
    [
        (EngineKind.VLLM, VLLM, b"0.25", b"0.26"),
        (EngineKind.VLLM, VLLM, b" 40.0", b" 41.0"),
        (EngineKind.SGLANG, SGLANG, b"8192.0", b"16384.0"),
    ],
)
def test_a_step_of_the_engine_changes_the_figures(engine: EngineKind, metrics: bytes, was: bytes, now: bytes) -> None:
    assert told(engine, answer(metrics)) != told(engine, answer(metrics.replace(was, now)))


@pytest.mark.parametrize(("was", "now"), [(b" 7.0", b" 8.0"), (b"12.5", b"13.0")])
def test_what_our_own_questions_and_the_time_change_is_no_work(was: bytes, now: bytes) -> None:
    assert told(EngineKind.VLLM, answer(VLLM)) == told(EngineKind.VLLM, answer(VLLM.replace(was, now)))


@pytest.mark.parametrize("engine", [EngineKind.LLAMACPP, EngineKind.VLLM, EngineKind.SGLANG])
@pytest.mark.parametrize(
    "given",
    [
        None,
        answer({"error": {"code": 501, "message": "This server does not support slots endpoint."}}, 501),
        answer(b""),
        answer(b"<html>"),
        answer({"id": 0}),
        answer([{"id": "x"}]),
        answer(b"[" * 100_000),
    ],
)
def test_an_answer_without_figures_is_none(engine: EngineKind, given: ProbeAnswer | None) -> None:
    assert told(engine, given) is None


def test_an_endless_list_is_cut() -> None:
    figures = told(EngineKind.VLLM, answer(b"vllm:num_requests_running 1\n" * 5000))
    assert figures is not None
    assert len(figures) == FIGURES_MAX
