"""What every good streamed answer tells of how its backend does: how soon it began, how fast it was written, beside how many.

Set by daemon among Relay.gauges, told of every attempt's end by dataplane.attempt; hands values to controlplane.degradation_watch
through a callback, some a second and backend. Judges nothing, and keeps nothing but when the last attempts began and ended.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING

from understudy.core.usual_pace import Measured
from understudy.dataplane.speed import size_bytes, written_by
from understudy.errors import FailureKind

if TYPE_CHECKING:
    from understudy.dataplane.attempt import RunningAttempt

# Less than this says more of the network's buffers than of the engine.
SPEED_S_MIN = 0.2
SPEED_BYTES_MIN = 100
SPEED_PIECES_MIN = 25
# Of many answers a few a second are measured: each takes up to half a millisecond, and the last dozen decides.
MEASURE_INTERVAL_S = 0.25
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
        if kind is None and now_s >= ends.read_at_s + MEASURE_INTERVAL_S and _tells(attempt):
            ends.read_at_s = now_s
            self._hear(attempt.name, self._measured(attempt, ends, now_s))
        # After that, for nobody runs beside himself.
        ends.spans.append((attempt.sent_at_s, attempt.content_at_s or now_s, now_s, len(attempt.exchange.body)))

    def _measured(self, attempt: "RunningAttempt", ends: _Ends, now_s: float) -> Measured:
        sent_at_s, content_at_s = attempt.sent_at_s, attempt.content_at_s
        # Where more come in a minute than are kept, those that are kept tell of less than a minute.
        is_full = len(ends.spans) == ENDS_KEPT
        rate_s = max(1.0, min(RATE_S, now_s - ends.spans[0][2])) if is_full else RATE_S
        beside = _Beside(sent_at_s, content_at_s, now_s, rate_s)
        for other in (*ends.spans, *_running_beside(attempt, now_s)):
            beside.add(*other)
        speed, pieces_s = _speeds(attempt, now_s)
        waited_s, lasted_s = content_at_s - sent_at_s, now_s - content_at_s
        return Measured(
            model=attempt.choice.model,
            prompt_bytes=len(attempt.exchange.body),
            # A model that was loaded for this request says nothing of the next.
            first_content_s=waited_s if attempt.is_loaded else 0.0,
            speed=speed,
            pieces_s=pieces_s,
            lasted_s=lasted_s,
            waiting_load=1.0 + beside.while_waiting_s / waited_s,
            writing_load=1.0 + (beside.while_writing_s / lasted_s if lasted_s > 0.0 else 0.0),
            writers=1.0 + (beside.writing_s / lasted_s if lasted_s > 0.0 else 0.0),
            rate=(1 + beside.sent) / rate_s,
            stalls=beside.stalls(),
            ahead=tuple(nlargest(STALLS_MAX, beside.ahead)),
        )


class _Beside:
    """What other attempts did in the two parts of one: seconds that they ran in each, and that they wrote in the second."""

    __slots__ = (
        "_content_at_s",
        "_lately_at_s",
        "_now_s",
        "_sent_at_s",
        "_still",
        "_waits",
        "ahead",
        "sent",
        "while_waiting_s",
        "while_writing_s",
        "writing_s",
    )

    def __init__(self, sent_at_s: float, content_at_s: float, now_s: float, rate_s: float) -> None:
        self._sent_at_s = sent_at_s
        self._content_at_s = content_at_s
        self._now_s = now_s
        self.while_waiting_s = self.while_writing_s = self.writing_s = 0.0
        # How many were sent within `rate_s`.
        self.sent = 0
        self._lately_at_s = now_s - rate_s
        # Those that had their first content while this one waited: for how long they waited beside it, and their bytes.
        self.ahead: list[tuple[float, int]] = []
        self._waits: list[tuple[float, int]] = []
        self._still = (0.0, 0)

    def add(self, sent_at_s: float, content_at_s: float, ended_at_s: float, prompt_bytes: int) -> None:
        """Take one, which had no content yet where that is when it ended."""
        now_s, begun_at_s = self._now_s, self._content_at_s
        self.sent += sent_at_s >= self._lately_at_s
        if ended_at_s <= self._sent_at_s:
            return
        self.while_waiting_s += max(0.0, min(begun_at_s, ended_at_s) - max(self._sent_at_s, sent_at_s))
        if content_at_s <= begun_at_s:
            waited_s = content_at_s - max(self._sent_at_s, sent_at_s)
            if waited_s > 0.0:
                self.ahead.append((waited_s, prompt_bytes))
        if ended_at_s <= begun_at_s:
            return
        self.while_writing_s += ended_at_s - max(begun_at_s, sent_at_s)
        self.writing_s += ended_at_s - max(begun_at_s, content_at_s)
        waited_s = content_at_s - max(begun_at_s, sent_at_s)
        if waited_s > 0.0:
            if content_at_s < now_s:
                self._waits.append((waited_s, prompt_bytes))
            else:
                self._still = max(self._still, (waited_s, prompt_bytes))

    def stalls(self) -> tuple[tuple[float, int], ...]:
        """Return those whose prompts were taken in while it was written: right before their content, and of one maybe still."""
        return tuple(nlargest(STALLS_MAX, [*self._waits, self._still] if self._still[0] else self._waits))


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
