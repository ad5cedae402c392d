"""What speaks for a backend being alive or lost, between two verdicts of its condition: probes, its own figures, its streams.

Kept in core.tally per backend. Written by controlplane.prober (probes and progress) and dataplane.vigil (streams that move),
read by core.deadlines. In a snapshot it would mean a swap with every probe. Never decides a condition (core.health).
"""

from collections.abc import Hashable

# Streams are looked at every half second only, so that what moves now may be known to have moved a while ago.
MOVED_BEFORE_S = 1.0


class Evidence:
    """The newest facts on one backend; instants are loop time in seconds, 0.0 where there was no such thing.

    `answered_at_s` and `failed_at_s` are when the last good and the last bad probe began; `failed` counts the bad ones since the
    last good one. `is_refusing`: the last probe found the listener closed. `moved_at_s` is when work was last seen to go on.
    """

    __slots__ = ("_figures", "_quiet_from_s", "answered_at_s", "failed", "failed_at_s", "is_refusing", "moved_at_s")

    def __init__(self) -> None:
        self.answered_at_s = 0.0
        self.failed_at_s = 0.0
        self.failed = 0
        self.is_refusing = False
        self.moved_at_s = 0.0
        self._quiet_from_s = 0.0
        self._figures: Hashable = None

    def on_probe(self, started_at_s: float, ended_at_s: float, *, is_good: bool, is_refusing: bool = False) -> None:
        """Take a probe that is over; one that found a busy engine is good, one that found a loading or sleeping engine is not."""
        self.is_refusing = is_refusing
        if is_good:
            self.answered_at_s = started_at_s
            self.failed = 0
        else:
            self.failed_at_s = started_at_s
            self.failed += 1
            self._quiet_from_s = min(started_at_s, ended_at_s - MOVED_BEFORE_S)

    def on_figures(self, figures: Hashable, now_s: float) -> None:
        """Take the engine's own figures (engines.progress), None where it gave none; figures unlike the last ones are work."""
        if figures is None:
            return
        if self._figures is not None and figures != self._figures:
            self.on_moved(now_s)
        self._figures = figures

    def on_moved(self, at_s: float) -> None:
        """Take that a stream of this backend brought content at `at_s`."""
        self.moved_at_s = max(self.moved_at_s, at_s)

    def is_lost_since(self, at_s: float, *, failed_min: int = 1) -> bool:
        """Whether the last probe began at `at_s` or later, failed as one of `failed_min` in a row, and no work was seen since.

        A closed listener needs no second probe.
        """
        if self.failed_at_s < at_s or self.moved_at_s >= self._quiet_from_s:
            return False
        return self.is_refusing or self.failed >= failed_min
