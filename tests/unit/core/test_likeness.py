"""How alike texts are: plays of answers that two backends gave to the same question."""

import time
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.likeness import WORDS_MAX, likeness

TEXTS = st.text(st.sampled_from("ab. \n雨"), max_size=60)


def test_the_same_text_is_alike_and_another_is_not() -> None:
    assert likeness("Paris is the capital.", "Paris is the capital.") == 1.0
    assert likeness("Paris is the capital", "no idea whatsoever") == 0.0


def test_one_word_of_four_that_differs_is_told_as_a_quarter() -> None:
    assert likeness("Paris is the capital", "Paris was the capital") == 0.75


def test_white_space_does_not_count_and_capitals_do() -> None:
    assert likeness("yes\n  indeed ", "yes indeed") == 1.0
    assert likeness("Yes", "yes") == 0.0


@pytest.mark.parametrize(("one", "other", "wanted"), [("", " \n", 1.0), ("", "word", 0.0), ("word", "", 0.0)])
def test_texts_without_a_word(one: str, other: str, wanted: float) -> None:
    assert likeness(one, other) == wanted


def test_a_script_without_spaces_is_compared_by_its_characters() -> None:
    assert likeness("法国的首都是巴黎", "法国首都是巴黎") == pytest.approx(14 / 15)
    assert likeness("東京です", "東京 です") == 1.0


def test_only_the_beginning_is_looked_at() -> None:
    shared = "word " * WORDS_MAX
    assert likeness(shared + "left", shared + "right") == 1.0
    assert likeness("left " + shared, "right " + shared) < 1.0


@given(TEXTS, TEXTS)
def test_it_is_a_share_and_the_same_both_ways(one: str, other: str) -> None:
    assert 0.0 <= likeness(one, other) <= 1.0
    assert likeness(one, other) == likeness(other, one)


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_it_finds_the_longest_common_subsequence(ours: list[str], theirs: list[str]) -> None:
    found = {words for size in range(len(ours) + 1) for words in combinations(ours, size)}
    shared = [len(words) for size in range(len(theirs) + 1) for words in combinations(theirs, size) if words in found]
    wanted = 2 * max(shared) / (len(ours) + len(theirs)) if ours or theirs else 1.0
    assert likeness(" ".join(ours), " ".join(theirs)) == wanted


def test_the_worst_texts_are_quick() -> None:
    """Few words in ever other orders cost difflib a sixth of a second; a megabyte is not read to its end."""
    worst = [("a b " * 400, "a c " * 400), ("a " * 300 + "b " * 300, "b a " * 300), ("x" * 10**6, "y" * 10**6)]
    started_at_s = time.process_time()
    for one, other in worst:
        likeness(one, other)
    assert time.process_time() - started_at_s < 0.1
