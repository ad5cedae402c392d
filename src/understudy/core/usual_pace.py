"""What one backend usually does with one model: how fast it writes and how soon it begins, by the kind of answer.

Kept by core.degradation. Pure and bounded. Compares like with like: prompts of like size, as many streams at once. Where none
was learnt beside as many streams, those beside fewer still tell the least that is to be expected: however an engine shares itself
out, all of its streams together are not written more slowly for being more.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import log2
from statistics import median
from typing import Final, NamedTuple, TypeVar

from understudy.core.pace import SLOW_SHARE, Pace, quantile

# Of each kind of answer so many are kept, and so many are needed to say what is usual.
KEPT: Final = 48
SPEEDS_MIN: Final = 12
FIRSTS_MIN: Final = 20
WAITS_MIN: Final = 20
# Beside twice as many as ever at most, by factors of 1.4, a wait is judged by those beside fewer.
MORE_STEPS_MAX: Final = 2
# Some 100 KiB a backend at most.
KINDS_MAX: Final = 32
# Answers of harder kinds stand in for a kind that is not known; much harder ones tell nothing.
HARDER_MAX: Final = 4
# With more streams than this beside it a first content may have waited for them.
ALONE_MAX: Final = 1.25
# Of prompts up to this size, as bodies of requests, what an engine's cache holds makes no great difference.
SHORT_BYTES_MAX: Final = 400
LONG_TIMES: Final = 4
# Where others' prompts may have held up an answer for so much more of its time than usual, fewer streams tell nothing of it.
STALLED_MAX: Final = 0.5
# Written at less than this share of what fewer streams let expect, an answer is slow if as many requests a second say so, too.
SHARED_OUT: Final = 0.8


@dataclass(frozen=True, slots=True)
class Measured:
    """One good streamed answer.

    `speed` is bytes of UTF-8 a second after the first content, `pieces_s` events with text a second, which is about a token
    each: what is written may have short tokens, and an engine may put several into an event. Both are 0.0 where not measured, as
    is `first_content_s` (seconds from sending the request). `lasted_s` is how long it was written.

    `waiting_load` and `writing_load` are how many attempts the backend had at once, this one included, on an average until the
    first content and from there on, `writers` how many of the latter were being written; `rate` is how many it got a second of
    late. `stalls` are others whose prompts may have held this one up while it was written, for how many seconds at most, and
    their bytes; `ahead` those that may have been taken in before its own.
    """

    model: str
    prompt_bytes: int
    first_content_s: float
    speed: float
    pieces_s: float = 0.0
    lasted_s: float = 0.0
    waiting_load: float = 1.0
    writing_load: float = 1.0
    writers: float = 1.0
    rate: float = 0.0
    stalls: tuple[tuple[float, int], ...] = ()
    ahead: tuple[tuple[float, int], ...] = ()


class _Speed(NamedTuple):
    """What one learnt answer says. `stalled` is the share of its time in which others' prompts may have held it up."""

    speed: float
    pieces_s: float
    writers: float
    stalled: float


class _Wait(NamedTuple):
    """How long the first content of a learnt answer took, less the prompts before its own; and that as a share of its writing."""

    waited_s: float
    share: float


_Learnt = TypeVar("_Learnt")
_Kinds = dict[tuple[int, int], deque[_Speed]]


