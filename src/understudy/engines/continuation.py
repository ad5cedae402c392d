"""Write the request that makes a backend go on with an answer that another one began, by its engine's own means.

Called by dataplane.resuming, which sends the questions and the continuation. Pure. What an engine's means carries is
core.transcript.CARRIES; whether this model's template can do it is asked, never assumed. Never reads an event (dialects).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from understudy.core.snapshot import EngineKind
from understudy.core.transcript import Case, Continuation, Means, Refusal, Shape, Spent, cases_of, is_carried
from understudy.dialects.events import read_json
from understudy.engines import continue_llamacpp as llamacpp
from understudy.engines import continue_ollama as ollama
from understudy.engines import continue_sglang as sglang
from understudy.engines import continue_vllm as vllm
from understudy.engines.broken import Abilities, Asking, Broken, Cut, Outcome, Question, encode, going_on

__all__ = ["Abilities", "Broken", "Question", "continuation", "with_ids"]

_CHATS: Final = frozenset({Shape.OPENAI_CHAT, Shape.ANTHROPIC})
_OPENAI: Final = frozenset({Shape.OPENAI_CHAT, Shape.OPENAI_TEXT})


@dataclass(frozen=True, slots=True)
class _Recipe:
    means: Means
    shapes: frozenset[Shape]
    write: Callable[[Cut], Asking[Outcome]]


# Each engine's means, the best first.
_RECIPES: Final[dict[EngineKind, tuple[_Recipe, ...]]] = {
    EngineKind.LLAMACPP: (
        _Recipe(Means.LLAMACPP_IDS, _OPENAI, llamacpp.continue_ids),
        _Recipe(Means.LLAMACPP_CHAT, _CHATS, llamacpp.continue_chat),
        _Recipe(Means.LLAMACPP_TEXT, _OPENAI, llamacpp.continue_text),
    ),
    EngineKind.VLLM: (
        _Recipe(Means.VLLM_IDS, _OPENAI, vllm.continue_ids),
        _Recipe(Means.VLLM_CHAT, frozenset({Shape.OPENAI_CHAT}), vllm.continue_chat),
        _Recipe(Means.VLLM_TEXT, _OPENAI, vllm.continue_text),
    ),
    EngineKind.OLLAMA: (
        _Recipe(Means.OLLAMA_RAW, frozenset(Shape) - {Shape.ANTHROPIC}, ollama.continue_raw),
        _Recipe(Means.OLLAMA_CHAT, _CHATS | {Shape.OLLAMA_CHAT}, ollama.continue_chat),
    ),
    EngineKind.SGLANG: (
        _Recipe(Means.SGLANG_CHAT, frozenset({Shape.OPENAI_CHAT}), sglang.continue_chat),
        _Recipe(Means.SGLANG_TEXT, frozenset({Shape.OPENAI_TEXT}), sglang.continue_text),
    ),
}
_COUNTERS: Final[dict[EngineKind, Callable[[Cut], Asking[Spent | None]]]] = {
    EngineKind.LLAMACPP: llamacpp.count,
    EngineKind.VLLM: vllm.count,
}
# With nothing delivered the request is simply sent again, which every engine carries but for what the splice cannot write.
_ANEW: Final = frozenset(Case) - {Case.SEVERAL_CHOICES, Case.TOOL_CALL, Case.AUDIO}
_ID_PATHS: Final = frozenset({"/v1/chat/completions", "/v1/completions"})
_ANEW_MEANS: Final = {
    EngineKind.LLAMACPP: Means.LLAMACPP_CHAT,
    EngineKind.VLLM: Means.VLLM_CHAT,
    EngineKind.SGLANG: Means.SGLANG_CHAT,
    EngineKind.OLLAMA: Means.OLLAMA_CHAT,
}


def continuation(engine: EngineKind, broken: Broken, abilities: Abilities) -> Asking[Continuation | Spent | Refusal]:
    """Ask what must be known and return the request that goes on, or why there is none. An answer with its finish is counted.

    Yields at most a dozen questions, most of them only the first time for a model (`abilities`). Send each one's answer, or None
    when there was none. Raises nothing, whatever the answers are.
    """
    ask = read_json(broken.body)
    if not isinstance(ask, dict):
        return Refusal.UNREADABLE
    if not _reads_alike(broken, engine):
        return Refusal.NO_MEANS
    cases = cases_of(broken.wish, broken.transcript)
    cut = Cut(broken, ask, cases, abilities)
    if broken.transcript.finish:
        return (yield from _count(engine, cut))
    if not cut.text and not cut.reasoning:
        return _anew(engine, cut)
    recipes = [recipe for recipe in _RECIPES.get(engine, ()) if broken.wish.shape in recipe.shapes]
    carrying = [recipe for recipe in recipes if is_carried(recipe.means, cases)]
    for recipe in carrying:
        if recipe.means not in broken.failed:
            outcome = yield from recipe.write(cut)
            if outcome is not None:
                return outcome
    return Refusal.NO_MEANS if carrying or not recipes else Refusal.CASE


def _count(engine: EngineKind, cut: Cut) -> Asking[Spent | Refusal]:
    """Nothing is left to generate, but its tokens have not been told: ask for those of the prompt and of the answer."""
    counter = _COUNTERS.get(engine)
    told = (yield from counter(cut)) if counter is not None and not cut.cases else None
    return told or Refusal.NO_MEANS


def _reads_alike(broken: Broken, engine: EngineKind) -> bool:
    """Whether `engine` takes prompt and text for what the engine did that had them first, as far as that is known.

    Ollama puts the prompt of /v1/completions into the chat's template, the others leave it alone (engines.md 3.1). Where a
    thought stands open in the text itself, another engine's parser would take what follows out of the text.
    """
    begun_by, text = broken.begun_by, broken.transcript.text
    if begun_by in (EngineKind.AUTO, engine):
        return True
    if broken.wish.shape is Shape.OPENAI_TEXT and EngineKind.OLLAMA in (begun_by, engine):
        return False
    return "<think>" not in text or "</think>" in text


def _anew(engine: EngineKind, cut: Cut) -> Continuation | Refusal:
    """Return the request itself: an empty partial makes engines write something else (engines.md 3.3)."""
    means = _ANEW_MEANS.get(engine)
    if means is None or means in cut.broken.failed:
        return Refusal.NO_MEANS
    if not cut.cases <= _ANEW:
        return Refusal.CASE
    return Continuation(means, cut.path, encode(going_on(cut, None, 0)), cut.shape, 0)


def with_ids(engine: EngineKind, path: str, body: bytes) -> bytes | None:
    """Return the streamed request `body` with token ids asked for; None where this engine or path has none to give.

    Only vLLM tells ids beside its events. llama.cpp has them in `__verbose` alone, which repeats every event and holds the whole
    prompt in the last one: more than an answer is worth, and not to be taken out of the bytes without decoding each. SGLang's
    are unproven, Ollama has none.
    """
    if engine is not EngineKind.VLLM or path.partition("?")[0] not in _ID_PATHS:
        return None
    ask = read_json(body)
    if not isinstance(ask, dict) or ask.get("return_token_ids") is not None:
        return None
    # The other members keep their bytes.
    start = body.index(b"{") + 1
    return b'%b"return_token_ids":true%b%b' % (body[:start], b"," if ask else b"", body[start:])
