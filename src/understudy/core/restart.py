"""The course of one backend's restart: waiting out, acting, proving, pausing, giving up.

Stepped by controlplane.supervisor twice a second and with every piece of news. Pure: rules, facts and now_s (seconds, loop time)
in, the next `Restart` and commands out. What is a reason is core.ailment's to say. Never restarts anything (controlplane.means).

One backend of a color at a time, never more than `times_max` in `window_s`, each after a longer pause; then a person is needed.
Time is the loop's, so that a wall clock that jumps changes nothing; it counts only from one daemon to the next.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from understudy.core import ailment
from understudy.core.ailment import NO_SIGNS, Cause, Facts, Signs
from understudy.core.health import Seen
from understudy.core.shortlist import is_serving
from understudy.core.snapshot import Duty
from understudy.core.upkeep import RestartRules

# How soon a token is asked for again: while a restart waits for it, and while nothing but that is left to hope for.
PROVE_AGAIN_S: Final = 2.0
PROVE_SELDOM_S: Final = 30.0
_DOUBLINGS_MAX: Final = 32
# A backend that works is worth waiting for, even where the file's `drain` is 0s: so long may its exchanges go on.
DRAIN_S_DEFAULT: Final = 30.0
_WORKING: Final = frozenset({Cause.OPERATOR, Cause.DEGRADED})


class Phase(StrEnum):
    """Where a restart stands."""

    WATCHING = "watching"  # there is none
    WAITING_OUT = "waiting_out"  # no new exchange; its own go on
    ACTING = "acting"  # the means are at work
    PROVING = "proving"  # a good probe and one token are waited for
    PAUSING = "pausing"  # it did not help; the next one waits
    GAVE_UP = "gave_up"  # a person is needed


class Turn(StrEnum):
    """What happens to it: the events of `NEXT`."""

    BEGIN = "begin"
    CALL_OFF = "call_off"  # the cause is gone before anything was done
    ACT = "act"
    DONE = "done"  # by the means; whether it helped is not known
    FAIL = "fail"
    PROVEN = "proven"
    GIVE_UP = "give_up"
    FORGET = "forget"  # the operator has taken it over, or it has been well for long


NEXT: dict[tuple[Phase, Turn], Phase] = {
    (Phase.WATCHING, Turn.BEGIN): Phase.WAITING_OUT,
    (Phase.WATCHING, Turn.GIVE_UP): Phase.GAVE_UP,
    (Phase.WAITING_OUT, Turn.ACT): Phase.ACTING,
    (Phase.WAITING_OUT, Turn.CALL_OFF): Phase.WATCHING,
    (Phase.WAITING_OUT, Turn.FORGET): Phase.WATCHING,
    (Phase.ACTING, Turn.DONE): Phase.PROVING,
    (Phase.ACTING, Turn.FAIL): Phase.PAUSING,
    (Phase.PROVING, Turn.PROVEN): Phase.WATCHING,
    (Phase.PROVING, Turn.FAIL): Phase.PAUSING,
    (Phase.PAUSING, Turn.BEGIN): Phase.WAITING_OUT,
    (Phase.PAUSING, Turn.PROVEN): Phase.WATCHING,
    (Phase.PAUSING, Turn.GIVE_UP): Phase.GAVE_UP,
    (Phase.PAUSING, Turn.FORGET): Phase.WATCHING,
    (Phase.GAVE_UP, Turn.BEGIN): Phase.WAITING_OUT,
    (Phase.GAVE_UP, Turn.FORGET): Phase.WATCHING,
}
UNDER_WAY: Final = frozenset({Phase.WAITING_OUT, Phase.ACTING, Phase.PROVING})


class Command(StrEnum):
    """What is to be done, in the order given."""

    TAKE_OUT = "take_out"  # give it no new exchange
    ACT = "act"  # tell that it begins, move its exchanges away, use the means; answer with `acted`
    PROVE = "prove"  # ask it for one token; answer with `proved`
    PUT_BACK = "put_back"  # give it exchanges again
    SUCCEED = "succeed"  # tell it, forget what was held against it, give it exchanges again
    RECOVER = "recover"  # it is well although no restart has helped: tell it, give it exchanges again
    FAIL = "fail"  # tell it
    GIVE_UP = "give_up"  # tell it


@dataclass(frozen=True, slots=True)
class Restart:
    """One backend's restart. Instants are loop time in seconds and may lie before the process began.

    `cause` and `reason` are those of the restart that is under way or was last, None and "" once a backend that was given up
    is told to be well. One that the daemon before this one has given up has no cause either. `is_out`: the backend gets no
    exchanges because of us. `well_at_s` is since when it gets them, in service and not slow, None: it is not so. `begun_at_s`
    are the restarts that count towards the bound; the next one begins not before `not_before_s`. `is_asking`: a token was
    asked for; the next one is not before `ask_at_s`. `held` says what a restart that is due, or would be, waits for.
    """

    phase: Phase = Phase.WATCHING
    since_at_s: float = 0.0
    cause: Cause | None = None
    reason: str = ""
    signs: Signs = NO_SIGNS
    is_out: bool = False
    well_at_s: float | None = None
    begun_at_s: tuple[float, ...] = ()
    not_before_s: float = 0.0
    is_asking: bool = False
    ask_at_s: float = 0.0
    held: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """The next state, and what is to be done."""

    restart: Restart
    commands: tuple[Command, ...] = ()


def turned(restart: Restart, turn: Turn, now_s: float) -> Restart:
    """Return the restart after `turn`. Raises ValueError for a turn that `NEXT` does not have."""
    try:
        phase = NEXT[restart.phase, turn]
    except KeyError as exc:
        raise ValueError(f"a restart that is {restart.phase} cannot {turn}") from exc
    return replace(restart, phase=phase, since_at_s=now_s, is_asking=False, ask_at_s=now_s, held="")


def recent(restart: Restart, rules: RestartRules, now_s: float) -> tuple[float, ...]:
    """Return when the restarts of the window began."""
    return tuple(at_s for at_s in restart.begun_at_s if now_s - at_s < rules.window_s)


def pause_s(rules: RestartRules, times: int, dice: float) -> float:
    """Seconds to the next restart after so many in the window: doubling up to the bound, with 20 % of jitter either way."""
    doubled_s = rules.backoff_s * 2.0 ** min(max(0, times - 1), _DOUBLINGS_MAX)
    return min(rules.backoff_s_max, doubled_s) * (0.8 + 0.4 * dice)


# --- news


def watching(now_s: float) -> Restart:
    """Return the restart of a backend that is looked at from now on."""
    return Restart(since_at_s=now_s, signs=Signs(known_at_s=now_s))


def probed(restart: Restart, seen: Seen, rules: RestartRules, now_s: float, *, is_deliberate: bool = False) -> Restart:
    """Take what a probe found; see ailment.probed."""
    return replace(restart, signs=ailment.probed(restart.signs, seen, rules, now_s, is_deliberate=is_deliberate))


def found_barren(restart: Restart, words: str) -> Restart:
    """Take that it answers its health check and generates nothing, as somebody has made sure of; `words` say more."""
    if restart.phase is not Phase.WATCHING:
        return restart
    # Until its next good probe, which then is worth as much as it says.
    return replace(restart, signs=replace(restart.signs, barren=words, good=0))


def ended(restart: Restart, words: str) -> Restart:
    """Take that our child has ended by itself. While the means are at work they know better."""
    if restart.phase is Phase.ACTING:
        return restart
    return replace(restart, signs=replace(restart.signs, exited=words, good=0))


def delayed(restart: Restart, late_s: float) -> Restart:
    """Take that the daemon itself was stopped for `late_s`."""
    well_at_s = None if restart.well_at_s is None else restart.well_at_s + late_s
    signs = ailment.delayed(restart.signs, late_s)
    return replace(restart, since_at_s=restart.since_at_s + late_s, well_at_s=well_at_s, signs=signs)


def ordered(restart: Restart, rules: RestartRules, facts: Facts, now_s: float) -> tuple[Step, str]:
    """Take the operator's word for a restart, and return why it cannot be, "" where it begins. What was counted is forgotten."""
    why = ""
    if facts.target.state.duty is Duty.MAINTENANCE:
        why = "it is in maintenance, where no probe would tell whether that helped; make it ready, or drain it, first"
    elif restart.phase in UNDER_WAY:
        why = f"it is being restarted already ({restart.phase})"
    elif facts.peer_restarting:
        why = f"{facts.peer_restarting} is being restarted, and of one color only one at a time is"
    if why:
        return Step(restart), why
    fresh = replace(restart, begun_at_s=(), reason="the operator's word")
    return _begin(fresh, rules, Cause.OPERATOR, facts, now_s), ""


