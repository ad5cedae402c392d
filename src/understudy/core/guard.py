"""Whether a color is worse than the other by more than the operator allows: the guard of a canary and of a switch.

Called by controlplane.rollout_driver for the color that is on trial (core.rollout.candidate), as often as it likes. Pure: what
was measured (core.comparison) and now_s (seconds, loop time) in, a verdict with its numbers out. Never switches anything
(core.rollout) and measures nothing.

A bound is broken when two things are so: what was measured is beyond the bound itself, and so much would be seen by chance in
fewer than one look in ten thousand if the color were exactly at the bound. The first keeps small but certain differences in
peace, the second keeps few samples and bad luck from alarming; a color that is not worse at all is farther from an alarm by the
width of the bound.

LEVEL holds for one look at one bound, on one side, exactly (core.significance), hence at most: numbers are whole, so that most
looks stay below it. Looks at windows that overlap see mostly the same attempts and are not corrected for: at the bound, twenty
looks a window alarm in some five times as many windows as one would. What the tests take for granted is that attempts are
independent of each other and both colors asked alike: failures that come in one burst, or other hours after a switch, when
the other color has only what was frozen, count as what they look like.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from understudy.core.color import Color, GuardRules
from understudy.core.comparison import Comparison, Samples
from understudy.core.significance import higher_p, lower_p, quantile, rank_of, worse_share_p

LEVEL = 0.0001
"""How likely a look at a color that is exactly at a bound may find that bound broken, at most."""

_TTFT_SHARE = 0.95
_SPEED_SHARE = 0.5
# What is measured and as near to the bound as a product of floats tells is not beyond it.
_TIE = 1e-9


class Verdict(StrEnum):
    """What a look has found."""

    HOLDS = "holds"  # at least one bound was looked at, none of those is broken
    BROKEN = "broken"  # at least one bound is
    TOO_FEW = "too_few"  # no bound could be looked at yet


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one color, None where nothing was. Speed is in characters a second.

    `is_frozen`: measured before the switch that took its traffic.
    """

    color: Color
    exchanges: int = 0
    errors: float | None = None
    ttft_p95_s: float | None = None
    speed_median: float | None = None
    is_frozen: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What one look has found: of the color on trial, `candidate`, against the other one. `reason` has the numbers in words."""

    verdict: Verdict
    reason: str
    candidate: Figures
    other: Figures


@dataclass(frozen=True, slots=True)
class _Finding:
    """What a look at one bound came to: `text` says it in words."""

    verdict: Verdict
    text: str


def look(comparison: Comparison, rules: GuardRules, candidate: Color, now_s: float) -> Look:
    """Compare `candidate` with the other color over the window. Raises ValueError for Color.NONE, which has no other.

    TOO_FEW until both colors have `exchanges_min` attempts; the other's may be frozen ones, the candidate's only live ones, since
    what it did in an earlier trial is no fault of this one. Then errors can be looked at. The time to first content and the speed
    can where both colors have as many measured ones each. HOLDS says that at least one bound was looked at and that all of those
    hold, and the reason names those that were not; where none can be looked at, it is TOO_FEW. Without any bound nothing can
    break, and it HOLDS.
    """
    if candidate is Color.NONE:
        raise ValueError("the guard compares blue with green; found none, want one of the two")
    other = candidate.other
    ours = comparison.samples(candidate, rules.window_s, now_s)
    theirs = comparison.samples(other, rules.window_s, now_s, _least(rules))
    figures = (_figures(candidate, ours), _figures(other, theirs))
    if not rules.is_on:
        return Look(Verdict.HOLDS, "no bound is set", *figures)
    few = [f"{each.exchanges} of {_least(rules)} exchanges at {each.color}" for each in figures if each.exchanges < _least(rules)]
    if few:
        return Look(Verdict.TOO_FEW, ", ".join(few), *figures)
    findings = [_errors(rules, ours, theirs, figures), _ttft(rules, ours, theirs, figures), _speed(rules, ours, theirs, figures)]
    return _look_of([each for each in findings if each is not None], figures)


def _look_of(findings: list[_Finding], figures: tuple[Figures, Figures]) -> Look:
    by_verdict = {each: [found.text for found in findings if found.verdict is each] for each in Verdict}
    broken, holding, unseen = by_verdict[Verdict.BROKEN], by_verdict[Verdict.HOLDS], by_verdict[Verdict.TOO_FEW]
    if broken:
        return Look(Verdict.BROKEN, "; ".join(broken), *figures)
    if not holding:
        return Look(Verdict.TOO_FEW, "; ".join(unseen), *figures)
    return Look(Verdict.HOLDS, "; ".join([*holding, *(f"not looked at: {each}" for each in unseen)]), *figures)


def _figures(color: Color, samples: Samples) -> Figures:
    return Figures(
        color,
        exchanges=samples.total,
        errors=samples.failed_share,
        ttft_p95_s=quantile(samples.ttfts, _TTFT_SHARE) if samples.ttfts else None,
        speed_median=quantile(samples.speeds, _SPEED_SHARE) if samples.speeds else None,
        is_frozen=samples.is_frozen,
    )


def _errors(rules: GuardRules, ours: Samples, theirs: Samples, figures: tuple[Figures, Figures]) -> _Finding | None:
    margin, share, other_share = rules.errors, ours.failed_share, theirs.failed_share
    if margin is None or share is None or other_share is None:
        return None
    text = (
        f"errors {share:.1%} of {ours.total} at {figures[0].color}"
        f" against {other_share:.1%} of {theirs.total} at {_named(figures[1])}"
    )
    is_beyond = share - other_share > margin + _TIE
    return _finding(
        text,
        f"more than {margin * 100:g}% worse",
        is_beyond=is_beyond,
        p=lambda: worse_share_p(ours.failed, ours.total, theirs.failed, theirs.total, margin),
    )


def _ttft(rules: GuardRules, ours: Samples, theirs: Samples, figures: tuple[Figures, Figures]) -> _Finding | None:
    ratio = rules.ttft_p95
    if ratio is None:
        return None
    few = _few(rules, (len(ours.ttfts), len(theirs.ttfts)), figures)
    value_s, other_s = figures[0].ttft_p95_s, figures[1].ttft_p95_s
    if few or value_s is None or other_s is None:
        return _Finding(Verdict.TOO_FEW, f"time to first content ({few})")
    text = (
        f"time to first content {value_s:.3g} s (p95 of {len(ours.ttfts)}) at {figures[0].color}"
        f" against {other_s:.3g} s (of {len(theirs.ttfts)}) at {_named(figures[1])}"
    )
    rank = rank_of(_TTFT_SHARE, len(theirs.ttfts))
    return _finding(
        text,
        f"more than {ratio:g}x",
        is_beyond=value_s > other_s * ratio * (1.0 + _TIE),
        p=lambda: higher_p(ours.ttfts, theirs.ttfts, ratio, rank),
    )


def _speed(rules: GuardRules, ours: Samples, theirs: Samples, figures: tuple[Figures, Figures]) -> _Finding | None:
    ratio = rules.speed
    if ratio is None:
        return None
    few = _few(rules, (len(ours.speeds), len(theirs.speeds)), figures)
    value, other = figures[0].speed_median, figures[1].speed_median
    if few or value is None or other is None:
        return _Finding(Verdict.TOO_FEW, f"speed ({few})")
    text = (
        f"speed {value:.3g} characters/s (median of {len(ours.speeds)}) at {figures[0].color}"
        f" against {other:.3g} (of {len(theirs.speeds)}) at {_named(figures[1])}"
    )
    rank = rank_of(_SPEED_SHARE, len(theirs.speeds))
    return _finding(
        text,
        f"less than {ratio:g}x",
        is_beyond=value < other * ratio * (1.0 - _TIE),
        p=lambda: lower_p(ours.speeds, theirs.speeds, ratio, rank),
    )


def _finding(text: str, bound: str, *, is_beyond: bool, p: Callable[[], float]) -> _Finding:
    """Return the finding on one bound; how likely chance is gets computed only where the figure is beyond it."""
    if not is_beyond:
        return _Finding(Verdict.HOLDS, text)
    if p() < LEVEL:
        return _Finding(Verdict.BROKEN, f"{text}, {bound}")
    return _Finding(Verdict.HOLDS, f"{text}, {bound}, which may be chance")


def _few(rules: GuardRules, measured: tuple[int, int], figures: tuple[Figures, Figures]) -> str:
    """Return which colors have too few measured ones, in words; "" where both have enough."""
    return ", ".join(
        f"{count} of {_least(rules)} measured at {each.color}"
        for count, each in zip(measured, figures, strict=True)
        if count < _least(rules)
    )


def _least(rules: GuardRules) -> int:
    """Return how many make a comparison: nothing is never enough."""
    return max(1, rules.exchanges_min)


def _named(figures: Figures) -> str:
    return f"{figures.color} before the switch" if figures.is_frozen else str(figures.color)
