"""How each engine is asked to load a model and to keep it, what its answers mean, and what its lists tell of memory.

`warm` is driven by controlplane.warmer as probes are by controlplane.fetcher, but unlike these it changes what an engine holds:
core.warmth decides when. Pure: a conversation is a generator that yields requests and is sent the answers. Never generates a
token and never unloads anything.

- Ollama loads by POST /api/generate without a prompt, or /api/embed without input for a model that only embeds, and keeps it as
  `keep_alive` says (server/routes.go, server/sched.go).
- A llama.cpp router loads by POST /models/load, which answers before it has, and keeps it (tools/server/server-models.cpp).
- A vLLM that sleeps is woken by POST /wake_up, which it has with VLLM_SERVER_DEV_MODE=1 (serve/dev/sleep/api_router.py).
- Any other has its models loaded by being up.

An SGLang that has released its memory says so nowhere, and /resume_memory_occupation ends one that has not (KeyError in
managers/scheduler_update_weights_mixin.py), so it is never asked.
"""

import re
from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import msgspec

from understudy.core.snapshot import BackendState, Condition, EngineKind, Model
from understudy.core.warmth import Footprint, Load, crowded_by
from understudy.engines.contract import ProbeAnswer
from understudy.engines.listing import Listed, read_openai_list
from understudy.engines.verdict import ABSENT, answered
from understudy.engines.vllm import is_asleep as tells_sleep

# How often is looked whether a load that was begun is done.
LOOK_S: Final = 1.0

_NO_ANSWER: Final = "no answer"
_DISCARDED: Final = re.compile(
    rb'^vllm:engine_sleep_state\{[^\n]*sleep_state="discard_all"[^\n]*\}[ \t]+1(?:\.0*)?[ \t]*$', re.MULTILINE
)
# Statuses of a llama.cpp router's models that hold one of its --models-max places.
_RUNNING: Final = frozenset({"loading", "loaded", "sleeping"})
# What a status means after a load was begun, "" that it is loaded; with any other it is still on its way.
_WORDS: Final = {
    "": "",
    "loaded": "",
    "unloaded": "could not be loaded; the engine's own log says why",
    "sleeping": "sleeps (--sleep-idle-seconds); only a request that generates wakes it",
    "gone": "is not listed",
}


@dataclass(frozen=True, slots=True)
class WarmRequest:
    """One request to a backend, to be sent `after_s` seconds from now. `path` starts with "/"; a `body` is JSON."""

    method: str
    path: str
    body: bytes = b""
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Warmed:
    """What a conversation came to: whether the model is loaded, else why not, and for how long from now the engine keeps it."""

    is_warm: bool
    reason: str = ""
    lasts_s: float = float("inf")


_Told = TypeVar("_Told")

# A conversation with an engine: yields what to ask next, is sent the answer (None: there was none), returns what it was told.
Conversing = Generator[WarmRequest, ProbeAnswer | None, _Told]


class _Size(msgspec.Struct):
    size: object = None
    model: object = None
    expires_at: object = None
    context_length: object = None
    max_instances: object = None
    error: object = None


class _Loaded(msgspec.Struct):
    models: list[dict[str, Any]] | None = None


_SIZE: Final = msgspec.json.Decoder(_Size)
_LOADED: Final = msgspec.json.Decoder(_Loaded)


def footprint(model: Model) -> Footprint:
    """Read what the lists tell of one model; sizes are 0 where they tell none (all engines but Ollama)."""
    return Footprint(model.name, model.is_loaded, _size(model.ps_entry), _size(model.tags_entry))


def lets_go(engine: EngineKind) -> bool:
    """Whether the engine unloads by itself what was not asked for lately, so that keeping a model means asking again."""
    return engine is EngineKind.OLLAMA


def is_asleep(state: BackendState) -> bool:
    """Whether the backend is down only because its engine sleeps, and `warm` can wake it."""
    return state.condition is Condition.DOWN and state.engine is EngineKind.VLLM and state.is_asleep


def warm(engine: EngineKind, load: Load) -> Conversing[Warmed]:
    """Ask `engine` to do what was decided, and to keep the model for `keep_s` seconds from now, where it lets go at all.

    Ends when the model is loaded or is known not to be; that may take minutes, which the driver bounds. A renewal never loads.
    """
    model = load.own_name
    if engine is EngineKind.OLLAMA:
        return (yield from _warm_ollama(load))
    why = ""
    if engine is EngineKind.LLAMACPP:
        why = yield from _warm_router(model)
    elif engine is EngineKind.VLLM:
        why = yield from _wake_vllm()
    return Warmed(is_warm=not why, reason=why)


# --- Ollama


