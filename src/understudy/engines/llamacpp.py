"""How a llama.cpp server is probed, alone or as a router of several models. Called through engines.probe.

Source: engines.md section 1; tools/server/server-models.cpp. Never asks /slots, which wakes a sleeping server; one that sleeps
counts as good, because the next request wakes it.
"""

import re
from typing import Final

from understudy.core.ask import DialectName
from understudy.core.health import Seen
from understudy.core.snapshot import EngineKind, Model
from understudy.engines.contract import MODELS_MAX, Finding, Probe, ProbeRequest
from understudy.engines.listing import Listed, settle
from understudy.engines.verdict import ask_alive_and_list, is_autoloading, read_field

# llama.cpp pull request 17570 brought /v1/messages on 2025-11-28, which is about this build. Its HTTP library answers a GET of a
# path that takes POST with 404, so that the path itself cannot be asked.
ANTHROPIC_BUILD_MIN: Final = 7187

_BUILD: Final = re.compile(r"b([0-9]{1,9})-")

# Statuses of a router's models that can answer; "unloaded" can where the router loads what it is asked for.
_LOADED: Final = frozenset({"", "loading", "loaded", "sleeping"})
# Of these, those that answer without a load; a server of one model says nothing of it.
_IN_MEMORY: Final = frozenset({"", "loaded"})


def probe_llamacpp(known: Finding | None = None) -> Probe:
    """Ask for its health (alive, or loading), the models, and its build, which tells the dialects."""
    engine = EngineKind.LLAMACPP
    listed = yield from ask_alive_and_list(engine, "/health", known)
    if isinstance(listed, Finding):
        return listed
    props = yield ProbeRequest("/props")
    version = read_field(props, "build_info")
    models = settle(_models(listed, autoloads=is_autoloading(props)), known)
    return Finding(Seen.GOOD, engine, version, _dialects(version), models)


def _dialects(version: str) -> tuple[DialectName, ...]:
    build = _BUILD.match(version)
    # Build 0 is one whose maker left the number out; most of those are recent.
    if build is not None and 0 < int(build[1]) < ANTHROPIC_BUILD_MIN:
        return (DialectName.OPENAI,)
    return (DialectName.OPENAI, DialectName.ANTHROPIC)


def _models(listed: tuple[Listed, ...], *, autoloads: bool) -> tuple[Model, ...]:
    """Keep the models that can be asked for, each also under its aliases."""
    found: dict[str, Model] = {}
    for one in listed:
        if one.status in _LOADED or (autoloads and one.status == "unloaded"):
            for name in (one.name, *one.aliases):
                found.setdefault(name, Model(name, one.entry, is_loaded=one.status in _IN_MEMORY))
    return tuple(found.values())[:MODELS_MAX]
