"""An engine in steps of time, and whoever asks it: what a gauge would have measured of its answers.

Unlike the answers of test_degradation, whose loads are given, the load here follows from how fast the engine is: one that has
become slow has more requests at once by that alone.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from understudy.core.usual_pace import Measured

STEP_S = 0.05
PIECE_BYTES = 4.0


@dataclass(frozen=True)
class Engine:
    """How it works. `pieces_s` is for one stream alone; beside others each gets that times n ** -sharing.

    `slots` requests at a time are worked on, the rest waits. Prompts are taken one after the other at `prefill_bytes_s` after
    `first_s`; where `is_stalling` nothing is written meanwhile.
    """

    pieces_s: float = 50.0
    sharing: float = 0.0
    slots: int = 64
    first_s: float = 0.1
    prefill_bytes_s: float = 50_000.0
    is_stalling: bool = False

    def slowed(self, writing: float = 1.0, prefill: float = 1.0) -> "Engine":
        """The same engine at these shares of its speeds."""
        return Engine(
            self.pieces_s * writing,
            self.sharing,
            self.slots,
            self.first_s / prefill,
            self.prefill_bytes_s * prefill,
            self.is_stalling,
        )


@dataclass(frozen=True)
class Asking:
    """Who asks: `rate_s` requests a second, evenly or at random; or so many `clients`, each anew when it is answered."""

    rate_s: float = 0.0
    is_even: bool = False
    clients: int = 0
    pause_s: float = 0.2
    pieces: float = 60.0
    prompt_bytes: float = 300.0
    spread: float = 0.3


@dataclass
class _Request:
    sent_at_s: float
    prompt_bytes: int
    pieces: float
    prefill_left_s: float = 0.0
    content_at_s: float = 0.0
    written: float = 0.0
    ended_at_s: float = 0.0


@dataclass
class Scene:
    """One engine and who asks it, which both may be changed between two calls of `answers`."""

    engine: Engine
    asking: Asking
    random: Random
    now_s: float = 0.0
    queue: deque[_Request] = field(default_factory=deque)
    working: list[_Request] = field(default_factory=list)
    ended: deque[_Request] = field(default_factory=lambda: deque(maxlen=256))
    arrivals: list[float] = field(default_factory=list)
    next_at_s: float = 0.0

    def answers(self, duration_s: float) -> Iterator[tuple[Measured, float]]:
        """Let that time pass; yields every answer when it ends, and when that is."""
        until_s = self.now_s + duration_s
        self._settle_clients()
        while self.now_s < until_s:
            self.now_s += STEP_S
            self._arrive()
            yield from ((self._measured(one), self.now_s) for one in self._work())

    def _settle_clients(self) -> None:
        missing = self.asking.clients - len(self.queue) - len(self.working) - len(self.arrivals)
        for _ in range(max(0, missing)):
            heapq.heappush(self.arrivals, self.now_s + self.random.uniform(0.0, self.asking.pause_s))
        if self.asking.rate_s and self.next_at_s < self.now_s:
            self.next_at_s = self.now_s

    def _arrive(self) -> None:
        asking = self.asking
        while asking.rate_s and self.next_at_s <= self.now_s:
            self._send()
            gap_s = 1.0 / asking.rate_s
            self.next_at_s += gap_s if asking.is_even else self.random.expovariate(1.0 / gap_s)
        while self.arrivals and self.arrivals[0] <= self.now_s:
            heapq.heappop(self.arrivals)
            self._send()

    def _send(self) -> None:
        asking, random = self.asking, self.random
        noise = random.lognormvariate(0.0, asking.spread), random.lognormvariate(0.0, asking.spread)
        prompt_bytes = int(asking.prompt_bytes * noise[0]) + 1
        self.queue.append(_Request(self.now_s, prompt_bytes, max(10.0, asking.pieces * noise[1])))

    def _work(self) -> list[_Request]:
        engine = self.engine
        while self.queue and len(self.working) < engine.slots:
            one = self.queue.popleft()
            one.prefill_left_s = engine.first_s * self.random.lognormvariate(0.0, 0.1) + one.prompt_bytes / engine.prefill_bytes_s
            self.working.append(one)
        writing = [one for one in self.working if one.content_at_s]
        reading = next((one for one in self.working if not one.content_at_s), None)
        if reading is not None:
            reading.prefill_left_s -= STEP_S
            if reading.prefill_left_s <= 0.0:
                reading.content_at_s = self.now_s
        if writing and not (engine.is_stalling and reading is not None):
            each = engine.pieces_s * len(writing) ** -engine.sharing * STEP_S
            for one in writing:
                one.written += each * self.random.uniform(0.8, 1.2)
        over = [one for one in writing if one.written >= one.pieces]
        for one in over:
            one.ended_at_s = self.now_s
            self.working.remove(one)
            if self.asking.clients:
                heapq.heappush(self.arrivals, self.now_s + self.random.expovariate(1.0 / self.asking.pause_s))
        return over

    def _measured(self, one: _Request) -> Measured:
        others = [other for other in (*self.ended, *self.working, *self.queue) if other is not one]
        self.ended.append(one)
        lasted_s = max(STEP_S, self.now_s - one.content_at_s)
        waited_s = one.content_at_s - one.sent_at_s
        return Measured(
            model="m",
            prompt_bytes=one.prompt_bytes,
            first_content_s=waited_s,
            speed=one.written * PIECE_BYTES / lasted_s if one.written >= 25 else 0.0,
            pieces_s=one.written / lasted_s if one.written >= 25 else 0.0,
            lasted_s=lasted_s,
            waiting_load=1.0 + self._beside(others, one.sent_at_s, one.content_at_s),
            writing_load=1.0 + self._beside(others, one.content_at_s, self.now_s),
            writers=1.0
            + self._beside([other for other in others if other.content_at_s], one.content_at_s, self.now_s, is_writing=True),
            rate=(1 + sum(other.sent_at_s >= self.now_s - 60.0 for other in others)) / 60.0,
            ahead=tuple(sorted(self._ahead(others, one), reverse=True)[:32]),
            stalls=tuple(sorted(self._stalls(others, one.content_at_s), reverse=True)[:32]),
        )

    def _stalls(self, others: list[_Request], from_s: float) -> list[tuple[float, int]]:
        waits = [
            (max(0.0, one.content_at_s - max(from_s, one.sent_at_s)), one.prompt_bytes) for one in others if one.content_at_s
        ]
        still = [(self.now_s - max(from_s, one.sent_at_s), one.prompt_bytes) for one in others if not one.content_at_s]
        return [each for each in (*waits, max(still, default=(0.0, 0))) if each[0] > 0.0]

    def _ahead(self, others: list[_Request], one: _Request) -> list[tuple[float, int]]:
        before = [other for other in others if one.sent_at_s < other.content_at_s <= one.content_at_s]
        return [(other.content_at_s - max(one.sent_at_s, other.sent_at_s), other.prompt_bytes) for other in before]

    def _beside(self, others: list[_Request], from_s: float, until_s: float, *, is_writing: bool = False) -> float:
        shared = (
            min(until_s, other.ended_at_s or self.now_s) - max(from_s, other.content_at_s if is_writing else other.sent_at_s)
            for other in others
        )
        return sum(max(0.0, each) for each in shared) / max(STEP_S, until_s - from_s)