def _warm_ollama(load: Load) -> Conversing[Warmed]:
    """See what is loaded, then load without a prompt, or prolong what is loaded as it is.

    A `keep_alive` stays in force for the requests after it that have none, and a longer one that somebody else has asked for is
    left alone. The context that a loaded model has is named again: another one would make Ollama load it anew (needsReload).
    """
    model, keep_s = load.own_name, load.keep_s
    listed = yield WarmRequest("GET", "/api/ps")
    loaded = _loaded(listed)
    entry = loaded.pop(_bare(model), None)
    if entry is not None and listed is not None:
        rest_s = _rest_s(entry, listed)
        if rest_s >= keep_s:
            return Warmed(is_warm=True, lasts_s=rest_s)
    elif load.is_renewal:
        return Warmed(is_warm=False, reason="is no longer loaded")
    elif strangers := loaded.keys() - {_bare(name) for name in load.beside}:
        # Loaded since the probe on whose lists this was decided.
        return Warmed(is_warm=False, reason=crowded_by(strangers))
    body: dict[str, Any] = {"model": model, "keep_alive": f"{keep_s:.0f}s", "stream": False}
    context_tokens = entry.context_length if entry is not None else None
    if isinstance(context_tokens, int) and context_tokens > 0:
        body["options"] = {"num_ctx": context_tokens}
    answer = yield WarmRequest("POST", "/api/generate", msgspec.json.encode(body))
    if answer is not None and answer.status == 400:
        # "does not support generate": a model that only embeds is loaded by embedding nothing (EmbedHandler).
        answer = yield WarmRequest("POST", "/api/embed", msgspec.json.encode({**body, "input": ""}))
    why = _why_not(answer)
    return Warmed(is_warm=False, reason=why) if why else Warmed(is_warm=True, lasts_s=float(f"{keep_s:.0f}"))


def _loaded(answer: ProbeAnswer | None) -> dict[str, _Size]:
    """Read /api/ps: entries by name without ":latest"; none where nothing is told."""
    if answer is None or answer.status != 200:
        return {}
    try:
        models = _LOADED.decode(answer.body).models or []
    except (ValueError, RecursionError):
        return {}
    named = ((one.get("name"), one) for one in models)
    return {_bare(name): msgspec.convert(one, _Size) for name, one in named if isinstance(name, str)}


def _bare(name: str) -> str:
    return name.removesuffix(":latest")


def _rest_s(entry: _Size, answer: ProbeAnswer) -> float:
    """Seconds until the engine lets go of a loaded model, both instants by its own clock; 0.0 where it does not tell."""
    try:
        until = datetime.fromisoformat(str(entry.expires_at))
        now = parsedate_to_datetime(answer.headers.get("date", ""))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


# --- llama.cpp


def _warm_router(model: str) -> Conversing[str]:
    """Ask a router to load the model and look until it has; a server of one model is warm by being up. Returns why not."""
    listed = _listed((yield WarmRequest("GET", "/v1/models")))
    if isinstance(listed, str):
        return listed
    one = _entry(listed, model)
    if one is not None and one.status == "unloaded":
        why = _why_full((yield WarmRequest("GET", "/props")), listed)
        if why:
            return why
        answer = yield WarmRequest("POST", "/models/load", msgspec.json.encode({"model": one.name}))
        why = _why_not(answer)
        # 400: "model is already running", because a client's request came first.
        if why and (answer is None or answer.status != 400):
            return why
        listed = _listed((yield WarmRequest("GET", "/v1/models")))
    while not isinstance(listed, str):
        one = _entry(listed, model)
        status = one.status if one is not None else "gone"
        if status in _WORDS:
            return _WORDS[status]
        listed = _listed((yield WarmRequest("GET", "/v1/models", after_s=LOOK_S)))
    return listed


def _listed(answer: ProbeAnswer | None) -> tuple[Listed, ...] | str:
    why = _why_not(answer)
    return why if why or answer is None else read_openai_list(answer.body)


def _entry(listed: tuple[Listed, ...], model: str) -> Listed | None:
    return next((one for one in listed if model in (one.name, *one.aliases)), None)


def _why_full(props: ProbeAnswer | None, listed: tuple[Listed, ...]) -> str:
    """Return why a load would push out another model (--models-max), "" where it would not, or where that is not told."""
    places = _read(props.body).max_instances if props is not None and props.status == 200 else None
    running = [one.name for one in listed if one.status in _RUNNING]
    if not isinstance(places, int) or places <= 0 or len(running) < places:
        return ""
    return f"would push out one of {', '.join(running)} (--models-max {places})"


# --- vLLM


def _wake_vllm() -> Conversing[str]:
    """Wake an engine that sleeps with its weights in memory, and look until it is awake. Returns why it is not.

    At level 2 the weights are gone, and an engine that is woken then answers nonsense until they are loaded anew
    (docs.vllm.ai, features/sleep_mode), so that is left to whoever put it there.
    """
    answer = yield WarmRequest("GET", "/metrics")
    if answer is not None and tells_sleep(answer):
        if _DISCARDED.search(answer.body):
            return "sleeps at level 2: its weights are gone, restart it"
        woken = yield WarmRequest("POST", "/wake_up")
        if woken is not None and woken.status in ABSENT:
            return "sleeps and has no /wake_up; start it with VLLM_SERVER_DEV_MODE=1"
        why = _why_not(woken)
        if why:
            return why
    while tells_sleep(answer):
        answer = yield WarmRequest("GET", "/metrics", after_s=LOOK_S)
    return _why_not(answer)


# --- what all have in common


def _why_not(answer: ProbeAnswer | None) -> str:
    """Say why an answer is no success, "" when it is one. Ollama may name an error under any status."""
    if answer is None:
        return _NO_ANSWER
    if not 200 <= answer.status < 300:
        return answered(answer)
    return answered(answer) if answer.body[:1] == b"{" and _read(answer.body).error else ""


def _read(body: bytes | str) -> _Size:
    try:
        return _SIZE.decode(body)
    except (ValueError, RecursionError):
        return _Size()


def _size(entry: str) -> int:
    size = _read(entry).size if entry else None
    return size if isinstance(size, int) and size > 0 else 0
