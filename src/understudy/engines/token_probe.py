"""What to ask an engine for one token by the path that its clients use, and what its answer means.

Driven by controlplane.token_prober, as the probes of this room are by controlplane.fetcher. Pure. Asks only models that are in
memory, and no engine that sleeps: a question for a token must neither load, wake nor pin anything (engines.md, sections 1 and 4),
unless whoever asks names what may be loaded for it.

Of Ollama (server/sched.go, useLoadedRunner): a request without `keep_alive` leaves how long the model stays as it was and lets
that time begin anew; a request with one changes it for every later request, so that none is sent. Questions alone could keep a
model in memory for ever; that is why whoever asks again and again hands over what the last question has left behind (`spent`).
"""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from understudy.core.snapshot import EngineKind, Model
from understudy.engines.answers import classify
from understudy.engines.contract import ProbeAnswer
from understudy.engines.verdict import answered
from understudy.engines.vllm import is_asleep
from understudy.errors import FailureKind

# Of several models in processes of their own each may hang alone; more than these are not asked at once.
MODELS_ASKED_MAX: Final = 3
PROMPT: Final = "Say yes."
NOTHING_SPENT: Final[Mapping[str, str]] = MappingProxyType({})

# The engines that run a process a model; all models of the others share one.
_PROCESS_A_MODEL: Final = frozenset({EngineKind.OLLAMA, EngineKind.LLAMACPP})
# Statuses that say that this path, or this use of it, is not for this model: one without a chat template, or for embeddings.
_OTHER_PATH: Final = frozenset({400, 404, 405, 422, 501})
# From here on /api/ps tells the context of one request, as a request would ask for it, and no multiple of it.
_TELLS_CONTEXT_SINCE: Final = (0, 12)
_VERSION: Final = re.compile(r"v?([0-9]{1,6})\.([0-9]{1,6})")
# Ollama writes "for ever" as now and 292 years.
_FOR_EVER_YEAR: Final = "2200"


