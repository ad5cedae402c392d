"""What ails a backend, and whether that is enough to restart it.

Read by core.restart, which keeps the `Signs` of every backend that may be restarted. Pure: facts and now_s (seconds, loop time)
in, a cause in words out. Never decides a condition (core.health) and knows nothing of restarts before (core.restart).

Probes that fail are no reason yet: an engine that says that it loads has `ready_s` for it, one that sleeps or refuses our key is
well, and one whose streams move is busy. Nor is what fails while the daemon itself was stopped, or what has never been well
since it began and may be about to be. Of a machine that is woken when somebody asks for it (`wake`) failed probes alone never
are: that it sleeps looks the same.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from understudy.core.health import FAST_PROBES_MAX, Health, Seen
from understudy.core.shortlist import is_serving
from understudy.core.snapshot import Condition, Duty, RoutingSnapshot, Target
from understudy.core.upkeep import NO_WAKING, RestartRules

OUT_OF_MEMORY: Final = "memory had run out"
# Work that was seen to go on speaks for a backend for this long, whatever its probes say.
MOVED_S: Final = 10.0


class Cause(StrEnum):
    """Why a backend is restarted."""

    PROBES = "probes"  # it is down, and goes on failing its probes
    SUSPICIOUS = "suspicious"  # its health says yes, and it generates nothing
    DEGRADED = "degraded"  # it answers, far below what it was
    OPERATOR = "operator"
    EXITED = "exited"  # our own child has ended


@dataclass(frozen=True, slots=True)
class Signs:
    """What was seen of one backend; instants are loop time in seconds.

    `known_at_s` is since when it is looked at, `has_served`: it was in service since. `failed` counts probes that speak for a
    restart, `good` good ones, both in a row. `loading_at_s` is when it began to say that it loads, None: it does not;
    `excused_until_s` until when what the last probe found is no reason. `barren` says why the last token did not come, `exited`
    how our child ended, "": neither is so.
    """

    known_at_s: float = 0.0
    has_served: bool = False
    failed: int = 0
    good: int = 0
    loading_at_s: float | None = None
    excused_until_s: float = 0.0
    barren: str = ""
    exited: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one backend now.

    `peer_restarting` names another of its color that is being restarted, `peer_down` one that is down, "" where there is none.
    `moved_at_s` is when its work was last seen to go on, 0.0: never; `dice` is from 0 to 1. `is_stopping`: the daemon is.
    """

    target: Target
    health: Health
    in_flight: int = 0
    moved_at_s: float = 0.0
    peer_restarting: str = ""
    peer_down: str = ""
    dice: float = 0.5
    is_stopping: bool = False


NO_SIGNS: Final = Signs()


def peers_of(snapshot: RoutingSnapshot, target: Target, under_way: Collection[str]) -> tuple[str, str]:
    """Name another backend of its color that is one of those `under_way`, and one that is down although wanted; "": none."""
    own = target.backend
    peers = [one for one in snapshot.targets if one.backend.color is own.color and one.backend.name != own.name]
    restarting = (one.backend.name for one in peers if one.backend.name in under_way)
    wanted = (one for one in peers if one.state.duty is Duty.READY)
    down = (one.backend.name for one in wanted if not is_serving(one) or one.state.is_restarting)
    return next(restarting, ""), next(down, "")


def probed(signs: Signs, seen: Seen, rules: RestartRules, now_s: float, *, is_deliberate: bool = False) -> Signs:
    """Take what a probe found. `is_deliberate`: it is alive and not meant to answer us: asleep, or with another key."""
    if seen is Seen.GOOD:
        good = signs.good + 1
        # One probe may have been on its way before the child ended.
        exited = "" if good > 1 else signs.exited
        return replace(signs, failed=0, good=good, exited=exited, loading_at_s=None, excused_until_s=0.0)
    if is_deliberate:
        return replace(signs, failed=0, good=0, loading_at_s=None, excused_until_s=float("inf"))
    if seen is Seen.BAD:
        return replace(signs, failed=signs.failed + 1, good=0, excused_until_s=0.0)
    loading_at_s = now_s if signs.loading_at_s is None else signs.loading_at_s
    until_s = loading_at_s + rules.ready_s
    failed = 0 if now_s < until_s else signs.failed + 1
    return replace(signs, failed=failed, good=0, loading_at_s=loading_at_s, excused_until_s=until_s)


