"""How long one backend takes to its first content, by the size of the prompt: measured, and cautious where it is estimated.

Kept in core.tally per backend, fed by dataplane.observations with some first contents a second, read by core.deadlines and for
hedging. Pure and bounded. Never a promise: prompt caches, queues and other models make the same size fast or slow, so the slow
ones count.
"""

from collections import deque
from math import ceil

from understudy.core.snapshot import BackendState

# Sizes are told apart by factors of four; of each the newest are kept, some 4 KiB a size.
KEPT_PER_SIZE = 32
SIZES_MAX = 16
# Fewer tell nothing about the slow ones.
SAMPLES_MIN = 8
HEDGE_SAMPLES_MIN = 20
# A load of a model takes about the same time each time, and is rare.
LOADS_KEPT = 8
LOADS_MIN = 2
SLOW_SHARE = 0.9


class Pace:
    """The newest times to first content of one backend, for prompts to a loaded model and for those that had it loaded."""

    __slots__ = ("_by_size", "_loads")

    def __init__(self) -> None:
        self._by_size: dict[int, deque[tuple[int, float]]] = {}
        self._loads: deque[float] = deque(maxlen=LOADS_KEPT)

    def add(self, prompt_bytes: int, first_content_s: float, *, is_loaded: bool = True) -> None:
        """Keep one measurement: seconds from sending a request of `prompt_bytes` to its first content."""
        if not is_loaded:
            self._loads.append(first_content_s)
            return
        size = _size(prompt_bytes)
        kept = self._by_size.get(size)
        if kept is None:
            kept = self._by_size[size] = deque(maxlen=KEPT_PER_SIZE)
        kept.append((max(1, prompt_bytes), first_content_s))

    def expected_s(self, prompt_bytes: int, *, is_loaded: bool = True) -> float | None:
        """Return what nine of ten prompts of this size needed at most, None while too few were measured.

        From prompts of like size, else from larger ones as they are, else from smaller ones in proportion to their bytes. Where
        the model has to be loaded first, the slowest load is added.
        """
        load_s = 0.0
        if not is_loaded:
            if len(self._loads) < LOADS_MIN:
                return None
            load_s = max(self._loads)
        samples = self._samples_for(prompt_bytes)
        if samples is None:
            return None
        # Prefill takes time in proportion to the prompt or, with long ones, more; a smaller part of it is never assumed.
        return load_s + quantile([each_s * max(1.0, prompt_bytes / of_bytes) for of_bytes, each_s in samples], SLOW_SHARE)

    def p95_s(self, prompt_bytes: int) -> float | None:
        """Return within how many seconds 95 % of the prompts of this size and below had content, None while too few are known."""
        size = _size(prompt_bytes)
        times_s: list[float] = []
        for each in sorted(self._by_size, reverse=True):
            if each <= size and len(times_s) < HEDGE_SAMPLES_MIN:
                times_s += [one_s for _, one_s in self._by_size[each]]
        return quantile(times_s, 0.95) if len(times_s) >= HEDGE_SAMPLES_MIN else None

    def _samples_for(self, prompt_bytes: int) -> deque[tuple[int, float]] | None:
        size = _size(prompt_bytes)
        enough = [each for each, kept in self._by_size.items() if len(kept) >= SAMPLES_MIN]
        larger = [each for each in enough if each >= size]
        nearest = min(larger) if larger else max(enough, default=None)
        return None if nearest is None else self._by_size[nearest]


def is_loaded(state: BackendState, model: str) -> bool:
    """Whether the backend has `model` (its own name for it) in memory, as far as its lists tell; True where they do not."""
    names = (model, f"{model}:latest")
    return next((each.is_loaded for each in state.models or () if each.name in names), True)


def _size(prompt_bytes: int) -> int:
    return min(SIZES_MAX - 1, max(1, prompt_bytes).bit_length() // 2)


def quantile(values: list[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed (nearest rank)."""
    return sorted(values)[ceil(share * len(values)) - 1]
