"""Drive the rollout: carry out orders and the file's word, take the canary's steps, roll back by the guard, keep all of it.

Built by daemon; told by the admin port (orders), by the reload (the file's word) and by the clock (`tick`). The rules are
core.rollout's, who may be switched to core.switching's, who is worse core.guard's. All of it runs on the loop, and a change is
one swap by controlplane.publisher, so that orders never overlap. Never contacts a backend and never touches an exchange.
"""

from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec

from understudy.controlplane.publisher import Publisher
from understudy.controlplane.state_file import State, StateFile, StateKeeper
from understudy.core.color import Color, RolloutRules
from understudy.core.comparison import Comparison
from understudy.core.guard import Look, Verdict, look
from understudy.core.rollout import (
    Rollout,
    Word,
    anchored,
    begun,
    candidate,
    heard,
    rolled_back,
    step_due_at_unix_s,
    stepped,
    switched,
    with_canary,
)
from understudy.core.snapshot import Published, RoutingPlan, RoutingSnapshot
from understudy.core.switching import NO_COLORS, SwitchOutcome, foreseen, refusal, unusable

# How often the guard looks while it has something to watch: so many times a window, but not less often than this.
LOOKS_A_WINDOW: Final = 60
LOOK_S_MAX: Final = 5.0

_NO_STEPS = "the file has no canary; set rollout.canary, or say the shares"
_NOTHING_TO_TAKE_BACK = "there is nothing to take back: no canary runs, and nothing was switched since the last rollback"