def renewed(signs: Signs) -> Signs:
    """Forget what was seen of the engine that was there before a restart."""
    return Signs(known_at_s=signs.known_at_s, has_served=signs.has_served)


def delayed(signs: Signs, late_s: float) -> Signs:
    """Take that the daemon itself was stopped for `late_s`: what failed meanwhile may have been its own failure."""
    return replace(
        signs,
        failed=0,
        barren="",
        known_at_s=signs.known_at_s + late_s,
        loading_at_s=None if signs.loading_at_s is None else signs.loading_at_s + late_s,
        excused_until_s=signs.excused_until_s + late_s,
    )


def looked_at(signs: Signs, facts: Facts, now_s: float, *, is_out: bool) -> Signs:
    """Take what routing knows. `is_out`: it gets no exchanges because of us, so that only tokens tell whether it generates."""
    is_in_service = is_serving(facts.target)
    if is_in_service and not signs.has_served:
        signs = replace(signs, has_served=True)
    if signs.barren and not is_out and (not is_in_service or signs.good > 0 or _is_moving(facts, now_s)):
        signs = replace(signs, barren="")
    return signs


def need(signs: Signs, rules: RestartRules, facts: Facts, now_s: float) -> tuple[Cause | None, str]:
    """Return why the backend is to be restarted, and that in words; None: it is not."""
    state = facts.target.state
    cause, words = None, ""
    if state.duty is not Duty.READY:
        pass
    elif signs.exited:
        cause, words = Cause.EXITED, signs.exited
    elif not is_serving(facts.target):
        if _has_failed(signs, rules, facts, now_s):
            cause, words = Cause.PROBES, state.reason or "its probes fail"
    elif signs.barren:
        cause, words = Cause.SUSPICIOUS, f"it answers its health check and generates nothing: {signs.barren}"
    elif rules.is_degraded_enough and state.is_degraded:
        cause, words = Cause.DEGRADED, "it answers, but far below what it was"
    return cause, words


def excuse(signs: Signs, rules: RestartRules, facts: Facts, now_s: float) -> str:
    """Return what a backend that is down is given time for although nothing says that it makes use of it, "" for nothing."""
    state = facts.target.state
    is_down = state.duty is Duty.READY and state.condition is Condition.DOWN and facts.target.backend.wake == NO_WAKING
    if not is_down or not _is_beginning(signs, rules, now_s):
        return ""
    return f"the first {rules.ready_s:g}s that it is known, in which it may be starting"


def lasts(cause: Cause, signs: Signs, facts: Facts) -> bool:
    """Whether what a restart was begun for is still so; the operator's word always is."""
    state = facts.target.state
    if cause is Cause.OPERATOR:
        return True
    still = {
        Cause.PROBES: not is_serving(facts.target),
        Cause.SUSPICIOUS: bool(signs.barren),
        Cause.DEGRADED: state.is_degraded,
        Cause.EXITED: bool(signs.exited),
    }
    return state.duty is Duty.READY and still[cause]


def with_memory(reason: str, *, was_out_of_memory: bool) -> str:
    """Return the reason, which says once that memory had run out where it had."""
    return f"{reason}; {OUT_OF_MEMORY}" if was_out_of_memory and OUT_OF_MEMORY not in reason else reason


def _has_failed(signs: Signs, rules: RestartRules, facts: Facts, now_s: float) -> bool:
    if facts.target.backend.wake != NO_WAKING:
        return False
    is_beginning = _is_beginning(signs, rules, now_s)
    if facts.target.state.condition is not Condition.DOWN or is_beginning or _is_moving(facts, now_s):
        return False
    # The health's count begins anew with every answer of traffic, and ends at its bound; ours leaves out what is no failure.
    after_fall = facts.health.bad >= min(rules.after, FAST_PROBES_MAX)
    return after_fall and signs.failed >= facts.target.backend.health.fall + rules.after


def _is_beginning(signs: Signs, rules: RestartRules, now_s: float) -> bool:
    return not signs.has_served and now_s - signs.known_at_s < rules.ready_s


def _is_moving(facts: Facts, now_s: float) -> bool:
    return facts.moved_at_s > 0.0 and now_s - facts.moved_at_s < MOVED_S
