"""How an Ollama is probed. Called through engines.probe; source: engines.md sections 1 and 2.

Its probes stay good while a model loads, because any model of its list is loaded when it is asked for. Never asks anything that
loads or unloads a model.
"""

from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model
from understudy.engines.contract import Finding, Probe, ProbeAnswer, ProbeRequest
from understudy.engines.listing import read_ollama_list, read_openai_list
from understudy.engines.verdict import MESSAGES_PATH, judge, read_field, speaks_anthropic, unlike


def probe_ollama(known: Finding | None = None) -> Probe:
    """Ask for the version (alive), the models, and which of them are loaded; after a change of version, for its dialects."""
    engine = EngineKind.OLLAMA
    alive = judge(engine, (yield ProbeRequest("/api/version")), known)
    if isinstance(alive, Finding):
        return alive
    version = read_field(alive, "version")
    if not version:
        return unlike(engine, "/api/version", "no version")
    tags = judge(engine, (yield ProbeRequest("/api/tags")), known)
    if isinstance(tags, Finding):
        return tags
    listed = read_ollama_list(tags.body)
    if isinstance(listed, str):
        return unlike(engine, "/api/tags", listed)
    # These two add to the lists; a backend without them still answers.
    openai_entries = _entries((yield ProbeRequest("/v1/models")))
    ps_entries = _entries((yield ProbeRequest("/api/ps")))
    models = tuple(
        Model(one.name, openai_entries.get(one.name, ""), one.entry, ps_entries.get(one.name, ""), one.name in ps_entries)
        for one in listed
    )
    if known is not None and known.version == version:
        dialects = known.dialects
    else:
        # Since 0.14.0 (January 2026); before that only the other two.
        has_messages = speaks_anthropic((yield ProbeRequest(MESSAGES_PATH)))
        dialects = (DialectName.OPENAI, DialectName.OLLAMA, *([DialectName.ANTHROPIC] if has_messages else ()))
    return Finding(Seen.GOOD, engine, version, dialects, models)


def _entries(answer: ProbeAnswer | None) -> dict[str, str]:
    """Entries by name of /v1/models or /api/ps; none when there was no such answer."""
    if answer is None or answer.status != 200:
        return {}
    listed = read_openai_list(answer.body)
    if isinstance(listed, str):
        listed = read_ollama_list(answer.body)
    return {} if isinstance(listed, str) else {one.name: one.entry for one in listed}