class TokenSeen(StrEnum):
    """What a question for a token came to."""

    TOKEN = "token"  # noqa: S105  # a token of text
    BARREN = "barren"  # it failed, or there was no answer: nothing was generated
    LOADING = "loading"  # it says itself that it cannot answer yet
    UNTOLD = "untold"  # nobody could be asked, or the answer says nothing of generating


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One question: a GET of `path`, or with a `body` a POST of JSON."""

    path: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class TokenFinding:
    """What the questions came to; `reason` says why it is no TOKEN, "" where nothing was answered: only the driver knows why."""

    seen: TokenSeen
    reason: str = ""


_Told = TypeVar("_Told")

# As engines.contract.Asking, with questions that may have a body.
TokenAsking = Generator[TokenRequest, ProbeAnswer | None, _Told]

_TOKEN: Final = TokenFinding(TokenSeen.TOKEN)


class _Running(msgspec.Struct):
    """A model in /api/ps."""

    name: str = ""
    expires_at: str = ""
    context_length: int = 0


class _Ps(msgspec.Struct):
    models: list[_Running] | None = None


class _Props(msgspec.Struct):
    is_sleeping: bool = False


class _Tags(msgspec.Struct):
    capabilities: list[str] | None = None


_PS: Final = msgspec.json.Decoder(_Ps)
_PROPS: Final = msgspec.json.Decoder(_Props)
_TAGS: Final = msgspec.json.Decoder(_Tags)


def ask_token(
    engine: EngineKind,
    version: str,
    models: Sequence[Model] | None,
    wanted: Sequence[str] = (),
    spent: Mapping[str, str] = NOTHING_SPENT,
    *,
    loadable: Sequence[str] = (),
) -> TokenAsking[TokenFinding]:
    """Ask for one token of each model in memory, of at most `MODELS_ASKED_MAX`; of one where they share a process.

    `models` is the backend's list as last known, None where it tells none; `wanted` are its own names of the models that the
    operator named, which are asked first. `spent` as `ask_expiries` told it after the last question: a model of which that still
    holds is not asked again. One that generates nothing decides; else a token does. Where nothing is in memory the first of
    `loadable` that writes text is asked, which has the engine load it.
    """
    if engine is EngineKind.OLLAMA:
        return (yield from _ask_ollama(version, models or (), spent, loadable))
    if engine is EngineKind.AUTO:
        return TokenFinding(TokenSeen.UNTOLD, "its engine is not known yet")
    if engine is EngineKind.VLLM and is_asleep((yield TokenRequest("/metrics"))):
        return TokenFinding(TokenSeen.UNTOLD, "asleep")
    if engine is EngineKind.LLAMACPP and _is_sleeping((yield TokenRequest("/props"))):
        return TokenFinding(TokenSeen.UNTOLD, "asleep")
    names = _loaded(models, wanted) or _loadable(models or (), loadable)
    if not names:
        return TokenFinding(TokenSeen.UNTOLD, "no model is loaded" if models is not None else "its models are not known")
    found: list[TokenFinding] = []
    for name in names[: MODELS_ASKED_MAX if engine in _PROCESS_A_MODEL else 1]:
        found.append((yield from _ask_openai(engine, name)))
        if found[-1].seen is TokenSeen.BARREN:
            break
    return _gravest(found)


def ask_expiries(engine: EngineKind) -> TokenAsking[Mapping[str, str]]:
    """Ask until when each model in memory stays, by name, as text: what the next question must find changed. Only Ollama tells.

    To be asked a second after a question: only then has Ollama noted that it is over.
    """
    if engine is not EngineKind.OLLAMA:
        return NOTHING_SPENT
    return {one.name: one.expires_at for one in _read_ps((yield TokenRequest("/api/ps")))}


# --- Ollama


def _ask_ollama(
    version: str, models: Sequence[Model], spent: Mapping[str, str], loadable: Sequence[str]
) -> TokenAsking[TokenFinding]:
    first = _read_ps((yield TokenRequest("/api/ps")))
    if not first:
        for name in _loadable(models, loadable):
            return (yield from _ask_ollama_model(version, _Running(name)))
        return TokenFinding(TokenSeen.UNTOLD, "no model is loaded")
    # Of a model that loads, or whose first request runs, the end of its time moves on with every look at it.
    settled = {(one.name, one.expires_at) for one in _read_ps((yield TokenRequest("/api/ps")))}
    speechless = {model.name for model in models if not _can_complete(model)}
    found: list[TokenFinding] = []
    for one in first:
        if one.name in speechless:
            continue
        if (one.name, one.expires_at) not in settled:
            found.append(TokenFinding(TokenSeen.UNTOLD, "its model loads, or is busy with its first request"))
        elif spent.get(one.name) == one.expires_at and one.expires_at < _FOR_EVER_YEAR:
            found.append(TokenFinding(TokenSeen.UNTOLD, "nobody has used it since the last question; another one would pin it"))
        else:
            found.append((yield from _ask_ollama_model(version, one)))
        if found[-1].seen is TokenSeen.BARREN or len(found) == MODELS_ASKED_MAX:
            break
    return _gravest(found)


def _ask_ollama_model(version: str, running: _Running) -> TokenAsking[TokenFinding]:
    options: dict[str, int] = {"num_predict": 1, "temperature": 0}
    if running.context_length > 0 and _is_since(version, _TELLS_CONTEXT_SINCE):
        # Another context than the loaded one makes Ollama load the model anew (engines.md, section 0).
        options["num_ctx"] = running.context_length
    body = {"model": running.name, "messages": [{"role": "user", "content": PROMPT}], "stream": False, "options": options}
    answer = yield TokenRequest("/api/chat", msgspec.json.encode(body))
    return _judge(EngineKind.OLLAMA, answer)


def _read_ps(answer: ProbeAnswer | None) -> tuple[_Running, ...]:
    if answer is None or answer.status != 200:
        return ()
    try:
        return tuple(one for one in _PS.decode(answer.body).models or () if one.name)
    except (ValueError, RecursionError):
        return ()


def _loadable(models: Sequence[Model], names: Sequence[str]) -> tuple[str, ...]:
    """Return the first of `names` that is listed and writes text; none where there is none."""
    listed = {model.name for model in models if _can_complete(model)}
    return tuple(name for name in names if name in listed)[:1]


def _can_complete(model: Model) -> bool:
    """Whether the model writes text; True where its entry does not tell."""
    try:
        capabilities = _TAGS.decode(model.tags_entry).capabilities if model.tags_entry else None
    except (ValueError, RecursionError):
        return True
    return capabilities is None or "completion" in capabilities


def _is_since(version: str, since: tuple[int, int]) -> bool:
    found = _VERSION.match(version)
    return found is not None and (int(found[1]), int(found[2])) >= since


# --- the others


def _loaded(models: Sequence[Model] | None, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the models in memory, those that are wanted first; a model's aliases stand for it once."""
    if models is None:
        return tuple(dict.fromkeys(wanted))
    loaded = [model for model in models if model.is_loaded]
    loaded.sort(key=lambda model: model.name not in wanted)
    by_entry: dict[str, str] = {}
    for model in loaded:
        by_entry.setdefault(model.openai_entry or model.name, model.name)
    return tuple(by_entry.values())


