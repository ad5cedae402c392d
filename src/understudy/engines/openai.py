"""How a server is probed of which nothing is known but that it speaks OpenAI. Called through engines.probe.

/v1/models is the only path to ask, and not every such server has it.
"""

from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model
from understudy.engines.contract import Finding, Probe, ProbeRequest
from understudy.engines.listing import read_openai_list, settle
from understudy.engines.verdict import ABSENT, judge, unlike


def probe_openai(known: Finding | None = None) -> Probe:
    """Ask for the models; a server without that path is alive, and what it serves is unknown."""
    engine = EngineKind.OPENAI
    first = yield ProbeRequest("/v1/models")
    if first is not None and first.status in ABSENT:
        return Finding(Seen.GOOD, engine, dialects=(DialectName.OPENAI,))
    answer = judge(engine, first, known)
    if isinstance(answer, Finding):
        return answer
    listed = read_openai_list(answer.body)
    if isinstance(listed, str):
        return unlike(engine, "/v1/models", listed)
    models = settle(tuple(Model(one.name, one.entry) for one in listed), known)
    return Finding(Seen.GOOD, engine, dialects=(DialectName.OPENAI,), models=models)
