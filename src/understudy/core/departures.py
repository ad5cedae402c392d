"""How fast exchanges end while others wait, and so when somebody who is sent away may have a chance.

Kept by dataplane.relay. Pure: the caller passes now_s (seconds, loop time). Idle time tells nothing of what the backends can do,
so only what passes between two departures with somebody waiting is measured.
"""

from collections import deque
from typing import Final

RETRY_AFTER_S_MIN: Final = 1.0
RETRY_AFTER_S_MAX: Final = 60.0

# About the last minute of a small pool: more would remember a backend that is gone.
_MEASURED_MAX: Final = 32


class Departures:
    """The pace at which exchanges leave their backends, as a mean over the last of them."""

    def __init__(self) -> None:
        self._gaps_s: deque[float] = deque(maxlen=_MEASURED_MAX)
        self._waited_since_s: float | None = None
        # Whether somebody stood in line when the last one left, so that the next departure tells something.
        self.is_measuring = False

    def on_departure(self, now_s: float, *, waiting: int) -> None:
        """Note that an exchange has left a backend, and how many stand in line then."""
        if self._waited_since_s is not None:
            self._gaps_s.append(max(0.0, now_s - self._waited_since_s))
        self._waited_since_s = now_s if waiting else None
        self.is_measuring = waiting > 0

    def retry_after_s(self, ahead: int, now_s: float) -> float:
        """Return in how many seconds, 1 to 60, those `ahead` and one more will have left at the pace of late; 1 when unknown."""
        gaps_s = sum(self._gaps_s)
        count = len(self._gaps_s)
        # That nobody has left for long is news: it counts as soon as it makes the pace slower.
        since_s = now_s - self._waited_since_s if self._waited_since_s is not None else 0.0
        if since_s * count > gaps_s or not count:
            gaps_s += max(0.0, since_s)
            count += 1
        return min(RETRY_AFTER_S_MAX, max(RETRY_AFTER_S_MIN, (ahead + 1) * gaps_s / count))
