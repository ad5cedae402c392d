import pytest

from understudy.core.departures import Departures


def test_who_knows_nothing_says_a_second() -> None:
    assert Departures().retry_after_s(1000, 5.0) == 1.0


def test_the_line_moves_at_the_pace_of_late() -> None:
    departures = Departures()
    for number in range(11):
        departures.on_departure(100.0 + 2.0 * number, waiting=3)
    assert departures.retry_after_s(0, 120.0) == 2.0
    assert departures.retry_after_s(4, 120.0) == 10.0


@pytest.mark.parametrize(("ahead", "told_s"), [(0, 1.0), (9, 1.0), (99, 10.0), (5000, 60.0)])
def test_what_is_told_stays_between_a_second_and_a_minute(ahead: int, told_s: float) -> None:
    departures = Departures()
    for number in range(20):
        departures.on_departure(0.1 * number, waiting=1)
    assert departures.retry_after_s(ahead, 1.9) == pytest.approx(told_s)


def test_idle_time_does_not_count() -> None:
    departures = Departures()
    for at_s, waiting in ((1.0, 1), (2.0, 0), (3600.0, 1), (3601.0, 1)):
        departures.on_departure(at_s, waiting=waiting)
    assert departures.retry_after_s(4, 3601.0) == 5.0


def test_a_departure_that_leaves_nobody_waiting_still_ends_a_gap() -> None:
    departures = Departures()
    departures.on_departure(10.0, waiting=1)
    departures.on_departure(14.0, waiting=0)
    assert departures.retry_after_s(0, 3600.0) == 4.0


def test_that_nobody_leaves_for_long_makes_the_pace_slower() -> None:
    departures = Departures()
    for at_s in (1.0, 2.0, 3.0):
        departures.on_departure(at_s, waiting=1)
    assert departures.retry_after_s(0, 3.5) == 1.0
    assert departures.retry_after_s(0, 3.0 + 10.0) == 4.0


def test_that_nobody_leaves_counts_before_anything_was_measured() -> None:
    departures = Departures()
    departures.on_departure(1.0, waiting=1)
    assert departures.retry_after_s(0, 31.0) == 30.0


def test_what_was_measured_long_ago_is_forgotten() -> None:
    departures = Departures()
    now_s = 0.0
    for gap_s in [30.0] * 40 + [2.0] * 32:
        now_s += gap_s
        departures.on_departure(now_s, waiting=1)
    assert departures.retry_after_s(0, now_s) == 2.0
