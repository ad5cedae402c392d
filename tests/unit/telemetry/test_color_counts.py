"""Exchanges by the color that answered, as counted and as written."""

from support.records import attempt, exchange
from understudy.core.color import Color
from understudy.core.rollout import Rollout
from understudy.telemetry.color_counts import ColorCounts


def samples(counts: ColorCounts, rollout: Rollout = Rollout()) -> dict[tuple[str, ...], float]:  # noqa: B008  # frozen
    """Return the values by name and labels."""
    families = counts.collect(rollout)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_each_color_has_its_own_figures() -> None:
    counts = ColorCounts()
    for color, outcome in (("blue", "answered"), ("green", "answered"), ("green", "stalled"), ("green", "stalled")):
        record = exchange(attempt("pi"))
        record.color = color
        record.ttft_s, record.duration_s, record.sent_bytes = 0.2, 3.0, 100
        counts.on_exchange(record, outcome)
    seen = samples(counts)
    assert seen["understudy_color_exchanges_total", "green", "stalled"] == 2
    assert seen["understudy_color_exchanges_total", "blue", "answered"] == 1
    assert seen["understudy_color_first_content_seconds_count", "green"] == 3
    assert seen["understudy_color_exchange_seconds_sum", "green"] == 9.0
    assert seen["understudy_color_sent_bytes_total", "green"] == 300


def test_what_is_in_force_is_told() -> None:
    seen = samples(ColorCounts(), Rollout(active=Color.GREEN, shares=(0.25,), switched_at_unix_s=7.0))
    assert (seen["understudy_rollout_active", "blue"], seen["understudy_rollout_active", "green"]) == (0.0, 1.0)
    assert (seen["understudy_rollout_share", "blue"], seen["understudy_rollout_share", "green"]) == (0.25, 0.75)
    assert seen["understudy_rollout_switched_timestamp_seconds",] == 7.0