def acted(restart: Restart, rules: RestartRules, failure: str, facts: Facts, now_s: float) -> Step:
    """Take that the means are through. `failure` says why they did not do what they are there for, "": they did."""
    restart = replace(restart, signs=ailment.renewed(restart.signs))
    return _fail(restart, rules, failure, facts, now_s) if failure else Step(turned(restart, Turn.DONE, now_s))


def pace_recovered(restart: Restart) -> Step:
    """Take that it is at its usual pace, and not only on trial: one in service that was given up for being slow is well."""
    is_over = restart.phase is Phase.GAVE_UP and restart.cause is Cause.DEGRADED and restart.well_at_s is not None
    return _recover(restart) if is_over else Step(restart)


def proved(restart: Restart, rules: RestartRules, failure: str, facts: Facts, now_s: float) -> Step:
    """Take what became of the token that was asked for: `failure` says why it did not come, "": it came."""
    if not restart.is_asking:
        return Step(restart)
    restart = replace(restart, is_asking=False, signs=replace(restart.signs, barren=failure))
    if failure:
        again_s = PROVE_AGAIN_S if restart.phase is Phase.PROVING else PROVE_SELDOM_S
        return Step(replace(restart, ask_at_s=now_s + again_s))
    if not restart.is_out:
        return Step(restart)
    restart = replace(restart, is_out=False, signs=replace(restart.signs, has_served=True, exited=""))
    if restart.phase is Phase.GAVE_UP:
        return _recover(restart)
    command = Command.SUCCEED if restart.phase is Phase.PROVING else Command.RECOVER
    not_before_s = max(restart.not_before_s, now_s + pause_s(rules, len(recent(restart, rules, now_s)), facts.dice))
    return Step(replace(turned(restart, Turn.PROVEN, now_s), not_before_s=not_before_s), (command,))


