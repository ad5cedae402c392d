"""What was lately measured of blue and of green: the newest attempts of each, and what a color held when its traffic ended.

Created once and kept through reloads. Told of every attempt's end by dataplane.witness and of changes by
controlplane.rollout_driver; read by core.guard. Mutable, bounded, pure: the caller passes now_s (seconds, loop time). Never says
which color is better (core.guard), and keeps numbers only.
"""

from collections import deque
from dataclasses import dataclass
from itertools import takewhile

from understudy.core.color import Color

ATTEMPTS_MAX = 2000
"""How many attempts of a color are kept, some 300 KiB; where a window has more, the newest stand for it."""

# When it ended, its time to first content in seconds, its characters a second; 0.0 where not measured.
_Attempt = tuple[float, float, float]
# In the place of a time to first content: the attempt failed.
_FAILED = -1.0


@dataclass(frozen=True, slots=True)
class Samples:
    """What one color's attempts of a window tell. `ttfts` in seconds and `speeds` in characters a second, both ascending.

    `is_frozen`: not of the window that ends now, but of the one that ended when the color was frozen.
    """

    total: int = 0
    failed: int = 0
    ttfts: tuple[float, ...] = ()
    speeds: tuple[float, ...] = ()
    is_frozen: bool = False

    @property
    def failed_share(self) -> float | None:
        """The share of attempts that failed, None without attempts."""
        return self.failed / self.total if self.total else None


NO_SAMPLES = Samples()


class Comparison:
    """The newest attempts of both colors. Whatever is told of Color.NONE is ignored: it serves both."""

    __slots__ = ("_frozen", "_live")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything of both: what a color is has changed."""
        self._live: dict[Color, deque[_Attempt]] = {each: deque(maxlen=ATTEMPTS_MAX) for each in (Color.BLUE, Color.GREEN)}
        self._frozen: dict[Color, tuple[tuple[_Attempt, ...], float]] = {}

    def forget(self, color: Color) -> None:
        """Forget the live attempts of a color, which is to be judged anew; what was frozen of it stays."""
        live = self._live.get(color)
        if live is not None:
            live.clear()

    def on_answer(self, color: Color, ttft_s: float, speed: float, now_s: float) -> None:
        """Count an attempt that was answered. `speed` is in characters a second; 0.0 or less in either: it was not measured."""
        live = self._live.get(color)
        if live is not None:
            live.append((now_s, max(0.0, ttft_s), speed))

    def on_failure(self, color: Color, now_s: float) -> None:
        """Count an attempt that failed."""
        live = self._live.get(color)
        if live is not None:
            live.append((now_s, _FAILED, 0.0))

    def freeze(self, color: Color, now_s: float) -> None:
        """Keep what is held of a color that gets no more traffic, in place of what was kept before; it stays live, too."""
        live = self._live.get(color)
        if live is not None:
            self._frozen[color] = (tuple(live), now_s)

    def thaw(self) -> None:
        """Forget what was frozen: it belongs to a switch that is history."""
        self._frozen.clear()

    def samples(self, color: Color, window_s: float, now_s: float, attempts_min: int = 0) -> Samples:
        """Return what the attempts of the last `window_s` tell of a color.

        Where those are fewer than `attempts_min`, what they told when the color was frozen, if that is more; never both in one.
        """
        live = _within(self._live.get(color, ()), now_s - window_s)
        if len(live) < attempts_min and color in self._frozen:
            kept, frozen_at_s = self._frozen[color]
            frozen = _within(kept, frozen_at_s - window_s)
            if len(frozen) > len(live):
                return _told_by(frozen, is_frozen=True)
        return _told_by(live)


def _within(attempts: deque[_Attempt] | tuple[_Attempt, ...], after_s: float) -> list[_Attempt]:
    """Return those after `after_s`. They are in order of time."""
    return list(takewhile(lambda each: each[0] > after_s, reversed(attempts)))


def _told_by(attempts: list[_Attempt], *, is_frozen: bool = False) -> Samples:
    return Samples(
        total=len(attempts),
        failed=sum(ttft_s == _FAILED for _, ttft_s, _ in attempts),
        ttfts=tuple(sorted(ttft_s for _, ttft_s, _ in attempts if ttft_s > 0.0)),
        speeds=tuple(sorted(speed for _, _, speed in attempts if speed > 0.0)),
        is_frozen=is_frozen,
    )
