"""Which color takes the new conversations: the switch, the canary, the way back, and whose word each of them was.

Part of every routing snapshot; stepped by controlplane.rollout_driver, read by core.affinity. Pure: each function takes the
state and `now_unix_s` (wall clock, because it outlives the process) and returns the next state. Never looks at a backend
(core.switching) and never compares the colors (core.guard).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from understudy.core.color import Color, RolloutRules


class Word(StrEnum):
    """Whose word it was."""

    FILE = "file"
    COMMAND = "command"
    CANARY = "canary"  # the canary has come to its last step, all conversations
    GUARD = "guard"


@dataclass(frozen=True, slots=True)
class Rollout:
    """What is in force. Times are the wall clock's, 0.0: never.

    `active` takes the new conversations but for `share` of them. `previous` is what a rollback returns to, NONE: nothing.
    `shares` are the canary's steps, () none; `step` is the one in force. Conversations that began on a color before it was
    recalled have left it. `file_active` and `file_shares` are what the file said when it was last heard: only another word there
    is a later one. `reason` says why the last change came about, in words.
    """

    active: Color = Color.BLUE
    word: Word = Word.FILE
    switched_at_unix_s: float = 0.0
    changed_at_unix_s: float = 0.0
    previous: Color = Color.NONE
    shares: tuple[float, ...] = ()
    step: int = 0
    step_at_unix_s: float = 0.0
    canary_word: Word = Word.FILE
    blue_recalled_unix_s: float = 0.0
    green_recalled_unix_s: float = 0.0
    file_active: Color = Color.BLUE
    file_shares: tuple[float, ...] = ()
    reason: str = ""

    @property
    def inactive(self) -> Color:
        """The color that does not take the new conversations."""
        return self.active.other

    @property
    def share(self) -> float:
        """The share of new conversations that the inactive color gets."""
        return self.shares[self.step] if self.shares else 0.0

    def recalled_unix_s(self, color: Color) -> float:
        """Return when the conversations of `color` were last taken away from it."""
        return self.green_recalled_unix_s if color is Color.GREEN else self.blue_recalled_unix_s


NO_ROLLOUT = Rollout()


def begun(rules: RolloutRules, kept: Rollout | None, now_unix_s: float) -> Rollout:
    """Return the state at a start: what was kept, unless the file has said something else since; else what the file says."""
    if kept is not None:
        return heard(kept, rules, now_unix_s)
    fresh = Rollout(active=rules.active, file_active=rules.active)
    return heard(fresh, rules, now_unix_s)


def heard(rollout: Rollout, rules: RolloutRules, now_unix_s: float) -> Rollout:
    """Return the state after the file was read: only what it says anew counts, and then it is the later word.

    A switch ends the canary, unless the same reading begins another one.
    """
    says_active = rules.active is not rollout.file_active
    says_shares = rules.shares != rollout.file_shares
    if says_active and rules.active is not rollout.active:
        rollout = switched(rollout, rules.active, Word.FILE, now_unix_s)
    elif says_active:
        rollout = replace(rollout, word=Word.FILE)
    if says_shares:
        rollout = with_canary(rollout, rules.shares, Word.FILE, now_unix_s)
    return replace(rollout, file_active=rules.active, file_shares=rules.shares)


def switched(rollout: Rollout, to: Color, word: Word, now_unix_s: float, reason: str = "") -> Rollout:
    """Return the state with `to` active; the canary is over. Unchanged where it is active already, and no canary runs."""
    if to is rollout.active and not rollout.shares:
        return rollout
    if to is rollout.active:
        return with_canary(rollout, (), word, now_unix_s, reason)
    return replace(
        rollout,
        active=to,
        word=word,
        switched_at_unix_s=now_unix_s,
        changed_at_unix_s=now_unix_s,
        previous=rollout.active,
        shares=(),
        step=0,
        step_at_unix_s=0.0,
        canary_word=word,
        reason=reason,
    )


def with_canary(rollout: Rollout, shares: tuple[float, ...], word: Word, now_unix_s: float, reason: str = "") -> Rollout:
    """Return the state with a canary of these steps at its first one; () ends it. Unchanged where there is none to end."""
    if not any(shares):
        shares = ()
    if not shares and not rollout.shares:
        return rollout
    return replace(
        rollout,
        shares=shares,
        step=0,
        step_at_unix_s=now_unix_s if shares else 0.0,
        changed_at_unix_s=now_unix_s,
        canary_word=word,
        reason=reason,
    )


def stepped(rollout: Rollout, now_unix_s: float) -> Rollout:
    """Return the state one canary step on. Where that one is all conversations it is a switch. Unchanged at the last one."""
    step = rollout.step + 1
    if step >= len(rollout.shares):
        return rollout
    if rollout.shares[step] >= 1.0:
        return switched(rollout, rollout.inactive, Word.CANARY, now_unix_s, "the canary came to its last step")
    return replace(rollout, step=step, step_at_unix_s=now_unix_s, changed_at_unix_s=now_unix_s, canary_word=Word.CANARY)


def rolled_back(
    rollout: Rollout, word: Word, now_unix_s: float, *, takes_sessions: bool = False, reason: str = ""
) -> Rollout | None:
    """Return the state before the canary, or before the last switch; None where there is nothing to take back.

    With `takes_sessions` the conversations that began on the color that is left begin anew on the other.
    """
    left = rollout.inactive if rollout.shares else rollout.active
    if rollout.shares:
        after = with_canary(rollout, (), word, now_unix_s, reason)
    elif rollout.previous is rollout.active.other:
        after = replace(switched(rollout, rollout.previous, word, now_unix_s, reason), previous=Color.NONE)
    else:
        return None
    return recalled(after, left, now_unix_s) if takes_sessions else after


def recalled(rollout: Rollout, color: Color, now_unix_s: float) -> Rollout:
    """Return the state in which the conversations that `color` has now have left it."""
    if color is Color.GREEN:
        return replace(rollout, green_recalled_unix_s=now_unix_s)
    return replace(rollout, blue_recalled_unix_s=now_unix_s)


def anchored(rollout: Rollout, now_unix_s: float) -> Rollout:
    """Return the state without instants that lie in the future: where the clock was set back they are now.

    So that a step waits for `every_s` once more at most, and conversations stay, however far the clock went.
    """
    instants = (
        rollout.switched_at_unix_s,
        rollout.changed_at_unix_s,
        rollout.step_at_unix_s,
        rollout.blue_recalled_unix_s,
        rollout.green_recalled_unix_s,
    )
    if max(instants) <= now_unix_s:
        return rollout
    switched_at, changed_at, step_at, blue_recalled, green_recalled = (min(each, now_unix_s) for each in instants)
    return replace(
        rollout,
        switched_at_unix_s=switched_at,
        changed_at_unix_s=changed_at,
        step_at_unix_s=step_at,
        blue_recalled_unix_s=blue_recalled,
        green_recalled_unix_s=green_recalled,
    )


def step_due_at_unix_s(rollout: Rollout, rules: RolloutRules) -> float:
    """Return when the next canary step is due, as far as time goes; 0.0 where there is none."""
    if rollout.step + 1 >= len(rollout.shares):
        return 0.0
    return rollout.step_at_unix_s + rules.every_s


def candidate(rollout: Rollout, rules: RolloutRules, now_unix_s: float) -> Color:
    """Return the color that the guard watches now: the canary's, or the one switched to lately; NONE: it has nothing to watch."""
    if not rules.guard.is_on:
        return Color.NONE
    if rollout.share:
        return rollout.inactive
    is_new = rollout.previous is rollout.active.other and now_unix_s < rollout.switched_at_unix_s + rules.guard.watch_s
    return rollout.active if is_new else Color.NONE