# --- time


def step(restart: Restart, rules: RestartRules, facts: Facts, now_s: float) -> Step:
    """Take what is known now: begin, go on, call off, fail, give up. Nothing ends the means' work but `acted`."""
    is_well = is_serving(facts.target) and not restart.is_out and not facts.target.state.is_degraded
    well_at_s = (now_s if restart.well_at_s is None else restart.well_at_s) if is_well else None
    signs = ailment.looked_at(restart.signs, facts, now_s, is_out=restart.is_out)
    if (well_at_s, signs) != (restart.well_at_s, restart.signs):
        restart = replace(restart, well_at_s=well_at_s, signs=signs)
    if restart.phase is Phase.ACTING:
        return Step(restart)
    if facts.target.state.duty is Duty.MAINTENANCE:
        return _hand_over(restart, now_s)
    return _STEPS[restart.phase](restart, rules, facts, now_s)


def _watch(restart: Restart, rules: RestartRules, facts: Facts, now_s: float) -> Step:
    cause, reason = ailment.need(restart.signs, rules, facts, now_s)
    if cause is None:
        held = ailment.excuse(restart.signs, rules, facts, now_s)
        return Step(replace(restart, held=held) if held != restart.held else restart)
    restart = replace(restart, cause=cause, reason=reason)
    if len(recent(restart, rules, now_s)) >= rules.times_max:
        return _give_up(turned(restart, Turn.GIVE_UP, now_s), cause)
    held = _held(restart, facts, now_s)
    return Step(replace(restart, held=held)) if held else _begin(restart, rules, cause, facts, now_s)


