"""How a server is probed of which nothing is known but that it speaks OpenAI. Called through engines.probe.

/v1/models is the only path to ask, and not every such server has it.
"""

from dataclasses import replace

from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model
from understudy.engines.contract import Finding, Probe, ProbeAnswer, ProbeRequest
from understudy.engines.listing import read_openai_list, settle
from understudy.engines.verdict import ABSENT, judge, unlike


def probe_openai(known: Finding | None = None) -> Probe:
    """Ask for the models; a server without that path is alive, and what it serves is unknown."""
    return judge_generic((yield ProbeRequest("/v1/models")), known)


def judge_generic(listed: ProbeAnswer | None, known: Finding | None = None) -> Finding:
    """Judge an answer of /v1/models, where all that is known is that the server speaks OpenAI."""
    if listed is not None and listed.status in ABSENT:
        return Finding(Seen.GOOD, EngineKind.OPENAI, dialects=(DialectName.OPENAI,))
    answer = judge(EngineKind.OPENAI, listed, known)
    return answer if isinstance(answer, Finding) else _read(answer, known)


def judge_unsigned(listed: ProbeAnswer | None, before: EngineKind) -> Finding:
    """Judge an answer of /v1/models, where `before` was told once and nothing tells an engine now.

    A list that can be read is that of another server, for `before` would have signed it. All else may be something in front of
    it, as an ingress that is being redeployed answers 404 to everything: BAD, or `before` still where it is busy or wants a key.
    """
    if listed is not None and listed.status in ABSENT:
        missing = f"answered {listed.status} to /v1/models, as no {before} does"
        return Finding(Seen.BAD, reason=f"{missing}; if it is another engine now, set engine: openai")
    answer = judge(before, listed)
    finding = answer if isinstance(answer, Finding) else _read(answer, None)
    is_told = finding.seen is Seen.GOOD or finding.wants_key
    return finding if is_told else replace(finding, engine=EngineKind.AUTO)


def _read(answer: ProbeAnswer, known: Finding | None) -> Finding:
    listed = read_openai_list(answer.body)
    if isinstance(listed, str):
        return unlike(EngineKind.OPENAI, "/v1/models", listed)
    models = settle(tuple(Model(one.name, one.entry) for one in listed), known)
    return Finding(Seen.GOOD, EngineKind.OPENAI, dialects=(DialectName.OPENAI,), models=models)
