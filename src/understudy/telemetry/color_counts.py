"""Count exchanges by the color that answered, and write it as metric families when somebody asks.

Part of telemetry.metrics, which counts finished exchanges here while there are colors. Labels are words of closed lists.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from understudy.core.color import Color
from understudy.core.record import ExchangeRecord
from understudy.core.rollout import Rollout
from understudy.telemetry.histogram import EXCHANGE_BOUNDS_S, FIRST_CONTENT_BOUNDS_S, Histogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_COLORS = (Color.BLUE, Color.GREEN)


class ColorCounts:
    """This process's counters of both colors; it counts a few dict operations an exchange."""

    def __init__(self) -> None:
        self._exchanges: dict[tuple[str, str], int] = {}
        self._first_content = {str(color): Histogram(FIRST_CONTENT_BOUNDS_S) for color in _COLORS}
        self._duration = {str(color): Histogram(EXCHANGE_BOUNDS_S) for color in _COLORS}
        self._sent_bytes = dict.fromkeys(map(str, _COLORS), 0)

    def on_exchange(self, record: ExchangeRecord, outcome: str) -> None:
        """Count one finished exchange that has a color."""
        color = record.color
        if color not in self._duration:
            return
        key = (color, outcome)
        self._exchanges[key] = self._exchanges.get(key, 0) + 1
        self._duration[color].add(record.duration_s)
        self._sent_bytes[color] += record.sent_bytes
        if record.ttft_s:
            self._first_content[color].add(record.ttft_s)

    def collect(self, rollout: Rollout) -> Iterator["Metric"]:
        """Yield the families of both colors and of what is in force."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        exchanges = CounterMetricFamily(
            "understudy_color_exchanges", "Client requests finished, by the color that answered.", labels=("color", "outcome")
        )
        for labels, count in self._exchanges.items():
            exchanges.add_metric(labels, count)
        yield exchanges
        for name, words, rows in (
            ("understudy_color_first_content_seconds", "From the request to the first content sent.", self._first_content),
            ("understudy_color_exchange_seconds", "From the request to the end of its answer.", self._duration),
        ):
            family = HistogramMetricFamily(name, words, labels=("color",))
            for color, each in rows.items():
                family.add_metric((color,), each.buckets(), each.sum_s)
            yield family
        sent = CounterMetricFamily("understudy_color_sent_bytes", "Bytes of answers.", labels=("color",))
        for color, size_bytes in self._sent_bytes.items():
            sent.add_metric((color,), size_bytes)
        yield sent
        active = GaugeMetricFamily("understudy_rollout_active", "1 for the color of new conversations.", labels=("color",))
        share = GaugeMetricFamily("understudy_rollout_share", "Share of new conversations that a color gets.", labels=("color",))
        for color in _COLORS:
            is_active = color is rollout.active
            active.add_metric((str(color),), float(is_active))
            share.add_metric((str(color),), 1.0 - rollout.share if is_active else rollout.share)
        yield active
        yield share
        switched = GaugeMetricFamily(
            "understudy_rollout_switched_timestamp_seconds", "When the active color last changed; 0: never."
        )
        switched.add_metric((), rollout.switched_at_unix_s)
        yield switched
