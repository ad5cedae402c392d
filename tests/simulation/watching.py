"""The relay's own counts and lines with an observer inside: what began, when, in which order, and what may not have happened.

Put in the place of the real ones by simulation.stage; they do the same and note it, for the invariants.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from understudy.core.retry import FREE
from understudy.core.snapshot import Condition, Duty, Published
from understudy.core.tally import Tally
from understudy.dataplane.relay import Relay
from understudy.dataplane.relayed import RelayedExchange
from understudy.dataplane.waiting import Waiter, WaitingLine

USABLE = (Condition.UP, Condition.WARMING)
# core.retry: the window slides in tenths, so that the last nine are in it for certain, and at least so many are let pass.
WINDOW_S, SURE_S, FLOOR = 10.0, 9.0, 3


class InOrder(set[Any]):
    """A set that is walked in the order of adding, so that a seed gives the same play in every process."""

    def __init__(self) -> None:
        super().__init__()
        self._order: dict[Any, None] = {}

    def add(self, element: Any) -> None:
        self._order[element] = None
        super().add(element)

    def discard(self, element: Any) -> None:
        self._order.pop(element, None)
        super().discard(element)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._order))


class WatchedTally(Tally):
    """The tally itself, which also notes what the invariants ask about attempts as they begin."""

    __slots__ = ("begun_unusable", "published", "repeated", "violations")

    def __init__(self) -> None:
        super().__init__()
        self.published: Published | None = None
        self.begun_unusable: list[str] = []
        # The backend whose idle connection was closed just now: the repeat is the same attempt (RFC 9110, 9.2.2).
        self.repeated = ""
        self.violations: list[str] = []

    def begin(self, name: str, *, is_trial: bool) -> None:
        assert self.published is not None
        target = next((one for one in self.published.current.targets if one.backend.name == name), None)
        if target is None:
            self.violations.append(f"an attempt went to {name}, which the plan does not have")
        elif target.state.duty is not Duty.READY:
            self.violations.append(f"an attempt went to {name}, which is in {target.state.duty}")
        elif target.state.condition not in USABLE and self.repeated != name:
            self.begun_unusable.append(name)
        self.repeated = ""
        if is_trial and self.of(name).trial_held:
            self.violations.append(f"two trials at once at {name}")
        super().begin(name, is_trial=is_trial)


@dataclass(frozen=True, slots=True)
class Extra:
    """A further attempt that the budget had to allow."""

    at_s: float
    exchange: RelayedExchange


class WatchedBudget:
    """Counts, by itself, attempts that the retry budget should have had to allow, and compares."""

    def __init__(self, relay: Relay) -> None:
        self.violations: list[str] = []
        self._relay = relay
        self._extras: list[Extra] = []
        self._begun: dict[str, float] = {}
        self._seen: set[tuple[str, int]] = set()

    def on_send(self, tag: str, now_s: float) -> None:
        """A generated answer is being asked for."""
        exchange = next((one for one in self._relay.running if one.record.request_id == tag), None)
        if exchange is None:
            return
        attempt = exchange.attempt
        failures = exchange.exchange.failures
        self._begun.setdefault(tag, exchange.started_at_s)
        owes = bool(failures) and failures[-1].was_sent and failures[-1].kind not in FREE
        is_hedge = exchange.hedge is not None
        is_free = (attempt is not None and attempt.is_resume) or exchange.is_asked_whole or not exchange.ask.is_generating
        # A repeat on another connection is no further attempt.
        this = (tag, exchange.exchange.attempts)
        if is_free or not (owes or is_hedge) or this in self._seen:
            return
        self._seen.add(this)
        self._extras.append(Extra(now_s, exchange))
        spent = [one for one in self._extras if one.at_s > now_s - SURE_S and not _has_led_to_content(one.exchange)]
        # Those that sent nothing count as exchanges, too.
        begun = sum(1 for at_s in self._begun.values() if at_s > now_s - WINDOW_S - 1.0) + len(self._relay.running)
        most = max(FLOOR, int(self._relay.published.current.plan.failover.budget * begun))
        if len(spent) > most:
            self.violations.append(f"{tag} was sent again as number {len(spent)} of {most} that the retry budget allows")


def _has_led_to_content(exchange: RelayedExchange) -> bool:
    return bool(exchange.is_committed or exchange.record.backend)


@dataclass(frozen=True, slots=True)
class Turn:
    """One event of the line: somebody begins to wait, or leaves it. `attempts` had been made by then."""

    is_leaving: bool
    waiter: RelayedExchange
    client: bytes
    priority: int
    attempts: int

    @property
    def tag(self) -> str:
        """Whose turn it is."""
        return self.waiter.record.request_id


class WatchedLine(WaitingLine):
    """The line itself, which notes who came and left, and that it was never too long."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[Turn] = []
        self.violations: list[str] = []

    def add(self, waiter: Waiter, *, most: int) -> Waiter | None:
        is_new = waiter not in self
        displaced = super().add(waiter, most=most)
        if is_new:
            self._note(waiter, is_leaving=False)
        if displaced is not None:
            self._note(displaced, is_leaving=True)
        if len(self) > most:
            self.violations.append(f"{len(self)} wait where {most} may")
        return displaced

    def remove(self, waiter: Waiter) -> None:
        if waiter in self:
            self._note(waiter, is_leaving=True)
        super().remove(waiter)

    def _note(self, waiter: Waiter, *, is_leaving: bool) -> None:
        assert isinstance(waiter, RelayedExchange)
        self.turns.append(Turn(is_leaving, waiter, waiter.client, waiter.priority, len(waiter.record.attempts)))
