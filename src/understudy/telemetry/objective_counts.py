"""Write how the file's promises stand, and what backends tell of their load, as metric families when somebody asks.

Part of telemetry.metrics, as a part of its moment. A family is told only where there is something in it. Labels are words of a
closed list and names from the file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from understudy.core.objectives import Standing
from understudy.engines.figures import Figures

if TYPE_CHECKING:
    from prometheus_client.core import Metric


@dataclass(frozen=True, slots=True)
class ObjectiveMoment:
    """What is true at a scrape: how each promise stands, and the newest figures of every backend that has some."""

    standings: tuple[Standing, ...] = ()
    figures: Mapping[str, Figures] = field(default_factory=dict)

    def collect(self) -> Iterator["Metric"]:
        """Yield the families that have a sample."""
        standings, figures = self.standings, self.figures
        values = {str(one.objective): one.value for one in standings}
        bounds = {str(one.objective): one.bound for one in standings}
        broken = {str(one.objective): float(one.is_broken) for one in standings}
        yield from _gauge("understudy_slo_value", "What was measured of a promise.", "objective", values)
        yield from _gauge("understudy_slo_bound", "What is promised.", "objective", bounds)
        yield from _gauge("understudy_slo_broken", "1 while a promise is broken.", "objective", broken)
        running = {name: one.running for name, one in figures.items()}
        queued = {name: one.waiting for name, one in figures.items()}
        busy = {name: one.gpu_busy for name, one in figures.items()}
        yield from _gauge("understudy_backend_running", "Requests that a backend says it works on.", "backend", running)
        yield from _gauge("understudy_backend_queued", "Requests that a backend says wait in it.", "backend", queued)
        yield from _gauge("understudy_backend_gpu_busy", "Share of time in which its GPUs work.", "backend", busy)


def _gauge(name: str, words: str, label: str, rows: Mapping[str, float | None]) -> Iterator["Metric"]:
    """Yield the family of the rows that have a value, if any."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, words, labels=(label,))
    for key, value in rows.items():
        if value is not None:
            family.add_metric((key,), value)
    if family.samples:
        yield family
