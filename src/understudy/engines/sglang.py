"""How an SGLang is probed. Called through engines.probe; source: engines.md section 1.

Never asks /health, which generates a token and takes a second or more; /ready is the cheap one. It tells its version only
together with its whole configuration, which is not asked for, so the version stays "".
"""

from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model
from understudy.engines.contract import Finding, Probe, ProbeRequest
from understudy.engines.listing import settle
from understudy.engines.verdict import ABSENT, MESSAGES_PATH, answered, ask_list, judge, speaks_anthropic


def probe_sglang(known: Finding | None = None) -> Probe:
    """Ask whether it is ready (alive, or loading) and for the models; the first time also for its dialects."""
    engine = EngineKind.SGLANG
    alive = yield ProbeRequest("/ready")
    if alive is not None and alive.status == 503:
        return Finding(Seen.LOADING, engine, reason=answered(alive))
    # Older versions have no /ready; then the list alone decides.
    if alive is None or alive.status not in ABSENT:
        verdict = judge(engine, alive, known)
        if isinstance(verdict, Finding):
            return verdict
    listed = yield from ask_list(engine, known)
    if isinstance(listed, Finding):
        return listed
    models = settle(tuple(Model(one.name, one.entry) for one in listed), known)
    if known is not None and known.dialects:
        return Finding(Seen.GOOD, engine, dialects=known.dialects, models=models)
    # Since February 2026 (sglang pull request 18630).
    has_messages = speaks_anthropic((yield ProbeRequest(MESSAGES_PATH)))
    dialects = (DialectName.OPENAI, *([DialectName.ANTHROPIC] if has_messages else ()))
    return Finding(Seen.GOOD, engine, dialects=dialects, models=models)
