"""Count restarts, and write with them what backends are and what channels have delivered, when somebody asks.

Part of telemetry.metrics: `on_event` is called with every event, the rest happens at a scrape. A family is told only where there
is something in it. Labels are words of closed lists, names from the file and safe names (controlplane.alert_delivery).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from understudy.core.snapshot import RoutingSnapshot

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# Log event: what the metric calls it.
_STEPS: Final = {
    "restart.started": "started",
    "restart.succeeded": "succeeded",
    "restart.failed": "failed",
    "restart.gave_up": "gave_up",
}


@dataclass(frozen=True, slots=True)
class ChannelMoment:
    """One channel of alerts at a scrape: messages that arrived and tries that failed since it is known, and whether one waits."""

    name: str
    sent: int
    failed: int
    pending: int


class UpkeepCounts:
    """The restarts of every backend by step."""

    def __init__(self) -> None:
        self._restarts: dict[tuple[str, str], int] = {}

    def on_event(self, event: str, fields: Mapping[str, object]) -> None:
        """Hear of an event; costs one look-up for those that are no restart's."""
        step = _STEPS.get(event)
        if step is not None:
            key = (str(fields.get("backend", "")), step)
            self._restarts[key] = self._restarts.get(key, 0) + 1

    def retain(self, names: Collection[str]) -> None:
        """Forget the series of backends that are no longer configured."""
        self._restarts = {key: count for key, count in self._restarts.items() if key[0] in names}

    def collect(self, snapshot: RoutingSnapshot, channels: Iterable[ChannelMoment]) -> Iterator["Metric"]:
        """Yield the families that have a sample."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        restarting = GaugeMetricFamily(
            "understudy_backend_restarting",
            "1 while a backend gets no exchanges because of restarts: under way, not proven, or given up.",
            labels=("backend",),
        )
        degraded = GaugeMetricFamily(
            "understudy_backend_degraded", "1 while a backend is used last for being slow.", labels=("backend",)
        )
        for target in snapshot.targets:
            restarting.add_metric((target.backend.name,), float(target.state.is_restarting))
            degraded.add_metric((target.backend.name,), float(target.state.is_degraded))
        restarts = CounterMetricFamily("understudy_restarts", "Restarts of backends, by step.", labels=("backend", "step"))
        for labels, count in self._restarts.items():
            restarts.add_metric(labels, count)
        sent = CounterMetricFamily("understudy_alerts_sent", "Messages that reached a channel.", labels=("channel",))
        failed = CounterMetricFamily("understudy_alerts_failed", "Tries that did not reach a channel.", labels=("channel",))
        pending = GaugeMetricFamily(
            "understudy_alerts_pending", "1 while a message waits to reach a channel.", labels=("channel",)
        )
        for channel in channels:
            for family, value in ((sent, channel.sent), (failed, channel.failed), (pending, channel.pending)):
                family.add_metric((channel.name,), value)
        yield from (family for family in (restarting, degraded, restarts, sent, failed, pending) if family.samples)
