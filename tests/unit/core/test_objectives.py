"""Plays of exchanges and readings over time: when a promise is broken, when it holds again, and what is kept of it all."""

from collections.abc import Iterable
from math import comb
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.objectives import BUCKETS, LEVEL, SAMPLES_MIN, Objective, Objectives, Standing
from understudy.core.significance import quantile
from understudy.core.upkeep import Slo

WINDOW_S = 300.0
ERRORS = Slo(errors=0.01, window_s=WINDOW_S)
FAST = Slo(p99_first_content_s=1.0, window_s=WINDOW_S)
COOL = Slo(gpu_busy=0.7, window_s=WINDOW_S)


def told(objectives: Objectives, good: int, failed: int, now_s: float) -> None:
    """So many exchanges end at one instant."""
    for number in range(good + failed):
        objectives.on_exchange(number < failed, 0.0, now_s)


def timed(objectives: Objectives, ttfts_s: Iterable[float], now_s: float) -> None:
    """Answered exchanges, each with its time to first content."""
    for ttft_s in ttfts_s:
        objectives.on_exchange(False, ttft_s, now_s)


def only(objectives: Objectives, now_s: float) -> Standing:
    """The one promise there is."""
    (standing,) = objectives.look(now_s)
    return standing


def test_nothing_is_promised_and_nothing_stands() -> None:
    objectives = Objectives()
    assert not objectives.is_on
    assert objectives.look(1.0) == ()


def test_every_promise_stands_even_before_anything_was_measured() -> None:
    objectives = Objectives(Slo(errors=0.01, p99_first_content_s=1.0, gpu_busy=0.7))
    assert objectives.is_on
    assert objectives.look(5.0) == tuple(
        Standing(each, None, bound) for each, bound in zip(Objective, (0.01, 1.0, 0.7), strict=True)
    )


# --- errors


def test_errors_beyond_the_bound_break_the_promise() -> None:
    objectives = Objectives(ERRORS)
    told(objectives, good=90, failed=10, now_s=7.0)
    assert only(objectives, 8.0) == Standing(Objective.ERRORS, 0.1, 0.01, True, 100, broken_at_s=8.0)


@pytest.mark.parametrize(("good", "failed"), [(19, 1), (99, 1), (98, 2), (500, 6), (0, 19)])
def test_few_failures_may_be_chance_and_few_exchanges_tell_nothing(good: int, failed: int) -> None:
    objectives = Objectives(ERRORS)
    told(objectives, good, failed, 7.0)
    standing = only(objectives, 8.0)
    assert standing.value is not None
    assert standing.value >= 0.01
    assert not standing.is_broken


@given(st.integers(SAMPLES_MIN, 400), st.integers(0, 40), st.sampled_from([0.001, 0.01, 0.1]))
def test_chance_is_judged_as_the_binomial_test_does(total: int, failed: int, bound: float) -> None:
    failed = min(failed, total)
    objectives = Objectives(Slo(errors=bound, window_s=WINDOW_S))
    told(objectives, total - failed, failed, 7.0)
    p = 1.0 - sum(comb(total, seen) * bound**seen * (1 - bound) ** (total - seen) for seen in range(failed))
    if abs(p - LEVEL) > LEVEL / 50:
        assert only(objectives, 7.0).is_broken is (failed / total > bound and p < LEVEL)


def test_where_no_error_is_promised_one_is_enough() -> None:
    objectives = Objectives(Slo(errors=0.0, window_s=WINDOW_S))
    told(objectives, good=30, failed=0, now_s=7.0)
    assert not only(objectives, 7.0).is_broken
    told(objectives, good=0, failed=1, now_s=8.0)
    assert only(objectives, 8.0).is_broken


def test_what_left_the_window_does_not_count() -> None:
    objectives = Objectives(ERRORS)
    told(objectives, good=0, failed=50, now_s=0.0)
    told(objectives, good=50, failed=0, now_s=WINDOW_S - 1.0)
    assert only(objectives, WINDOW_S - 1.0).value == 0.5
    standing = only(objectives, WINDOW_S + 1.0)
    assert (standing.value, standing.samples, objectives.exchanges) == (0.0, 50, 50)


# --- restored, and not too soon


def test_a_promise_is_restored_when_nothing_was_beyond_it_for_half_a_window() -> None:
    objectives = Objectives(ERRORS)
    told(objectives, good=0, failed=50, now_s=0.0)
    assert only(objectives, 1.0).is_broken
    # Failures leave the window at once; half a window later the promise holds again.
    gone_s = WINDOW_S + 1.0
    told(objectives, good=100, failed=0, now_s=gone_s)
    assert only(objectives, gone_s) == Standing(Objective.ERRORS, 0.0, 0.01, True, 100, broken_at_s=1.0)
    assert only(objectives, gone_s + WINDOW_S / 2 - 1.0).is_broken
    assert not only(objectives, gone_s + WINDOW_S / 2).is_broken


