"""Plays of attempts that end: what a window tells of a color, what is kept of one whose traffic ended, and that it is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.color import Color
from understudy.core.comparison import ATTEMPTS_MAX, NO_SAMPLES, Comparison, Samples

COLORS = (Color.BLUE, Color.GREEN)


def answered(color: Color, count: int, from_s: float = 100.0) -> Comparison:
    """A comparison in which a color gave an answer a second."""
    comparison = Comparison()
    for at in range(count):
        comparison.on_answer(color, 0.5, 40.0, from_s + at)
    return comparison


def test_answers_and_failures_are_told_apart_and_values_are_in_order() -> None:
    comparison = Comparison()
    comparison.on_answer(Color.GREEN, 0.9, 30.0, 100.0)
    comparison.on_failure(Color.GREEN, 101.0)
    comparison.on_answer(Color.GREEN, 0.2, 50.0, 102.0)
    assert comparison.samples(Color.GREEN, 60.0, 103.0) == Samples(3, 1, (0.2, 0.9), (30.0, 50.0))
    assert comparison.samples(Color.GREEN, 60.0, 103.0).failed_share == pytest.approx(1 / 3)
    assert comparison.samples(Color.BLUE, 60.0, 103.0) == NO_SAMPLES


def test_what_was_not_measured_counts_as_an_answer_only() -> None:
    comparison = Comparison()
    comparison.on_answer(Color.BLUE, 0.0, 0.0, 100.0)
    comparison.on_answer(Color.BLUE, 0.3, 0.0, 100.0)
    comparison.on_answer(Color.BLUE, 0.0, 20.0, 100.0)
    assert comparison.samples(Color.BLUE, 60.0, 101.0) == Samples(3, 0, (0.3,), (20.0,))


def test_instants_in_the_wrong_order_are_no_failure() -> None:
    """An answer whose first content was never noted: it was given all the same."""
    comparison = Comparison()
    comparison.on_answer(Color.BLUE, -1.0, -1.0, 100.0)
    assert comparison.samples(Color.BLUE, 60.0, 101.0) == Samples(1, 0)


def test_share_of_nothing_is_unknown() -> None:
    assert NO_SAMPLES.failed_share is None


def test_attempts_leave_with_the_window() -> None:
    comparison = answered(Color.BLUE, 10)
    assert comparison.samples(Color.BLUE, 5.0, 109.0).total == 5
    assert comparison.samples(Color.BLUE, 5.0, 113.5).total == 1
    assert comparison.samples(Color.BLUE, 5.0, 114.0).total == 0
    assert comparison.samples(Color.BLUE, 60.0, 114.0).total == 10


def test_newest_stand_for_a_window_that_has_more() -> None:
    comparison = Comparison()
    comparison.on_failure(Color.BLUE, 99.0)
    for _ in range(ATTEMPTS_MAX):
        comparison.on_answer(Color.BLUE, 0.5, 40.0, 100.0)
    comparison.freeze(Color.BLUE, 100.0)
    for attempts_min in (0, ATTEMPTS_MAX + 1):
        samples = comparison.samples(Color.BLUE, 60.0, 100.0, attempts_min)
        assert (samples.total, samples.failed) == (ATTEMPTS_MAX, 0)


def test_backends_that_serve_both_colors_tell_nothing() -> None:
    comparison = Comparison()
    comparison.on_answer(Color.NONE, 0.5, 40.0, 100.0)
    comparison.on_failure(Color.NONE, 100.0)
    comparison.freeze(Color.NONE, 100.0)
    comparison.forget(Color.NONE)
    for color in Color:
        assert comparison.samples(color, 60.0, 101.0, 50) == NO_SAMPLES


def test_color_without_traffic_is_known_by_what_it_held_when_frozen() -> None:
    """As the window was then, however late it is now."""
    comparison = answered(Color.BLUE, 100)
    comparison.freeze(Color.BLUE, 200.0)
    samples = comparison.samples(Color.BLUE, 60.0, 5000.0, 50)
    assert (samples.total, samples.is_frozen) == (59, True)
    assert comparison.samples(Color.BLUE, 60.0, 5000.0) == NO_SAMPLES


def test_live_attempts_count_as_soon_as_they_are_enough() -> None:
    comparison = answered(Color.BLUE, 100)
    comparison.freeze(Color.BLUE, 200.0)
    for at in range(50):
        assert comparison.samples(Color.BLUE, 300.0, 1000.0 + at, 50).is_frozen
        comparison.on_failure(Color.BLUE, 1000.0 + at)
    assert comparison.samples(Color.BLUE, 300.0, 1050.0, 50) == Samples(50, 50)


def test_what_was_frozen_gives_way_to_more_that_is_live_even_if_neither_is_enough() -> None:
    comparison = answered(Color.BLUE, 3)
    comparison.freeze(Color.BLUE, 103.0)
    comparison.forget(Color.BLUE)
    for at in range(4):
        comparison.on_failure(Color.BLUE, 200.0 + at)
        assert comparison.samples(Color.BLUE, 60.0, 204.0, 50).is_frozen is (at < 2)


def test_later_freeze_takes_the_place_of_the_former() -> None:
    comparison = answered(Color.BLUE, 10)
    comparison.freeze(Color.BLUE, 110.0)
    for at in range(60):
        comparison.on_failure(Color.BLUE, 1000.0 + at)
    comparison.freeze(Color.BLUE, 1060.0)
    samples = comparison.samples(Color.BLUE, 300.0, 9000.0, 50)
    assert (samples.total, samples.failed) == (60, 60)


def test_frozen_attempts_are_not_changed_by_later_ones() -> None:
    comparison = answered(Color.BLUE, 60)
    comparison.freeze(Color.BLUE, 160.0)
    comparison.on_failure(Color.BLUE, 160.0)
    assert comparison.samples(Color.BLUE, 300.0, 9000.0, 50).failed == 0


def test_color_to_be_judged_anew_begins_with_nothing_and_keeps_what_was_frozen() -> None:
    comparison = answered(Color.GREEN, 60)
    comparison.on_failure(Color.BLUE, 160.0)
    comparison.freeze(Color.GREEN, 160.0)
    comparison.forget(Color.GREEN)
    assert comparison.samples(Color.GREEN, 300.0, 161.0) == NO_SAMPLES
    assert comparison.samples(Color.GREEN, 300.0, 161.0, 50).total == 60
    assert comparison.samples(Color.BLUE, 300.0, 161.0).total == 1


def test_changed_plan_forgets_both_colors_live_and_frozen() -> None:
    comparison = answered(Color.BLUE, 60)
    comparison.on_failure(Color.GREEN, 160.0)
    comparison.freeze(Color.BLUE, 160.0)
    comparison.clear()
    for color in COLORS:
        assert comparison.samples(color, 300.0, 161.0, 50) == NO_SAMPLES


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.0, 20.0), st.floats(0.001, 9.0), st.floats(0.001, 99.0))), st.floats(0.1, 50.0)
)
def test_window_tells_what_a_plain_list_would(attempts: list[tuple[bool, float, float, float]], window_s: float) -> None:
    comparison, now_s, told = Comparison(), 100.0, []
    for has_failed, gap_s, ttft_s, speed in attempts:
        now_s += gap_s
        told.append((now_s, has_failed, ttft_s, speed))
        if has_failed:
            comparison.on_failure(Color.GREEN, now_s)
        else:
            comparison.on_answer(Color.GREEN, ttft_s, speed, now_s)
    kept = [each for each in told if each[0] > now_s - window_s]
    assert comparison.samples(Color.GREEN, window_s, now_s) == Samples(
        total=len(kept),
        failed=sum(has_failed for _, has_failed, _, _ in kept),
        ttfts=tuple(sorted(ttft_s for _, has_failed, ttft_s, _ in kept if not has_failed)),
        speeds=tuple(sorted(speed for _, has_failed, _, speed in kept if not has_failed)),
    )


def test_what_was_frozen_for_an_earlier_switch_is_forgotten() -> None:
    comparison = Comparison()
    for _ in range(9):
        comparison.on_answer(Color.BLUE, 0.1, 10.0, 1.0)
    comparison.freeze(Color.BLUE, 2.0)
    comparison.thaw()
    assert comparison.samples(Color.BLUE, 60.0, 1000.0, attempts_min=5).total == 0
