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
from understudy.engines.openai import judge_generic, judge_unsigned, probe_openai
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


def probe(engine: EngineKind, known: Finding | None = None, *, before: EngineKind = EngineKind.AUTO) -> Probe:
    """Ask everything that tells a backend's condition, engine, dialects and models.

    Yields at most eight requests; send each one's answer, or None when there was none. AUTO finds out the engine first; a finding
    that is not GOOD says AUTO where that was not told. `known` is the last GOOD finding of the same backend: it spares questions
    whose answers change with the version only, and stands in for a list while the backend is too busy to give it. `before` is the
    engine that was told last, however long ago: where AUTO asks, that nothing tells an engine now does not make it another one.
    """
    if engine is EngineKind.AUTO:
        found, listed = yield from detect()
        if found is None and known is None:
            return Finding(Seen.BAD)
        # To be looked at anew must not cost a backend that is good its place.
        engine = found or (known.engine if known is not None else engine)
        if engine is EngineKind.OPENAI:
            # By the same answer: a list that comes back between two questions would pass for an unsigned one.
            return _fall_back(listed, known, before)
    return (yield from _PROBES[engine](_known_as(engine, known)))


def _fall_back(listed: ProbeAnswer | None, known: Finding | None, before: EngineKind) -> Finding:
    if before not in {EngineKind.AUTO, EngineKind.OPENAI}:
        return judge_unsigned(listed, before)
    finding = judge_generic(listed, _known_as(EngineKind.OPENAI, known))
    # A generic server is what is left when nothing is told; any engine that answers badly looks like one.
    return finding if finding.seen is Seen.GOOD else replace(finding, engine=EngineKind.AUTO)


def _known_as(engine: EngineKind, known: Finding | None) -> Finding | None:
    return known if known is not None and known.engine is engine else None
