"""Whether a store that fails is asked at all: after some failures in a row it rests, and is then tried by a question of our own.

Used by sessions.keeper. No exchange is the one that tries: it would wait where all others go on. Pure: the caller passes now_s
(seconds, loop time).
"""

from understudy.sessions.store import Loss

FAILURES_MAX = 3
REST_S_MIN = 1.0
REST_S_MAX = 5.0

# What says that the store itself is out of reach. All else it answers at once, so that asking costs nothing.
_OUT_OF_REACH = frozenset({Loss.UNAVAILABLE, Loss.SLOW})


class Circuit:
    """Closed while the store answers; open after `FAILURES_MAX` failures in a row, until it has answered again."""

    def __init__(self) -> None:
        self._failures = 0
        self._rest_s = REST_S_MIN
        self._open_until_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the store is left alone."""
        return self._failures >= FAILURES_MAX

    @property
    def has_failed(self) -> bool:
        """Whether it has failed since it answered last."""
        return self._failures > 0

    def is_rested(self, now_s: float) -> bool:
        """Whether a store that is left alone may be tried."""
        return self.is_open and now_s >= self._open_until_s

    def on_answer(self) -> None:
        """The store has answered, be it with a no."""
        self._failures = 0
        self._rest_s = REST_S_MIN

    def on_failure(self, loss: Loss, now_s: float) -> None:
        """The store could not do what it was asked."""
        if loss not in _OUT_OF_REACH:
            self.on_answer()
            return
        self._failures += 1
        if self.is_open:
            self._open_until_s = now_s + self._rest_s
            self._rest_s = min(REST_S_MAX, self._rest_s * 2)
