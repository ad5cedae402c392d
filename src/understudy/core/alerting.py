"""Decide what a person is told, and when: incidents out of log events, one message an incident.

Called by controlplane.alerts. What a channel is told follows from what is so and what it was told last, so that nothing queues
up: a channel that could not be told for hours hears once how things stand, for a message that failed is taken back and composed
anew. Words are core.alert_words'. Pure: the caller passes now_s (seconds, loop time) and the second of the local day. Never sends
anything.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from understudy.core.alert_hearers import Hearer, Sending, pressing_of
from understudy.core.alert_holds import RestartHolds
from understudy.core.alert_incidents import START_S, Alert, Incident, Phase, Told, Want, want_of
from understudy.core.alert_writing import RANK, Cost, Note, is_over, write
from understudy.core.upkeep import AlertChannel, Language, Severity

ALERT_EVENTS: tuple[str, ...] = (
    "backend.down",
    "backend.up",
    "backend.degraded",
    "restart.started",
    "restart.succeeded",
    "restart.failed",
    "restart.gave_up",
    "pool.empty",
    "pool.recovered",
    "rollout.switched",
    "rollout.rolled_back",
    "sessions.failing",
    "config.refused",
    "slo.broken",
)

# What is ready waits this long for what is about to be.
GATHER_S: Final = 10.0
# Between two messages on a channel, and where something needs a person.
GAP_S: Final = 30.0
URGENT_GAP_S: Final = 5.0
INCIDENTS_MAX: Final = 256
_FACT_CHARACTERS_MAX: Final = 200
_LIST_ITEMS_MAX: Final = 5
_OF_BACKENDS: Final = frozenset({"condition", "pace", "restart"})


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent to the channel of that index; `sending` is the desk's own note of it.

    `is_over`: all that it tells has come to its end.
    """

    channel: int
    subject: str
    body: str
    severity: Severity
    events: tuple[str, ...]
    is_over: bool
    sending: Sending = field(repr=False, compare=False)


_INFO, _WARNING, _ERROR = Severity.INFO, Severity.WARNING, Severity.ERROR
# Log event: alert event, phase, topic, the fields of which the first that is there names what it is about, severity.
_READINGS: Final[Mapping[str, tuple[str, Phase, str, tuple[str, ...], Severity]]] = {
    "backend.went_down": ("backend.down", Phase.BEGINS, "condition", ("backend",), _WARNING),
    "backend.went_up": ("backend.up", Phase.ENDS, "condition", ("backend",), _INFO),
    "backend.was_degraded": ("backend.degraded", Phase.BEGINS, "pace", ("backend",), _WARNING),
    "backend.recovered_pace": ("backend.degraded", Phase.ENDS, "pace", ("backend",), _INFO),
    "restart.started": ("restart.started", Phase.BEGINS, "restart", ("backend",), _INFO),
    "restart.failed": ("restart.failed", Phase.BEGINS, "restart", ("backend",), _WARNING),
    "restart.gave_up": ("restart.gave_up", Phase.BEGINS, "restart", ("backend",), _ERROR),
    "restart.succeeded": ("restart.succeeded", Phase.ENDS, "restart", ("backend",), _INFO),
    # It came back without another restart; what had failed is over all the same.
    "restart.recovered": ("restart.succeeded", Phase.ENDS, "restart", ("backend",), _INFO),
    "pool.became_empty": ("pool.empty", Phase.BEGINS, "pool", (), _ERROR),
    "pool.recovered": ("pool.recovered", Phase.ENDS, "pool", (), _INFO),
    "rollout.switched": ("rollout.switched", Phase.HAPPENS, "switch", (), _INFO),
    "rollout.rolled_back": ("rollout.rolled_back", Phase.HAPPENS, "rollback", (), _WARNING),
    "store.became_unavailable": ("sessions.failing", Phase.BEGINS, "sessions", (), _ERROR),
    "store.recovered": ("sessions.failing", Phase.ENDS, "sessions", (), _INFO),
    "config.refused": ("config.refused", Phase.BEGINS, "config", (), _ERROR),
    "config.reloaded": ("config.refused", Phase.ENDS, "config", (), _INFO),
    "slo.was_broken": ("slo.broken", Phase.BEGINS, "slo", ("objective",), _WARNING),
    "slo.was_restored": ("slo.broken", Phase.ENDS, "slo", ("objective",), _INFO),
}
# Only these fields reach a message: it leaves the house, and a command's output, say, must not.
_FACTS: Final = (
    "reason",
    "detail",
    "backends",
    "active",
    "was",
    "mistakes",
    "exit_status",
    "backend",
    "value",
    "bound",
)
# What is promised as a share; the others are seconds.
_SHARES: Final = frozenset({"errors", "gpu_busy"})
_MAINTENANCE: Final = "maintenance"


