from hashlib import sha256

import pytest

from understudy.core.priority import HIGH, LOW, NORMAL, priority_of

TRUSTED = (sha256(b"sk-other").hexdigest(), sha256(b"sk-boss").hexdigest())


def test_the_greater_goes_first() -> None:
    assert HIGH > NORMAL > LOW


@pytest.mark.parametrize(
    ("word", "priority"),
    [(b"high", HIGH), (b"normal", NORMAL), (b"low", LOW), (b"", NORMAL), (b"highest", NORMAL), (b"1", NORMAL)],
)
def test_a_trusted_key_may_say_one_of_three_words(word: bytes, priority: int) -> None:
    assert priority_of(word, b"sk-boss", TRUSTED) == priority


@pytest.mark.parametrize("word", [b"high", b"low"])
@pytest.mark.parametrize("key", [b"", b"sk-bos", b"sk-boss ", TRUSTED[1].encode(), b"\xff"])
def test_the_word_of_any_other_key_counts_for_nothing(word: bytes, key: bytes) -> None:
    assert priority_of(word, key, TRUSTED) == NORMAL


def test_without_trusted_keys_nobody_is_trusted() -> None:
    assert priority_of(b"high", b"sk-boss", ()) == NORMAL
    assert priority_of(b"high", b"", (sha256(b"").hexdigest(),)) == NORMAL
