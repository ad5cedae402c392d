"""Plays of two colors and a look at them: what breaks a bound, what is too few to say, and the words with the numbers."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from understudy.core.color import Color, GuardRules
from understudy.core.comparison import Comparison
from understudy.core.guard import LEVEL, Figures, Look, Verdict, look
from understudy.core.significance import worse_share_p

BLUE, GREEN = Color.BLUE, Color.GREEN
RULES = GuardRules(errors=0.02, ttft_p95=1.5, speed=0.7)
ERRORS_ONLY = GuardRules(errors=0.02)
NOW_S = 1000.0


def tell(comparison: Comparison, color: Color, answers: Iterable[tuple[float, float]], failed: int = 0) -> Comparison:
    """A color gives these answers (time to first content, speed), and so many of its attempts fail."""
    for ttft_s, speed in answers:
        comparison.on_answer(color, ttft_s, speed, NOW_S)
    for _ in range(failed):
        comparison.on_failure(color, NOW_S)
    return comparison


def alike(count: int, ttft_s: float = 1.0, speed: float = 40.0) -> list[tuple[float, float]]:
    """Answers that spread a little around the same numbers."""
    return [(ttft_s * (0.8 + 0.4 * at / count), speed * (0.8 + 0.4 * at / count)) for at in range(count)]


def looked(rules: GuardRules, comparison: Comparison, candidate: Color = GREEN) -> Look:
    return look(comparison, rules, candidate, NOW_S + 1.0)


def both(green: Iterable[tuple[float, float]], failed: int = 0, blue_count: int = 400) -> Comparison:
    """A blue that is well, beside this green."""
    return tell(tell(Comparison(), BLUE, alike(blue_count)), GREEN, green, failed)


def test_equal_colors_hold_and_every_number_is_said() -> None:
    found = looked(RULES, both(alike(200)))
    assert found.verdict is Verdict.HOLDS
    assert found.reason == (
        "errors 0.0% of 200 at green against 0.0% of 400 at blue; "
        "time to first content 1.18 s (p95 of 200) at green against 1.18 s (of 400) at blue; "
        "speed 39.9 characters/s (median of 200) at green against 40 (of 400) at blue"
    )
    assert found.candidate == Figures(GREEN, 200, 0.0, 1.0 * (0.8 + 0.4 * 189 / 200), 40.0 * (0.8 + 0.4 * 99 / 200))
    assert (found.other.color, found.other.exchanges, found.other.is_frozen) == (BLUE, 400, False)


def test_green_that_fails_more_breaks_the_bound_on_errors() -> None:
    found = looked(RULES, both(alike(180), failed=20))
    assert found.verdict is Verdict.BROKEN
    assert found.reason == "errors 10.0% of 200 at green against 0.0% of 400 at blue, more than 2% worse"
    assert found.candidate.errors == pytest.approx(0.1)


def test_green_that_begins_later_breaks_the_bound_on_the_time_to_first_content() -> None:
    found = looked(RULES, both(alike(200, ttft_s=3.0)))
    assert found.verdict is Verdict.BROKEN
    assert found.reason == "time to first content 3.53 s (p95 of 200) at green against 1.18 s (of 400) at blue, more than 1.5x"


def test_green_that_is_slower_breaks_the_bound_on_speed() -> None:
    found = looked(RULES, both(alike(200, speed=16.0)))
    assert found.verdict is Verdict.BROKEN
    assert found.reason == "speed 16 characters/s (median of 200) at green against 40 (of 400) at blue, less than 0.7x"


def test_every_broken_bound_is_named_and_no_other() -> None:
    found = looked(RULES, both(alike(160, ttft_s=3.0), failed=40))
    assert found.verdict is Verdict.BROKEN
    assert found.reason.startswith("errors 20.0% of 200")
    assert "; time to first content" in found.reason
    assert "speed" not in found.reason


def test_green_that_is_better_in_all_holds() -> None:
    blue = tell(Comparison(), BLUE, alike(300, ttft_s=5.0, speed=4.0), failed=100)
    assert looked(RULES, tell(blue, GREEN, alike(200))).verdict is Verdict.HOLDS


def test_blue_is_judged_the_same_way_when_it_is_on_trial() -> None:
    comparison = tell(tell(Comparison(), GREEN, alike(400)), BLUE, alike(180), failed=20)
    found = looked(RULES, comparison, candidate=BLUE)
    assert found.verdict is Verdict.BROKEN
    assert (found.candidate.color, found.other.color) == (BLUE, GREEN)


def test_too_few_exchanges_say_nothing_however_bad_they_are() -> None:
    found = looked(RULES, both((), failed=12))
    assert (found.verdict, found.reason) == (Verdict.TOO_FEW, "12 of 50 exchanges at green")
    assert found.candidate == Figures(GREEN, 12, 1.0)


def test_both_colors_are_named_where_both_have_too_few() -> None:
    found = looked(RULES, Comparison())
    assert (found.verdict, found.reason) == (Verdict.TOO_FEW, "0 of 50 exchanges at green, 0 of 50 exchanges at blue")
    assert (found.candidate, found.other) == (Figures(GREEN), Figures(BLUE))


def test_fifty_failures_of_fifty_are_enough() -> None:
    assert looked(RULES, both((), failed=49)).verdict is Verdict.TOO_FEW
    assert looked(RULES, both((), failed=50)).verdict is Verdict.BROKEN


def test_figure_beyond_the_bound_holds_while_it_may_be_chance() -> None:
    found = looked(ERRORS_ONLY, both(alike(47), failed=3))
    assert found.verdict is Verdict.HOLDS
    assert found.reason == "errors 6.0% of 50 at green against 0.0% of 400 at blue, more than 2% worse, which may be chance"


def test_bound_breaks_with_the_very_failure_that_chance_no_longer_explains() -> None:
    fewest = next(failed for failed in range(200) if worse_share_p(failed, 200, 0, 400, 0.02) < LEVEL)
    assert looked(ERRORS_ONLY, both(alike(201 - fewest), failed=fewest - 1)).verdict is Verdict.HOLDS
    assert looked(ERRORS_ONLY, both(alike(200 - fewest), failed=fewest)).verdict is Verdict.BROKEN


def test_difference_that_is_certain_but_within_the_bound_holds() -> None:
    """Nobody doubts that 1.4 times is slower; it is what the operator allows."""
    found = looked(RULES, both(alike(2000, ttft_s=1.4, speed=29.0), failed=0, blue_count=2000))
    assert found.verdict is Verdict.HOLDS
    assert "chance" not in found.reason


@pytest.mark.parametrize(
    ("rules", "green"),
    [
        (GuardRules(ttft_p95=1.5), [(0.15, 40.0)] * 500),
        (GuardRules(speed=0.7), [(0.1, 28.0)] * 500),
        (GuardRules(errors=0.0), [(0.1, 40.0)] * 500),
    ],
)
def test_green_at_the_very_bound_holds(rules: GuardRules, green: list[tuple[float, float]]) -> None:
    comparison = tell(tell(Comparison(), BLUE, [(0.1, 40.0)] * 500), GREEN, green)
    assert looked(rules, comparison).verdict is Verdict.HOLDS


def test_bound_with_too_few_measured_is_not_looked_at_and_named() -> None:
    comparison = both([(1.0, 0.0)] * 188 + [(1.0, 1.0)] * 12)
    found = looked(RULES, comparison)
    assert found.verdict is Verdict.HOLDS
    assert found.reason.endswith("; not looked at: speed (12 of 50 measured at green)")
    assert found.candidate.speed_median == 1.0


def test_nothing_holds_while_no_bound_can_be_looked_at() -> None:
    """Enough exchanges, but none that tells what is asked: a canary must not go on for that."""
    rules = GuardRules(ttft_p95=1.5, speed=0.7)
    comparison = tell(tell(Comparison(), BLUE, [(0.0, 0.0)] * 100), GREEN, [(0.0, 0.0)] * 100)
    found = looked(rules, comparison)
    assert found.verdict is Verdict.TOO_FEW
    assert found.reason == (
        "time to first content (0 of 50 measured at green, 0 of 50 measured at blue); "
        "speed (0 of 50 measured at green, 0 of 50 measured at blue)"
    )


def test_one_broken_bound_is_enough_while_others_cannot_be_looked_at() -> None:
    assert looked(RULES, both((), failed=100)).verdict is Verdict.BROKEN


@pytest.mark.parametrize("rules", [ERRORS_ONLY, GuardRules(ttft_p95=1.5), GuardRules(speed=0.7)])
def test_bounds_that_are_not_set_are_not_looked_at(rules: GuardRules) -> None:
    found = looked(rules, both(alike(100, ttft_s=9.0, speed=2.0), failed=100))
    assert found.verdict is Verdict.BROKEN
    assert ";" not in found.reason


def test_without_bounds_nothing_breaks() -> None:
    found = looked(GuardRules(), both((), failed=100))
    assert (found.verdict, found.reason) == (Verdict.HOLDS, "no bound is set")


def test_no_exchanges_are_too_few_even_if_none_are_asked_for() -> None:
    assert looked(replace(RULES, exchanges_min=0), Comparison()).reason.startswith("0 of 1 exchanges at green")


def test_color_that_lost_its_traffic_is_known_by_what_was_frozen() -> None:
    comparison = tell(Comparison(), BLUE, alike(400))
    comparison.freeze(BLUE, NOW_S)
    for at in range(200):
        comparison.on_failure(GREEN, NOW_S + 3000.0 + at)
    found = look(comparison, RULES, GREEN, NOW_S + 3200.0)
    assert found.verdict is Verdict.BROKEN
    assert found.reason == "errors 100.0% of 200 at green against 0.0% of 400 at blue before the switch, more than 2% worse"
    assert found.other.is_frozen


def test_what_was_frozen_of_an_earlier_trial_is_not_held_against_a_color() -> None:
    """Green failed, was left and is tried again: it begins with nothing."""
    comparison = both((), failed=100)
    comparison.freeze(GREEN, NOW_S)
    comparison.forget(GREEN)
    found = looked(RULES, comparison)
    assert (found.verdict, found.reason) == (Verdict.TOO_FEW, "0 of 50 exchanges at green")


def test_what_left_the_window_no_longer_counts() -> None:
    comparison = both(alike(180), failed=20)
    assert look(comparison, RULES, GREEN, NOW_S + RULES.window_s).verdict is Verdict.TOO_FEW


def test_color_that_serves_both_cannot_be_on_trial() -> None:
    with pytest.raises(ValueError, match="found none"):
        looked(RULES, Comparison(), candidate=Color.NONE)
