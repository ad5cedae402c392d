"""What an engine tells of the work that it does: figures that change while it prefills or writes, and only then.

Driven by controlplane.prober while an attempt at the backend is suspect, never otherwise: llama.cpp's /slots wakes a sleeping
server, and asked more than once a second it keeps that server from noticing clients that left (engines.md, sections 1 and 6).

Figures that change prove that the engine works. Figures that stand prove nothing: llama.cpp counts a prompt in batches of 2048
tokens, which take minutes on a small machine, and vLLM in steps.
"""

import re
from typing import Final

import msgspec

from understudy.core.snapshot import EngineKind
from understudy.engines.contract import Asking, ProbeAnswer, ProbeRequest

# Two questions for the same figures are at least this far apart.
PROGRESS_INTERVAL_S: Final = 2.0

# What is told of one backend at most: slots, or lines of metrics.
FIGURES_MAX: Final = 1_000

Figures = tuple[bytes, ...] | tuple[tuple[int, ...], ...]

# Only what the engine's core counts. The API server's own counters grow with our questions, the process's with the time.
_METRICS: Final[dict[EngineKind, re.Pattern[bytes]]] = {
    # vllm/v1/metrics/loggers.py, 0.32: the gauges come with every step of the scheduler, also with one that only prefills.
    EngineKind.VLLM: re.compile(
        rb"^vllm:(?:prompt_tokens_total|generation_tokens_total|iteration_tokens_total_count|kv_cache_usage_perc"
        rb"|num_requests_running|num_requests_waiting|prefix_cache_queries_total|num_preemptions_total)[{ ][^\n]*",
        re.MULTILINE,
    ),
    # srt/observability/metrics_collector.py, 0.5.23; only with --enable-metrics.
    EngineKind.SGLANG: re.compile(
        rb"^sglang:(?:prompt_tokens_total|generation_tokens_total|realtime_tokens_total|num_running_reqs|num_queue_reqs"
        rb"|num_used_tokens|token_usage)[{ ][^\n]*",
        re.MULTILINE,
    ),
}


class _NextToken(msgspec.Struct):
    n_decoded: int = 0


class _Slot(msgspec.Struct):
    """A slot as /slots shows it; build 11549."""

    id: int = 0
    id_task: int = -1
    n_prompt_tokens: int = 0
    n_prompt_tokens_processed: int = 0
    next_token: list[_NextToken] | _NextToken = []


_SLOTS: Final = msgspec.json.Decoder(list[_Slot])


def tells_progress(engine: EngineKind) -> bool:
    """Whether there is anything to ask an engine of this kind; Ollama and plain OpenAI servers have no such figures."""
    return engine is EngineKind.LLAMACPP or engine in _METRICS


def progress(engine: EngineKind) -> Asking[Figures | None]:
    """Ask for the figures of the work that goes on; at most one request. None where the engine does not tell them."""
    if engine is EngineKind.LLAMACPP:
        return _read_slots((yield ProbeRequest("/slots")))
    pattern = _METRICS.get(engine)
    if pattern is None:
        return None
    answer = yield ProbeRequest("/metrics")
    if answer is None or answer.status != 200:
        return None
    lines = tuple(each[0] for each in pattern.finditer(answer.body))[:FIGURES_MAX]
    return lines or None


def _read_slots(answer: ProbeAnswer | None) -> Figures | None:
    """Read /slots; 501 where the server was started without it."""
    if answer is None or answer.status != 200:
        return None
    try:
        slots = _SLOTS.decode(answer.body)[:FIGURES_MAX]
    except (ValueError, RecursionError):
        return None
    return tuple(
        (slot.id, slot.id_task, slot.n_prompt_tokens, slot.n_prompt_tokens_processed, _decoded(slot.next_token)) for slot in slots
    )


def _decoded(told: list[_NextToken] | _NextToken) -> int:
    # A list since the sampler can run on the backend; an object in earlier builds.
    return sum(each.n_decoded for each in (told if isinstance(told, list) else [told]))
