"""Whether a backend that answers does so far slower than it used to: a lost GPU, swapping, heat.

Kept and looked at by controlplane.degradation_watch, one a backend; told of answers by dataplane.gauge. Pure and bounded: the
caller passes now_s (seconds, loop time). Compares a backend with itself only, and like with like (core.usual_pace). Learns from
good times alone, and late, so that a slow time has been found out before it could become the usual. Never routes, tells or
restarts anything.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from understudy.core.usual_pace import SHORT_BYTES_MAX, Measured, UsualPace

# Below this share of its usual speed, or above so many times its usual first content, an answer counts as slow. A backend is
# sound again only on the other side of the second pair of bounds.
SPEED_SLOW = 0.5
SPEED_SOUND = 0.7
FIRST_SLOW = 3.0
FIRST_SOUND = 2.0
# Less than this is the network's or the moment's, however many times the usual it is.
FIRST_EXCESS_S_MIN = 0.15

# How many answers it takes, and how long they must go on: a hiccup of some seconds holds up many answers at once.
SUSPICIOUS_MIN = 6
SUSPICIOUS_S_MIN = 5.0
DEGRADED_MORE_MIN = 8
DEGRADED_OF = 12
DEGRADED_S_MIN = 30.0
# On trial a few tell, for much is known already.
TRIAL_SLOW_MIN = 4
TRIAL_SOUND_MIN = 5
TRIAL_MAX = 12
TRIAL_SHARE = (SPEED_SLOW + SPEED_SOUND) / 2
# Older ones say nothing of now; a board at home may have an answer every ten minutes.
RECENT_S = 2 * 3600.0
# A suspicion, or a trial, without an answer that could be judged for so long is over.
QUIET_S = 1800.0

# So many answers, and so long, lie between an answer and its being learnt; where more come meanwhile the oldest are not learnt.
HELD_BACK = 16
HELD_BACK_S = 15.0
HELD_MAX = 512
MODELS_MAX = 8


# When, the share of the usual (of speed) or how many times as much it is (of first content), the figure and the usual one.
_Judged = tuple[float, float, float, float]


class Grade(StrEnum):
    """How well a backend does, measured by itself."""

    SOUND = "sound"
    SUSPICIOUS = "suspicious"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class Look:
    """The verdict; `words` say with numbers why it is not SOUND."""

    grade: Grade
    words: str = ""


class Degradation:
    """One backend's answers against what it usually does. `is_on_trial`: after a slow time it may show what it does now."""

    def __init__(self) -> None:
        self.grade = Grade.SOUND
        self.is_on_trial = False
        self._since_s = 0.0
        # How many answers were judged since, and when the last one was.
        self._judged = 0
        self._judged_at_s = 0.0
        self._usual: dict[str, UsualPace] = {}
        # The newest answers, not learnt yet, and when they ended.
        self._held: deque[tuple[float, Measured]] = deque(maxlen=HELD_MAX)
        # When, the share of the usual, and the figure itself beside the usual one. `_shorts` are those firsts of short prompts.
        self._speeds: deque[_Judged] = deque(maxlen=DEGRADED_OF)
        self._firsts: deque[_Judged] = deque(maxlen=DEGRADED_OF)
        self._shorts: deque[_Judged] = deque(maxlen=DEGRADED_OF)

    def add(self, one: Measured, now_s: float) -> None:
        """Take an answer that ended at `now_s`."""
        usual = self._usual.get(one.model)
        if usual is not None:
            self._judge(one, usual, now_s)
        if self.grade is not Grade.SOUND:
            return
        self._held.append((now_s, one))
        # Two at a time: those that waited for their time to come catch up.
        for _ in range(2):
            if len(self._held) > HELD_BACK and self._held[0][0] <= now_s - HELD_BACK_S:
                _, oldest = self._held.popleft()
                self._usual_of(oldest.model).learn(oldest)

    def look(self, now_s: float) -> Look:
        """Return the verdict on the answers so far; a new grade holds from here on."""
        for recent in (self._speeds, self._firsts, self._shorts):
            while recent and recent[0][0] < now_s - RECENT_S:
                recent.popleft()
        grade = self._next(now_s)
        words = "" if grade is Grade.SOUND else self._words()
        if grade is not self.grade:
            self._turn(grade, now_s)
        return Look(grade, words)

    def begin_trial(self, now_s: float) -> None:
        """Let it show what it does now, by the answers from here on; nothing where it is not degraded."""
        if self.grade is Grade.DEGRADED:
            self._turn(Grade.SUSPICIOUS, now_s)
            self.is_on_trial = True
            self._forget_recent()

    def _judge(self, one: Measured, usual: UsualPace, now_s: float) -> None:
        share, first_s = usual.share_of_speed(one), usual.first_content_s(one)
        if share is not None:
            self._speeds.append((now_s, share, one.speed, one.speed / share if share else 0.0))
        if first_s is not None:
            is_late = one.first_content_s > first_s + FIRST_EXCESS_S_MIN
            judged = (now_s, one.first_content_s / first_s if is_late else 1.0, one.first_content_s, first_s)
            self._firsts.append(judged)
            if one.prompt_bytes <= SHORT_BYTES_MAX:
                self._shorts.append(judged)
        late = usual.late_first_content(one)
        if late is not None:
            times, usual_s = late
            is_late = one.first_content_s > usual_s + FIRST_EXCESS_S_MIN
            self._shorts.append((now_s, times if is_late else 1.0, one.first_content_s, usual_s))
        if share is not None or first_s is not None or late is not None:
            self._judged += 1
            self._judged_at_s = now_s

    def _usual_of(self, model: str) -> UsualPace:
        """Return what is usual for that model, which is the last one now to be forgotten for others."""
        usual = self._usual.pop(model, None) or UsualPace()
        if len(self._usual) >= MODELS_MAX:
            del self._usual[next(iter(self._usual))]
        self._usual[model] = usual
        return usual

    def _next(self, now_s: float) -> Grade:
        if self.grade is Grade.SOUND:
            is_long = self._span_s(now_s) >= SUSPICIOUS_S_MIN
            return Grade.SUSPICIOUS if is_long and self._is_slow(SUSPICIOUS_MIN) else Grade.SOUND
        if self.grade is Grade.SUSPICIOUS and now_s >= max(self._since_s, self._judged_at_s) + QUIET_S:
            # Its clients use other models now, or none.
            self._forget_recent()
            return Grade.SOUND
        if self.is_on_trial:
            return self._next_on_trial()
        if self.grade is Grade.DEGRADED:
            return Grade.SOUND if self._judged >= TRIAL_SOUND_MIN and self._is_sound(TRIAL_SOUND_MIN) else Grade.DEGRADED
        if self._is_sound(SUSPICIOUS_MIN):
            return Grade.SOUND
        is_kept_up = self._judged >= DEGRADED_MORE_MIN and now_s >= self._since_s + DEGRADED_S_MIN
        return Grade.DEGRADED if is_kept_up and self._is_slow(DEGRADED_OF) else Grade.SUSPICIOUS

    def _next_on_trial(self) -> Grade:
        if self._judged >= TRIAL_SLOW_MIN and self._is_slow(TRIAL_SLOW_MIN):
            return Grade.DEGRADED
        if self._judged >= TRIAL_SOUND_MIN and self._is_sound(TRIAL_SOUND_MIN):
            return Grade.SOUND
        if self._judged < TRIAL_MAX:
            return Grade.SUSPICIOUS
        share = _median_share(self._speeds, 1, DEGRADED_OF)
        is_late = (_median_share(self._shorts, TRIAL_SLOW_MIN, DEGRADED_OF) or 0.0) > FIRST_SOUND
        return Grade.SOUND if (share is None or share >= TRIAL_SHARE) and not is_late else Grade.DEGRADED

    def _turn(self, grade: Grade, now_s: float) -> None:
        if self.grade is Grade.SOUND:
            # These were the beginning of it.
            self._held.clear()
        if grade is Grade.DEGRADED:
            self._forget_recent()
        self.grade = grade
        self.is_on_trial = False
        self._since_s = now_s
        self._judged = 0

    def _forget_recent(self) -> None:
        for recent in (self._speeds, self._firsts, self._shorts):
            recent.clear()

    # --- what the newest say

    def _is_slow(self, count: int) -> bool:
        speed, first = _median_share(self._speeds, count, count), _median_share(self._firsts, count, count)
        if speed is not None and speed < SPEED_SLOW:
            return True
        if (_median_share(self._shorts, count, count) or 0.0) > FIRST_SLOW:
            return True
        # One that writes as fast as ever is well: what is late then is late for its prompts, or for others that it serves.
        is_fast = (_median_share(self._speeds, TRIAL_SLOW_MIN, count) or 0.0) >= SPEED_SOUND
        return first is not None and first > FIRST_SLOW and not is_fast

    def _is_sound(self, count: int) -> bool:
        speed, first = _median_share(self._speeds, count, count), _median_share(self._firsts, count, count)
        if (_median_share(self._shorts, count, count) or 0.0) > FIRST_SOUND:
            return False
        if speed is not None:
            return speed >= SPEED_SOUND
        return first is not None and first <= FIRST_SOUND

    def _span_s(self, now_s: float) -> float:
        """Since when the answers go on that make it suspicious."""
        oldest = [
            recent[-SUSPICIOUS_MIN][0] for recent in (self._speeds, self._firsts, self._shorts) if len(recent) >= SUSPICIOUS_MIN
        ]
        return now_s - min(oldest) if oldest else 0.0

    def _words(self) -> str:
        said = []
        if self._speeds:
            share, speed, usual = (median(each[at] for each in self._speeds) for at in (1, 2, 3))
            if share < SPEED_SOUND:
                count = len(self._speeds)
                said.append(f"writes {speed:.3g} bytes/s, {share:.0%} of its usual {usual:.3g} (median of {count} answers)")
        for firsts in (self._firsts, self._shorts):
            times, first_s, usual_s = (median(each[at] for each in firsts) for at in (1, 2, 3)) if firsts else (0.0, 0.0, 0.0)
            if times > FIRST_SOUND:
                said.append(f"begins after {first_s:.3g} s, usually within {usual_s:.3g} s (median of {len(firsts)} answers)")
                break
        return "; ".join(said)


def _median_share(recent: Iterable[_Judged], least: int, most: int) -> float | None:
    shares = [each[1] for each in recent][-most:]
    return median(shares) if len(shares) >= least else None
