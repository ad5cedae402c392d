"""What every attempt of a generating exchange came to, by color: what the guard compares.

Set by daemon while the file has a guard; told by dataplane.attempt. Counts into core.comparison and judges nothing. A stream that
ends without a word counts as a failure: its client waited for one. What the client itself did wrong counts, too, since it would
have done it wrong with the other color. What was asked of one color on purpose does not: that is no comparison.
"""

from typing import TYPE_CHECKING

from understudy.core.color import COLORS, Color
from understudy.core.comparison import Comparison
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.coloring import Colored
from understudy.dataplane.speed import READ_INTERVAL_S, characters_a_second
from understudy.errors import MEANING, FailureKind, Side

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

# Who leaves later than this without a word was waiting for one.
WAITED_S_MIN = 1.0
# These say nothing of an answer's quality: it was not needed, or the connection had been closed before.
_NO_FAILURES = frozenset({FailureKind.HEDGE_LOST, FailureKind.STALE_REUSE, FailureKind.RESUME_REFUSED})


class Witness:
    """Tells the comparison."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._read_at_s: dict[Color, float] = {}

    def on_attempt(self, attempt: RunningAttempt, kind: FailureKind | None, now_s: float) -> None:
        """An attempt is over; `kind` None: it did what was asked of it."""
        color, colored = COLORS.get(attempt.color), attempt.exchange.colored
        if color is None or not attempt.exchange.ask.is_generating or (colored is not None and colored.is_asked_for):
            return
        if kind is FailureKind.CLIENT_GONE and not attempt.content_at_s and now_s - attempt.sent_at_s >= WAITED_S_MIN:
            # As if the first content had come now, which is the least that it would have taken.
            self._comparison.on_answer(color, now_s - attempt.sent_at_s, 0.0, now_s)
        elif kind is not None:
            if MEANING[kind].side is Side.UPSTREAM and kind not in _NO_FAILURES:
                self._comparison.on_failure(color, now_s)
        elif attempt.exchange.record.status >= 400:
            self._comparison.on_failure(color, now_s)
        else:
            self._on_answer(attempt, color, now_s)

    def on_over(self, exchange: "RelayedExchange", colored: Colored) -> None:
        """An exchange is over: one that its color did not even try, since its backends were ejected or down, has failed there."""
        color, record = colored.color, exchange.record
        if colored.is_asked_for or not exchange.ask.is_generating or not record.attempts or record.color == color:
            return
        if all(attempt.color != color for attempt in record.attempts):
            self._comparison.on_failure(color, exchange.now_s())

    def _on_answer(self, attempt: RunningAttempt, color: Color, now_s: float) -> None:
        if attempt.is_wordless:
            self._comparison.on_failure(color, now_s)
            return
        if not attempt.is_streamed or attempt.is_resume:
            # What did not come as a stream, or continued one, tells nothing of how fast answers are.
            self._comparison.on_answer(color, 0.0, 0.0, now_s)
            return
        ttft_s = attempt.content_at_s - attempt.sent_at_s
        self._comparison.on_answer(color, ttft_s, self._speed(attempt, color, now_s), now_s)

    def _speed(self, attempt: RunningAttempt, color: Color, now_s: float) -> float:
        """Return characters a second after the first content, 0.0 where it is not measured."""
        if now_s < self._read_at_s.get(color, 0.0) + READ_INTERVAL_S:
            return 0.0
        self._read_at_s[color] = now_s
        return characters_a_second(attempt, now_s)
