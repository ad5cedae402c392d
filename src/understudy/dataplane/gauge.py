"""What every good streamed answer tells of how its backend does: how soon it began, how fast it was written, beside how many.

Set by daemon among Relay.gauges, told of every attempt's end by dataplane.attempt; hands values to controlplane.degradation_watch
through a callback, some a second and backend. Judges nothing, and keeps nothing but when the last attempts began and ended.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from understudy.core.degradation import Measured
from understudy.core.tally import Tally
from understudy.dataplane.speed import READ_INTERVAL_S, size_bytes, written_by
from understudy.errors import FailureKind

if TYPE_CHECKING:
    from understudy.dataplane.attempt import RunningAttempt

# Less than this says more of the network's buffers than of the engine.
SPEED_S_MIN = 0.2
SPEED_BYTES_MIN = 100
# How many ends are kept of a backend to tell what ran beside an answer.
ENDS_KEPT = 64


class _Ends:
    """When the last attempts at one backend were sent and when they ended, and when an answer was last read."""

    __slots__ = ("read_at_s", "spans")

    def __init__(self) -> None:
        self.read_at_s = 0.0
        self.spans: deque[tuple[float, float]] = deque(maxlen=ENDS_KEPT)


class Gauge:
    """Measures attempts (dataplane.contract.AttemptGauge). `hear` gets the backend's name and what an answer told of it."""

    def __init__(self, tally: Tally, hear: Callable[[str, Measured], None]) -> None:
        self._tally = tally
        self._hear = hear
        self._ends: dict[str, _Ends] = {}

    def retain(self, names: Iterable[str]) -> None:
        """Forget the backends that are not in `names`. To be called after a reload."""
        kept = frozenset(names)
        self._ends = {name: ends for name, ends in self._ends.items() if name in kept}

    def on_attempt(self, attempt: "RunningAttempt", kind: FailureKind | None, now_s: float) -> None:
        """An attempt is over; `kind` None: it did what was asked of it."""
        ends = self._ends.get(attempt.name)
        if ends is None:
            ends = self._ends[attempt.name] = _Ends()
        if kind is None and now_s >= ends.read_at_s + READ_INTERVAL_S and _tells(attempt):
            ends.read_at_s = now_s
            self._hear(attempt.name, self._measured(attempt, ends, now_s))
        # After that, for nobody runs beside himself.
        ends.spans.append((attempt.sent_at_s, now_s))

    def _measured(self, attempt: "RunningAttempt", ends: _Ends, now_s: float) -> Measured:
        # Those that still run have run all the while, as far as known here: at worst the answer counts as one of a busier time.
        running = 1 + self._tally.of(attempt.name).in_flight
        first_s = attempt.content_at_s - attempt.sent_at_s
        return Measured(
            model=attempt.choice.model,
            prompt_bytes=len(attempt.exchange.body),
            # A model that was loaded for this request says nothing of the next.
            first_content_s=first_s if attempt.is_loaded else 0.0,
            speed=_speed(attempt, now_s),
            waiting_load=running + _beside(ends.spans, attempt.sent_at_s, attempt.content_at_s),
            writing_load=running + _beside(ends.spans, attempt.content_at_s, now_s),
        )


def _tells(attempt: "RunningAttempt") -> bool:
    """Whether the answer of this attempt tells how fast its backend is: a stream of words from the beginning."""
    exchange = attempt.exchange
    is_stream = attempt.is_streamed and not attempt.is_wordless and not attempt.is_resume
    return is_stream and exchange.ask.is_generating and exchange.record.status < 300 and attempt.content_at_s > attempt.sent_at_s


def _speed(attempt: "RunningAttempt", now_s: float) -> float:
    """Return bytes a second after the first content, 0.0 where the answer is too short to tell."""
    elapsed_s = now_s - attempt.content_at_s
    transcript = written_by(attempt) if elapsed_s >= SPEED_S_MIN else None
    written = size_bytes(transcript) if transcript is not None else 0
    return written / elapsed_s if written >= SPEED_BYTES_MIN else 0.0


def _beside(spans: Iterable[tuple[float, float]], from_s: float, until_s: float) -> float:
    """Return how many of these attempts ran between two instants, on an average."""
    shared_s = sum(max(0.0, min(until_s, ended_s) - max(from_s, sent_s)) for sent_s, ended_s in spans)
    return shared_s / (until_s - from_s) if until_s > from_s else 0.0
