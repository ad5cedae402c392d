"""The table of failures is complete and says of each kind what the failure model promises; operators' mistakes are readable."""

import pytest

from understudy.errors import MEANING, Again, Blame, ConfigError, Failure, FailureKind, Mistake, Side

OURS = {FailureKind.STOPPING, FailureKind.INTERNAL, FailureKind.STORE_UNAVAILABLE}


def test_every_kind_has_a_meaning_and_no_other_has() -> None:
    assert set(MEANING) == set(FailureKind)


@pytest.mark.parametrize("kind", FailureKind)
def test_client_is_told_an_error_in_words(kind: FailureKind) -> None:
    row = MEANING[kind]
    assert 400 <= row.status < 600
    assert row.words
    assert row.words == row.words.strip().rstrip(".")


@pytest.mark.parametrize("kind", FailureKind)
def test_backend_is_blamed_for_upstream_failures_only(kind: FailureKind) -> None:
    row = MEANING[kind]
    assert row.blame is Blame.NO or row.side is Side.UPSTREAM


@pytest.mark.parametrize("kind", [kind for kind, row in MEANING.items() if row.side is not Side.UPSTREAM])
def test_what_is_not_the_backends_failure_is_not_tried_elsewhere(kind: FailureKind) -> None:
    assert MEANING[kind].again is Again.NEVER


@pytest.mark.parametrize(
    "kind", [FailureKind.BUSY, FailureKind.LOADING, FailureKind.MODEL_MISSING, FailureKind.UNSUPPORTED, FailureKind.STALE_REUSE]
)
def test_backend_that_did_nothing_wrong_is_not_blamed(kind: FailureKind) -> None:
    assert MEANING[kind].blame is Blame.NO


def test_server_error_is_the_backends_only_where_another_answers() -> None:
    blamed = {kind for kind, row in MEANING.items() if row.blame is Blame.IF_ANSWERED_ELSEWHERE}
    assert blamed == {FailureKind.SERVER_ERROR}


def test_only_a_stale_connection_is_repeated_at_the_same_backend() -> None:
    assert {kind for kind, row in MEANING.items() if row.again is Again.SAME_BACKEND} == {FailureKind.STALE_REUSE}


def test_our_own_failures_are_told_apart() -> None:
    assert {kind for kind, row in MEANING.items() if row.side is Side.OWN} == OURS


@pytest.mark.parametrize("kind", [FailureKind.CONNECT_TIMEOUT, FailureKind.FIRST_TOKEN_TIMEOUT, FailureKind.STALLED])
def test_deadlines_are_gateway_timeouts(kind: FailureKind) -> None:
    assert MEANING[kind].status == 504


def test_failure_knows_its_meaning() -> None:
    assert Failure(FailureKind.BUSY, "gpu0").meaning is MEANING[FailureKind.BUSY]


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (Mistake("listen", "80", "HOST:PORT", "a.yaml", 3, 9), "a.yaml:3:9: listen: found 80; want HOST:PORT"),
        (Mistake("listen", "80", "HOST:PORT", "a.yaml"), "a.yaml: listen: found 80; want HOST:PORT"),
        (Mistake("listen", "80", "HOST:PORT"), "listen: found 80; want HOST:PORT"),
        (Mistake("", "nothing", "a mapping", "a.yaml"), "a.yaml: found nothing; want a mapping"),
    ],
)
def test_mistake_says_where_it_is_and_what_to_write(mistake: Mistake, words: str) -> None:
    assert str(mistake) == words


def test_unusable_file_tells_every_mistake_in_order() -> None:
    mistakes = (Mistake("a", "1", "2"), Mistake("b", "3", "4"))
    error = ConfigError(mistakes)
    assert error.mistakes == mistakes
    assert str(error).splitlines() == [str(mistake) for mistake in mistakes]
