"""Say in words, for a client, why its exchange failed.

Called by dataplane.relayed with what core.exchange decided. Pure; the shape around the words is the dialect's.
"""

from collections.abc import Sequence

from understudy.core.ask import Ask
from understudy.core.transcript import Refusal
from understudy.errors import MEANING, Failure, FailureKind, Side

# What is named of the client's own words, and how many attempts: an error is to be read, not to be filled.
MODEL_CHARACTERS_MAX = 200
ATTEMPTS_MAX = 8

REFUSAL_WORDS = {
    Refusal.TURNED_OFF: "continuing is turned off",
    Refusal.DECLINED: "the request declined to be continued",
    Refusal.NOT_TEXT: "an answer of this path is not continued",
    Refusal.UNREADABLE: "what had come of it cannot be read",
    Refusal.CASE: "an answer of this kind is not continued",
    Refusal.NO_MEANS: "no backend can continue a text of this model",
    Refusal.TOO_LONG: "it is too long to be continued",
    Refusal.REPEATING: "the engine stopped an endless repetition",
    Refusal.NO_BACKEND: "no backend that could go on came in time",
    Refusal.BARREN: "what went on yielded nothing",
}

_WITHOUT_ATTEMPTS = frozenset({FailureKind.NONE_USABLE, FailureKind.TOTAL_TIMEOUT, FailureKind.INTERNAL})


def words_for(kind: FailureKind, ask: Ask, failures: Sequence[Failure]) -> str:
    """Return one line that names every attempt, the last `ATTEMPTS_MAX` of them."""
    if kind is FailureKind.MODEL_UNKNOWN:
        return f"model '{ask.model[:MODEL_CHARACTERS_MAX]}' not found: no backend has it"
    if not failures or kind in _WITHOUT_ATTEMPTS:
        return MEANING[kind].words
    tried = "; ".join(_attempt_words(failure) for failure in failures[-ATTEMPTS_MAX:])
    return f"{'every attempt' if len(failures) > 1 else 'the attempt'} failed: {tried}"


def words_of_break(kind: FailureKind, failures: Sequence[Failure], refusal: Refusal | None) -> str:
    """Return one line for a client whose answer broke off: who failed, and why the answer does not go on."""
    # A backend that is asked again and again says the same each time, and the first break is what it was about.
    tried = list(dict.fromkeys(_attempt_words(failure) for failure in failures))
    tried = tried if len(tried) <= ATTEMPTS_MAX else [tried[0], "...", *tried[1 - ATTEMPTS_MAX :]]
    if MEANING[kind].side is not Side.UPSTREAM or kind is FailureKind.TOTAL_TIMEOUT:
        tried.append(MEANING[kind].words)
    why = [REFUSAL_WORDS[refusal]] if refusal is not None else []
    return f"the answer broke off: {'; '.join(tried + why)}"


def _attempt_words(failure: Failure) -> str:
    answered = f" ({failure.status})" if failure.status else ""
    return f"{failure.backend} {failure.meaning.words}{answered}"
