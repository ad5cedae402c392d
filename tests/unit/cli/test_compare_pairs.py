"""Two answers beside each other, and what many come to."""

from understudy.cli.compare_asking import Answer
from understudy.cli.compare_expectations import Expectation
from understudy.cli.compare_pairs import Judged, Judgement, Pair, pair_of, totals_of
from understudy.cli.compare_prompts import Entry
from understudy.core.color import Color

ENTRY = Entry(1, 1, [{"role": "user", "content": "?"}])
EXPECTING = Entry(2, 2, ENTRY.messages, expect=Expectation(contains=("yes",)))


def test_each_answer_is_held_against_what_was_expected() -> None:
    pair = pair_of(EXPECTING, Answer("yes it is"), Answer("no it is"))
    assert (pair.unmet(Color.BLUE), pair.unmet(Color.GREEN)) == ((), ('does not contain "yes"',))
    assert pair.similarity == 2 / 3


def test_an_answer_that_did_not_come_is_not_as_expected_and_like_nothing() -> None:
    pair = pair_of(EXPECTING, Answer("yes"), Answer("yes", error="broke off"))
    assert pair.unmet(Color.GREEN) == ("no answer",)
    assert pair.similarity is None
    assert not pair.is_whole


def test_where_nothing_is_expected_nothing_is_unmet() -> None:
    pair = pair_of(ENTRY, Answer("a"), Answer("b"))
    assert (pair.unmet(Color.BLUE), pair.unmet(Color.GREEN)) == (None, None)


def test_totals_count_what_came_and_compare_what_both_measured() -> None:
    pairs = [
        pair_of(EXPECTING, Answer("yes", tokens=3, ttft_s=0.1, speed=50.0), Answer("yes", tokens=4, ttft_s=0.2, speed=40.0)),
        pair_of(EXPECTING, Answer("yes", tokens=3, ttft_s=0.3), Answer("no", ttft_s=0.6, is_truncated=True, faults=("empty",))),
        pair_of(ENTRY, Answer("a", tokens=1, is_estimated=True, ttft_s=9.0), Answer(error="refused the connection")),
    ]
    totals = totals_of(pairs)
    assert (totals.prompts, totals.whole, totals.expected, totals.similarity) == (3, 2, 2, 0.5)
    blue, green = totals.blue, totals.green
    assert (blue.answered, blue.errors, blue.failed, blue.met, blue.tokens, blue.is_estimated) == (3, 0, 0, 2, 7, True)
    assert (green.answered, green.errors, green.faults, green.failed, green.truncated, green.met) == (2, 1, 1, 2, 1, 1)
    assert (blue.ttft_s, green.ttft_s, blue.speed) == (0.3, 0.4, 50.0)
    assert (totals.ttft_ratio, totals.speed_ratio) == (2.0, 0.8)


def test_the_judges_words_are_counted() -> None:
    said = [Judged(Color.BLUE), Judged(Color.GREEN), Judged(Color.NONE), Judged(Color.NONE, is_swayed=True)]
    said += [Judged(Color.NONE, unreadable=2), Judged(Color.NONE, is_same=True)]
    said += [Judged(Color.NONE, error="refused the connection"), Judged(Color.NONE, error="answered 500")]
    pairs = [pair_of(ENTRY, Answer("a"), Answer("b")) for _ in said]
    for pair, judged in zip(pairs, said, strict=True):
        pair.judged = judged
    found = totals_of(pairs).judgement
    assert found == Judgement(7, 1, 1, 2, unreadable=1, swayed=1, unasked=2, same=1, error="refused the connection")
    assert found.readable == 4


def test_of_what_was_not_checked_nothing_was_expected() -> None:
    assert totals_of([Pair(EXPECTING, Answer("yes"), Answer("no"))]).expected == 0


def test_of_nothing_there_are_totals_too() -> None:
    totals = totals_of([])
    assert (totals.whole, totals.similarity, totals.ttft_ratio, totals.blue.ttft_s) == (0, None, None, None)
