"""Watch what the file promises: feed exchanges and GPUs' figures to the rules, tell when a promise breaks and holds again.

Built by daemon, which hands it every finished exchange and calls `tick` as often as it likes. The rules are core.objectives'.
Follows reloads by itself. Changes nothing: what a broken promise leads to is for who is told of it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from understudy.controlplane.figures_reader import Reading
from understudy.core.objectives import Objective, Objectives, Standing
from understudy.core.record import ExchangeRecord
from understudy.core.snapshot import Published
from understudy.errors import MEANING, FailureKind, Side


class ObjectiveWatch:
    """The promises of the published plan and how they stand.

    `figures` gives the newest reading of every backend that has one; `tell` gets an event's name (telemetry.events) and its
    fields; `clock` gives loop time in seconds.
    """

    def __init__(
        self,
        published: Published,
        figures: Callable[[], Mapping[str, Reading]],
        tell: Callable[[str, dict[str, object]], None],
        clock: Callable[[], float],
    ) -> None:
        self._published = published
        self._figures = figures
        self._tell = tell
        self._clock = clock
        self._rules = published.current.plan.slo
        self._objectives = Objectives(self._rules)
        # When each promise that was told to be broken was.
        self._broken_at_s: dict[Objective, float] = {}
        # Of each backend, when the last reading that was counted was made.
        self._counted_at_s: dict[str, float] = {}
        self.standings: tuple[Standing, ...] = ()

    def on_exchange(self, record: ExchangeRecord) -> None:
        """Count one finished exchange on a generating path, of which clients' polling of lists would make little.

        What was its client's own fault is nobody's success or failure and does not count.
        """
        if not self._objectives.is_on or not record.ask.is_generating:
            return
        now_s = self._clock()
        # The first content of an answer that is not streamed is all of it.
        ttft_s = record.ttft_s if record.ask.is_streaming else 0.0
        failure = record.failure
        if failure is None:
            if record.status < 400 or record.status >= 500:
                self._objectives.on_exchange(record.status >= 500, ttft_s, now_s)
        elif MEANING[failure].side is not Side.DOWNSTREAM:
            self._objectives.on_exchange(True, ttft_s, now_s)
        elif failure is FailureKind.CLIENT_GONE and record.ask.is_streaming:
            self._objectives.on_departure(ttft_s, record.duration_s, now_s)

    def tick(self) -> None:
        """Look at every promise and tell what has changed."""
        rules = self._published.current.plan.slo
        if rules is not self._rules:
            self._objectives.follow(rules)
            self._rules = rules
        if not self._objectives.is_on and not self._broken_at_s:
            self.standings = ()
            return
        now_s = self._clock()
        self._count_readings(now_s)
        self.standings = self._objectives.look(now_s)
        broken = {standing.objective: standing for standing in self.standings if standing.is_broken}
        for objective in [each for each in self._broken_at_s if each not in broken]:
            lasted_s = now_s - self._broken_at_s.pop(objective)
            self._tell("slo.was_restored", {"objective": str(objective), "lasted_s": round(lasted_s, 3)})
        for objective, standing in broken.items():
            if objective not in self._broken_at_s:
                self._broken_at_s[objective] = standing.broken_at_s
                self._tell("slo.was_broken", self._facts_of_break(standing))

    def status(self) -> list[dict[str, Any]]:
        """Return how each promise stood at the last tick; durations in seconds."""
        now_s = self._clock()
        return [
            {
                "objective": str(standing.objective),
                "value": _rounded(standing.value),
                "bound": standing.bound,
                "window_s": self._objectives.window_s,
                "broken": standing.is_broken,
                "broken_for_s": round(now_s - standing.broken_at_s, 3) if standing.is_broken else 0.0,
                "samples": standing.samples,
                "backend": standing.backend,
            }
            for standing in self.standings
        ]

    def _facts_of_break(self, standing: Standing) -> dict[str, object]:
        return {
            "objective": str(standing.objective),
            "value": _rounded(standing.value),
            "bound": standing.bound,
            "window_s": self._objectives.window_s,
            "exchanges": self._objectives.exchanges,
            "samples": standing.samples,
            "backend": standing.backend,
        }

    def _count_readings(self, now_s: float) -> None:
        readings = self._figures()
        for name, reading in readings.items():
            share = reading.figures.gpu_busy
            if share is not None and reading.read_at_s > self._counted_at_s.get(name, float("-inf")):
                self._objectives.on_gpu_busy(name, share, now_s)
                self._counted_at_s[name] = reading.read_at_s
        self._counted_at_s = {name: at_s for name, at_s in self._counted_at_s.items() if name in readings}


def _rounded(value: float | None) -> float | None:
    """Cut what was measured to a tenth of a millisecond, or a share to a hundredth of a percent; nobody reads more."""
    return None if value is None else round(value, 4)
