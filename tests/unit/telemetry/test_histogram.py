"""Durations counted by upper bound."""

from understudy.telemetry.histogram import Histogram


def test_a_bound_belongs_to_its_own_bucket() -> None:
    histogram = Histogram((0.1, 1.0))
    for duration_s in (0.1, 0.2, 1.0, 5.0):
        histogram.add(duration_s)
    assert histogram.buckets() == [("0.1", 1), ("1.0", 3), ("+Inf", 4)]
    assert histogram.sum_s == 6.3
