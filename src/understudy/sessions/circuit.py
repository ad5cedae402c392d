"""Whether a store that fails is asked at all: after some failures in a row it rests, then one question tries it.

Used by sessions.keeper. Pure: the caller passes now_s (seconds, loop time).
"""

from understudy.sessions.store import Loss

FAILURES_MAX = 3
REST_S_MIN = 1.0
REST_S_MAX = 15.0

# What says that the store itself is out of reach. All else it answers at once, so that asking costs nothing.
_OUT_OF_REACH = frozenset({Loss.UNAVAILABLE, Loss.SLOW})


class Circuit:
    """Closed while the store answers; open for a while, longer each time, after `FAILURES_MAX` failures in a row."""

    def __init__(self) -> None:
        self._failures = 0
        self._rest_s = REST_S_MIN
        self._open_until_s = 0.0
        self._is_trying = False

    def may_ask(self, now_s: float) -> bool:
        """Whether the store may be asked now; True to one caller only once it has rested, until that one has told the outcome."""
        if self._failures < FAILURES_MAX:
            return True
        if self._is_trying or now_s < self._open_until_s:
            return False
        self._is_trying = True
        return True

    def on_answer(self) -> None:
        """The store has answered, be it with a no."""
        self._failures = 0
        self._rest_s = REST_S_MIN
        self._is_trying = False

    def on_failure(self, loss: Loss, now_s: float) -> None:
        """The store could not do what it was asked."""
        if loss not in _OUT_OF_REACH:
            self.on_answer()
            return
        self._failures += 1
        self._is_trying = False
        if self._failures >= FAILURES_MAX:
            self._open_until_s = now_s + self._rest_s
            self._rest_s = min(REST_S_MAX, self._rest_s * 2)

    def on_dropped(self) -> None:
        """The one who was to ask gave up before there was an outcome."""
        self._is_trying = False
