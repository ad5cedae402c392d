"""Follow one incident, and say what a channel has yet to be told of it.

Called by core.alerting, which keeps the incidents and gathers what several of them have to tell. Pure: the caller passes now_s
(seconds, loop time). What is wanted follows from what is so and what was told last; nothing is queued.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from understudy.core.alert_words import Saying
from understudy.core.alert_writing import RANK, Cost, Note
from understudy.core.upkeep import Severity

# What begins and ends within its event's time is a blip. A restart is told by how it ended, if that comes soon.
SETTLE_S: Final = {"backend.down": 10.0, "backend.degraded": 10.0, "restart.started": 45.0, "pool.empty": 5.0, "slo.broken": 10.0}
# An end that is taken back within this time was none; and neighbours recover together.
END_SETTLE_S: Final = 5.0
MOMENT_SETTLE_S: Final = 2.0
# So many beginnings within the window are a flapping; it is over when nothing has changed for CALM_S.
FLAPS_MIN: Final = 3
FLAP_WINDOW_S: Final = 600.0
CALM_S: Final = 600.0
# What needs a person and lasts as long is told as it stands, flapping or not: nobody may be left alone with it until it is calm.
PRESSING_S: Final = 60.0
# A daemon that starts sees its backends for the first time, and children of its own that do not listen yet.
START_S: Final = 10.0
# A short interruption of these has cost somebody something, or somebody did something.
_TOLD_HOWEVER_SHORT: Final = frozenset({"pool", "restart"})
_RECENT_MAX: Final = 32
_DAY_MIN: Final = 24 * 60


class Phase(StrEnum):
    """What an alert does to its incident."""

    BEGINS = "begins"
    ENDS = "ends"
    HAPPENS = "happens"  # at once; there is no end of it
    LIFTED = "lifted"  # an operator took its subject out of service: nothing of it is news any more


@dataclass(frozen=True, slots=True)
class Alert:
    """One log event, read as news of the incident `topic` of `who` ("" where there is one only).

    `is_last`: a restart has failed, and no further one is to come. `keeps_exchanges`: its subject was given up and gets exchanges
    all the same.
    """

    event: str
    phase: Phase
    topic: str
    who: str
    severity: Severity
    facts: Mapping[str, str] = field(default_factory=dict)
    is_last: bool = False
    keeps_exchanges: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What tells one incident from another."""
        return self.topic, self.who


@dataclass(slots=True)
class Told:
    """What one channel was told of one incident, and when; `worthy` is the incident's count that it has heard of.

    `is_plain`: the last that was told is that it is so, and neither that it flaps nor that it is over.
    """

    is_on: bool = False
    is_flapping: bool = False
    is_plain: bool = False
    severity: Severity = Severity.INFO
    worthy: int = 0
    at_s: float = float("-inf")

    def become(self, other: "Told") -> None:
        """Be what `other` is."""
        self.is_on, self.is_flapping, self.is_plain = other.is_on, other.is_flapping, other.is_plain
        self.severity, self.worthy, self.at_s = other.severity, other.worthy, other.at_s


