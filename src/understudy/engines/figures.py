"""Read what an engine or a GPU's exporter tells of its load out of Prometheus text: running, waiting, KV cache, GPU.

Called by controlplane.figures_reader with the text behind a backend's `metrics_url`. Pure, raises nothing. Never asks for
anything, and never decides what a figure means for routing (core.preference) or for a promise (core.objectives).

Only the lines that are wanted are looked at: a text of 4 MiB (45,000 lines) takes 3 ms so, and 690 ms in
`prometheus_client.parser`, for which every exchange would have to wait (CPython 3.11). Ollama has no such text.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from typing import Final

# Lines of the wanted names in one text. No engine has more ranks, no machine more GPUs.
LINES_MAX: Final = 1_000
# A larger count is a mistake of who tells it, and no basis for anything.
COUNT_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Figures:
    """What was told; None for what was not. `kv_used` (the fullest cache) and `gpu_busy` (the mean of GPUs) are shares, 0 to 1.

    `running` and `waiting` count requests, whoever sent them.
    """

    running: int | None = None
    waiting: int | None = None
    kv_used: float | None = None
    gpu_busy: float | None = None

    @property
    def load(self) -> int | None:
        """Every request that is there; None unless both parts of it are told."""
        return None if self.running is None or self.waiting is None else self.running + self.waiting


class _Together(Enum):
    """What several lines of one name make together."""

    SUM = auto()
    SUM_OF_RANKS = auto()
    HIGHEST = auto()
    MEAN = auto()


@dataclass(frozen=True, slots=True)
class _Metric:
    """One metric that tells a figure. `whole` is what it calls a whole: 100.0 for percent."""

    name: bytes
    together: _Together = _Together.SUM
    whole: float = 1.0


# vLLM: vllm/v1/metrics/loggers.py, 0.32 (run) and 0.33; one line an `engine` (data parallel rank) and model.
# SGLang: srt/observability/metrics_collector.py, 0.5.23; with --enable-metrics-for-all-schedulers each tensor parallel rank tells
# the same number as its group, so that only data parallel ranks add up.
# llama.cpp: tools/server/server-context.cpp, build 11549 (run); it waits for --metrics.
_RUNNING: Final = (
    _Metric(b"vllm:num_requests_running"),
    _Metric(b"sglang:num_running_reqs", _Together.SUM_OF_RANKS),
    _Metric(b"llamacpp:requests_processing"),
)
_WAITING: Final = (
    _Metric(b"vllm:num_requests_waiting"),
    _Metric(b"sglang:num_queue_reqs", _Together.SUM_OF_RANKS),
    _Metric(b"llamacpp:requests_deferred"),
)
# `perc` is a share in spite of its name. The second was its name before vllm #18354; llama.cpp lost the last with #13660.
_KV_USED: Final = (
    _Metric(b"vllm:kv_cache_usage_perc", _Together.HIGHEST),
    _Metric(b"vllm:gpu_cache_usage_perc", _Together.HIGHEST),
    _Metric(b"sglang:token_usage", _Together.HIGHEST),
    _Metric(b"llamacpp:kv_cache_usage_ratio", _Together.HIGHEST),
)
# dcgm-exporter (NVIDIA, etc/default-counters.csv at 00d6d34): percent; the ratio is what it has where a GPU is cut into MIG
# instances. nvidia_gpu_exporter (utkuozdemir, docs/METRICS.md at 13be061): a ratio.
_GPU_BUSY: Final = (
    _Metric(b"DCGM_FI_DEV_GPU_UTIL", _Together.MEAN, 100.0),
    _Metric(b"DCGM_FI_PROF_GR_ENGINE_ACTIVE", _Together.MEAN),
    _Metric(b"nvidia_smi_utilization_gpu_ratio", _Together.MEAN),
)

# A line begins after a line feed and ends before one (text format 0.0.4): a cut one is none. Looking for the line feed first is
# what makes this fast; `^` would be tried at every character.
_LINE: Final = re.compile(
    rb"\n(" + rb"|".join(each.name for each in (*_RUNNING, *_WAITING, *_KV_USED, *_GPU_BUSY)) + rb")(?=[{ \t])([^\n]*)(?=\n)"
)
# Labels may hold anything in quotes. Possessive, so that no text makes it try twice.
_SAMPLE: Final = re.compile(
    rb'[ \t]*+(?:\{((?:[^"{}]|"(?:[^"\\]|\\.)*+")*+)\}[ \t]*+)?'
    rb"(\+?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?)(?:[ \t]++-?\d++)?[ \t]*+"
)
_RANK: Final = re.compile(rb'(?:^|,)[ \t]*dp_rank[ \t]*=[ \t]*"([^"]*)"')

_Samples = list[tuple[bytes, float]]


def read(text: bytes) -> Figures | None:
    """Return the figures that `text` tells; None where it tells none.

    A name with one line that cannot be read, or is out of bounds, tells nothing: part of a sum is none.
    """
    lines = [match.groups() for match in islice(_LINE.finditer(b"\n" + text), LINES_MAX + 1)]
    if not lines or len(lines) > LINES_MAX:
        return None
    by_name: dict[bytes, _Samples | None] = {}
    for name, rest in lines:
        samples = by_name.setdefault(name, [])
        sample = _SAMPLE.fullmatch(rest)
        if sample is None:
            by_name[name] = None
        elif samples is not None:
            samples.append((sample[1] or b"", float(sample[2])))
    running, waiting = _first(_RUNNING, by_name, COUNT_MAX), _first(_WAITING, by_name, COUNT_MAX)
    figures = Figures(
        None if running is None else round(running),
        None if waiting is None else round(waiting),
        _first(_KV_USED, by_name, 1.0),
        _first(_GPU_BUSY, by_name, 1.0),
    )
    return None if figures == Figures() else figures


def _first(metrics: tuple[_Metric, ...], by_name: dict[bytes, _Samples | None], highest: float) -> float | None:
    """Return what the first of `metrics` that is there and sound comes to, at most `highest`."""
    for metric in metrics:
        samples = by_name.get(metric.name)
        if samples and all(value <= highest * metric.whole for _, value in samples):
            value = _together(metric, samples)
            if value <= highest:
                return value
    return None


def _together(metric: _Metric, samples: _Samples) -> float:
    values = [value / metric.whole for _, value in samples]
    if metric.together is _Together.HIGHEST:
        return max(values)
    if metric.together is _Together.MEAN:
        return sum(values) / len(values)
    if metric.together is _Together.SUM:
        return sum(values)
    by_rank: dict[bytes, float] = {}
    for labels, value in samples:
        found = _RANK.search(labels)
        rank = found[1] if found else b""
        by_rank[rank] = max(value, by_rank.get(rank, 0.0))
    return sum(by_rank.values())
