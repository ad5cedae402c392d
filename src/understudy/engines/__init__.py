"""What each engine is like: what to ask it to learn its condition, and what its answers mean.

`probe` is driven by controlplane.fetcher; `classify` and `retry_after_s` are called by dataplane. Pure: probes are generators
that yield questions and are sent the answers. Every question of a probe is a GET without side effects; how an answer that broke
goes on is engines.continuation.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind
from understudy.engines.answers import classify, retry_after_s
from understudy.engines.contract import Finding, Probe, ProbeAnswer, ProbeRequest
from understudy.engines.detect import detect
from understudy.engines.llamacpp import probe_llamacpp
from understudy.engines.ollama import probe_ollama
from understudy.engines.openai import probe_openai
from understudy.engines.sglang import probe_sglang
from understudy.engines.vllm import probe_vllm

__all__ = ["Finding", "Probe", "ProbeAnswer", "ProbeRequest", "classify", "probe", "retry_after_s"]

_PROBES: Final[dict[EngineKind, Callable[[Finding | None], Probe]]] = {
    EngineKind.OLLAMA: probe_ollama,
    EngineKind.VLLM: probe_vllm,
    EngineKind.LLAMACPP: probe_llamacpp,
    EngineKind.SGLANG: probe_sglang,
    EngineKind.OPENAI: probe_openai,
}


def probe(engine: EngineKind, known: Finding | None = None) -> Probe:
    """Ask everything that tells a backend's condition, engine, dialects and models.

    Yields at most eight requests; send each one's answer, or None when there was none. AUTO finds out the engine first; a finding
    that is not GOOD says AUTO where that was not told. `known` is the last GOOD finding of the same backend: it spares questions
    whose answers change with the version only, and stands in for a list while the backend is too busy to give it.
    """
    is_told = engine is not EngineKind.AUTO
    if not is_told:
        found = yield from detect()
        if found is None:
            return Finding(Seen.BAD)
        engine = found
    finding = yield from _PROBES[engine](known if known is not None and known.engine is engine else None)
    if not is_told and finding.engine is EngineKind.OPENAI and finding.seen is not Seen.GOOD:
        # A generic server is what is left when nothing is told; any engine that answers badly looks like one.
        return replace(finding, engine=EngineKind.AUTO)
    return finding
