"""Count what became of conversations and of the cache, and write it as metric families when somebody asks.

Part of telemetry.metrics, which counts finished exchanges here; what sessions counts itself comes with a scrape. Every label is
a word of a closed list, never a session's id.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from understudy.core.conversation import Merging
from understudy.core.record import ExchangeRecord

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# The words of sessions.store.Loss, which this room may not read: a test holds them in step. All of them are written from the
# first scrape on, since an alert on an increase sees none in a series that begins with it.
LOST_REASONS = (
    "unavailable",
    "slow",
    "resting",
    "full",
    "read_only",
    "refused",
    "too_large",
    "unreadable",
    "raced",
    "failed",
    "not_kept",
)
# What X-Understudy-Cache says: nobody was asked; nobody else could answer.
CACHE_WORDS = ("hit", "stale")


@dataclass(frozen=True, slots=True)
class SessionMoment:
    """What is true of the session store at a scrape, and what it has counted.

    `size_bytes` is the last sweep's, `sessions`, too, with those begun since. `store_up` is 1 or 0; `lost` are answers by the
    reason, a word of `LOST_REASONS`.
    """

    sessions: int = 0
    size_bytes: int = 0
    held: int = 0
    waiting: int = 0
    store_up: int = 1
    kept: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CacheMoment:
    """What is true of the cache at a scrape."""

    entries: int = 0
    size_bytes: int = 0


class SessionCounts:
    """This process's counters of finished exchanges, as far as they concern a session or the cache."""

    def __init__(self) -> None:
        self._merges = dict.fromkeys(map(str, Merging), 0)
        self._cache_answers = dict.fromkeys(CACHE_WORDS, 0)

    def on_exchange(self, record: ExchangeRecord) -> None:
        """Count one finished exchange."""
        if record.merging:
            self._merges[record.merging] += 1
        if record.cached:
            self._cache_answers[record.cached] += 1

    def collect(self, sessions: SessionMoment | None, cache: CacheMoment | None) -> Iterator["Metric"]:
        """Yield the families of the store and of the cache, each where there is one."""
        if sessions is not None:
            yield from self._of_sessions(sessions)
        if cache is not None:
            yield from self._of_cache(cache)

    def _of_sessions(self, moment: SessionMoment) -> Iterator["Metric"]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield CounterMetricFamily("understudy_sessions_kept", "Answers kept in their sessions.", value=moment.kept)
        lost = CounterMetricFamily("understudy_sessions_lost", "Answers that could not be kept.", labels=("reason",))
        for reason in LOST_REASONS:
            lost.add_metric((reason,), moment.lost.get(reason, 0))
        yield lost
        merges = CounterMetricFamily(
            "understudy_session_merges", "Requests of sessions, by what became of their messages.", labels=("merging",)
        )
        for merging, count in self._merges.items():
            merges.add_metric((merging,), count)
        yield merges
        yield GaugeMetricFamily("understudy_sessions", "Sessions kept, as of the last sweep.", value=moment.sessions)
        yield GaugeMetricFamily("understudy_sessions_bytes", "What they take, as of the last sweep.", value=moment.size_bytes)
        yield GaugeMetricFamily("understudy_sessions_held", "Sessions that a request holds.", value=moment.held)
        yield GaugeMetricFamily("understudy_sessions_waiting", "Requests that wait for their session.", value=moment.waiting)
        yield GaugeMetricFamily("understudy_session_store_up", "1 while the session store answers.", value=moment.store_up)

    def _of_cache(self, moment: CacheMoment) -> Iterator["Metric"]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        answers = CounterMetricFamily("understudy_cache_answers", "Requests answered from the cache.", labels=("when",))
        for when, count in self._cache_answers.items():
            answers.add_metric((when,), count)
        yield answers
        yield GaugeMetricFamily("understudy_cache_entries", "Answers in the cache.", value=moment.entries)
        yield GaugeMetricFamily("understudy_cache_bytes", "What they take.", value=moment.size_bytes)
