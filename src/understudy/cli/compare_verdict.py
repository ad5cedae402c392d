"""Say whether green is worse than blue: each threshold that was given, held against what was measured.

Called by cli.compare. Pure. A threshold whose value could not be measured counts as broken: what gates a release must not open
because nothing was looked at.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from understudy.cli.compare_pairs import Judgement, Totals

# Shares are compared as whole numbers of prompts; this is for the rounding of what the operator wrote.
_ROUNDING = 1e-9
_DIGITS_MAX = 6


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How much worse green may be. Shares are 0.0 to 1.0, ratios green's to blue's; None: not looked at.

    `unmet_max` None: 0.0 where anything was expected, and nothing to say where nothing was.
    """

    unmet_max: float | None = None
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
    """What it comes to, in one line with the thresholds that are broken, and every one that was looked at.

    `is_interrupted`: somebody ended it before it was done, and it comes to nothing.
    """

    is_worse: bool
    line: str
    checks: tuple[Check, ...]
    is_interrupted: bool = False


def verdict_of(totals: Totals, thresholds: Thresholds) -> Verdict:
    """Return the verdict. Where no prompt was answered by both sides green counts as worse: nothing was compared."""
    checks = tuple(_checks(totals, thresholds))
    broken = [f"{check.words} ({check.option})" for check in checks if check.is_broken]
    if broken:
        return Verdict(True, f"green is worse: {'; '.join(broken)}", checks)
    if not totals.whole:
        return Verdict(True, "nothing could be compared: no prompt was answered by both", checks)
    return Verdict(False, "green is no worse", checks)


def interrupted(words: str) -> Verdict:
    """Return that there is no verdict; `words` say how far it came."""
    return Verdict(False, f"{words}: no verdict", (), is_interrupted=True)


def stopped(words: str) -> Verdict:
    """Return the verdict where one side is not there at all, as `words` say: no threshold would allow for that."""
    return Verdict(True, words, ())


def _checks(totals: Totals, thresholds: Thresholds) -> Iterator[Check]:
    blue, green = totals.blue, totals.green
    unmet_max, errors_max = thresholds.unmet_max, thresholds.errors_max
    if totals.expected:
        parts = (green.met, blue.met, totals.expected)
        is_broken, (ours, theirs) = _apart(parts, unmet_max or 0.0, is_green_less=True)
        words = f"green met {ours} of the expectations, blue {theirs}"
        yield Check(f"--max-unmet {share(unmet_max or 0.0, _DIGITS_MAX)}", words, is_broken)
    elif unmet_max is not None:
        yield Check(f"--max-unmet {share(unmet_max, _DIGITS_MAX)}", "nothing was expected of any prompt", True)
    if totals.prompts:
        is_broken, (ours, theirs) = _apart((green.failed, blue.failed, totals.prompts), errors_max, is_green_less=False)
        yield Check(f"--max-errors {share(errors_max, _DIGITS_MAX)}", f"green failed {ours}, blue {theirs}", is_broken)
    if (most := thresholds.ttft_max) is not None:
        yield _ratio_check("--ttft", "time to first content", totals.ttft_ratio, most, _is_above)
    if (least := thresholds.speed_min) is not None:
        yield _ratio_check("--speed", "speed", totals.speed_ratio, least, _is_below)
    if alike_min := thresholds.similarity_min:
        yield _similarity_check(totals.similarity, alike_min)
    if thresholds.judged_worse_max is not None:
        yield _judged_check(totals.judgement, thresholds.judged_worse_max)


def _apart(parts: tuple[int, int, int], bound: float, *, is_green_less: bool) -> tuple[bool, tuple[str, str]]:
    """Hold green's part of the whole (green, blue, whole) against blue's; return whether it is worse, and both as shares."""
    green, blue, whole = parts
    is_broken = _is_above(blue - green if is_green_less else green - blue, bound * whole)

    def is_told(digits: int) -> bool:
        ours, theirs = (round(100 * part / whole, digits) for part in (green, blue))
        return _is_above(theirs - ours if is_green_less else ours - theirs, 100 * bound) is is_broken

    digits = _fewest(1, is_told)
    return is_broken, (percent(green, whole, digits), percent(blue, whole, digits))


def _ratio_check(option: str, what: str, ratio: float | None, bound: float, is_beyond: "_Beyond") -> Check:
    told = f"{option} {_plain(bound, _DIGITS_MAX)}x"
    if ratio is None:
        return Check(told, f"{what} was not measured on both", True)
    is_broken = is_beyond(ratio, bound)
    digits = _fewest(2, lambda digits: is_beyond(round(ratio, digits), bound) is is_broken)
    return Check(told, f"green's {what} is {ratio:.{digits}f}x blue's", is_broken)


def _similarity_check(alike: float | None, least: float) -> Check:
    option = f"--min-similarity {share(least, _DIGITS_MAX)}"
    if alike is None:
        return Check(option, "similarity was not measured", True)
    return Check(option, f"similarity {_beside(alike, least, _is_below)}", _is_below(alike, least))


def _judged_check(judgement: Judgement, most: float) -> Check:
    option, readable = f"--max-judged-worse {share(most, _DIGITS_MAX)}", judgement.readable
    if not judgement.pairs:
        return Check(option, "no two answers differed" if judgement.same else "nothing was judged", not judgement.same)
    if 2 * readable < judgement.pairs:
        return Check(option, f"the judge gave its word on {readable} of {judgement.pairs} pairs, under half", True)
    shown = _beside(judgement.blue / readable, most, _is_above)
    return Check(option, f"green judged worse in {shown} of {readable} judged", _is_above(judgement.blue, most * readable))


# --- figures with as many places after the point as it takes to see on which side of a bound they are


def percent(part: int, whole: int, digits: int = 1) -> str:
    """Write a share of prompts: 95%, 66.7%."""
    return share(part / whole, digits) if whole else "-"


def share(value: float, digits: int = 1) -> str:
    """Write a share to so many places after the point at most."""
    return f"{_plain(value * 100, digits)}%"


def _plain(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.rstrip("0").removesuffix(".") if "." in text else text


_Beyond = Callable[[float, float], bool]


def _is_above(value: float, bound: float) -> bool:
    return value > bound + _ROUNDING


def _is_below(value: float, bound: float) -> bool:
    return value < bound - _ROUNDING


def _beside(value: float, bound: float, is_beyond: _Beyond) -> str:
    is_broken = is_beyond(value, bound)
    return share(value, _fewest(1, lambda digits: is_beyond(round(100 * value, digits), 100 * bound) is is_broken))


def _fewest(least: int, is_enough: Callable[[int], bool]) -> int:
    return next((digits for digits in range(least, _DIGITS_MAX) if is_enough(digits)), _DIGITS_MAX)
