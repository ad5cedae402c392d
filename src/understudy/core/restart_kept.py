"""What is kept of restarts from one daemon to the next: how many there were lately, by the wall clock, and who was given up.

Written by controlplane.supervisor through controlplane.state_file. Pure: loop time and the wall clock's, in seconds, are given.
"""

from dataclasses import dataclass, replace

from understudy.core.restart import Phase, Restart, recent, watching
from understudy.core.upkeep import RestartRules


@dataclass(frozen=True, slots=True)
class Kept:
    """What survives the daemon, by the wall clock, in seconds since 1970.

    `is_out`: it was given up and had yet to prove itself, and gets nothing from the next daemon either before it has.
    """

    begun_unix_s: tuple[float, ...] = ()
    has_given_up: bool = False
    # Has a default, as all that a file of an understudy before may lack.
    is_out: bool = False


def kept(restart: Restart, rules: RestartRules, now_s: float, now_unix_s: float) -> Kept:
    """Return what is to be kept of it."""
    begun_unix_s = tuple(round(now_unix_s - (now_s - at_s), 3) for at_s in recent(restart, rules, now_s))
    has_given_up = restart.phase is Phase.GAVE_UP
    return Kept(begun_unix_s, has_given_up, is_out=has_given_up and restart.is_out)


def remembered(kept: Kept, now_s: float, now_unix_s: float) -> Restart:
    """Return the state at a start. What was begun in the future counts as begun now: the wall clock was set back."""
    begun_at_s = tuple(sorted(now_s - max(0.0, now_unix_s - at_s) for at_s in kept.begun_unix_s))
    fresh = replace(watching(now_s), begun_at_s=begun_at_s)
    if not kept.has_given_up:
        return fresh
    reason = "given up before the daemon began" if kept.is_out else ""
    return replace(fresh, phase=Phase.GAVE_UP, is_out=kept.is_out, reason=reason)