def test_a_relapse_begins_the_wait_anew() -> None:
    objectives = Objectives(ERRORS)
    told(objectives, good=0, failed=50, now_s=0.0)
    assert only(objectives, 1.0).is_broken
    assert only(objectives, WINDOW_S + 1.0).is_broken
    told(objectives, good=0, failed=1, now_s=WINDOW_S + 100.0)
    assert only(objectives, WINDOW_S + 100.0).is_broken
    assert only(objectives, WINDOW_S + 200.0).is_broken, "half a window after it was back first"
    assert only(objectives, 2 * WINDOW_S + 101.0).is_broken
    assert not only(objectives, 2.5 * WINDOW_S + 101.0).is_broken


def test_a_broken_promise_ends_when_nobody_asks_any_more() -> None:
    objectives = Objectives(ERRORS)
    told(objectives, good=0, failed=50, now_s=0.0)
    assert only(objectives, 1.0).is_broken
    assert only(objectives, 10 * WINDOW_S).value is None
    assert not only(objectives, 10.5 * WINDOW_S).is_broken


# --- the time to first content


def test_slow_first_contents_break_the_promise_and_one_of_a_hundred_does_not() -> None:
    objectives = Objectives(FAST)
    timed(objectives, [0.2] * 99 + [5.0], 7.0)
    standing = only(objectives, 7.0)
    assert standing.value == pytest.approx(0.2, rel=0.02)
    assert not standing.is_broken
    timed(objectives, [5.0] * 9, 8.0)
    standing = only(objectives, 8.0)
    assert standing.value == pytest.approx(5.0, rel=0.02)
    assert (standing.is_broken, standing.samples) == (True, 109)


def test_a_few_slow_ones_of_few_may_be_chance() -> None:
    objectives = Objectives(FAST)
    timed(objectives, [0.2] * 18 + [5.0, 5.0], 7.0)
    standing = only(objectives, 7.0)
    assert standing.value == pytest.approx(5.0, rel=0.02)
    assert not standing.is_broken


@given(st.lists(st.floats(0.001, 1000.0), min_size=1, max_size=300), st.floats(0.01, 100.0))
@settings(max_examples=200)
def test_the_percentile_is_within_two_percent_and_its_side_of_the_bound_is_exact(ttfts_s: list[float], bound_s: float) -> None:
    objectives = Objectives(Slo(p99_first_content_s=bound_s, window_s=WINDOW_S))
    timed(objectives, ttfts_s, 7.0)
    value = only(objectives, 7.0).value
    exact = quantile(sorted(ttfts_s), 0.99)
    assert value == pytest.approx(exact, rel=0.021)
    assert value is not None
    assert (value > bound_s) is (exact > bound_s)


def test_exactly_the_bound_is_not_beyond_it() -> None:
    objectives = Objectives(FAST)
    timed(objectives, [1.0] * 1000, 7.0)
    assert not only(objectives, 7.0).is_broken


@pytest.mark.parametrize("ttft_s", [1e-9, 1e9])
def test_absurd_times_are_counted_all_the_same(ttft_s: float) -> None:
    objectives = Objectives(FAST)
    timed(objectives, [ttft_s] * 30, 7.0)
    assert only(objectives, 7.0).is_broken is (ttft_s > 1.0)


def test_what_has_no_first_content_is_not_timed() -> None:
    objectives = Objectives(FAST)
    told(objectives, good=50, failed=50, now_s=7.0)
    assert only(objectives, 7.0) == Standing(Objective.P99_FIRST_CONTENT, None, 1.0)


def test_clients_that_left_a_hung_backend_count_as_long_as_they_waited() -> None:
    objectives = Objectives(FAST)
    for _ in range(30):
        objectives.on_departure(0.0, 20.0, 7.0)
    standing = only(objectives, 7.0)
    assert standing.is_broken
    assert standing.value == pytest.approx(20.0, rel=0.02)


def test_clients_that_left_early_say_nothing_and_those_that_left_an_answer_its_beginning() -> None:
    objectives = Objectives(FAST)
    objectives.on_departure(0.0, 0.9, 7.0)
    assert only(objectives, 7.0).samples == 0
    objectives.on_departure(0.3, 20.0, 7.0)
    standing = only(objectives, 7.0)
    assert standing.value == pytest.approx(0.3, rel=0.02)
    assert (standing.samples, objectives.exchanges) == (1, 0)


def test_a_departure_means_nothing_where_no_time_is_promised() -> None:
    objectives = Objectives(ERRORS)
    objectives.on_departure(0.0, 20.0, 7.0)
    assert only(objectives, 7.0).samples == 0


# --- GPUs