class Incident:
    """What is so. `worthy` counts what was worth telling when it was over; `end_event` names the end.

    `since_s` is when it began, `turned_s` when it became what `alert` says, which may be worse than what it began with.
    """

    __slots__ = (
        *("alert", "changed_s", "cost", "counts", "end_event", "ended_s", "is_early", "is_on", "recent", "since_s"),
        *("turned_s", "worthy"),
    )

    def __init__(self, alert: Alert) -> None:
        self.alert = alert
        self.end_event = alert.event
        self.is_on = False
        # Whether it began while the daemon started.
        self.is_early = False
        self.worthy = 0
        # Loop time.
        self.since_s = self.turned_s = self.changed_s = 0.0
        self.ended_s = float("-inf")
        # What it became, and when.
        self.recent: deque[tuple[str, float]] = deque(maxlen=_RECENT_MAX)
        # Totals when it began, and what it cost by its end.
        self.counts: Cost | None = None
        self.cost: Cost | None = None

    def begin(self, alert: Alert, now_s: float, counts: Cost | None, *, is_starting: bool = False) -> None:
        """Hear that it began, went on or got worse, or happened once more. What begins while a daemon starts is no flapping."""
        if alert.phase is Phase.HAPPENS:
            self.alert, self.since_s, self.turned_s, self.changed_s = alert, now_s, now_s, now_s
            self.worthy += 1
            self.recent.append((alert.event, now_s))
            return
        if self.is_on:
            # A further try does not make a failed restart better; whatever is as bad or worse is the latest news.
            if RANK[alert.severity] >= RANK[self.alert.severity]:
                if alert.event != self.alert.event:
                    self.changed_s = self.turned_s = now_s
                    self.recent.append((alert.event, now_s))
                self.alert = alert
            return
        if now_s < self.ended_s + END_SETTLE_S:
            self.worthy -= self._is_worthy()
            if alert.event != self.alert.event:
                self.turned_s = now_s
        else:
            self.since_s, self.turned_s, self.counts = now_s, now_s, counts
            self.is_early = is_starting
        self.alert, self.is_on, self.changed_s = alert, True, now_s
        if not is_starting:
            self.recent.append((alert.event, now_s))

    def end(self, alert: Alert, now_s: float, counts: Cost | None) -> None:
        """Hear that it is over."""
        if not self.is_on:
            return
        self.is_on = False
        self.ended_s = self.changed_s = now_s
        self.end_event = alert.event
        self.worthy += self._is_worthy()
        self.cost = None
        if counts is not None and self.counts is not None:
            self.cost = Cost(max(0, counts.failed - self.counts.failed), max(0, counts.moved - self.counts.moved))

    def is_past(self, told: list[Told], now_s: float) -> bool:
        """Whether nobody has to hear of it any more, and another beginning would be no flapping."""
        if self.is_on or now_s < self.changed_s + max(FLAP_WINDOW_S, CALM_S) + END_SETTLE_S:
            return False
        return all(each.worthy == self.worthy and not each.is_on and not each.is_flapping for each in told)

    def is_restless(self, now_s: float, event: str = "") -> bool:
        """Whether it becomes `event` again and again ("": whichever)."""
        if now_s >= self.changed_s + CALM_S:
            return False
        often = Counter(name for name, at_s in self.recent if at_s > now_s - FLAP_WINDOW_S)
        return max(often.values() if not event else (often[event],), default=0) >= FLAPS_MIN

    def _is_worthy(self) -> bool:
        settle_s = SETTLE_S.get(self.alert.event, 0.0)
        is_told = self.alert.topic in _TOLD_HOWEVER_SHORT and not (self.is_early and self.alert.topic == "pool")
        return is_told or self.ended_s - self.since_s >= settle_s


class _Telling(NamedTuple):
    """What to say from `ready_at_s` on, and how much it matters."""

    saying: Saying
    ready_at_s: float
    severity: Severity