class UsualPace:
    """What one model usually does on one backend."""

    __slots__ = ("_by_load", "_by_rate", "_by_wait", "_firsts", "_pace")

    def __init__(self) -> None:
        # Speeds by the size of the prompt and the load, or the rate; the kind that was learnt last stands behind.
        self._by_load: _Kinds = {}
        self._by_rate: _Kinds = {}
        # Waits of short prompts by the load.
        self._by_wait: dict[tuple[int, int], deque[_Wait]] = {}
        self._pace = Pace()
        self._firsts = 0

    def learn(self, one: Measured) -> None:
        """Take an answer of good times."""
        if one.speed > 0.0:
            learnt = _Speed(one.speed, one.pieces_s, one.writers, self._stalled(one))
            size = _size(one)
            _keep(self._by_load, (size, _step(one.writing_load)), learnt)
            if one.rate > 0.0:
                _keep(self._by_rate, (size, _step(one.rate)), learnt)
        wait = self._wait(one)
        if wait is not None:
            _keep(self._by_wait, (0, _step(one.waiting_load)), wait)
        if _is_alone(one):
            self._pace.add(one.prompt_bytes, one.first_content_s)
            self._firsts += 1

    def share_of_speed(self, one: Measured) -> float | None:
        """Return at which share of the speed that such an answer usually has at least it was written; None: that is not known.

        By answers beside as many, else of the nearest kind with larger prompts or beside more, which are slower, if anything.
        Else by those beside fewer: what they had together is shared out among those that are written now. That alone may hide
        an engine that is slow and has more at once for that; so what it does at as many requests a second is looked at, too.
        """
        if one.speed <= 0.0:
            return None
        size = _size(one)
        alike = _nearest(self._by_load, size, _step(one.writing_load))
        if alike is not None:
            return _share(one, alike, 1.0)
        shared_out = self._share_of_fewer(one, size)
        if shared_out is None or shared_out >= SHARED_OUT or one.rate <= 0.0:
            return shared_out
        as_often = _nearest(self._by_rate, size, _step(one.rate))
        return shared_out if as_often is None else min(shared_out, _share(one, as_often, 1.0))

    def _share_of_fewer(self, one: Measured, size: int) -> float | None:
        stalled = self._stalled(one)
        load = _step(one.writing_load)
        shares = []
        for (of_size, of_load), kept in self._by_load.items():
            if not size <= of_size <= size + HARDER_MAX or of_load >= load or len(kept) < SPEEDS_MIN:
                continue
            going = 1.0 - max(0.0, stalled - median(each.stalled for each in kept))
            if going < 1.0 - STALLED_MAX:
                return None
            part = min(1.0, median(each.writers for each in kept) / one.writers)
            shares.append(_share(one, kept, part * going))
        return min(shares, default=None)

    def first_content_s(self, one: Measured) -> float | None:
        """Return within how many seconds such an answer usually begins, None where that is not known."""
        if self._firsts < FIRSTS_MIN or not _is_alone(one):
            return None
        return self._pace.expected_s(one.prompt_bytes)

    def late_first_content(self, one: Measured) -> tuple[float, float] | None:
        """Return how many times as long as usual a short prompt waited beside others, and how many seconds are usual.

        None: that is not known. What it waited for long prompts is left out; the slow ones of the usual count, as in Pace. One
        that waits for answers to end waits as much longer as these are; so both the time and its share of the writing must be
        beyond the usual. Beside more than ever it may wait for all that are more, one after the other.
        """
        wait = self._wait(one)
        if wait is None or _is_alone(one):
            return None
        step = _step(one.waiting_load)
        alike = _nearest(self._by_wait, 0, step, WAITS_MIN)
        if alike is not None:
            return _lateness(wait, alike, 0.0, 1.0)
        fewer = max((kind for kind, kept in self._by_wait.items() if kind[1] < step and len(kept) >= WAITS_MIN), default=None)
        if fewer is None or step > fewer[1] + MORE_STEPS_MAX:
            return None
        more = one.waiting_load / 2.0 ** (fewer[1] / 2.0)
        return _lateness(wait, self._by_wait[fewer], (one.waiting_load - 1.0) * one.lasted_s, more * more)

    def _wait(self, one: Measured) -> _Wait | None:
        if one.prompt_bytes > SHORT_BYTES_MAX or one.first_content_s <= 0.0 or one.lasted_s <= 0.0:
            return None
        # Of prompts like its own as many are ahead of it at that load at any time.
        long = (each for each in one.ahead if each[1] > LONG_TIMES * SHORT_BYTES_MAX)
        waited_s = max(0.0, one.first_content_s - self._taken_s(long))
        return _Wait(waited_s, waited_s / one.lasted_s)

    def _stalled(self, one: Measured) -> float:
        """Return for which share of its time others' prompts may have held up an answer."""
        return self._taken_s(one.stalls) / one.lasted_s if one.lasted_s > 0.0 else 0.0

    def _taken_s(self, prompts: Iterable[tuple[float, int]]) -> float:
        """Return for how many of these seconds prompts may have been taken in, each at its usual pace."""
        taken_s = 0.0
        for waited_s, prompt_bytes in prompts:
            usual_s = self._pace.expected_s(prompt_bytes) if self._firsts >= FIRSTS_MIN else None
            taken_s += waited_s if usual_s is None else min(waited_s, usual_s)
        return taken_s


def _keep(kinds: dict[tuple[int, int], deque[_Learnt]], kind: tuple[int, int], learnt: _Learnt) -> None:
    kept = kinds.pop(kind, None)
    kinds[kind] = kept = deque(maxlen=KEPT) if kept is None else kept
    kept.append(learnt)
    if len(kinds) > KINDS_MAX:
        del kinds[next(iter(kinds))]


def _nearest(
    kinds: dict[tuple[int, int], deque[_Learnt]], size: int, step: int, least: int = SPEEDS_MIN
) -> deque[_Learnt] | None:
    """Return the kind itself, else the nearest that is harder; None where none is known well enough."""
    near = [
        (of_size - size + of_step - step, kept)
        for (of_size, of_step), kept in kinds.items()
        if of_size >= size and of_step >= step and len(kept) >= least
    ]
    harder, kept = min(near, key=lambda each: each[0], default=(HARDER_MAX + 1, None))
    return kept if harder <= HARDER_MAX else None


def _lateness(wait: _Wait, usual: Iterable[_Wait], others_s: float, more: float) -> tuple[float, float] | None:
    """Return how many times as long as usual that is, and the usual seconds.

    So many times as many at once as usual may make it `more` times as long. None where others may have taken up so much of it,
    `others_s`, that it tells nothing.
    """
    usual = tuple(usual)
    usual_s = quantile([each.waited_s for each in usual], SLOW_SHARE)
    usual_share = quantile([each.share for each in usual], SLOW_SHARE)
    if usual_s <= 0.0 or usual_share <= 0.0:
        return None
    times = min(wait.waited_s / usual_s, wait.share / usual_share) / more
    return (times, usual_s) if others_s <= 0.0 or (wait.waited_s - others_s) / usual_s >= times else None


def _share(one: Measured, usual: Iterable[_Speed], part: float) -> float:
    """Return the share of `part` of the usual speed, by whichever measure speaks for the answer."""
    usual = tuple(usual)
    shares = [one.speed / (part * median(each.speed for each in usual))]
    pieces_s = median(each.pieces_s for each in usual)
    if pieces_s > 0.0:
        shares.append(one.pieces_s / (part * pieces_s))
    return max(shares)


def _is_alone(one: Measured) -> bool:
    return one.first_content_s > 0.0 and one.waiting_load <= ALONE_MAX


def _size(one: Measured) -> int:
    """Tell prompts apart by factors of four from 4 KiB on."""
    return max(0, (one.prompt_bytes.bit_length() - 11) // 2)


def _step(load: float) -> int:
    """Tell loads and rates apart by factors of 1.4, within which speeds hardly differ."""
    return round(2 * log2(max(0.001, load)))