class RolloutDriver:
    """Everything that changes which color takes the new conversations.

    `clock` gives loop time and `wall` the wall clock's, in seconds; `ejected` the names of the backends that are ejected now;
    `secret` makes 32 random bytes as hex. `tell` gets an event's name (telemetry.events) and its fields.
    """

    def __init__(
        self,
        published: Published,
        publisher: Publisher,
        comparison: Comparison,
        state_file: StateFile,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        tell: Callable[[str, dict[str, object]], None],
        ejected: Callable[[], Collection[str]],
        secret: Callable[[], str],
    ) -> None:
        self._published = published
        self._publisher = publisher
        self._comparison = comparison
        self._keeper = StateKeeper(state_file, tell)
        self._clock = clock
        self._wall = wall
        self._tell = tell
        self._ejected = ejected
        self._make_secret = secret
        self._secret = ""
        # What was in force last, None: nothing yet; not what is published, while the file tells no colors apart.
        self._last: Rollout | None = None
        # Of the rollout that is in force; forgotten with every change of it.
        self._look: Look | None = None
        self._look_due_at_s = 0.0
        # Why what is due by the canary or the guard is not done.
        self._held: dict[Word, str] = {}

    # --- the start and the file

    def begin(self) -> None:
        """Read what was kept and put it into force, or what the file has said since. To be called once, before clients come.

        A driver that is made for the first plan with colors, in a reload, needs no begin: `offered` reads, too.
        """
        self._read()
        kept = self._last
        if not self._rules.is_on:
            return
        rollout = self._last = begun(self._rules, kept, self._wall())
        self._publisher.set_rollout(rollout)
        if kept is not None:
            self._tell_change(kept, rollout)
        if rollout != kept:
            self._keeper.put_now(State(rollout, self._secret))

    def _read(self) -> None:
        """Learn what was kept, once; there is a secret from then on."""
        if self._secret:
            return
        state = self._keeper.read()
        self._secret = state.cookie_secret if state is not None else self._make_secret()
        self._last = state.rollout if state is not None else None

    @property
    def cookie_secret(self) -> str:
        """What signs cookies: the file's word, else what was made here and is kept."""
        return self._rules.cookie_key or self._secret

    def offered(self, plan: RoutingPlan) -> tuple[Rollout, str]:
        """Return what would be in force with another plan, and why that must not be, "" where it may.

        Only a new word of the file for another color is refused, on what is known now: a backend that comes with the same plan
        has not been probed. Puts nothing into force.
        """
        snapshot = self._snapshot
        if not plan.rollout.is_on:
            return snapshot.rollout, ""
        now_unix_s = self._wall()
        if not self._rules.is_on:
            # The colors begin with this plan: whichever is active, nobody is taken away from the other.
            self._read()
            return begun(plan.rollout, self._last, now_unix_s), ""
        rollout = heard(snapshot.rollout, plan.rollout, now_unix_s)
        if rollout.active is snapshot.rollout.active:
            return rollout, ""
        return rollout, refusal(foreseen(snapshot, plan), rollout.active, self._ejected())

    def on_published_plan(self) -> None:
        """Hear that a plan was published together with the rollout that was `offered` for it."""
        before, after = self._last, self._rollout
        if not self._rules.is_on or after == before:
            return
        self._take(before or after, after)
        self._tell_change(before or after, after)
        self._keeper.put(State(after, self._secret))

    # --- orders

    async def switch(self, to: Color, *, is_forced: bool) -> SwitchOutcome:
        """Give the new conversations to `to`, at once. Where it could not serve them that is refused, unless forced.

        Whatever canary runs is over. Returns when it is kept, or cannot be (after `KEEP_S_MAX` at the latest).
        """
        before = self._rollout
        why = refusal(self._snapshot, to, self._ejected())
        if not self._rules.is_on or to is Color.NONE:
            return self._refuse(to, Word.COMMAND, why)
        if to is before.active:
            why = ""
        if why and not is_forced:
            return self._refuse(to, Word.COMMAND, why)
        reason = f"forced, although {why}" if why else ""
        return await self._order(switched(before, to, Word.COMMAND, self._wall(), reason), is_forced=bool(why))

    async def roll_back(self, *, takes_sessions: bool) -> SwitchOutcome:
        """End the canary, or else take back the last switch; with `takes_sessions` the conversations come back, too.

        Refused where there is nothing to take back, and where the color to return to has no usable backend. That it lacks a
        model is no reason: it is the way back.
        """
        before = self._rollout
        if not self._rules.is_on:
            return self._refuse(before.inactive, Word.COMMAND, NO_COLORS)
        after = rolled_back(before, Word.COMMAND, self._wall(), takes_sessions=takes_sessions)
        if after is None:
            return self._refuse(before.inactive, Word.COMMAND, _NOTHING_TO_TAKE_BACK)
        why = unusable(self._snapshot, after.active, self._ejected()) if after.active is not before.active else ""
        if why:
            return self._refuse(after.active, Word.COMMAND, f"{why}; a forced switch goes there all the same")
        self._roll_back(after, takes_sessions=takes_sessions)
        return SwitchOutcome(after, is_kept=await self._keeper.settle())

    async def set_canary(self, shares: tuple[float, ...] | None) -> SwitchOutcome:
        """Begin a canary at the first of `shares` (each from 0 to 1); None: at the file's first, (): end the one that runs.

        A beginning is refused as a switch is.
        """
        before = self._rollout
        wanted = self._rules.shares if shares is None else shares
        if any(wanted) or not self._rules.is_on:
            why = refusal(self._snapshot, before.inactive, self._ejected())
        else:
            why = _NO_STEPS if shares is None else ""
        if why:
            return self._refuse(before.inactive, Word.COMMAND, why)
        return await self._order(with_canary(before, wanted, Word.COMMAND, self._wall()), is_forced=False)

    async def settle(self) -> bool:
        """Wait until what is in force is kept, not for long; returns whether it is."""
        return await self._keeper.settle()

    async def _order(self, after: Rollout, *, is_forced: bool) -> SwitchOutcome:
        before = self._rollout
        if after == before:
            return SwitchOutcome(before, is_changed=False, is_kept=await self._keeper.settle())
        self._change(after, is_forced=is_forced)
        return SwitchOutcome(after, is_kept=await self._keeper.settle())

    def _refuse(self, to: Color, word: Word, why: str) -> SwitchOutcome:
        self._tell("rollout.refused", {"to": str(to), "word": str(word), "reason": why})
        return SwitchOutcome(self._rollout, why, is_changed=False, is_kept=self._keeper.is_kept)

    # --- the clock

    def tick(self) -> None:
        """Let the guard look, and take the canary's step that is due. To be called about every half second."""
        rules = self._rules
        if not rules.is_on:
            return
        now_unix_s = self._wall()
        rollout = anchored(self._rollout, now_unix_s)
        if rollout is not self._rollout:
            # The wall clock was set back: without this a step would wait for as long as that was.
            self._change(rollout)
        watched = candidate(rollout, rules, now_unix_s)
        if watched is Color.NONE:
            self._look = None
        elif self._clock() >= self._look_due_at_s:
            self._look_due_at_s = self._clock() + min(LOOK_S_MAX, rules.guard.window_s / LOOKS_A_WINDOW)
            self._look = look(self._comparison, rules.guard, watched, self._clock())
            if self._look.verdict is Verdict.BROKEN:
                self._break(self._look, now_unix_s)
                return
        self._take_step(now_unix_s)

    def _break(self, seen: Look, now_unix_s: float) -> None:
        """Roll back by the guard's word, unless nobody is there to go back to."""
        takes_sessions = self._rules.guard.takes_sessions
        after = rolled_back(self._rollout, Word.GUARD, now_unix_s, takes_sessions=takes_sessions, reason=seen.reason)
        if after is None:
            return
        why = unusable(self._snapshot, after.active, self._ejected())
        if why:
            self._hold(after.active, Word.GUARD, f"{why}, though the guard has found {seen.reason}")
            return
        self._roll_back(after, takes_sessions=takes_sessions, figures=_figures(seen))

    def _take_step(self, now_unix_s: float) -> None:
        before = self._rollout
        if self._waits_for(now_unix_s):
            return
        after = stepped(before, now_unix_s)
        if after is before:
            return
        why = refusal(self._snapshot, before.inactive, self._ejected())
        if why:
            self._hold(before.inactive, Word.CANARY, why)
            return
        self._change(after)

    def _waits_for(self, now_unix_s: float) -> str:
        """Return what the canary's next step waits for, but for a color that could not serve; "" where it is due."""
        rules = self._rules
        if now_unix_s < step_due_at_unix_s(self._rollout, rules):
            return "time"
        if rules.guard.is_on and self._rollout.share and (self._look is None or self._look.verdict is not Verdict.HOLDS):
            return f"the guard: {self._look.reason if self._look is not None else 'it has not looked yet'}"
        return ""

    def _hold(self, to: Color, word: Word, why: str) -> None:
        """Tell why what is due is not done, once for as long as the rollout stays what it is."""
        if word not in self._held:
            self._refuse(to, word, why)
        self._held[word] = why

    # --- what all of them share

    @property
    def _snapshot(self) -> RoutingSnapshot:
        return self._published.current

    @property
    def _rules(self) -> RolloutRules:
        return self._snapshot.plan.rollout

    @property
    def _rollout(self) -> Rollout:
        return self._snapshot.rollout

    def _change(self, after: Rollout, *, is_forced: bool = False, told: dict[str, object] | None = None) -> None:
        """Put a change into force, tell it (as a rollback, where `told` are its fields), and begin to keep it."""
        before = self._rollout
        self._publisher.set_rollout(after)
        self._take(before, after)
        if told is not None:
            self._tell("rollout.rolled_back", told)
        else:
            self._tell_change(before, after, is_forced=is_forced)
        self._keeper.put(State(after, self._secret))

    def _take(self, before: Rollout, after: Rollout) -> None:
        """Let the guard judge what is in force now by what comes from now on."""
        self._last = after
        self._look, self._look_due_at_s, self._held = None, 0.0, {}
        is_switch = after.active is not before.active
        if is_switch or after.previous is Color.NONE or (after.shares and not before.shares):
            self._comparison.thaw()
        if is_switch:
            self._comparison.freeze(before.active, self._clock())
        is_other = (after.shares, after.changed_at_unix_s) != (before.shares, before.changed_at_unix_s)
        if after.shares and after.step == 0 and is_other:
            self._comparison.forget(after.inactive)
        elif is_switch and after.previous is before.active and not before.share:
            # One that comes out of a canary goes on being judged by what it did there.
            self._comparison.forget(after.active)

    def _roll_back(self, after: Rollout, *, takes_sessions: bool, figures: dict[str, Any] | None = None) -> None:
        before = self._rollout
        is_canary = bool(before.shares)
        fields: dict[str, object] = {
            "active": str(after.active),
            "was": str(before.inactive if is_canary else before.active),
            "share": before.share if is_canary else 1.0,
            "word": str(after.canary_word),
            "reason": after.reason,
            "sessions": takes_sessions,
        }
        self._change(after, told=fields if figures is None else fields | {"figures": figures})

    # --- what is told

    def _tell_change(self, before: Rollout, after: Rollout, *, is_forced: bool = False) -> None:
        """Tell what a change is: a switch, a canary's step (the first one begins it), or its end."""
        if after.active is not before.active:
            fields = {"active": str(after.active), "was": str(before.active), "word": str(after.word), "forced": is_forced}
            self._tell("rollout.switched", {**fields, "reason": after.reason})
        elif before.shares and not after.shares:
            self._tell("rollout.canary_ended", {**_step_fields(before), "word": str(after.canary_word)})
        if after.shares and after.changed_at_unix_s != before.changed_at_unix_s:
            self._tell("rollout.stepped", {**_step_fields(after), "word": str(after.canary_word)})

    def status(self) -> dict[str, Any]:
        """Return what is in force, as JSON values; `since` in seconds since 1970, 0.0: since the start."""
        rollout, rules = self._rollout, self._rules
        return {
            "active": str(rollout.active),
            "word": str(rollout.word),
            "since": rollout.switched_at_unix_s,
            "previous": str(rollout.previous),
            "file_active": str(rollout.file_active),
            "stick": str(rules.stick),
            "canary": self._canary_status(),
            "guard": self._guard_status(),
            "reason": rollout.reason,
            "kept": self._keeper.is_kept,
        }

    def _canary_status(self) -> dict[str, Any] | None:
        rollout, now_unix_s = self._rollout, self._wall()
        if not rollout.shares:
            return None
        due_at_unix_s = step_due_at_unix_s(rollout, self._rules)
        return {
            "color": str(rollout.inactive),
            "share": rollout.share,
            "step": rollout.step + 1,
            "steps": list(rollout.shares),
            "word": str(rollout.canary_word),
            "next_step_in_s": round(max(0.0, due_at_unix_s - now_unix_s), 3) if due_at_unix_s else None,
            "waits_for": (self._waits_for(now_unix_s) or self._held.get(Word.CANARY, "")) if due_at_unix_s else "",
        }

    def _guard_status(self) -> dict[str, Any] | None:
        watched = candidate(self._rollout, self._rules, self._wall())
        if watched is Color.NONE:
            return None
        seen = self._look
        return {
            "watching": str(watched),
            "verdict": str(seen.verdict if seen is not None else Verdict.TOO_FEW),
            "reason": seen.reason if seen is not None else "it has not looked yet",
            "figures": _figures(seen) if seen is not None else None,
        }


def _figures(seen: Look) -> dict[str, Any]:
    return {"candidate": msgspec.to_builtins(seen.candidate), "other": msgspec.to_builtins(seen.other)}


def _step_fields(rollout: Rollout) -> dict[str, object]:
    return {"color": str(rollout.inactive), "share": rollout.share, "step": rollout.step + 1, "steps": len(rollout.shares)}
