"""What a client reads when its exchange failed."""

import pytest

from understudy.core.ask import Ask
from understudy.core.transcript import Refusal
from understudy.core.wording import ATTEMPTS_MAX, MODEL_CHARACTERS_MAX, REFUSAL_WORDS, words_for, words_of_break
from understudy.errors import Failure, FailureKind

ASK = Ask(model="qwen")
REFUSED = Failure(FailureKind.REFUSED, "gpu0")
BROKEN = Failure(FailureKind.SERVER_ERROR, "gpu1", status=500)


def test_unknown_model_is_named() -> None:
    assert words_for(FailureKind.MODEL_UNKNOWN, ASK, ()) == "model 'qwen' not found: no backend has it"


def test_endless_model_name_is_cut() -> None:
    words = words_for(FailureKind.MODEL_UNKNOWN, Ask(model="q" * 5000), ())
    assert "q" * MODEL_CHARACTERS_MAX in words
    assert "q" * (MODEL_CHARACTERS_MAX + 1) not in words


def test_one_attempt_is_told_with_its_backend() -> None:
    assert words_for(FailureKind.REFUSED, ASK, [REFUSED]) == "the attempt failed: gpu0 refused the connection"


def test_every_attempt_is_told_with_what_it_answered() -> None:
    said = words_for(FailureKind.SERVER_ERROR, ASK, [REFUSED, BROKEN])
    assert said == "every attempt failed: gpu0 refused the connection; gpu1 answered with a server error (500)"


def test_only_the_last_of_many_attempts_are_told() -> None:
    said = words_for(FailureKind.REFUSED, ASK, [REFUSED] * 30)
    assert said.count("gpu0") == ATTEMPTS_MAX


def test_without_attempts_the_meaning_is_told() -> None:
    assert words_for(FailureKind.NO_ROOM, ASK, ()) == "every backend is at its in_flight_max"


def test_what_concerns_all_backends_names_none() -> None:
    assert words_for(FailureKind.NONE_USABLE, ASK, [REFUSED]) == "no backend is usable"


def test_break_is_told_with_who_failed_and_why_it_does_not_go_on() -> None:
    failures = [Failure(FailureKind.BODY_CUT, "gpu0"), Failure(FailureKind.REFUSED, "gpu1")]
    assert words_of_break(FailureKind.REFUSED, failures, Refusal.NO_BACKEND) == (
        "the answer broke off: gpu0 broke off in the middle of its answer; gpu1 refused the connection; "
        "no backend that could go on came in time"
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (FailureKind.STOPPING, "understudy is stopping"),
        (FailureKind.INTERNAL, "understudy failed"),
        (FailureKind.TOTAL_TIMEOUT, "did not finish within timeouts.total"),
    ],
)
def test_break_that_is_no_backends_own_is_told_by_its_meaning(kind: FailureKind, words: str) -> None:
    assert words_of_break(kind, (), None) == f"the answer broke off: {words}"


def test_what_happens_again_and_again_is_told_once() -> None:
    broken = Failure(FailureKind.BODY_CUT, "gpu0")
    assert words_of_break(FailureKind.REFUSED, [broken, *[REFUSED] * 30], None) == (
        "the answer broke off: gpu0 broke off in the middle of its answer; gpu0 refused the connection"
    )


def test_many_failures_of_a_break_are_told_to_a_bound() -> None:
    many = [Failure(FailureKind.REFUSED, f"gpu{number}") for number in range(30)]
    assert words_of_break(FailureKind.REFUSED, many, None).count("refused") == ATTEMPTS_MAX


@pytest.mark.parametrize("refusal", list(Refusal))
def test_every_refusal_has_its_words(refusal: Refusal) -> None:
    assert words_of_break(FailureKind.BODY_CUT, (), refusal).endswith(REFUSAL_WORDS[refusal])
    assert len(set(REFUSAL_WORDS.values())) == len(Refusal)
