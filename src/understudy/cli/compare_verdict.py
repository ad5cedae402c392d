"""Say whether green is worse than blue: each threshold that was given, held against what was measured.

Called by cli.compare. Pure. A threshold whose value could not be measured counts as broken: what gates a release must not open
because nothing was looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from understudy.cli.compare_pairs import Totals

# Shares are compared as whole numbers of prompts; this is for the rounding of what the operator wrote.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How much worse green may be. Shares are 0.0 to 1.0, ratios green's to blue's; None: not looked at."""

    unmet_max: float = 0.0
    errors_max: float = 0.0
    ttft_max: float | None = None
    speed_min: float | None = None
    similarity_min: float = 0.0
    judged_worse_max: float | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One threshold. `option` is how it was said, `words` what was measured."""

    option: str
    words: str
    is_broken: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What it comes to, in one line with the thresholds that are broken, and every one that was looked at."""

    is_worse: bool
    line: str
    checks: tuple[Check, ...]


def verdict_of(totals: Totals, thresholds: Thresholds) -> Verdict:
    """Return the verdict. Where no prompt was answered by both sides green counts as worse: nothing was compared."""
    checks = tuple(_checks(totals, thresholds))
    broken = [f"{check.words} ({check.option})" for check in checks if check.is_broken]
    if broken:
        return Verdict(True, f"green is worse: {'; '.join(broken)}", checks)
    if not totals.whole:
        return Verdict(True, "nothing could be compared: no prompt was answered by both", checks)
    return Verdict(False, "green is no worse", checks)


def _checks(totals: Totals, thresholds: Thresholds) -> Iterator[Check]:
    blue, green = totals.blue, totals.green
    if totals.expected:
        words = f"expectations met {percent(green.met, totals.expected)} against {percent(blue.met, totals.expected)}"
        is_broken = blue.met - green.met > thresholds.unmet_max * totals.expected + _ROUNDING
        yield Check(f"--max-unmet {share(thresholds.unmet_max)}", words, is_broken)
    if totals.prompts:
        words = f"failed {percent(green.failed, totals.prompts)} against {percent(blue.failed, totals.prompts)}"
        is_broken = green.failed - blue.failed > thresholds.errors_max * totals.prompts + _ROUNDING
        yield Check(f"--max-errors {share(thresholds.errors_max)}", words, is_broken)
    if (most := thresholds.ttft_max) is not None:
        ratio = totals.ttft_ratio
        words = "first content was not measured on both" if ratio is None else f"first content after {ratio:.2f}x blue's time"
        yield Check(f"--ttft {most:g}x", words, ratio is None or ratio > most + _ROUNDING)
    if (least := thresholds.speed_min) is not None:
        ratio = totals.speed_ratio
        words = "speed was not measured on both" if ratio is None else f"speed {ratio:.2f}x blue's"
        yield Check(f"--speed {least:g}x", words, ratio is None or ratio < least - _ROUNDING)
    if thresholds.similarity_min:
        alike = totals.similarity
        words = "similarity was not measured" if alike is None else f"similarity {share(alike)}"
        is_broken = alike is None or alike < thresholds.similarity_min - _ROUNDING
        yield Check(f"--min-similarity {share(thresholds.similarity_min)}", words, is_broken)
    if thresholds.judged_worse_max is not None:
        yield _judged_check(totals, thresholds.judged_worse_max)


def _judged_check(totals: Totals, most: float) -> Check:
    judgement = totals.judgement
    option = f"--max-judged-worse {share(most)}"
    if judgement.unreadable == judgement.pairs:
        return Check(option, "the judge said nothing that could be read", True)
    words = f"judged worse in {percent(judgement.blue, judgement.pairs)} of the answers"
    return Check(option, words, judgement.blue > most * judgement.pairs + _ROUNDING)


def percent(part: int, whole: int) -> str:
    """Write a share of prompts: 95%, 66.7%."""
    return share(part / whole) if whole else "-"


def share(value: float) -> str:
    """Write a share to one place after the point, and without it where that is 0."""
    return f"{value * 100:.1f}".removesuffix(".0") + "%"
