"""Run the shadows: send a request to the inactive color, too, measure the answer, compare it with the client's, drop both.

Built by daemon, called back by dataplane (core.shadowing) once a client has its first content. Each shadow is a task of its own,
bounded in number, time and bytes; beyond the bound it is dropped, never queued. Nothing that a backend does here counts for or
against it: no tally, no observation, no ejection. No text leaves this file.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from understudy.controlplane.fetcher import BROKEN, Resolve, failure_of, read_pieces
from understudy.controlplane.shadow_answer import ShadowAnswer
from understudy.controlplane.shadow_request import (
    SENT_BYTES_MAX,
    ShadowSender,
    body_for,
    path_of,
    pick_target,
)
from understudy.core.likeness import likeness
from understudy.core.shadowing import ShadowAsk, ShadowOutcome
from understudy.core.snapshot import Published, Target
from understudy.core.tally import Tally
from understudy.dialects import match
from understudy.dialects.contract import Dialect, RouteKind
from understudy.errors import FailureKind
from understudy.telemetry.shadow_counts import ShadowCounts

# Longer than any answer that somebody waits for; `timeouts.total` may be shorter.
TOTAL_S_MAX: Final = 600.0
# Of two long texts the beginnings are compared, and of these core.likeness looks at some hundred words: a quarter of a
# millisecond at most, less than the way to a thread and back would hold the loop up.
TEXT_CHARACTERS_MAX: Final = 32 * 1024

# After its first content a stream is read after rests, so that its events come by the dozen. A rest is this share of the time
# since, so that it hardly changes what is measured; a short one while a piece as large as httpx-aiohttp makes them says that more
# is here already: that still reads 8 MB in a second, and leaves most of it to the clients.
REST_SHARE: Final = 0.05
REST_S_MIN: Final = 0.01
REST_S_MAX: Final = 0.1
REST_S_FULL: Final = 0.002
PIECE_BYTES_MAX: Final = 16 * 1024

# A speed over less time than this says more of the network's buffers than of the engine.
SPEED_S_MIN: Final = 0.05

_TIMEOUTS: Final = frozenset({FailureKind.FIRST_TOKEN_TIMEOUT, FailureKind.STALLED, FailureKind.TOTAL_TIMEOUT})


@dataclass(frozen=True, slots=True)
class _ClientAnswer:
    """The client's own answer, as far as it is compared."""

    text: str | None
    ttft_s: float
    duration_s: float


class Shadow:
    """One shadow, as dataplane holds it (core.shadowing.ShadowRun). Keeps nothing of the client once it is over."""

    __slots__ = ("_client_over", "client", "is_over")

    def __init__(self) -> None:
        self.client: _ClientAnswer | None = None
        self.is_over = False
        self._client_over = asyncio.Event()

    def on_client_done(self, text: str | None, ttft_s: float, duration_s: float) -> None:
        """Take the client's own answer, now that it is over; `text` None: it cannot be compared."""
        if not self.is_over and not self._client_over.is_set():
            kept = text[:TEXT_CHARACTERS_MAX] if text is not None else None
            self.client = _ClientAnswer(kept, ttft_s, duration_s)
        self._client_over.set()

    def on_client_left(self) -> None:
        """Hear that there is nothing to compare with; what is measured still counts."""
        self._client_over.set()

    async def wait_client_over(self) -> None:
        """Return when the client's answer is over."""
        await self._client_over.wait()

    def close(self) -> None:
        """Let go of what was the client's."""
        self.is_over = True
        self.client = None


@dataclass(slots=True)
class _Run:
    """What is known of one shadow while it runs. Instants are those of the clock; `until_at_s` is loop time."""

    shadow: Shadow
    asked: ShadowAsk
    target: Target
    dialect: Dialect
    answer: ShadowAnswer
    until_at_s: float
    began_at_s: float
    content_at_s: float = 0.0
    last_at_s: float = 0.0
    likeness: float | None = None

    @property
    def ttft_s(self) -> float | None:
        """From sending to the first content; None where none has come, or where the answer came whole."""
        return self.content_at_s - self.began_at_s if self.content_at_s else None

    @property
    def speed(self) -> float | None:
        """Characters a second after the first content; None where that cannot be said."""
        lasted_s = self.last_at_s - self.content_at_s if self.content_at_s else 0.0
        return self.answer.characters / lasted_s if lasted_s >= SPEED_S_MIN else None