def _give_up(restart: Restart, cause: Cause) -> Step:
    if cause is Cause.DEGRADED:
        # One that is slow is better than none.
        return Step(restart, (Command.GIVE_UP,))
    return Step(replace(restart, is_out=True), (Command.TAKE_OUT, Command.GIVE_UP))


def _held(restart: Restart, facts: Facts, now_s: float) -> str:
    """Return what a restart that is due waits for, "" for nothing."""
    if facts.is_stopping:
        return "the daemon, which is stopping"
    if now_s < restart.not_before_s:
        return "the pause after the last restart"
    if facts.peer_restarting:
        return f"{facts.peer_restarting}, which is being restarted"
    if restart.cause is Cause.DEGRADED and facts.peer_down:
        return f"{facts.peer_down}, which is down"
    return ""


def _begin(restart: Restart, rules: RestartRules, cause: Cause, facts: Facts, now_s: float) -> Step:
    begun = replace(turned(restart, Turn.BEGIN, now_s), cause=cause, is_out=True)
    # Nothing new has come to it for a while, or nothing that it had can go on.
    has_nothing = restart.is_out or cause is Cause.EXITED
    acting = _act(begun, rules, now_s) if has_nothing else _wait_out(begun, rules, facts, now_s)
    return Step(acting.restart, (Command.TAKE_OUT, *acting.commands))


def _wait_out(restart: Restart, rules: RestartRules, facts: Facts, now_s: float) -> Step:
    lasts = restart.cause is None or ailment.lasts(restart.cause, restart.signs, facts)
    if facts.is_stopping or not lasts:
        return Step(replace(turned(restart, Turn.CALL_OFF, now_s), is_out=False), (Command.PUT_BACK,))
    drain_s = rules.drain_s or (DRAIN_S_DEFAULT if restart.cause in _WORKING else 0.0)
    if facts.in_flight and now_s < restart.since_at_s + drain_s:
        return Step(restart)
    return _act(restart, rules, now_s)


def _act(restart: Restart, rules: RestartRules, now_s: float) -> Step:
    begun_at_s = (*recent(restart, rules, now_s), now_s)
    return Step(replace(turned(restart, Turn.ACT, now_s), begun_at_s=begun_at_s), (Command.ACT,))


def _await_proof(restart: Restart, rules: RestartRules, facts: Facts, now_s: float) -> Step:
    signs = restart.signs
    if signs.exited:
        return _fail(restart, rules, f"it ended before it was ready: {signs.exited}", facts, now_s)
    if now_s >= restart.since_at_s + rules.ready_s:
        unanswered = "no token came in that time" if restart.is_asking else ""
        why = (signs.barren or unanswered) if is_serving(facts.target) else facts.target.state.reason
        words = f"not ready within {rules.ready_s:g}s: {why or 'no good probe'}"
        return _fail(restart, rules, words, facts, now_s)
    return _ask_when_back(restart, facts, now_s)


def _ask_when_back(restart: Restart, facts: Facts, now_s: float) -> Step:
    """Ask for a token as soon as its probes are good again; nothing where it gets its exchanges anyway."""
    is_back = restart.signs.good > 0 and is_serving(facts.target)
    if restart.is_out and is_back and not restart.is_asking and now_s >= restart.ask_at_s:
        return _asked(restart, now_s)
    return Step(restart)


def _asked(restart: Restart, now_s: float) -> Step:
    return Step(replace(restart, is_asking=True, ask_at_s=now_s), (Command.PROVE,))


def _pause(restart: Restart, rules: RestartRules, facts: Facts, now_s: float) -> Step:
    """Wait for the next one, or for the backend to be well by itself."""
    asked = _ask_when_back(restart, facts, now_s)
    if asked.restart.is_asking or restart.cause is None or facts.target.state.duty is not Duty.READY:
        return asked
    if len(recent(restart, rules, now_s)) >= rules.times_max:
        return Step(turned(restart, Turn.GIVE_UP, now_s), (Command.GIVE_UP,))
    held = _held(restart, facts, now_s) or ("what it says of itself" if now_s < restart.signs.excused_until_s else "")
    if held:
        return Step(replace(restart, held=held))
    # Whatever was the first one's cause, nobody has asked for this one.
    again = replace(restart, reason=f"the last restart failed: {restart.reason}")
    return _begin(again, rules, restart.cause, facts, now_s)


