"""Hold back what is not news yet while a backend is being restarted: that it is up again, and for a while that it is down.

Called by core.alerting, whose incidents it looks at. A backend that is being restarted answers probes before it has proven
itself, and gets no request until then; one that was given up may answer them, too, and still needs a person. One that was given
up for being slow gets its requests, so that nothing of it is held back.
Pure: the caller passes now_s (seconds, loop time). Never opens or forgets an incident.
"""

from collections.abc import Mapping
from dataclasses import replace

from understudy.core.alert_incidents import SETTLE_S, Alert, Incident, Phase, Want
from understudy.core.alert_words import Saying
from understudy.core.alert_writing import Cost
from understudy.core.upkeep import Severity


class RestartHolds:
    """What restarts hold back. `incidents` is the desk's own mapping, by topic and name."""

    def __init__(self, incidents: Mapping[tuple[str, str], Incident]) -> None:
        self._incidents = incidents
        # Backends that answer probes again while their restart is not over.
        self._answering: set[str] = set()
        # Backends whose restart has failed with no further one to come: given up in the same instant, or called off.
        self._ended: set[str] = set()
        # Backends that were given up and get requests all the same.
        self._in_service: set[str] = set()

    def hear(self, alert: Alert, now_s: float, counts: Cost | None) -> bool:
        """Hear of an alert before its incident does; return whether it is held back. A restart that helped ends being down."""
        who = alert.who
        if alert.topic == "restart":
            self._ended.discard(who)
            self._in_service.discard(who)
            if alert.is_last:
                self._ended.add(who)
            if alert.keeps_exchanges:
                self._in_service.add(who)
            if alert.phase is Phase.ENDS:
                self._answering.discard(who)
                self._end_down(who, now_s, counts)
        elif alert.topic == "condition":
            self._answering.discard(who)
            if alert.phase is Phase.ENDS and self._restart(who) is not None and who not in self._in_service:
                self._answering.add(who)
                return True
        return False

    def take_called_off(self, now_s: float) -> list[str]:
        """Return whose restart was called off since; one of them that answers probes is up from now on."""
        called_off, self._ended = sorted(self._ended), set()
        for who in called_off:
            if who in self._answering:
                self._answering.discard(who)
                self._end_down(who, now_s, None)
        return called_off

    def forget(self, who: str) -> None:
        """Hold back nothing of `who` any more."""
        for held in (self._answering, self._ended, self._in_service):
            held.discard(who)

    def delayed(self, want: Want) -> Want:
        """Return `want`, ready no sooner than the restart that may have put it right by then."""
        alert = want.incident.alert
        restart = self._restart(alert.who) if alert.topic == "condition" and want.saying is Saying.BEGAN else None
        if restart is None or restart.alert.event != "restart.started":
            return want
        return replace(want, ready_at_s=max(want.ready_at_s, restart.changed_s + SETTLE_S["restart.started"]))

    def _restart(self, who: str) -> Incident | None:
        """Return the restart that is on."""
        incident = self._incidents.get(("restart", who))
        return incident if incident is not None and incident.is_on else None

    def _end_down(self, who: str, now_s: float, counts: Cost | None) -> None:
        incident = self._incidents.get(("condition", who))
        if incident is not None:
            incident.end(Alert("backend.up", Phase.ENDS, "condition", who, Severity.INFO), now_s, counts)
