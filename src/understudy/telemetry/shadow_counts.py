"""Count what became of shadows, tell it for a status, and write it as metric families when somebody asks.

Counted by controlplane.shadows, collected with telemetry.metrics. Every label is a configured name or a word of a closed list,
never anything of a request or of an answer.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from understudy.core.color import Color
from understudy.core.shadowing import ShadowOutcome
from understudy.telemetry.histogram import FIRST_CONTENT_BOUNDS_S, Histogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# Texts are alike or they are not: what tells a drift is how many are nearly the same.
_LIKENESS_BOUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_NO_BACKEND = "none"


@dataclass(slots=True)
class _Sums:
    """What a status tells of the shadows of one color."""

    sent: int = 0
    answered: int = 0
    failed: int = 0
    dropped: int = 0
    likenesses: int = 0
    likeness_sum: float = 0.0
    ttfts: int = 0
    ttft_sum_s: float = 0.0


class ShadowCounts:
    """This process's counts of shadows. One per daemon; survives reloads."""

    def __init__(self) -> None:
        self._sums: dict[Color, _Sums] = {}
        self._outcomes: dict[tuple[str, str], int] = {}
        self._likeness: dict[str, Histogram] = {}
        self._first_content: dict[str, Histogram] = {}

    def on_sent(self, color: Color) -> None:
        """Count one that begins."""
        self._of(color).sent += 1

    def on_dropped(self, color: Color) -> None:
        """Count one that was never sent."""
        self._of(color).dropped += 1
        self._count(_NO_BACKEND, ShadowOutcome.DROPPED)

    def on_finished(
        self, color: Color, backend: str, outcome: ShadowOutcome, *, likeness: float | None, ttft_s: float | None
    ) -> None:
        """Count one that is over; what was not measured is None."""
        sums = self._of(color)
        self._count(backend, outcome)
        if outcome is ShadowOutcome.ANSWERED:
            sums.answered += 1
        else:
            sums.failed += 1
        if likeness is not None:
            sums.likenesses += 1
            sums.likeness_sum += likeness
            self._likeness.setdefault(backend, Histogram(_LIKENESS_BOUNDS)).add(likeness)
        if ttft_s is not None:
            sums.ttfts += 1
            sums.ttft_sum_s += ttft_s
            self._first_content.setdefault(backend, Histogram(FIRST_CONTENT_BOUNDS_S)).add(ttft_s)

    def facts(self, color: Color) -> dict[str, Any]:
        """Return what a status tells of the shadows that went to `color` since the start; means are None without any."""
        sums = self._of(color)
        return {
            "sent": sums.sent,
            "answered": sums.answered,
            "failed": sums.failed,
            "dropped": sums.dropped,
            "likeness_mean": round(sums.likeness_sum / sums.likenesses, 3) if sums.likenesses else None,
            "ttft_mean_s": round(sums.ttft_sum_s / sums.ttfts, 3) if sums.ttfts else None,
        }

    def retain(self, names: Collection[str]) -> None:
        """Forget the backends that are not in `names`. To be called after a reload."""
        kept = {*names, _NO_BACKEND}
        self._outcomes = {key: count for key, count in self._outcomes.items() if key[0] in kept}
        self._likeness = {name: each for name, each in self._likeness.items() if name in kept}
        self._first_content = {name: each for name, each in self._first_content.items() if name in kept}

    def collect(self) -> Iterator["Metric"]:
        """Yield the families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        outcomes = CounterMetricFamily(
            "understudy_shadows",
            "Exchanges also sent to the inactive color, by what became of that.",
            labels=("backend", "outcome"),
        )
        for labels, count in self._outcomes.items():
            outcomes.add_metric(labels, count)
        yield outcomes
        for name, words, histograms in (
            ("understudy_shadow_likeness", "How alike a shadow's text and the client's are, 0 to 1.", self._likeness),
            ("understudy_shadow_first_content_seconds", "From sending a shadow to its first content.", self._first_content),
        ):
            family = HistogramMetricFamily(name, words, labels=("backend",))
            for backend, each in histograms.items():
                family.add_metric((backend,), each.buckets(), each.sum_s)
            yield family
        in_flight = sum(sums.sent - sums.answered - sums.failed for sums in self._sums.values())
        yield GaugeMetricFamily("understudy_shadows_in_flight", "Shadows on their way.", value=in_flight)

    def _of(self, color: Color) -> _Sums:
        return self._sums.setdefault(color, _Sums())

    def _count(self, backend: str, outcome: ShadowOutcome) -> None:
        key = (backend, str(outcome))
        self._outcomes[key] = self._outcomes.get(key, 0) + 1