@dataclass(frozen=True, slots=True)
class Want:
    """What a channel has yet to be told of an incident, from `ready_at_s` on."""

    incident: Incident
    told: Told
    saying: Saying
    ready_at_s: float
    severity: Severity

    @property
    def event(self) -> str:
        """The alert event that this is."""
        is_end = self.saying in (Saying.ENDED, Saying.WAS)
        return self.incident.end_event if is_end else self.incident.alert.event

    @property
    def events(self) -> frozenset[str]:
        """A channel that asked for one of these hears of it."""
        if self.saying in (Saying.WAS, Saying.FLAPS, Saying.STEADY):
            return frozenset({self.incident.alert.event, self.incident.end_event})
        return frozenset({self.event})

    @property
    def is_final(self) -> bool:
        """Whether nothing further comes of it."""
        return self.saying in (Saying.ENDED, Saying.WAS, Saying.HAPPENED)

    def mark(self, now_s: float) -> None:
        """Note that it has been told, or that the channel does not care to be."""
        told = self.told
        told.is_plain = self.saying in (Saying.BEGAN, Saying.REMINDS)
        told.is_flapping = self.saying is Saying.FLAPS or (told.is_flapping and told.is_plain)
        told.is_on = self.incident.is_on
        told.worthy = self.incident.worthy
        told.severity, told.at_s = self.severity, now_s

    def note(self, now_s: float, day_s: float) -> Note:
        """Return what the writer needs; `day_s` are the seconds from local midnight to `now_s`."""
        incident, alert = self.incident, self.incident.alert
        since_s, until_s, times = incident.turned_s, now_s, 1
        if self.saying in (Saying.ENDED, Saying.WAS):
            until_s = incident.ended_s
        if self.saying in (Saying.WAS, Saying.HAPPENED):
            times = max(1, incident.worthy - self.told.worthy)
        if self.saying in (Saying.FLAPS, Saying.STEADY):
            # What else it was, this channel may not have asked for.
            begun = [at_s for event, at_s in incident.recent if event == alert.event] or [incident.changed_s]
            times = len(begun)
            since_s = begun[0] if self.saying is Saying.FLAPS else incident.changed_s
        # Floored as clocks and the log do it.
        minute = int((day_s - (now_s - since_s)) // 60) % _DAY_MIN
        return Note(
            self.saying,
            # The words are those of what began; that it is over is the saying's.
            alert.event,
            self.severity,
            who=alert.who,
            facts=alert.facts,
            since=f"{minute // 60:02d}:{minute % 60:02d}",
            lasted_s=until_s - since_s,
            times=times,
            is_on=incident.is_on,
            cost=incident.cost,
        )


def want_of(incident: Incident, told: Told, repeat_s: float, now_s: float) -> Want | None:
    """Return what a channel that is reminded every `repeat_s` (0.0: never) has yet to be told, None if nothing."""
    is_reminder_due = repeat_s > 0.0 and now_s >= told.at_s + repeat_s
    if incident.alert.phase is Phase.HAPPENS:
        telling = _moment(incident, told, now_s)
    elif incident.is_on and (told.is_on or told.is_flapping) and RANK[incident.alert.severity] > RANK[told.severity]:
        telling = _Telling(Saying.BEGAN, incident.changed_s, incident.alert.severity)
    elif _is_flap(incident, told, now_s):
        telling = _flapping(incident, told, now_s, is_reminder_due=is_reminder_due)
    else:
        telling = _state(incident, told, is_reminder_due=is_reminder_due)
    return None if telling is None else Want(incident, told, *telling)


def _moment(incident: Incident, told: Told, now_s: float) -> _Telling | None:
    if incident.worthy <= told.worthy:
        return None
    rest_until_s = told.at_s + CALM_S if incident.is_restless(now_s) else 0.0
    return _Telling(Saying.HAPPENED, max(incident.changed_s + MOMENT_SETTLE_S, rest_until_s), incident.alert.severity)


def _is_flap(incident: Incident, told: Told, now_s: float) -> bool:
    """Whether this is to be told as a flap; one that has grown calm since it was told how things stand is none any more."""
    if told.is_flapping:
        return not told.is_plain or incident.is_restless(now_s)
    return incident.is_restless(now_s, incident.alert.event)


def _flapping(incident: Incident, told: Told, now_s: float, *, is_reminder_due: bool) -> _Telling | None:
    severity = incident.alert.severity if incident.is_on else told.severity
    if now_s >= incident.changed_s + CALM_S:
        return _Telling(Saying.STEADY, incident.changed_s + CALM_S, severity)
    is_pressing = incident.is_on and severity is Severity.ERROR and now_s >= incident.changed_s + PRESSING_S
    if is_pressing and not (told.is_plain and told.is_on):
        return _Telling(Saying.BEGAN, incident.changed_s + PRESSING_S, severity)
    if told.is_flapping and not is_reminder_due:
        return None
    return _Telling(Saying.FLAPS, incident.changed_s, incident.alert.severity)


def _state(incident: Incident, told: Told, *, is_reminder_due: bool) -> _Telling | None:
    alert = incident.alert
    if incident.is_on:
        if not told.is_on:
            return _Telling(Saying.BEGAN, incident.changed_s + SETTLE_S.get(alert.event, 0.0), alert.severity)
        return _Telling(Saying.REMINDS, incident.changed_s, alert.severity) if is_reminder_due else None
    if told.is_on:
        return _Telling(Saying.ENDED, incident.ended_s + END_SETTLE_S, told.severity)
    if incident.worthy > told.worthy:
        return _Telling(Saying.WAS, incident.ended_s + END_SETTLE_S, Severity.INFO)
    return None
