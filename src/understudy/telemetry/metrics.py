"""Count what happened and write it as Prometheus text when somebody asks.

`on_exchange` is called once per exchange by daemon and costs a few dict operations; everything else happens at a scrape.
prometheus_client is imported with the first scrape: most small set-ups never scrape. Labels hold only configured names and
words of closed lists, never anything a client wrote, so the number of series is bounded.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from platform import python_version
from typing import TYPE_CHECKING

from understudy import __version__
from understudy.core.record import ExchangeRecord
from understudy.core.snapshot import Condition, Duty, RoutingSnapshot
from understudy.core.tally import Tally
from understudy.telemetry.color_counts import ColorCounts
from understudy.telemetry.histogram import EXCHANGE_BOUNDS_S, FIRST_CONTENT_BOUNDS_S, Histogram
from understudy.telemetry.session_counts import CacheMoment, SessionCounts, SessionMoment
from understudy.telemetry.upkeep_counts import ChannelMoment, UpkeepCounts

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry

    from understudy.telemetry.objective_counts import ObjectiveMoment
    from understudy.telemetry.shadow_counts import ShadowCounts

_NO_BACKEND = "none"


@dataclass(frozen=True, slots=True)
class Moment:
    """What is true at a scrape and counted elsewhere. `now_s` is loop time.

    `sessions`, `cache` and `shadows` are None where there is no session store, no cache, no shadow; then nothing is told of them.
    """

    snapshot: RoutingSnapshot
    tally: Tally
    now_s: float
    waiting: int = 0
    connections: int = 0
    log_lines_dropped: int = 0
    sessions: SessionMoment | None = None
    cache: CacheMoment | None = None
    shadows: "ShadowCounts | None" = None
    objectives: "ObjectiveMoment | None" = None
    channels: tuple[ChannelMoment, ...] = ()


class Metrics:
    """This process's counters. One per daemon; survives reloads."""

    def __init__(self) -> None:
        self.sessions = SessionCounts()
        self.colors = ColorCounts()
        self.upkeep = UpkeepCounts()
        self._exchanges: dict[tuple[str, str, str], int] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._retries: dict[str, int] = {}
        self._reloads: dict[str, int] = {"accepted": 0, "refused": 0}
        self._first_content: dict[str, Histogram] = {}
        self._duration: dict[str, Histogram] = {}
        self._last_resort = 0
        self._resumes: dict[str, int] = {}
        self._refusals: dict[str, int] = {}
        self._prefilled_tokens = 0
        self._received_bytes = 0
        self._sent_bytes = 0
        self._registry: CollectorRegistry | None = None
        self._moment: Moment | None = None

    def on_exchange(self, record: ExchangeRecord) -> None:
        """Count one finished exchange with its attempts; about 2 µs for one attempt."""
        # Who made a kept answer may be gone by now.
        backend = (record.backend if not record.cached else "") or _NO_BACKEND
        failure = record.failure
        outcome = failure if failure is not None else "answered" if record.status < 400 else "rejected"
        key = (backend, record.ask.dialect or "none", outcome)
        self._exchanges[key] = self._exchanges.get(key, 0) + 1
        self._received_bytes += record.received_bytes
        self._sent_bytes += record.sent_bytes
        if record.is_last_resort:
            self._last_resort += 1
        try:
            self._duration[backend].add(record.duration_s)
        except KeyError:
            self._duration[backend] = histogram = Histogram(EXCHANGE_BOUNDS_S)
            histogram.add(record.duration_s)
        if record.ttft_s:
            self._count_first_content(backend, record.ttft_s)
        if record.color:
            self.colors.on_exchange(record, outcome)
        if record.merging or record.cached:
            self.sessions.on_exchange(record)
        if record.resumed_on or record.not_resumed is not None:
            self._count_breaks(record)
        attempts = self._attempts
        if failure is None and len(record.attempts) == 1 and not record.cached:
            # Nearly every exchange: its one attempt ended as it did.
            one = (backend, outcome)
            attempts[one] = attempts.get(one, 0) + 1
            return
        before = ""
        for attempt in record.attempts:
            if before:
                self._retries[before] = self._retries.get(before, 0) + 1
            kind = attempt.failure
            before = kind or ""
            attempt_key = (attempt.backend, kind or ("answered" if attempt.status < 400 else "rejected"))
            attempts[attempt_key] = attempts.get(attempt_key, 0) + 1

    def on_event(self, event: str, fields: Mapping[str, object]) -> None:
        """Count what an event tells: a reading of the file by a running daemon, a step of a restart."""
        if event in ("config.reloaded", "config.refused"):
            self._reloads["accepted" if event == "config.reloaded" else "refused"] += 1
        self.upkeep.on_event(event, fields)

    def retain(self, names: Collection[str]) -> None:
        """Forget the series of backends that are no longer configured."""
        self.upkeep.retain(names)
        kept = {*names, _NO_BACKEND}
        self._exchanges = {key: count for key, count in self._exchanges.items() if key[0] in kept}
        self._attempts = {key: count for key, count in self._attempts.items() if key[0] in kept}
        self._resumes = {name: count for name, count in self._resumes.items() if name in kept}
        self._first_content = {name: each for name, each in self._first_content.items() if name in kept}
        self._duration = {name: each for name, each in self._duration.items() if name in kept}

    def render(self, moment: Moment) -> bytes:
        """Write everything as Prometheus text (version 0.0.4). The first call imports prometheus_client."""
        from prometheus_client import generate_latest
        from prometheus_client.process_collector import ProcessCollector
        from prometheus_client.registry import CollectorRegistry

        if self._registry is None:
            self._registry = CollectorRegistry()
            self._registry.register(self)
            ProcessCollector(registry=self._registry)
        self._moment = moment
        return generate_latest(self._registry)

    def collect(self) -> Iterator["Metric"]:
        """Yield every metric family for prometheus_client; of the moment given to `render`."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        def counter(name: str, words: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]) -> "Metric":
            family = CounterMetricFamily(name, words, labels=labels)
            for values, number in rows:
                family.add_metric(values, number)
            return family

        def histogram(name: str, words: str, rows: dict[str, Histogram]) -> "Metric":
            family = HistogramMetricFamily(name, words, labels=("backend",))
            for backend, each in rows.items():
                family.add_metric((backend,), each.buckets(), each.sum_s)
            return family

        yield counter(
            "understudy_exchanges",
            "Client requests finished, by the backend that gave the answer.",
            ("backend", "dialect", "outcome"),
            self._exchanges.items(),
        )
        yield counter("understudy_attempts", "Sends to a backend.", ("backend", "outcome"), self._attempts.items())
        retries = [((kind,), count) for kind, count in self._retries.items()]
        yield counter("understudy_retries", "Attempts after a failed one, by that failure.", ("after",), retries)
        yield counter("understudy_last_resort", "Exchanges sent to the least bad backend.", (), [((), self._last_resort)])
        resumes = [((name,), count) for name, count in self._resumes.items()]
        yield counter("understudy_resumes", "Broken answers that went on, by the backend that went on.", ("backend",), resumes)
        refusals = [((reason,), count) for reason, count in self._refusals.items()]
        yield counter("understudy_resume_refusals", "Broken answers that did not go on.", ("reason",), refusals)
        prefilled = [((), self._prefilled_tokens)]
        yield counter("understudy_prefilled_tokens", "Tokens read once more to go on with an answer.", (), prefilled)
        yield histogram("understudy_first_content_seconds", "From the request to the first content sent.", self._first_content)
        yield histogram("understudy_exchange_seconds", "From the request to the end of its answer.", self._duration)
        yield counter("understudy_received_bytes", "Bytes of request bodies.", (), [((), self._received_bytes)])
        yield counter("understudy_sent_bytes", "Bytes of answers.", (), [((), self._sent_bytes)])
        reloads = [((result,), count) for result, count in self._reloads.items()]
        yield counter("understudy_config_reloads", "Readings of the file while running.", ("result",), reloads)
        build = GaugeMetricFamily("understudy_build_info", "Always 1.", labels=("version", "python"))
        build.add_metric((__version__, python_version()), 1)
        yield build
        if self._moment is not None:
            yield counter(
                "understudy_log_lines_dropped",
                "Log lines that standard error did not take.",
                (),
                [((), self._moment.log_lines_dropped)],
            )
            yield from _gauges(self._moment, GaugeMetricFamily)
            yield from self.upkeep.collect(self._moment.snapshot, self._moment.channels)
            yield from self.sessions.collect(self._moment.sessions, self._moment.cache)
            if self._moment.snapshot.plan.rollout.is_on:
                yield from self.colors.collect(self._moment.snapshot.rollout)
            if self._moment.objectives is not None:
                yield from self._moment.objectives.collect()
            if self._moment.shadows is not None:
                yield from self._moment.shadows.collect()

    def _count_breaks(self, record: ExchangeRecord) -> None:
        for name in record.resumed_on:
            self._resumes[name] = self._resumes.get(name, 0) + 1
        if record.not_resumed is not None and record.failure is not None:
            self._refusals[record.not_resumed] = self._refusals.get(record.not_resumed, 0) + 1
        self._prefilled_tokens += record.prefilled_tokens

    def _count_first_content(self, backend: str, ttft_s: float) -> None:
        try:
            self._first_content[backend].add(ttft_s)
        except KeyError:
            self._first_content[backend] = histogram = Histogram(FIRST_CONTENT_BOUNDS_S)
            histogram.add(ttft_s)


def _gauges(moment: Moment, make: Callable[..., "Metric"]) -> Iterator["Metric"]:
    """Yield what is true now. `make` is prometheus_client's GaugeMetricFamily."""
    conditions = make("understudy_backend_condition", "1 for the condition a backend is in.", labels=("backend", "condition"))
    duties = make("understudy_backend_duty", "1 for the duty a backend has.", labels=("backend", "duty"))
    in_flight = make("understudy_backend_in_flight", "Exchanges at a backend.", labels=("backend",))
    ejected = make("understudy_backend_ejected", "1 while a backend gets no traffic for its failures.", labels=("backend",))
    for target in moment.snapshot.targets:
        name = target.backend.name
        tally = moment.tally.of(name)
        for condition in Condition:
            conditions.add_sample(
                conditions.name, {"backend": name, "condition": condition.value}, float(target.state.condition is condition)
            )
        for duty in Duty:
            duties.add_sample(duties.name, {"backend": name, "duty": duty.value}, float(target.state.duty is duty))
        in_flight.add_sample(in_flight.name, {"backend": name}, tally.in_flight)
        ejected.add_sample(ejected.name, {"backend": name}, float(tally.ejected_until_s > moment.now_s))
    yield from (conditions, duties, in_flight, ejected)
    yield make("understudy_waiting", "Exchanges that wait for a backend or for room.", value=moment.waiting)
    yield make("understudy_connections", "Clients' open connections.", value=moment.connections)
    yield make("understudy_config_generation", "Grows with every swap of the routing snapshot.", value=moment.snapshot.generation)