def alert_of(event: str, fields: Mapping[str, object]) -> Alert | None:
    """Return what a log event means for alerts, None where it means nothing."""
    if event == "backend.changed_duty":
        if fields.get("duty") != _MAINTENANCE:
            return None
        return Alert("", Phase.LIFTED, "", _told(fields.get("backend")), _INFO)
    reading = _READINGS.get(event)
    if reading is None:
        return None
    name, phase, topic, subjects, severity = reading
    who = next((_told(fields[each]) for each in subjects if fields.get(each)), "")
    facts = {each: _told(_measured(each, fields)) for each in _FACTS if fields.get(each) not in (None, False, "", [], ())}
    is_last = name == "restart.failed" and fields.get("next_in_s", 0.0) is None
    return Alert(name, phase, topic, who, severity, facts, is_last, keeps_exchanges=fields.get("taken_out") is False)


class AlertDesk:
    """Keeps the incidents and what every channel knows of them; both bounded."""

    def __init__(self, channels: tuple[AlertChannel, ...]) -> None:
        self._incidents: dict[tuple[str, str], Incident] = {}
        self._holds = RestartHolds(self._incidents)
        # What could not be written, each incident once; taken by whoever has a log.
        self._faulty: set[tuple[str, str]] = set()
        self._faults: list[tuple[str, Exception]] = []
        self._hearers = [Hearer(channel) for channel in channels]
        self._starting_until_s = float("-inf")

    def __len__(self) -> int:
        """Return how many incidents last."""
        return sum(incident.is_on for incident in self._incidents.values())

    def start(self, now_s: float) -> None:
        """Hear that the daemon starts: what comes and goes in its first seconds is no news."""
        self._starting_until_s = now_s + START_S

    def set_channels(self, channels: tuple[AlertChannel, ...]) -> None:
        """Take other channels; what one of the same URL was told stays known, a new one hears of what lasts and is to come."""
        known = {hearer.channel.url: hearer for hearer in self._hearers}
        past = {key: incident.worthy for key, incident in self._incidents.items()}
        hearers = []
        for channel in channels:
            # A URL that stands twice is two channels, of which the second begins anew.
            hearer = known.pop(channel.url, None)
            if hearer is None:
                hearer = Hearer(channel)
                hearer.told = {key: Told(worthy=worthy) for key, worthy in past.items()}
            hearer.channel = channel
            hearers.append(hearer)
        self._hearers = hearers

    def retain(self, names: Collection[str]) -> None:
        """Forget the incidents of backends that are no longer among `names`."""
        for key in [key for key in self._incidents if key[0] in _OF_BACKENDS and key[1] not in names]:
            self._forget(key)

    def on_event(self, alert: Alert, now_s: float, counts: Cost | None = None) -> None:
        """Hear of something. `counts` are totals at this instant; what an incident cost is their growth."""
        if alert.phase is Phase.LIFTED:
            for key in [key for key in self._incidents if key[0] in _OF_BACKENDS and key[1] == alert.who]:
                self._forget(key)
            return
        if self._holds.hear(alert, now_s, counts):
            return
        incident = self._incidents.get(alert.key)
        if alert.phase is Phase.ENDS:
            if incident is not None:
                incident.end(alert, now_s, counts)
            return
        if incident is None:
            incident = self._open(alert)
        if incident is not None:
            incident.begin(alert, now_s, counts, is_starting=now_s < self._starting_until_s)

    def due(self, now_s: float, day_s: float, busy: Collection[int] = ()) -> list[Message]:
        """Return what is to be sent now, at most one message a channel, and none to those in `busy`.

        What they tell counts as told until `take_back`.
        """
        for who in self._holds.take_called_off(now_s):
            if ("restart", who) in self._incidents:
                self._forget(("restart", who))
        for key, incident in list(self._incidents.items()):
            # What is on its way may be taken back, and be news again.
            is_open = any(hearer.is_being_told(key) for hearer in self._hearers)
            if not is_open and incident.is_past([each.told[key] for each in self._hearers if key in each.told], now_s):
                self._forget(key)
        messages = []
        for index, hearer in enumerate(self._hearers):
            message = None if index in busy else self._compose(index, hearer, now_s, day_s)
            if message is not None:
                messages.append(message)
        return messages

    def keep(self, message: Message) -> bool:
        """Hear that a message has arrived, maybe after it was taken back, or is given up: what it tells is told.

        Returns False where a newer message to the same channel has arrived before.
        """
        return message.sending.hearer.keep(message.sending)

    def take_back(self, message: Message) -> None:
        """Hear that a message did not arrive: what it tells is not told, and `due` composes anew of what is so then."""
        message.sending.hearer.take_back(message.sending)

    def has_news(self, index: int, now_s: float, day_s: float) -> bool:
        """Whether that channel has yet to be told something, now or soon."""
        return bool(self._wants(self._hearers[index], now_s, day_s))

    def is_pressing(self, index: int, now_s: float, day_s: float) -> bool:
        """Whether that channel is to be told now what needs a person, and the last message that failed did not say so."""
        hearer = self._hearers[index]
        return bool(pressing_of(self._ripe(hearer, now_s, day_s)) - hearer.pressed)

    def take_faults(self) -> list[tuple[str, Exception]]:
        """Return the alert events that could not be written since, and why; every incident is among them once."""
        faults, self._faults = self._faults, []
        return faults

    # --- incidents

    def _open(self, alert: Alert) -> Incident | None:
        if len(self._incidents) >= INCIDENTS_MAX:
            over = next((key for key, incident in self._incidents.items() if not incident.is_on), None)
            if over is None:
                # The log has it; whoever looks at that many incidents is not helped by one more.
                return None
            self._forget(over)
        incident = self._incidents[alert.key] = Incident(alert)
        return incident

    def _forget(self, key: tuple[str, str]) -> None:
        del self._incidents[key]
        self._faulty.discard(key)
        if key[0] == "restart":
            self._holds.forget(key[1])
        for hearer in self._hearers:
            hearer.forget(key)

    # --- channels

    def _compose(self, index: int, hearer: Hearer, now_s: float, day_s: float) -> Message | None:
        """Return a message of what is ripe, None where nothing is."""
        language = hearer.channel.language
        wants, shown = [], []
        for want in self._ripe(hearer, now_s, day_s):
            note = self._note(want, language, now_s, day_s)
            if note is None:
                # What cannot be written counts as told, or it would hold up all the others for as long as it lasts.
                want.mark(now_s)
            else:
                wants.append(want)
                shown.append(note)
        if not wants:
            return None
        subject, body = write(shown, language)
        worst = max((want.severity for want in wants), key=RANK.__getitem__)
        events = tuple(dict.fromkeys(want.event for want in wants))
        is_all_over = all(is_over(note) for note in shown)
        return Message(index, subject, body, worst, events, is_all_over, hearer.send(wants, now_s))

    def _note(self, want: Want, language: Language, now_s: float, day_s: float) -> Note | None:
        """Return what the writer needs, None where he could not write it."""
        try:
            note = want.note(now_s, day_s)
            write([note], language)
        except Exception as error:  # noqa: BLE001  whatever it is, it is one incident's, and is told by take_faults
            key = want.incident.alert.key
            if key not in self._faulty:
                self._faulty.add(key)
                self._faults.append((want.event, error))
            return None
        return note

    def _ripe(self, hearer: Hearer, now_s: float, day_s: float) -> list[Want]:
        """Return what goes into a message now; empty while there is nothing, or while more is about to come."""
        wants = self._wants(hearer, now_s, day_s)
        ripe = [want for want in wants if want.ready_at_s <= now_s]
        if not ripe:
            return []
        is_more_coming = len(ripe) < len(wants)
        if is_more_coming and now_s < min(want.ready_at_s for want in ripe) + GATHER_S:
            return []
        gap_s = URGENT_GAP_S if any(want.severity is Severity.ERROR for want in ripe) else GAP_S
        return ripe if now_s >= hearer.last_at_s + gap_s else []

    def _wants(self, hearer: Hearer, now_s: float, day_s: float) -> list[Want]:
        """Return what this channel has yet to be told, ready or soon; what it did not ask for is marked as told."""
        channel = hearer.channel
        rank_min = RANK[channel.quiet_below] if _is_quiet(channel, int(day_s // 60)) else 0
        wants = []
        for key, incident in self._incidents.items():
            want = want_of(incident, hearer.told.setdefault(key, Told()), channel.repeat_s, now_s)
            if want is None or RANK[want.severity] < rank_min:
                continue
            if not channel.events or not want.events.isdisjoint(channel.events):
                wants.append(self._holds.delayed(want))
            elif want.is_final and want.ready_at_s <= now_s:
                want.mark(now_s)
        return wants


def _is_quiet(channel: AlertChannel, minute: int) -> bool:
    begin, end = channel.quiet_from_min, channel.quiet_to_min
    return begin <= minute < end if begin <= end else minute >= begin or minute < end


def _measured(name: str, fields: Mapping[str, object]) -> object:
    """Return a field, what is measured with its unit."""
    value = fields[name]
    if name not in ("value", "bound") or not isinstance(value, float | int):
        return value
    return f"{value:.4g} s" if fields.get("objective") not in _SHARES else f"{100.0 * value:.4g}%"


def _told(value: object) -> str:
    """Return a field as one short line of text."""
    if isinstance(value, list | tuple):
        shown = "; ".join(str(item) for item in value[:_LIST_ITEMS_MAX])
        value = shown if len(value) <= _LIST_ITEMS_MAX else f"{shown}; ..."
    text = " ".join("".join(char if char.isprintable() else " " for char in str(value)).split())
    return text if len(text) <= _FACT_CHARACTERS_MAX else f"{text[: _FACT_CHARACTERS_MAX - 3]}..."