def _after_giving_up(restart: Restart, rules: RestartRules, facts: Facts, now_s: float) -> Step:
    if restart.well_at_s is not None and now_s - restart.well_at_s >= rules.window_s:
        # What it was given up for is over, and nobody has said so yet.
        commands = (Command.RECOVER,) if restart.cause is not None else ()
        return Step(replace(turned(restart, Turn.FORGET, now_s), cause=None, begun_at_s=()), commands)
    cause, reason = ailment.need(restart.signs, rules, facts, now_s)
    is_told = restart.cause is not None and (restart.is_out or cause is restart.cause is Cause.DEGRADED)
    if is_told or cause is None:
        return _ask_when_back(restart, facts, now_s)
    # It was well since it was given up, or is only known to have been given up by the daemon before this one.
    return _give_up(replace(restart, cause=cause, reason=reason), cause)


def _recover(restart: Restart) -> Step:
    """Tell that one that was given up is well, which brings no restart any sooner: it has yet to be well for long."""
    return Step(replace(restart, cause=None, reason=""), (Command.RECOVER,))


_STEPS: Final = {
    Phase.WATCHING: _watch,
    Phase.WAITING_OUT: _wait_out,
    Phase.PROVING: _await_proof,
    Phase.PAUSING: _pause,
    Phase.GAVE_UP: _after_giving_up,
}


def _fail(restart: Restart, rules: RestartRules, reason: str, facts: Facts, now_s: float) -> Step:
    times = len(recent(restart, rules, now_s))
    not_before_s = now_s + pause_s(rules, times, facts.dice)
    signs = replace(restart.signs, exited="")
    failed = replace(turned(restart, Turn.FAIL, now_s), reason=reason, not_before_s=not_before_s, signs=signs)
    if times >= rules.times_max:
        return Step(turned(failed, Turn.GIVE_UP, now_s), (Command.FAIL, Command.GIVE_UP))
    return Step(failed, (Command.FAIL,))


def _hand_over(restart: Restart, now_s: float) -> Step:
    """Forget everything: the operator has taken the backend over."""
    signs = Signs(known_at_s=now_s)
    if restart.phase is Phase.WATCHING:
        return Step(replace(restart, cause=None, signs=signs, begun_at_s=(), not_before_s=0.0, is_asking=False, held=""))
    commands: tuple[Command, ...] = (Command.PUT_BACK,)
    if restart.phase is Phase.PROVING:
        restart = replace(turned(restart, Turn.FAIL, now_s), reason="put in maintenance before it was proven")
        commands = (Command.FAIL, *commands)
    restart = turned(restart, Turn.FORGET, now_s)
    return Step(replace(restart, signs=signs, is_out=False, begun_at_s=(), not_before_s=0.0), commands)


# --- what is shown


def status_of(restart: Restart, rules: RestartRules, now_s: float) -> dict[str, str | int | float | None]:
    """Return how it stands, as JSON values; `since_s` is how long already, `next_in_s` how much longer, in seconds."""
    times = len(recent(restart, rules, now_s))
    return {
        "phase": str(restart.phase),
        "cause": str(restart.cause) if restart.cause is not None else None,
        "since_s": round(max(0.0, now_s - restart.since_at_s), 3),
        "reason": restart.reason,
        "nth": times if restart.phase in (Phase.ACTING, Phase.PROVING) else None,
        "times": times,
        "times_max": rules.times_max,
        "window_s": rules.window_s,
        "next_in_s": round(max(0.0, restart.not_before_s - now_s), 3) if restart.phase is Phase.PAUSING else None,
        "waits_for": restart.held,
    }