class Shadows:
    """All shadows of this process (core.shadowing.ShadowTaker).

    `clock` gives loop time in seconds and measures, `resolve` as in Fetcher; `counts` and `tell` hear of each shadow once, when
    it ends. `total_s_max` bounds one shadow from its beginning to the comparison.
    """

    def __init__(
        self,
        published: Published,
        tally: Tally,
        counts: ShadowCounts,
        *,
        clock: Callable[[], float],
        tell: Callable[[str, dict[str, object]], None],
        resolve: Resolve | None = None,
        total_s_max: float = TOTAL_S_MAX,
    ) -> None:
        self.counts = counts
        self._published = published
        self._tally = tally
        self._clock = clock
        self._tell = tell
        self._sender = ShadowSender(resolve)
        self._total_s_max = total_s_max
        self._is_closed = False
        # Every running task, with the name of its backend.
        self._running: dict[asyncio.Task[None], str] = {}

    @property
    def in_flight(self) -> int:
        """How many shadows run now, those included that only wait for the client's answer."""
        return len(self._running)

    def begin(self, asked: ShadowAsk) -> Shadow | None:
        """Begin a shadow; None where the request can have none, every place is taken or no backend can take it.

        Returns at once: the request is written and sent in a later turn of the loop.
        """
        snapshot = self._published.current
        route = match(b"POST", path_of(asked).encode("latin-1", "replace"))
        if self._is_closed or route.kind is not RouteKind.GENERATING or route.dialect is None:
            return None
        target: Target | None = None
        if len(self._running) < snapshot.plan.rollout.shadow_in_flight_max and len(asked.body) <= SENT_BYTES_MAX:
            target = pick_target(snapshot, asked, self._tally.of, self._shadows_of, self._clock())
        if target is None:
            self.counts.on_dropped(asked.color)
            return None
        shadow = Shadow()
        loop = asyncio.get_running_loop()
        total_s = min(target.backend.timeouts.total_s or self._total_s_max, self._total_s_max)
        answer = ShadowAnswer(route.dialect, route.path, target.state.engine)
        run = _Run(shadow, asked, target, route.dialect, answer, loop.time() + total_s, self._clock())
        self.counts.on_sent(asked.color)
        task = loop.create_task(self._run(run), name=f"shadow.{target.backend.name}")
        self._running[task] = target.backend.name
        task.add_done_callback(self._on_task_done)
        return shadow

    def facts(self) -> dict[str, Any]:
        """Return what a status tells: of the color that is inactive now."""
        snapshot = self._published.current
        color = snapshot.rollout.inactive
        return {"share": snapshot.plan.rollout.shadow, "in_flight": self.in_flight, **self.counts.facts(color)}

    async def close(self) -> None:
        """Cancel every shadow and begin no more; returns when all are gone."""
        self._is_closed = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _shadows_of(self, name: str) -> int:
        return list(self._running.values()).count(name)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            # Our own mistake: no client has noticed, somebody must.
            context = {"message": "a shadow failed internally", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)

    async def _run(self, run: _Run) -> None:
        try:
            await self._measure(run)
            if run.answer.failure is None and not run.answer.is_rejected and not run.answer.is_too_large:
                await self._compare(run)
            self._finish(run)
        except Exception:
            run.answer.failure = FailureKind.INTERNAL
            self._finish(run)
            raise
        finally:
            run.shadow.close()

    async def _measure(self, run: _Run) -> None:
        """Send the request and read its answer to the end; whatever becomes of it stands in `run.answer` afterwards."""
        answer, broken = run.answer, None
        timeouts = run.target.backend.timeouts
        body = body_for(run.asked, run.dialect, run.target, self._published.current.plan.rollout)
        run.began_at_s = run.last_at_s = self._clock()
        first_until_at_s = asyncio.get_running_loop().time() + timeouts.first_token_s
        limit = asyncio.timeout_at(min(first_until_at_s, run.until_at_s))
        try:
            async with limit:
                await self._read(run, body, limit)
        except BROKEN as exc:
            broken = failure_of(exc, has_head=bool(answer.status))
            if limit.expired():
                broken = FailureKind.STALLED if answer.is_begun else FailureKind.FIRST_TOKEN_TIMEOUT
                if (limit.when() or 0.0) >= run.until_at_s:
                    broken = FailureKind.TOTAL_TIMEOUT
            run.last_at_s = self._clock()
        answer.end(broken)

    async def _read(self, run: _Run, body: bytes, limit: asyncio.Timeout) -> None:
        """Read until the answer is over. `limit` moves on with the first content and with every piece after it."""
        answer, loop = run.answer, asyncio.get_running_loop()
        stall_s = run.target.backend.timeouts.stall_s
        async with self._sender.send(run.asked, run.target.backend, body) as response:
            headers = response.headers
            answer.open(response.status_code, headers.get("content-type", ""), headers.get("retry-after", ""))
            async for piece in read_pieces(response):
                is_progress = answer.take(piece)
                run.last_at_s = self._clock()
                if answer.is_over:
                    return
                if is_progress:
                    limit.reschedule(min(loop.time() + stall_s, run.until_at_s))
                if answer.has_content and not run.content_at_s:
                    run.content_at_s = run.last_at_s
                # Also without a rest the clients' streams come first.
                await asyncio.sleep(_rest_s(run, len(piece)))

    async def _compare(self, run: _Run) -> None:
        """Wait for the client's own answer, as long as this shadow may last, and compare the texts."""
        text = run.answer.text
        run.answer.text = text = text[:TEXT_CHARACTERS_MAX] if text is not None else None
        try:
            async with asyncio.timeout_at(run.until_at_s):
                await run.shadow.wait_client_over()
        except TimeoutError:
            return
        client = run.shadow.client
        if client is not None and client.text is not None and text is not None:
            run.likeness = likeness(text, client.text)

    def _finish(self, run: _Run) -> None:
        """Count the shadow and tell its one event, of which no field holds a text."""
        answer, asked, client, name = run.answer, run.asked, run.shadow.client, run.target.backend.name
        outcome = _outcome(answer)
        self.counts.on_finished(asked.color, name, outcome, likeness=run.likeness, ttft_s=run.ttft_s)
        self._tell(
            "shadow.finished",
            {
                "backend": name,
                "color": str(asked.color),
                "outcome": str(outcome),
                "failure": str(answer.failure) if answer.failure is not None else None,
                "status": answer.status,
                "ttft_s": _rounded(run.ttft_s),
                "duration_s": _rounded(run.last_at_s - run.began_at_s),
                "characters": answer.characters,
                "speed": _rounded(run.speed),
                "likeness": _rounded(run.likeness),
                "client_ttft_s": _rounded(client.ttft_s) if client is not None else None,
                "client_duration_s": _rounded(client.duration_s) if client is not None else None,
                "request_id": asked.request_id.decode("latin-1"),
            },
        )


def _rest_s(run: _Run, piece_bytes: int) -> float:
    if not run.content_at_s:
        return 0.0
    if piece_bytes >= PIECE_BYTES_MAX:
        return REST_S_FULL
    return min(max(REST_SHARE * (run.last_at_s - run.content_at_s), REST_S_MIN), REST_S_MAX)


def _outcome(answer: ShadowAnswer) -> ShadowOutcome:
    if answer.is_too_large:
        return ShadowOutcome.TOO_LARGE
    if answer.failure in _TIMEOUTS:
        return ShadowOutcome.HUNG
    return ShadowOutcome.FAILED if answer.failure is not None or answer.is_rejected else ShadowOutcome.ANSWERED


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
