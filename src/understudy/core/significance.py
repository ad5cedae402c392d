"""How likely a difference between two samples is chance alone: exact tests that assume no shape of the values.

Called by core.guard. Pure statistics of plain numbers. Never knows a color, a bound's name or a level: it says p, the caller
decides.

Both tests end in the same distribution, the hypergeometric one, whose tail is summed term by term and never approximated. Both
are one-sided: they ask only whether ours is worse. Exact means that, where ours is no worse and samples are independent, p comes
out at most x with a probability of at most x; as counts are whole numbers, it is mostly far less.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import ceil, exp, lgamma

# Values this near to each other, as a share, are equal: a product of two floats is no evidence.
_TIE = 1e-9
# A term smaller than this share of the sum changes nothing in a float.
_NEGLIGIBLE = 1e-17


def rank_of(share: float, count: int) -> int:
    """Return which of `count` ordered values, from 1, is the quantile of `share`: the nearest rank.

    The smallest rank that at least that share of the values do not exceed (Hyndman and Fan, "Sample quantiles in statistical
    packages", The American Statistician 50, 1996: definition 1).
    """
    return min(count, max(1, ceil(share * count - _TIE)))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of `share` of values in ascending order, one of them. Raises IndexError where there are none."""
    return ordered[rank_of(share, len(ordered)) - 1]


def worse_share_p(failed: int, total: int, other_failed: int, other_total: int, margin: float) -> float:
    """Return how likely at least `failed` of our `total` is, if our share were at most the other's and `margin` (a share) more.

    Fisher's exact test (Fisher, "The logic of inductive inference", Journal of the Royal Statistical Society 98, 1935),
    one-sided, after the margin was made up for: once by counting as many more of the other's as failed, once by counting so many
    fewer of ours, each rounded up. The larger p counts. What is made up is certain where chance would spread it; that errs to
    the safe side for shares below a half in the first and above a half in the second, and to the other side else. 1.0 where a
    side has none.
    """
    given = min(other_total, other_failed + ceil(margin * other_total - _TIE))
    taken = max(0, failed - ceil(margin * total - _TIE))
    both = total + other_total
    return max(
        _at_least_p(failed, drawn=total, marked=failed + given, total=both),
        _at_least_p(taken, drawn=total, marked=taken + other_failed, total=both),
    )


def higher_p(ours: Sequence[float], other: Sequence[float], ratio: float, rank: int) -> float:
    """Return how likely so few of ours at or below the other's value of `rank` are, if ours were no more than `ratio` times its.

    The precedence or control quantile test, on ours divided by `ratio` (Mathisen, "A method of testing the hypothesis that two
    samples are from the same population", Annals of Mathematical Statistics 14, 1943; Nelson, "Tables for a precedence life
    test", Technometrics 5, 1963). Both in ascending order; `rank` from 1. Values that tie count as not higher, so that p is
    rather too large. 1.0 where ours has none; raises IndexError where the other has none.
    """
    preceding = bisect_right(ours, other[rank - 1] * ratio * (1.0 + _TIE))
    return _precedence_p(preceding, len(ours), rank, len(other))


def lower_p(ours: Sequence[float], other: Sequence[float], ratio: float, rank: int) -> float:
    """Return how likely so few of ours at or above the other's value of `rank` are, if ours were no less than `ratio` times its.

    `higher_p` seen in a mirror: the same order, ranks, sources and care with ties.
    """
    preceding = len(ours) - bisect_left(ours, other[rank - 1] * ratio * (1.0 - _TIE))
    return _precedence_p(preceding, len(ours), len(other) + 1 - rank, len(other))


def _precedence_p(preceding: int, count: int, rank: int, other_count: int) -> float:
    """Return how likely at most `preceding` of our `count` values come before the other's value of `rank`, if both are alike.

    That is the negative hypergeometric distribution: no more than so many come before it exactly when `rank` of the other's are
    among the first `preceding + rank` values of all.
    """
    return _at_least_p(rank, drawn=preceding + rank, marked=other_count, total=count + other_count)


def _at_least_p(seen: int, *, drawn: int, marked: int, total: int) -> float:
    """Return how likely at least `seen` marked ones are among `drawn` of `total`, `marked` of which are marked.

    `seen` is no more than either. Summed away from the most likely number, where terms only fall: the first ones are all that
    counts.
    """
    if seen <= max(0, drawn + marked - total):
        return 1.0
    mode = (drawn + 1) * (marked + 1) // (total + 2)
    if seen > mode:
        return min(1.0, _falling_tail(seen, drawn, marked, total))
    # At least so many marked ones are at most so many others.
    return max(0.0, 1.0 - _falling_tail(drawn - seen + 1, drawn, total - marked, total))


def _falling_tail(seen: int, drawn: int, marked: int, total: int) -> float:
    """Return the sum over `seen` and more, each term of which is no larger than the one before."""
    log_term = _log_comb(marked, seen) + _log_comb(total - marked, drawn - seen) - _log_comb(total, drawn)
    term = tail = exp(log_term)
    for at in range(seen, min(drawn, marked)):
        term *= (marked - at) * (drawn - at) / ((at + 1) * (total - marked - drawn + at + 1))
        tail += term
        if term <= tail * _NEGLIGIBLE:
            break
    return tail


def _log_comb(count: int, chosen: int) -> float:
    return lgamma(count + 1) - lgamma(chosen + 1) - lgamma(count - chosen + 1)
