"""Chances against exact whole-number arithmetic, and against every order in which two samples can be mixed."""

from collections import Counter
from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.significance import higher_p, lower_p, quantile, rank_of, worse_share_p

# Within this share of the exact value: what logarithms of factorials leave of a float.
NEAR = 1e-8
LEVELS = (0.05, 0.001, 0.0001)


def at_least(seen: int, drawn: int, marked: int, total: int) -> Fraction:
    """The hypergeometric tail in whole numbers."""
    return Fraction(
        sum(comb(marked, at) * comb(total - marked, drawn - at) for at in range(seen, drawn + 1) if at <= marked),
        comb(total, drawn),
    )


def no_more_before(preceding: int, count: int, rank: int, other_count: int) -> Fraction:
    """The negative hypergeometric tail in whole numbers, from its own definition: where the other's value of `rank` stands."""
    orders = sum(
        comb(before + rank - 1, before) * comb(count - before + other_count - rank, count - before)
        for before in range(preceding + 1)
    )
    return Fraction(orders, comb(count + other_count, count))


def made_up(margin: Fraction, count: int) -> int:
    """How many of `count` the margin is, rounded up."""
    return -((-margin * count) // 1)


def binomial(count: int, share: float) -> list[float]:
    """The chance of each number of failures among `count`."""
    return [comb(count, at) * share**at * (1.0 - share) ** (count - at) for at in range(count + 1)]


def false_alarm_chance(count: int, other_count: int, other_share: float, margin: float, level: float) -> float:
    """The chance that ours, worse by the margin and no more, has a p of at most `level`: over every outcome, not by trying."""
    ours, other = binomial(count, other_share + margin), binomial(other_count, other_share)
    chance, fewest = 0.0, 0
    for other_failed, of_other in enumerate(other):
        # The more of the other's failed, the more of ours may.
        while fewest <= count and worse_share_p(fewest, count, other_failed, other_count, margin) > level:
            fewest += 1
        chance += of_other * sum(ours[fewest:])
    return chance


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Failed and total of ours, then of the other."""
    total, other_total = draw(st.integers(0, 300)), draw(st.integers(0, 300))
    return draw(st.integers(0, total)), total, draw(st.integers(0, other_total)), other_total


@given(counts(), st.integers(0, 40))
def test_share_p_is_that_of_exact_arithmetic(of: tuple[int, int, int, int], hundredths: int) -> None:
    failed, total, other_failed, other_total = of
    margin = Fraction(hundredths, 100)
    given_failed = min(other_total, other_failed + made_up(margin, other_total))
    taken = max(0, failed - made_up(margin, total))
    exact = max(
        at_least(failed, total, failed + given_failed, total + other_total),
        at_least(taken, total, taken + other_failed, total + other_total),
    )
    assert worse_share_p(*of, hundredths / 100) == pytest.approx(float(exact), rel=NEAR, abs=1e-290)


@pytest.mark.parametrize("of", [(60, 2000, 8, 2000), (260, 2000, 60, 2000), (50, 50, 0, 2000), (2000, 2000, 0, 2000)])
def test_share_p_is_exact_for_counts_as_large_as_are_kept(of: tuple[int, int, int, int]) -> None:
    failed, total, other_failed, other_total = of
    exact = at_least(failed, total, failed + other_failed, total + other_total)
    assert worse_share_p(*of, 0.0) == pytest.approx(float(exact), rel=NEAR, abs=1e-290)


def test_share_p_of_fishers_tea_lady() -> None:
    """She tells all four cups rightly: one chance in seventy (The Design of Experiments, 1935)."""
    assert worse_share_p(4, 4, 0, 4, 0.0) == pytest.approx(1 / 70)
    assert worse_share_p(3, 4, 1, 4, 0.0) == pytest.approx(17 / 70)


@given(counts(), st.floats(0.0, 1.0))
def test_share_p_falls_with_our_failures_and_rises_with_the_margin(of: tuple[int, int, int, int], margin: float) -> None:
    failed, total, other_failed, other_total = of
    p = worse_share_p(failed, total, other_failed, other_total, margin)
    assert 0.0 <= p <= 1.0
    if failed < total:
        assert worse_share_p(failed + 1, total, other_failed, other_total, margin) <= p + NEAR
    assert worse_share_p(failed, total, other_failed, other_total, margin + 0.05) >= p - NEAR


@pytest.mark.parametrize("of", [(0, 0, 3, 100), (3, 100, 0, 0), (0, 0, 0, 0), (0, 100, 0, 100)])
def test_share_p_is_1_where_nothing_was_seen(of: tuple[int, int, int, int]) -> None:
    assert worse_share_p(*of, 0.02) == 1.0


def test_margin_of_two_hundredths_of_fifty_is_one_failure_and_not_two() -> None:
    """A product of floats is often a little more than the whole number it means."""
    assert worse_share_p(9, 50, 0, 50, 0.02) == max(worse_share_p(9, 50, 1, 50, 0.0), worse_share_p(8, 50, 0, 50, 0.0))
    assert 0.07 * 100 > 7
    assert worse_share_p(30, 100, 0, 100, 0.07) == max(worse_share_p(30, 100, 7, 100, 0.0), worse_share_p(23, 100, 0, 100, 0.0))


@pytest.mark.parametrize("margin", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("sizes", [(50, 50), (50, 150), (150, 50), (120, 120)])
def test_share_worse_by_the_margin_alarms_at_most_as_often_as_the_level_says(sizes: tuple[int, int], margin: float) -> None:
    """At every share that the other may have: a margin given to one side alone alarms 300 times too often at 0.7 and 0.3."""
    for share in (0.005, 0.03, 0.2, 0.5, 0.7, 0.9, 0.98):
        if share + margin <= 1.0:
            for level in LEVELS:
                assert false_alarm_chance(*sizes, share, margin, level) <= level


@st.composite
def places(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """How many of ours precede, how many ours are, the other's rank and how many those are."""
    count, other_count = draw(st.integers(0, 200)), draw(st.integers(1, 200))
    return draw(st.integers(0, count)), count, draw(st.integers(1, other_count)), other_count


@given(places())
def test_precedence_p_is_that_of_exact_arithmetic(at: tuple[int, int, int, int]) -> None:
    preceding, count, rank, other_count = at
    other = [10.0 * each for each in range(1, other_count + 1)]
    before, after = [10.0 * rank - 5.0] * preceding, [10.0 * rank + 5.0] * (count - preceding)
    exact = float(no_more_before(preceding, count, rank, other_count))
    assert higher_p(before + after, other, 1.0, rank) == pytest.approx(exact, rel=NEAR, abs=1e-290)
    # The mirror: what lay before lies after, and ranks are counted from the other end.
    mirrored = [10_000.0 - each for each in reversed(before + after)]
    mirror_p = lower_p(mirrored, [10_000.0 - each for each in reversed(other)], 1.0, other_count + 1 - rank)
    assert mirror_p == pytest.approx(exact, rel=NEAR, abs=1e-290)


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_alike_samples_of_any_ties_alarm_at_most_as_often_as_the_level_says(
    count: int, other_count: int, data: st.DataObject
) -> None:
    """All ways to part one lot of values into ours and the other's: p is at most x in at most x of them, for every x."""
    lot = sorted(data.draw(st.lists(st.integers(1, 4), min_size=count + other_count, max_size=count + other_count)))
    rank = data.draw(st.integers(1, other_count))
    for test in (higher_p, lower_p):
        seen: Counter[float] = Counter()
        for mine in combinations(range(len(lot)), count):
            ours = [float(lot[at]) for at in mine]
            other = [float(each) for at, each in enumerate(lot) if at not in mine]
            seen[round(test(ours, other, 1.0, rank), 9)] += 1
        ways = 0
        for p in sorted(seen):
            ways += seen[p]
            assert ways <= (p + 1e-8) * comb(len(lot), count)


def test_values_at_the_ratio_itself_are_no_evidence() -> None:
    """Whatever a float makes of the product."""
    other = [0.1] * 100
    assert higher_p([0.1 * 1.5] * 100, other, 1.5, 95) == 1.0
    assert higher_p([0.15] * 100, other, 1.5, 95) == 1.0
    assert lower_p([0.07] * 100, other, 0.7, 50) == 1.0
    assert lower_p([0.1 * 0.7] * 100, other, 0.7, 50) == 1.0
    assert higher_p([0.151] * 100, other, 1.5, 95) < 1e-6
    assert lower_p([0.069] * 100, other, 0.7, 50) < 1e-15


def test_sample_without_values_is_no_evidence_against_ours() -> None:
    assert higher_p([], [1.0], 1.5, 1) == 1.0
    assert lower_p([], [1.0], 0.7, 1) == 1.0


@given(st.lists(st.floats(0.1, 100.0), min_size=1), st.lists(st.floats(0.1, 100.0), min_size=1), st.floats(1.0, 3.0))
def test_better_values_never_make_p_smaller(ours: list[float], other: list[float], ratio: float) -> None:
    ours.sort()
    other.sort()
    rank = rank_of(0.95, len(other))
    assert higher_p([each / 2 for each in ours], other, ratio, rank) >= higher_p(ours, other, ratio, rank) - NEAR
    assert higher_p(ours, other, ratio + 0.5, rank) >= higher_p(ours, other, ratio, rank) - NEAR
    assert lower_p([each * 2 for each in ours], other, 1 / ratio, rank) >= lower_p(ours, other, 1 / ratio, rank) - NEAR


@pytest.mark.parametrize(
    ("share", "count", "rank"),
    [
        (0.95, 1, 1),
        (0.95, 20, 19),
        (0.95, 21, 20),
        (0.95, 50, 48),
        (0.95, 2000, 1900),
        (0.5, 4, 2),
        (0.5, 5, 3),
        (0.0, 5, 1),
        (1.0, 5, 5),
    ],
)
def test_rank_is_the_smallest_that_the_share_does_not_exceed(share: float, count: int, rank: int) -> None:
    assert rank_of(share, count) == rank


@given(st.integers(1, 3000), st.integers(0, 100))
def test_rank_is_that_of_exact_arithmetic(count: int, hundredths: int) -> None:
    assert rank_of(hundredths / 100, count) == max(1, made_up(Fraction(hundredths, 100), count))


@given(st.integers(1, 3000))
def test_rank_of_a_half_is_the_lower_median(count: int) -> None:
    assert rank_of(0.5, count) == (count + 1) // 2


@given(st.lists(st.floats(0.0, 1e6), min_size=1), st.floats(0.0, 1.0))
def test_quantile_is_one_of_the_values_and_enough_do_not_exceed_it(values: list[float], share: float) -> None:
    values.sort()
    found = quantile(values, share)
    assert found in values
    assert sum(each <= found for each in values) >= share * len(values) - 1e-6


def test_quantile_of_nothing_is_a_bug_and_raises() -> None:
    with pytest.raises(IndexError):
        quantile([], 0.95)
