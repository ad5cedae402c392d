"""How a vLLM is probed. Called through engines.probe; source: engines.md sections 1 and 8.

A vLLM that loads refuses connections, and one that sleeps answers every probe but no request: only a gauge of /metrics tells.
Never asks anything that wakes it.
"""

import re
from typing import Final

from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model
from understudy.engines.contract import Asking, Finding, Probe, ProbeAnswer, ProbeRequest
from understudy.engines.listing import settle
from understudy.engines.verdict import MESSAGES_PATH, ask_alive_and_list, read_field, speaks_anthropic

_SLEEP: Final = re.compile(rb"^vllm:engine_sleep_state\{([^\n]*)\}[ \t]+([0-9.eE+-]+)", re.MULTILINE)


def probe_vllm(known: Finding | None = None) -> Probe:
    """Ask for its health (alive), the models, whether it sleeps, its version, and after a change of that for its dialects."""
    engine = EngineKind.VLLM
    listed = yield from ask_alive_and_list(engine, "/health", known)
    if isinstance(listed, Finding):
        return listed
    models = settle(tuple(Model(one.name, one.entry) for one in listed), known)
    version, dialects = yield from _ask_dialects(known)
    if is_asleep((yield ProbeRequest("/metrics"))):
        return Finding(Seen.LOADING, engine, version, dialects, models, reason="asleep", is_asleep=True)
    return Finding(Seen.GOOD, engine, version, dialects, models)


def _ask_dialects(known: Finding | None) -> Asking[tuple[str, tuple[DialectName, ...]]]:
    """Learn the version and the dialects; asks for the latter only when the version is not the one that is `known`."""
    version = read_field((yield ProbeRequest("/version")), "version")
    if known is not None and known.version == version and known.dialects:
        return version, known.dialects
    # Since 0.11.1 (November 2025).
    has_messages = speaks_anthropic((yield ProbeRequest(MESSAGES_PATH)))
    return version, (DialectName.OPENAI, *([DialectName.ANTHROPIC] if has_messages else ()))


def is_asleep(answer: ProbeAnswer | None) -> bool:
    """Read the gauge `vllm:engine_sleep_state{sleep_state="awake"}`: asleep when it is there and 0 for every engine."""
    if answer is None or answer.status != 200:
        return False
    awake = [_number(value) for labels, value in _SLEEP.findall(answer.body) if b'sleep_state="awake"' in labels]
    return bool(awake) and all(value == 0 for value in awake)


def _number(value: bytes) -> float:
    try:
        return float(value)
    except ValueError:
        return 1.0
