"""Whether a backend that answers does so far slower than it used to: a lost GPU, swapping, heat.

Kept and looked at by controlplane.degradation_watch, one a backend; told of answers by dataplane.gauge. Pure and bounded: the
caller passes now_s (seconds, loop time). Compares a backend with itself only, and like with like: the same model, prompts of like
size, as many streams at once. What it has no like for it does not judge. Learns from good times alone, and late, so that a slow
time has been found out before it could become the usual. Never routes, tells or restarts anything.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import log2
from statistics import median

from understudy.core.pace import Pace

# Below this share of its usual speed, or above so many times its usual first content, an answer counts as slow. A backend is
# sound again only on the other side of the second pair of bounds.
SPEED_SLOW = 0.5
SPEED_SOUND = 0.7
FIRST_SLOW = 3.0
FIRST_SOUND = 2.0
# Less than this is the network's or the moment's, however many times the usual it is.
FIRST_EXCESS_S_MIN = 0.25

# How many answers it takes, and how long they must go on: a hiccup of some seconds holds up many answers at once.
SUSPICIOUS_MIN = 8
SUSPICIOUS_S_MIN = 5.0
DEGRADED_MORE_MIN = 12
DEGRADED_OF = 16
DEGRADED_S_MIN = 30.0
# On trial a few tell, for much is known already.
TRIAL_SLOW_MIN = 4
TRIAL_SOUND_MIN = 5
TRIAL_MAX = 12
TRIAL_SHARE = (SPEED_SLOW + SPEED_SOUND) / 2
# Older ones say nothing of now.
RECENT_S = 900.0

# So many answers lie between an answer and its being learnt.
HELD_BACK = 32
# Of each kind of answer so many are kept, and so many are needed to say what is usual.
KEPT = 48
SPEEDS_MIN = 20
FIRSTS_MIN = 40
# Some 100 KiB a backend at most.
KINDS_MAX = 32
MODELS_MAX = 8
# Answers of harder kinds stand in for a kind that is not known; much harder ones tell nothing.
HARDER_MAX = 4
# With more streams than this beside it a first content may have waited for them.
ALONE_MAX = 1.25


class Grade(StrEnum):
    """How well a backend does, measured by itself."""

    SOUND = "sound"
    SUSPICIOUS = "suspicious"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class Measured:
    """One good streamed answer.

    `speed` is bytes of UTF-8 a second after the first content, which are about as many for a token in any language; 0.0 where not
    measured, as is `first_content_s` (seconds from sending the request). `waiting_load` and `writing_load` are how many attempts
    the backend had at once, this one included, on an average until the first content and from there on.
    """

    model: str
    prompt_bytes: int
    first_content_s: float
    speed: float
    waiting_load: float = 1.0
    writing_load: float = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """The verdict; `words` say with numbers why it is not SOUND."""

    grade: Grade
    words: str = ""


class _Usual:
    """What one model usually does on one backend."""

    __slots__ = ("_firsts", "_pace", "_speeds")

    def __init__(self) -> None:
        # Speeds by the size of the prompt and the load, the kind that was learnt last at the end.
        self._speeds: dict[tuple[int, int], deque[float]] = {}
        self._pace = Pace()
        self._firsts = 0

    def learn(self, one: Measured) -> None:
        """Take an answer of good times."""
        if one.speed > 0.0:
            kind = _kind(one)
            kept = self._speeds.pop(kind, None)
            self._speeds[kind] = kept = deque(maxlen=KEPT) if kept is None else kept
            kept.append(one.speed)
            if len(self._speeds) > KINDS_MAX:
                del self._speeds[next(iter(self._speeds))]
        if _is_alone(one):
            self._pace.add(one.prompt_bytes, one.first_content_s)
            self._firsts += 1

    def speed(self, one: Measured) -> float | None:
        """Return the speed that such an answer usually has at least, None where that is not known.

        By answers of its kind, else of the nearest kind with larger prompts or more at once: those are slower, if anything.
        """
        if one.speed <= 0.0:
            return None
        size, load = _kind(one)
        near = [
            (kind[0] - size + kind[1] - load, kept)
            for kind, kept in self._speeds.items()
            if kind[0] >= size and kind[1] >= load and len(kept) >= SPEEDS_MIN
        ]
        if not near:
            return None
        harder, kept = min(near, key=lambda each: each[0])
        return median(kept) if harder <= HARDER_MAX else None

    def first_content_s(self, one: Measured) -> float | None:
        """Return within how many seconds such an answer usually begins, None where that is not known."""
        if self._firsts < FIRSTS_MIN or not _is_alone(one):
            return None
        return self._pace.expected_s(one.prompt_bytes)


class Degradation:
    """One backend's answers against what it usually does. `is_on_trial`: after a slow time it may show what it does now."""

    def __init__(self) -> None:
        self.grade = Grade.SOUND
        self.is_on_trial = False
        self._since_s = 0.0
        self._judged = 0
        self._usual: dict[str, _Usual] = {}
        # The newest answers, not learnt yet; None: not to be.
        self._held: deque[Measured | None] = deque()
        # When, the share of the usual, and the figure itself beside the usual one.
        self._speeds: deque[tuple[float, float, float, float]] = deque(maxlen=DEGRADED_OF)
        self._firsts: deque[tuple[float, float, float, float]] = deque(maxlen=DEGRADED_OF)

    def add(self, one: Measured, now_s: float) -> None:
        """Take an answer that ended at `now_s`."""
        usual = self._usual.get(one.model)
        if usual is not None:
            self._judge(one, usual, now_s)
        is_good = self.grade is Grade.SOUND
        self._held.append(one if is_good else None)
        if len(self._held) > HELD_BACK:
            oldest = self._held.popleft()
            if oldest is not None and is_good:
                self._usual_of(oldest.model).learn(oldest)

    def look(self, now_s: float) -> Look:
        """Return the verdict on the answers so far; a new grade holds from here on."""
        for recent in (self._speeds, self._firsts):
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
            self._speeds.clear()
            self._firsts.clear()

    def _judge(self, one: Measured, usual: _Usual, now_s: float) -> None:
        speed, first_s = usual.speed(one), usual.first_content_s(one)
        if speed is not None:
            self._speeds.append((now_s, one.speed / speed, one.speed, speed))
        if first_s is not None:
            is_late = one.first_content_s > first_s + FIRST_EXCESS_S_MIN
            self._firsts.append((now_s, one.first_content_s / first_s if is_late else 1.0, one.first_content_s, first_s))
        if speed is not None or first_s is not None:
            self._judged += 1

    def _usual_of(self, model: str) -> _Usual:
        usual = self._usual.get(model)
        if usual is None:
            if len(self._usual) >= MODELS_MAX:
                del self._usual[next(iter(self._usual))]
            usual = self._usual[model] = _Usual()
        return usual

    def _next(self, now_s: float) -> Grade:
        if self.grade is Grade.SOUND:
            is_long = self._span_s(now_s) >= SUSPICIOUS_S_MIN
            return Grade.SUSPICIOUS if is_long and self._is_slow(SUSPICIOUS_MIN) else Grade.SOUND
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
        return Grade.SOUND if share is None or share >= TRIAL_SHARE else Grade.DEGRADED

    def _turn(self, grade: Grade, now_s: float) -> None:
        if self.grade is Grade.SOUND:
            # These were the beginning of it.
            self._held = deque([None] * len(self._held))
        if grade is Grade.DEGRADED:
            self._speeds.clear()
            self._firsts.clear()
        self.grade = grade
        self.is_on_trial = False
        self._since_s = now_s
        self._judged = 0

    # --- what the newest say

    def _is_slow(self, count: int) -> bool:
        speed, first = _median_share(self._speeds, count, count), _median_share(self._firsts, count, count)
        if speed is not None and speed < SPEED_SLOW:
            return True
        # One that writes as fast as ever is well: what is late then is late for its prompts, or for others that it serves.
        is_fast = (_median_share(self._speeds, TRIAL_SLOW_MIN, count) or 0.0) >= SPEED_SOUND
        return first is not None and first > FIRST_SLOW and not is_fast

    def _is_sound(self, count: int) -> bool:
        speed, first = _median_share(self._speeds, count, count), _median_share(self._firsts, count, count)
        if speed is not None:
            return speed >= SPEED_SOUND
        return first is not None and first <= FIRST_SOUND

    def _span_s(self, now_s: float) -> float:
        """Since when the answers go on that make it suspicious."""
        oldest = [recent[-SUSPICIOUS_MIN][0] for recent in (self._speeds, self._firsts) if len(recent) >= SUSPICIOUS_MIN]
        return now_s - min(oldest) if oldest else 0.0

    def _words(self) -> str:
        said = []
        if self._speeds:
            share, speed, usual = (median(each[at] for each in self._speeds) for at in (1, 2, 3))
            if share < SPEED_SOUND:
                count = len(self._speeds)
                said.append(f"writes {speed:.3g} bytes/s, {share:.0%} of its usual {usual:.3g} (median of {count} answers)")
        if self._firsts:
            times, first_s, usual_s = (median(each[at] for each in self._firsts) for at in (1, 2, 3))
            if times > FIRST_SOUND:
                count = len(self._firsts)
                said.append(f"begins after {first_s:.3g} s, usually within {usual_s:.3g} s (median of {count} answers)")
        return "; ".join(said)


def _is_alone(one: Measured) -> bool:
    return one.first_content_s > 0.0 and one.waiting_load <= ALONE_MAX


def _kind(one: Measured) -> tuple[int, int]:
    """Tell prompts apart by factors of four from 4 KiB on, and loads by factors of 1.4, within which speeds hardly differ."""
    size = max(0, (one.prompt_bytes.bit_length() - 11) // 2)
    return size, round(2 * log2(max(1.0, one.writing_load)))


def _median_share(recent: Iterable[tuple[float, float, float, float]], least: int, most: int) -> float | None:
    shares = [each[1] for each in recent][-most:]
    return median(shares) if len(shares) >= least else None
