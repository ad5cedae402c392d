"""Say in words, for a client, why its exchange failed.

Called by dataplane.relayed with what core.exchange decided. Pure; the shape around the words is the dialect's.
"""

from collections.abc import Sequence

from understudy.core.ask import Ask
from understudy.errors import MEANING, Failure, FailureKind

# What is named of the client's own words, and how many attempts: an error is to be read, not to be filled.
MODEL_CHARACTERS_MAX = 200
ATTEMPTS_MAX = 8

_WITHOUT_ATTEMPTS = frozenset({FailureKind.NONE_USABLE, FailureKind.TOTAL_TIMEOUT, FailureKind.INTERNAL})


def words_for(kind: FailureKind, ask: Ask, failures: Sequence[Failure]) -> str:
    """Return one line that names every attempt, the last `ATTEMPTS_MAX` of them."""
    if kind is FailureKind.MODEL_UNKNOWN:
        return f"model '{ask.model[:MODEL_CHARACTERS_MAX]}' not found: no backend has it"
    if not failures or kind in _WITHOUT_ATTEMPTS:
        return MEANING[kind].words
    tried = "; ".join(_attempt_words(failure) for failure in failures[-ATTEMPTS_MAX:])
    return f"{'every attempt' if len(failures) > 1 else 'the attempt'} failed: {tried}"


def _attempt_words(failure: Failure) -> str:
    answered = f" ({failure.status})" if failure.status else ""
    return f"{failure.backend} {failure.meaning.words}{answered}"