def busy(objectives: Objectives, name: str, share: float, from_s: float, to_s: float, every_s: float = 5.0) -> None:
    """Readings of one backend's GPUs at an even pace."""
    at_s = from_s
    while at_s <= to_s:
        objectives.on_gpu_busy(name, share, at_s)
        at_s += every_s


def test_gpus_that_are_busy_for_half_a_window_break_the_promise() -> None:
    objectives = Objectives(COOL)
    busy(objectives, "gpu0", 0.95, 0.0, 140.0)
    assert not only(objectives, 140.0).is_broken
    busy(objectives, "gpu0", 0.95, 145.0, 150.0)
    standing = only(objectives, 150.0)
    assert (standing.is_broken, standing.backend, standing.samples) == (True, "gpu0", 31)
    assert standing.value == pytest.approx(0.95)


def test_the_busiest_backend_counts_and_an_idle_one_hides_nothing() -> None:
    objectives = Objectives(COOL)
    busy(objectives, "idle", 0.0, 0.0, 200.0)
    busy(objectives, "gpu0", 0.9, 0.0, 200.0)
    assert only(objectives, 200.0).backend == "gpu0"


def test_the_mean_is_over_time_however_uneven_the_readings() -> None:
    objectives = Objectives(COOL)
    busy(objectives, "gpu0", 1.0, 0.0, 0.9, every_s=0.1)
    busy(objectives, "gpu0", 0.2, 5.0, 150.0)
    standing = only(objectives, 150.0)
    assert standing.value == pytest.approx((1.0 + 30 * 0.2) / 31)


def test_a_backend_without_readings_is_forgotten() -> None:
    objectives = Objectives(COOL)
    busy(objectives, "gpu0", 0.9, 0.0, 200.0)
    assert only(objectives, 200.0).is_broken
    standing = only(objectives, 200.0 + WINDOW_S + 5.0)
    assert (standing.value, standing.backend, standing.is_broken) == (None, "", True)
    assert not only(objectives, 200.0 + 1.6 * WINDOW_S).is_broken


# --- the file is read again


def test_another_bound_is_held_against_what_was_measured() -> None:
    objectives = Objectives(ERRORS)
    told(objectives, good=90, failed=10, now_s=7.0)
    objectives.follow(Slo(errors=0.2, window_s=WINDOW_S))
    assert only(objectives, 8.0) == Standing(Objective.ERRORS, 0.1, 0.2, False, 100)


def test_another_time_to_first_content_and_another_window_begin_anew() -> None:
    objectives = Objectives(Slo(errors=0.01, p99_first_content_s=1.0, window_s=WINDOW_S))
    timed(objectives, [5.0] * 30, 7.0)
    objectives.follow(Slo(errors=0.01, p99_first_content_s=2.0, window_s=WINDOW_S))
    assert [standing.samples for standing in objectives.look(8.0)] == [30, 0]
    timed(objectives, [5.0] * 30, 9.0)
    objectives.follow(Slo(errors=0.01, p99_first_content_s=2.0, window_s=60.0))
    assert [standing.samples for standing in objectives.look(10.0)] == [0, 0]
    assert objectives.window_s == 60.0


def test_a_promise_that_is_no_longer_made_is_no_longer_broken() -> None:
    objectives = Objectives(ERRORS)
    told(objectives, good=0, failed=50, now_s=7.0)
    assert only(objectives, 7.0).is_broken
    objectives.follow(FAST)
    objectives.follow(ERRORS)
    told(objectives, good=5000, failed=0, now_s=8.0)
    assert not only(objectives, 8.0).is_broken


# --- what is kept


def test_what_is_kept_is_bounded_whatever_the_traffic() -> None:
    objectives = Objectives(Slo(errors=0.01, p99_first_content_s=1.0, gpu_busy=0.7, window_s=60.0))
    random = Random(4)
    for number in range(60_000):
        now_s = number / 100
        objectives.on_exchange(random.random() < 0.5, 10 ** random.uniform(-7, 7), now_s)
        objectives.on_gpu_busy("gpu0", random.random(), now_s)
    assert len(objectives._buckets) <= BUCKETS + 1
    assert len(objectives._sizes) <= 530
    assert all(len(bucket.sizes) <= 530 for bucket in objectives._buckets)
    assert len(objectives._gpus["gpu0"]) <= BUCKETS + 1
    assert sum(objectives._sizes.values()) == objectives.exchanges == sum(bucket.total for bucket in objectives._buckets)


def test_a_clock_that_stands_or_steps_back_a_little_loses_nothing() -> None:
    objectives = Objectives(ERRORS)
    told(objectives, good=10, failed=0, now_s=100.0)
    told(objectives, good=10, failed=0, now_s=94.0)
    assert only(objectives, 100.0).samples == 20
