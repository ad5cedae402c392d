"""Turn what probes and traffic saw of one backend into its condition.

Called by controlplane.publisher with every observation; controlplane.prober asks whether a backend is in doubt. Pure: the
caller passes now_s (seconds, loop time). Never chooses a backend (balancer) and never ejects one: an ejection is traffic's
own verdict and lives in core.tally, so that a passing probe cannot clear it.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from understudy.core.snapshot import Condition, HealthRules

# A lost backend is probed at the fast pace for this many probes, because most come back from a restart within seconds, and
# at the ordinary pace afterwards.
FAST_PROBES_MAX = 30


class Seen(StrEnum):
    """What one observation showed."""

    GOOD = "good"
    LOADING = "loading"  # alive, and says itself that it cannot answer yet
    BAD = "bad"


class Turn(StrEnum):
    """What the observations add up to: the events of `NEXT`."""

    RISE = "rise"  # enough good ones in a row
    FALL = "fall"  # enough bad ones in a row, or one that says loading
    WARM = "warm"  # slow start is over
    FORGET = "forget"  # nobody looks any more: maintenance began or ended
    RENEW = "renew"  # another process answers there, which has proven itself: its slow start begins


# HAProxy's rule for UNKNOWN: slow start does not apply to what was up before we looked for the first time.
NEXT: dict[tuple[Condition, Turn], Condition] = {
    (Condition.UNKNOWN, Turn.RISE): Condition.UP,
    (Condition.UNKNOWN, Turn.FALL): Condition.DOWN,
    (Condition.DOWN, Turn.RISE): Condition.WARMING,
    (Condition.WARMING, Turn.WARM): Condition.UP,
    (Condition.WARMING, Turn.FALL): Condition.DOWN,
    (Condition.UP, Turn.FALL): Condition.DOWN,
    (Condition.UP, Turn.RENEW): Condition.WARMING,
    (Condition.WARMING, Turn.RENEW): Condition.WARMING,
    (Condition.UNKNOWN, Turn.FORGET): Condition.UNKNOWN,
    (Condition.DOWN, Turn.FORGET): Condition.UNKNOWN,
    (Condition.WARMING, Turn.FORGET): Condition.UNKNOWN,
    (Condition.UP, Turn.FORGET): Condition.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Health:
    """A backend's condition and the evidence gathered towards the next one.

    `since_at_s` is when `condition` began; `good` and `bad` count observations in a row (never both above 0). `bad` goes on
    counting while down, up to `FAST_PROBES_MAX`.
    """

    condition: Condition = Condition.UNKNOWN
    since_at_s: float = 0.0
    good: int = 0
    bad: int = 0
    reason: str = ""


def turned(health: Health, turn: Turn, reason: str, now_s: float) -> Health:
    """Return the health after `turn`, with fresh counts. Raises ValueError for a turn that `NEXT` does not have."""
    try:
        condition = NEXT[health.condition, turn]
    except KeyError as exc:
        raise ValueError(f"a backend that is {health.condition} cannot {turn}") from exc
    return Health(condition=condition, since_at_s=now_s, reason=reason)


def observe(health: Health, seen: Seen, reason: str, rules: HealthRules, now_s: float) -> Health:
    """Return the health after one more observation.

    The first observation decides at once; later ones need `rise` good or `fall` bad in a row. An engine that says it is
    loading is out at once. `reason` says why in words; it becomes the health's reason where it explains the condition.
    """
    if seen is Seen.GOOD:
        return _observe_good(health, reason, rules, now_s)
    if health.condition is Condition.DOWN:
        return replace(health, good=0, bad=min(health.bad + 1, FAST_PROBES_MAX), reason=reason)
    bad = health.bad + 1
    if seen is Seen.LOADING or health.condition is Condition.UNKNOWN or bad >= rules.fall:
        return turned(health, Turn.FALL, reason, now_s)
    return replace(health, good=0, bad=bad)


def _observe_good(health: Health, reason: str, rules: HealthRules, now_s: float) -> Health:
    if health.condition is Condition.UNKNOWN:
        return turned(health, Turn.RISE, reason, now_s)
    if health.condition is Condition.DOWN:
        good = health.good + 1
        if good < rules.rise:
            return replace(health, good=good, bad=0)
        health = turned(health, Turn.RISE, reason, now_s)
    return ripen(replace(health, bad=0, reason=reason), rules, now_s)


def ripen(health: Health, rules: HealthRules, now_s: float) -> Health:
    """Return the same health, or UP when it is WARMING and `slow_start_s` is over."""
    if health.condition is Condition.WARMING and now_s >= health.since_at_s + rules.slow_start_s:
        return turned(health, Turn.WARM, health.reason, now_s)
    return health


def is_in_doubt(health: Health) -> bool:
    """Whether the next observations may change the condition soon, so that probing faster is worth it."""
    if health.condition is Condition.UNKNOWN:
        return True
    if health.condition is Condition.DOWN:
        return health.bad < FAST_PROBES_MAX
    return health.bad > 0
