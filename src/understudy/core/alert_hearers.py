"""Keep what one channel was told of every incident, and take back what it was told by a message that did not arrive.

Called by core.alerting, one hearer a channel. A message is taken to be heard from the moment it is sent; when it fails, what the
channel knew before is what it knows, so that the next message is composed of what is so by then. Pure: the caller passes now_s
(seconds, loop time). Decides neither what is told nor when, and sends nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from understudy.core.alert_incidents import Told, Want
from understudy.core.upkeep import AlertChannel, Severity

_Key = tuple[str, str]


@dataclass(slots=True)
class _Mark:
    """What a message changed in what its channel knows of one incident."""

    key: _Key
    told: Told
    before: Told
    after: Told


class Sending:
    """One message on its way, as its hearer sees it; `number` counts a hearer's messages."""

    __slots__ = ("hearer", "last_at_s", "marks", "number", "pressing")

    def __init__(self, hearer: "Hearer", wants: Iterable[Want], number: int, now_s: float) -> None:
        self.hearer = hearer
        self.number = number
        # When the message before it was sent.
        self.last_at_s = hearer.last_at_s
        wants = list(wants)
        self.pressing = pressing_of(wants)
        self.marks = []
        for want in wants:
            before = replace(want.told)
            want.mark(now_s)
            self.marks.append(_Mark(want.incident.alert.key, want.told, before, replace(want.told)))

    def is_about(self, key: _Key) -> bool:
        """Whether it tells of that incident."""
        return any(mark.key == key for mark in self.marks)

    def undo(self) -> None:
        """Have the channel know what it knew before."""
        for mark in self.marks:
            mark.told.become(mark.before)

    def redo(self, newer: "Sending | None") -> None:
        """Have the channel know it after all. Where `newer` is on its way, this is what it falls back to."""
        newer_marks = {id(mark.told): mark for mark in newer.marks} if newer is not None else {}
        for mark in self.marks:
            later = newer_marks.get(id(mark.told))
            if later is not None:
                later.before = mark.after
            else:
                mark.told.become(mark.after)


class Hearer:
    """One channel: what it was told by incident, and the message on its way. `last_at_s` is when the last one was sent."""

    def __init__(self, channel: AlertChannel) -> None:
        self.channel = channel
        self.told: dict[_Key, Told] = {}
        self.last_at_s = float("-inf")
        # What needs a person in the last message that failed; empty where none did since one arrived.
        self.pressed: frozenset[tuple[_Key, str]] = frozenset()
        self._under_way: Sending | None = None
        self._sent = 0
        self._arrived = 0

    def send(self, wants: Iterable[Want], now_s: float) -> Sending:
        """Take what is wanted as told, until it is known whether it arrived."""
        self._sent += 1
        sending = self._under_way = Sending(self, wants, self._sent, now_s)
        self.last_at_s = now_s
        return sending

    def take_back(self, sending: Sending) -> None:
        """Take what a message would have told as not told; it does not count for the gap between messages either."""
        if sending is self._under_way:
            sending.undo()
            self._under_way = None
            self.last_at_s = sending.last_at_s
            self.pressed = sending.pressing

    def keep(self, sending: Sending) -> bool:
        """Take what a message has told as told, even when it was taken back before; False where a newer one has arrived."""
        if sending.number <= self._arrived:
            return False
        self._arrived = sending.number
        self.pressed = frozenset()
        if sending is self._under_way:
            self._under_way = None
        else:
            sending.redo(self._under_way)
        return True

    def is_being_told(self, key: _Key) -> bool:
        """Whether a message about that incident is on its way, which may yet be taken back."""
        return self._under_way is not None and self._under_way.is_about(key)

    def forget(self, key: _Key) -> None:
        """Forget what was told of an incident; a message on its way cannot bring it back."""
        self.told.pop(key, None)


def pressing_of(wants: Iterable[Want]) -> frozenset[tuple[_Key, str]]:
    """Return what of it needs a person: the incident and its event."""
    return frozenset((want.incident.alert.key, want.event) for want in wants if want.severity is Severity.ERROR)
