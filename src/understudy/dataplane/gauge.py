"""What every good streamed answer tells of how its backend does: how soon it began, how fast it was written, beside how many.

Set by daemon among Relay.gauges, told of every attempt's end by dataplane.attempt; hands values to controlplane.degradation_watch
through a callback, some a second and backend. Judges nothing, and keeps nothing but when the last attempts began and ended.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING

from understudy.core.usual_pace import Measured
from understudy.dataplane.speed import READ_INTERVAL_S, size_bytes, written_by
from understudy.errors import FailureKind

if TYPE_CHECKING:
    from understudy.dataplane.attempt import RunningAttempt

# Less than this says more of the network's buffers than of the engine.
SPEED_S_MIN = 0.2
SPEED_BYTES_MIN = 100
SPEED_PIECES_MIN = 25
# How many ends are kept of a backend to tell what ran beside an answer, and how many of those that run still are looked at.
ENDS_KEPT = 256
RUNNING_MAX = 1024
# How many are told of those that waited while an answer was written, the longest.
STALLS_MAX = 32
# Over how long attempts are counted to tell how many come a second.
RATE_S = 60.0

# Of an attempt: when it was sent, when its first content came and when it ended, and the bytes of its request.
_Span = tuple[float, float, float, int]


class _Ends:
    """The last attempts at one backend that have ended, and when an answer was last read."""

    __slots__ = ("read_at_s", "spans")

    def __init__(self) -> None:
        self.read_at_s = 0.0
        self.spans: deque[_Span] = deque(maxlen=ENDS_KEPT)


class Gauge:
    """Measures attempts (dataplane.contract.AttemptGauge). `hear` gets the backend's name and what an answer told of it."""

    def __init__(self, hear: Callable[[str, Measured], None]) -> None:
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
        ends.spans.append((attempt.sent_at_s, attempt.content_at_s or now_s, now_s, len(attempt.exchange.body)))

    def _measured(self, attempt: "RunningAttempt", ends: _Ends, now_s: float) -> Measured:
        sent_at_s, content_at_s = attempt.sent_at_s, attempt.content_at_s
        others = [*ends.spans, *_running_beside(attempt, now_s)]
        speed, pieces_s = _speeds(attempt, now_s)
        return Measured(
            model=attempt.choice.model,
            prompt_bytes=len(attempt.exchange.body),
            # A model that was loaded for this request says nothing of the next.
            first_content_s=content_at_s - sent_at_s if attempt.is_loaded else 0.0,
            speed=speed,
            pieces_s=pieces_s,
            lasted_s=now_s - content_at_s,
            waiting_load=1.0 + _beside(others, sent_at_s, content_at_s),
            writing_load=1.0 + _beside(others, content_at_s, now_s),
            writers=1.0 + _beside(((other[1], *other[1:]) for other in others), content_at_s, now_s),
            rate=_rate(others, now_s),
            stalls=_stalls(others, content_at_s, now_s),
            ahead=_ahead(others, sent_at_s, content_at_s),
        )


def _running_beside(attempt: "RunningAttempt", now_s: float) -> Iterator[_Span]:
    """Yield the other attempts at the same backend that still run."""
    for exchange in islice(attempt.exchange.relay.running, RUNNING_MAX):
        for other in (exchange.attempt, exchange.hedge):
            if other is not None and other is not attempt and other.name == attempt.name:
                yield (other.sent_at_s, other.content_at_s or now_s, now_s, len(exchange.body))


def _tells(attempt: "RunningAttempt") -> bool:
    """Whether the answer of this attempt tells how fast its backend is: a stream of words from the beginning."""
    exchange = attempt.exchange
    is_stream = attempt.is_streamed and not attempt.is_wordless and not attempt.is_resume
    return is_stream and exchange.ask.is_generating and exchange.record.status < 300 and attempt.content_at_s > attempt.sent_at_s


def _speeds(attempt: "RunningAttempt", now_s: float) -> tuple[float, float]:
    """Return bytes and pieces a second after the first content, 0.0 where the answer is too short to tell."""
    elapsed_s = now_s - attempt.content_at_s
    transcript = written_by(attempt) if elapsed_s >= SPEED_S_MIN else None
    if transcript is None:
        return 0.0, 0.0
    written = size_bytes(transcript)
    if written < SPEED_BYTES_MIN and transcript.pieces < SPEED_PIECES_MIN:
        return 0.0, 0.0
    return written / elapsed_s, transcript.pieces / elapsed_s


def _beside(others: Iterable[_Span], from_s: float, until_s: float) -> float:
    """Return how many of these attempts ran between two instants, on an average."""
    shared_s = sum(_shared_s(from_s, until_s, sent_at_s, ended_at_s) for sent_at_s, _, ended_at_s, _ in others)
    return shared_s / (until_s - from_s) if until_s > from_s else 0.0


def _rate(others: Sequence[_Span], now_s: float) -> float:
    """Return how many attempts a second were sent of late, this one included."""
    oldest_at_s = max(now_s - RATE_S, min((other[2] for other in others), default=0.0) if len(others) >= ENDS_KEPT else 0.0)
    sent = 1 + sum(other[0] >= oldest_at_s for other in others)
    return sent / max(1.0, now_s - oldest_at_s)


def _stalls(others: Iterable[_Span], from_s: float, until_s: float) -> tuple[tuple[float, int], ...]:
    """Return the others whose prompts were taken in meanwhile: right before their first content, and one of them maybe still."""
    waits, still = [], (0.0, 0)
    for sent_at_s, content_at_s, _, prompt_bytes in others:
        wait = _shared_s(from_s, until_s, sent_at_s, content_at_s), prompt_bytes
        if content_at_s < until_s:
            waits.append(wait)
        else:
            still = max(still, wait)
    return tuple(nlargest(STALLS_MAX, (each for each in (*waits, still) if each[0] > 0.0)))


def _ahead(others: Iterable[_Span], from_s: float, until_s: float) -> tuple[tuple[float, int], ...]:
    """Return the others that had their first content while this one waited for its own."""
    waits = ((_shared_s(from_s, until_s, other[0], other[1]), other[3]) for other in others if other[1] <= until_s)
    return tuple(nlargest(STALLS_MAX, (each for each in waits if each[0] > 0.0)))


def _shared_s(from_s: float, until_s: float, began_at_s: float, ended_at_s: float) -> float:
    return max(0.0, min(until_s, ended_at_s) - max(from_s, began_at_s))
