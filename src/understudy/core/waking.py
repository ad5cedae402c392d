"""Decide which sleeping machine is woken now: one that is down, that can be woken, and that somebody wants.

Driven by controlplane.waker, which sends the packet or runs the command. Pure: facts and now_s (seconds, loop time) in, commands
out. Never wakes a machine that nobody asks for, and never keeps one awake: whether it goes to sleep again is its own affair.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from understudy.core.color import Color
from understudy.core.shortlist import is_usable, own_name
from understudy.core.snapshot import Condition, Duty, Role, RoutingSnapshot, Target

# An exchange so long ago still wants the backend.
WANTED_S: Final = 60.0
# A machine takes its time to wake, and may not be there at all: the tries become rarer.
RETRY_S: Final = 60.0
RETRY_S_MAX: Final = 600.0
_DOUBLINGS_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class WakeFacts:
    """One backend that the file knows a way to wake. `sleeps`: it is down, and by nobody's will; `is_asked_for`: see `wanted`."""

    backend: str
    sleeps: bool
    is_asked_for: bool


@dataclass(frozen=True, slots=True)
class Wake:
    """Wake that backend now. `is_first` of a series, which ends when it is up again or nobody has asked for it for long."""

    backend: str
    is_first: bool


@dataclass(slots=True)
class _Tries:
    count: int = 0
    retry_at_s: float = 0.0


class Waking:
    """The one decider of a daemon."""

    def __init__(self) -> None:
        self._tries: dict[str, _Tries] = {}

    def decide(self, facts: Sequence[WakeFacts], now_s: float) -> tuple[Wake, ...]:
        """Take the facts on every backend that can be woken; each one returned counts as tried."""
        kept = {one.backend: self._tries.get(one.backend, _Tries()) for one in facts if one.sleeps}
        self._tries = kept
        wakes = []
        for one in facts:
            tries = kept.get(one.backend)
            if tries is None or not one.is_asked_for or now_s < tries.retry_at_s:
                continue
            if now_s >= tries.retry_at_s + RETRY_S_MAX:
                tries.count = 0
            wakes.append(Wake(one.backend, is_first=tries.count == 0))
            tries.retry_at_s = now_s + min(RETRY_S_MAX, RETRY_S * 2.0**tries.count)
            tries.count = min(tries.count + 1, _DOUBLINGS_MAX)
        return tuple(wakes)

    def tries(self, backend: str) -> int:
        """How often it was tried in the series that goes on, counted up to `_DOUBLINGS_MAX`; 0 while it does not sleep."""
        tries = self._tries.get(backend)
        return tries.count if tries is not None else 0


def sleeps(target: Target) -> bool:
    """Whether it is down although the operator wants it up.

    A restart does not matter: a machine that sleeps can be neither restarted nor proven, one whose restarts were given up stays
    out until it is awake, and one that is awake does not mind being woken.
    """
    return target.state.condition is Condition.DOWN and target.state.duty is Duty.READY


def wanted(
    target: Target, snapshot: RoutingSnapshot, asked_at_s: Mapping[str, float], now_s: float, is_ejected: Callable[[str], bool]
) -> bool:
    """Whether exchanges of the last minute would go to it, were it up. `asked_at_s`: when each model was last asked for.

    A primary is wanted as soon as anybody asks for a model that it may have; a backup when no primary for that model is usable;
    one of a color while that color gets conversations.
    """
    backend, rollout = target.backend, snapshot.rollout
    if snapshot.plan.rollout.is_on and backend.color not in (Color.NONE, rollout.active) and not rollout.share:
        return False
    recent = [model for model, at_s in asked_at_s.items() if now_s - at_s < WANTED_S and own_name(target, model) is not None]
    if backend.role is Role.PRIMARY:
        return bool(recent)
    primaries = [
        one
        for one in snapshot.targets
        if one.backend.role is Role.PRIMARY and is_usable(one) and not is_ejected(one.backend.name)
    ]
    return any(all(own_name(one, model) is None for one in primaries) for model in recent)