def _is_sleeping(answer: ProbeAnswer | None) -> bool:
    """Read llama.cpp's /props, which does not wake it."""
    if answer is None or answer.status != 200:
        return False
    try:
        return _PROPS.decode(answer.body).is_sleeping
    except (ValueError, RecursionError):
        return False


def _ask_openai(engine: EngineKind, model: str) -> TokenAsking[TokenFinding]:
    messages = [{"role": "user", "content": PROMPT}]
    found = yield from _post(engine, "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 1})
    if found is None:
        found = yield from _post(engine, "/v1/completions", {"model": model, "prompt": PROMPT, "max_tokens": 1})
    return found if found is not None else TokenFinding(TokenSeen.UNTOLD, "its model completes no text")


def _post(engine: EngineKind, path: str, body: Mapping[str, object]) -> TokenAsking[TokenFinding | None]:
    """Ask; None where another path may be the right one."""
    answer = yield TokenRequest(path, msgspec.json.encode({**body, "stream": False}))
    found = _judge(engine, answer)
    is_other = answer is not None and answer.status in _OTHER_PATH and found.seen is TokenSeen.UNTOLD
    return None if is_other else found


# --- answers

_UNTOLD: Final = frozenset({FailureKind.BUSY, FailureKind.MODEL_MISSING, FailureKind.UNSUPPORTED})


def _judge(engine: EngineKind, answer: ProbeAnswer | None) -> TokenFinding:
    if answer is None:
        return TokenFinding(TokenSeen.BARREN)
    if answer.status >= 300:
        kind = classify(engine, status=answer.status, retry_after=answer.headers.get("retry-after", ""), body=answer.body)
        seen = TokenSeen.UNTOLD if kind is None or kind in _UNTOLD else TokenSeen.BARREN
        return TokenFinding(TokenSeen.LOADING if kind is FailureKind.LOADING else seen, answered(answer))
    try:
        told = msgspec.json.decode(answer.body)
    except (ValueError, RecursionError):
        return TokenFinding(TokenSeen.BARREN, "gave an answer that is not JSON")
    if not isinstance(told, dict):
        return TokenFinding(TokenSeen.BARREN, "gave an answer of an unknown shape")
    if told.get("error"):
        return TokenFinding(TokenSeen.BARREN, answered(answer))
    return _TOKEN if _has_token(told) else TokenFinding(TokenSeen.BARREN, "gave an answer without a token")


def _has_token(told: Mapping[str, object]) -> bool:
    """Whether an answer holds a token: a text, or a count of it, for the first token may be one that is not shown.

    Ollama stops an endless repetition with 200, no finish and no count (engines.md, 2.2): that is none.
    """
    counts = (told.get("eval_count"), _at(told.get("usage"), "completion_tokens"))
    if any(isinstance(count, int) and count > 0 for count in counts):
        return True
    return any(isinstance(text, str) and text for text in _texts(told))


def _texts(told: Mapping[str, object]) -> Iterator[object]:
    choices = told.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    yield _at(first, "text")
    for message in (told.get("message"), _at(first, "message")):
        for key in ("content", "thinking", "reasoning_content", "reasoning"):
            yield _at(message, key)
    # A generic server that counts nothing and shows no reasoning still says why it ended.
    if "usage" not in told:
        yield _at(first, "finish_reason")


def _at(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None


def _gravest(found: Sequence[TokenFinding]) -> TokenFinding:
    """Return what decides: nothing generated before a token, a token before anything that tells less."""
    for seen in (TokenSeen.BARREN, TokenSeen.TOKEN, TokenSeen.LOADING):
        for one in found:
            if one.seen is seen:
                return one
    return found[0] if found else TokenFinding(TokenSeen.UNTOLD, "no loaded model completes text")
