"""Whether what the operator promised holds: the share of errors, the time to first content of 99 in 100, how busy GPUs are.

Fed and asked by controlplane.objective_watch. Pure: what happened and now_s (seconds, loop time) in, a standing per promise out.
Never tells anyone (objective_watch) and measures nothing itself.

Everything is looked at over a sliding window of BUCKETS parts, so that what is kept is bounded whatever the traffic, and what
leaves it leaves a part at a time. A promise is broken when what was measured is beyond the bound and, for errors and first
contents, so much would be seen by chance in fewer than one look in a thousand if the truth were exactly at the bound. It is
restored when nothing beyond the bound was seen for half a window: so it does not flap.

Times are counted by size in steps of 4 %, one of which ends exactly at the bound: whether the 99th percentile is beyond it is
exact, the value that is shown is within 2 %.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, log
from typing import Final

from understudy.core.significance import rank_of, worse_share_p
from understudy.core.upkeep import NO_SLO, Slo

BUCKETS: Final = 60
# Fewer exchanges tell nothing.
SAMPLES_MIN: Final = 20
# How likely a look at what is exactly at its bound may find it broken, at most; as core.guard's, less strict: it only tells.
LEVEL: Final = 0.001
RESTORED_AFTER_WINDOWS: Final = 0.5

_P99: Final = 0.99
_STEP: Final = log(1.04)
_TTFT_S_MIN, _TTFT_S_MAX = 1e-4, 1e5
# A bound is a share that is known: as good as measured on so many.
_KNOWN: Final = 10_000_000
# GPUs are judged once readings reach back over this part of the window.
_COVERED_MIN: Final = BUCKETS // 2
# What is measured and as near to the bound as a sum of floats tells is not beyond it.
_TIE: Final = 1e-9


class Objective(StrEnum):
    """What can be promised; the words are those of the file (`slo`), of events and of metrics."""

    ERRORS = "errors"
    P99_FIRST_CONTENT = "p99_first_content"
    GPU_BUSY = "gpu_busy"


@dataclass(frozen=True, slots=True)
class Standing:
    """How one promise stands. `value` and `bound` are shares, or seconds for P99_FIRST_CONTENT; `value` None: nothing measured.

    `samples` is what the value stands on: exchanges, or readings of `backend`, the busiest one, for GPU_BUSY. `broken_at_s` is
    when it was broken, 0.0 while it is not.
    """

    objective: Objective
    value: float | None
    bound: float
    is_broken: bool = False
    samples: int = 0
    broken_at_s: float = 0.0
    backend: str = ""


class _Bucket:
    """What happened in one part of the window. `sizes` counts times to first content by their step from the bound."""

    __slots__ = ("failed", "number", "sizes", "total")

    def __init__(self, number: int) -> None:
        self.number = number
        self.total = 0
        self.failed = 0
        self.sizes: dict[int, int] = {}


# Readings of one backend's GPUs by part of the window: its number, the sum of shares, how many.
_Readings = deque[tuple[int, float, int]]


@dataclass(slots=True)
class _Trouble:
    """A broken promise: since when, and since when nothing beyond its bound was seen (None: it is beyond)."""

    broken_at_s: float
    back_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Measured:
    """What a look at one promise has found. `is_sure`: enough was measured, and it is no chance, to call it broken."""

    value: float | None
    samples: int
    is_beyond: bool
    is_sure: bool
    backend: str = ""


class Objectives:
    """The promises of the file, with what was measured in their window and which of them are broken."""

    def __init__(self, rules: Slo = NO_SLO) -> None:
        self._rules = rules
        self._width_s = rules.window_s / BUCKETS
        self._troubles: dict[Objective, _Trouble] = {}
        self._gpus: dict[str, _Readings] = {}
        self._clear()

    def _clear(self) -> None:
        self._buckets: deque[_Bucket] = deque()
        # Sums over the buckets.
        self._total = 0
        self._failed = 0
        self._sizes: dict[int, int] = {}
        self._gpus.clear()

    @property
    def is_on(self) -> bool:
        """Whether anything is promised."""
        rules = self._rules
        return not (rules.errors is None and rules.p99_first_content_s is None and rules.gpu_busy is None)

    @property
    def window_s(self) -> float:
        """The window of the promises, in seconds."""
        return self._rules.window_s

    @property
    def exchanges(self) -> int:
        """How many exchanges the window holds that were ours to answer."""
        return self._total

    def follow(self, rules: Slo) -> None:
        """Take what the file promises now. What was measured stays, as far as it was measured in the same way."""
        before, self._rules = self._rules, rules
        if rules.window_s != before.window_s:
            self._width_s = rules.window_s / BUCKETS
            self._clear()
        elif rules.p99_first_content_s != before.p99_first_content_s:
            self._sizes = {}
            for bucket in self._buckets:
                bucket.sizes = {}
        bounds = self._bounds()
        self._troubles = {objective: trouble for objective, trouble in self._troubles.items() if objective in bounds}

    # --- what happened

    def on_exchange(self, is_failed: bool, ttft_s: float, now_s: float) -> None:
        """Count one finished exchange that was ours to answer; `ttft_s` 0.0 where no first content was timed."""
        bucket = self._bucket(now_s)
        bucket.total += 1
        self._total += 1
        if is_failed:
            bucket.failed += 1
            self._failed += 1
        if ttft_s > 0.0:
            self._count_size(bucket, ttft_s)

    def on_departure(self, ttft_s: float, waited_s: float, now_s: float) -> None:
        """Count an exchange whose client left: nobody's failure, but it did wait for a first content.

        One that left before any came (`ttft_s` 0.0) counts where it had waited longer than is promised; else nothing is known.
        Otherwise a hung backend, which every client leaves, would look fast.
        """
        bound_s = self._rules.p99_first_content_s
        if bound_s is None:
            return
        if ttft_s > 0.0 or waited_s > bound_s:
            self._count_size(self._bucket(now_s), ttft_s or waited_s)

    def on_gpu_busy(self, backend: str, share: float, now_s: float) -> None:
        """Take one reading of how busy a backend's GPUs are, 0 to 1."""
        readings = self._gpus.setdefault(backend, deque())
        number = self._number(now_s)
        self._expire(number)
        total, count = share, 1
        if readings and readings[-1][0] == number:
            _, before, times = readings.pop()
            total, count = before + share, times + 1
        readings.append((number, total, count))

    # --- how it stands

    def look(self, now_s: float) -> tuple[Standing, ...]:
        """Return how each promise of the file stands, in the order of Objective."""
        self._expire(self._number(now_s))
        self._gpus = {name: readings for name, readings in self._gpus.items() if readings}
        return tuple(self._stand(objective, bound, now_s) for objective, bound in self._bounds().items())

    def _bounds(self) -> dict[Objective, float]:
        rules = self._rules
        bounds = {
            Objective.ERRORS: rules.errors,
            Objective.P99_FIRST_CONTENT: rules.p99_first_content_s,
            Objective.GPU_BUSY: rules.gpu_busy,
        }
        return {objective: bound for objective, bound in bounds.items() if bound is not None}

    def _stand(self, objective: Objective, bound: float, now_s: float) -> Standing:
        if objective is Objective.ERRORS:
            found = self._errors(bound)
        elif objective is Objective.P99_FIRST_CONTENT:
            found = self._first_content(bound)
        else:
            found = self._busiest(bound, self._number(now_s))
        trouble = self._judge(objective, found, now_s)
        broken_at_s = trouble.broken_at_s if trouble is not None else 0.0
        return Standing(objective, found.value, bound, trouble is not None, found.samples, broken_at_s, found.backend)

    def _judge(self, objective: Objective, found: _Measured, now_s: float) -> _Trouble | None:
        """Return the trouble that the promise is in after this look; nothing measured any more is nothing beyond the bound."""
        trouble = self._troubles.get(objective)
        if trouble is None:
            if found.is_beyond and found.is_sure:
                trouble = self._troubles[objective] = _Trouble(now_s)
            return trouble
        if found.is_beyond:
            trouble.back_at_s = None
        elif trouble.back_at_s is None:
            trouble.back_at_s = now_s
        elif now_s - trouble.back_at_s >= self._rules.window_s * RESTORED_AFTER_WINDOWS:
            del self._troubles[objective]
            return None
        return trouble

    def _errors(self, bound: float) -> _Measured:
        total, failed = self._total, self._failed
        if not total:
            return _Measured(None, 0, is_beyond=False, is_sure=False)
        is_beyond = failed / total > bound + _TIE
        return _Measured(failed / total, total, is_beyond, is_beyond and _is_no_chance(failed, total, bound))

    def _first_content(self, bound_s: float) -> _Measured:
        measured = sum(self._sizes.values())
        if not measured:
            return _Measured(None, 0, is_beyond=False, is_sure=False)
        rank = rank_of(_P99, measured)
        seen = size = 0
        for size in sorted(self._sizes):
            seen += self._sizes[size]
            if seen >= rank:
                break
        value_s = bound_s * 1.04 ** (size - 0.5)
        if size <= 0:
            return _Measured(value_s, measured, is_beyond=False, is_sure=False)
        slower = sum(count for size, count in self._sizes.items() if size > 0)
        return _Measured(value_s, measured, is_beyond=True, is_sure=_is_no_chance(slower, measured, 1.0 - _P99))

    def _busiest(self, bound: float, number: int) -> _Measured:
        """Judge the backend whose GPUs were the busiest over the window, so that an idle one hides nothing."""
        busiest = _Measured(None, 0, is_beyond=False, is_sure=False)
        for name, readings in self._gpus.items():
            # Each part of the window weighs the same, however many readings fell into it.
            mean = sum(total / count for _, total, count in readings) / len(readings)
            if busiest.value is None or mean > busiest.value:
                is_covered = number - readings[0][0] >= _COVERED_MIN
                is_beyond = mean > bound + _TIE
                samples = sum(count for _, _, count in readings)
                busiest = _Measured(mean, samples, is_beyond, is_covered, name)
        return busiest

    # --- the window

    def _number(self, now_s: float) -> int:
        return int(now_s // self._width_s)

    def _bucket(self, now_s: float) -> _Bucket:
        number = self._number(now_s)
        if self._buckets and self._buckets[-1].number >= number:
            return self._buckets[-1]
        self._expire(number)
        bucket = _Bucket(number)
        self._buckets.append(bucket)
        return bucket

    def _count_size(self, bucket: _Bucket, ttft_s: float) -> None:
        bound_s = self._rules.p99_first_content_s
        if bound_s is None:
            return
        # Steps above 0 are beyond the bound; the bound itself belongs to step 0.
        size = ceil(log(min(_TTFT_S_MAX, max(_TTFT_S_MIN, ttft_s)) / bound_s) / _STEP)
        bucket.sizes[size] = bucket.sizes.get(size, 0) + 1
        self._sizes[size] = self._sizes.get(size, 0) + 1

    def _expire(self, number: int) -> None:
        """Forget what left the window whose newest part is `number`."""
        oldest = number - BUCKETS
        while self._buckets and self._buckets[0].number <= oldest:
            gone = self._buckets.popleft()
            self._total -= gone.total
            self._failed -= gone.failed
            for size, count in gone.sizes.items():
                left = self._sizes[size] - count
                if left:
                    self._sizes[size] = left
                else:
                    del self._sizes[size]
        for readings in self._gpus.values():
            while readings and readings[0][0] <= oldest:
                readings.popleft()


def _is_no_chance(bad: int, total: int, share: float) -> bool:
    """Whether so many bad ones are enough, and too many to be met by chance where one in `share` is bad.

    Fisher's test against a sample so large that its share is as good as known is the binomial test.
    """
    if total < SAMPLES_MIN:
        return False
    return worse_share_p(bad, total, round(share * _KNOWN), _KNOWN, 0.0) < LEVEL
