"""Decide who goes on with an answer that broke after its first content.

Owned by core.exchange, which hands on what happens from the break until the answer goes on. Pure. Whether the text can be
continued at all is dataplane.resuming's question to core.transcript and engines; a backend that cannot is told here as a failure.
"""

from msgspec.structs import replace

from understudy.core.ask import Ask
from understudy.core.balancer import Choice, NoChoice, pick
from understudy.core.commands import Abort, Command, Resume, Wait
from understudy.core.retry import AGAIN_INTERVAL_S, FREE
from understudy.core.snapshot import RoutingSnapshot
from understudy.core.tally import Tally
from understudy.core.transcript import Refusal
from understudy.errors import MEANING, Again, Failure, FailureKind

# Backends that took the continuation in and gave nothing. A request that kills its backends is not given to a further one, and
# an engine that stops on purpose would stop again (Ollama, after the same token 30 times).
BARREN_MAX = 2

# However much each part yields, an answer of more parts than this comes from backends that cannot be relied on.
RESUMES_MAX = 32

_UNHARMED = FREE | {FailureKind.STALE_REUSE, FailureKind.RESUME_REFUSED}


class Resumption:
    """The course of one exchange after its first break.

    `on_break` and `on_failure` tell what went wrong, `on_content` what went well.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._tried: dict[str, float] = {}  # backend -> when it failed (loop time)
        self._refused: set[str] = set()
        self._broke: set[str] = set()  # broke this very answer before, so that any other is asked first
        self._hold_until_s = 0.0
        self._barren = 0
        self._resumes = 0
        self._choice: Choice | None = None

    @property
    def has_refusal(self) -> bool:
        """Whether a backend was found that cannot continue the answer."""
        return bool(self._refused)

    def on_content(self) -> None:
        """The continuation has yielded something: what failed before it is forgiven."""
        self._tried.clear()
        self._barren = 0
        self._hold_until_s = 0.0

    def on_break(self, failure: Failure, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        """Return what follows after an answer broke that had yielded something."""
        self._tried = {failure.backend: now_s}
        self._broke.add(failure.backend)
        if failure.meaning.again is Again.NEVER:
            return _abort(failure.kind)
        return self._next(failure.kind, snapshot, tally, now_s)

    def on_failure(self, failure: Failure, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        """Return what follows after an attempt to go on yielded nothing."""
        kind = failure.kind
        if kind is FailureKind.STALE_REUSE and self._choice is not None:
            return Resume(self._choice, is_fresh=True)
        if failure.meaning.again is Again.NEVER:
            return _abort(kind)
        self._tried[failure.backend] = now_s
        if kind is FailureKind.RESUME_REFUSED:
            self._refused.add(failure.backend)
        if kind not in _UNHARMED:
            self._barren += 1
            if self._barren >= BARREN_MAX:
                return _abort(kind, Refusal.BARREN)
        return self._next(kind, snapshot, tally, now_s)

    def on_wake(self, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        """Return what follows after a wait."""
        return self._next(FailureKind.NONE_USABLE, snapshot, tally, now_s)

    def _next(self, kind: FailureKind, snapshot: RoutingSnapshot, tally: Tally, now_s: float) -> Command:
        if self._resumes >= RESUMES_MAX:
            return _abort(kind, Refusal.BARREN)
        tried = set(self._tried) | self._refused
        choice = pick(snapshot, tally, self._ask, tried=tried | self._broke, now_s=now_s)
        if isinstance(choice, NoChoice):
            choice = pick(snapshot, tally, self._ask, tried=tried, now_s=now_s)
        if isinstance(choice, NoChoice) and self._ask.color:
            # The client waits in mid-sentence: another voice at once.
            self._ask = replace(self._ask, color="")
            choice = pick(snapshot, tally, self._ask, tried=tried, now_s=now_s)
        if isinstance(choice, Choice):
            return self._resume(choice)
        if not self._hold_until_s:
            self._hold_until_s = now_s + snapshot.plan.failover.hold_s
        again_at_s = {
            name: max(tally.of(name).rest_until_s, failed_at_s + AGAIN_INTERVAL_S)
            for name, failed_at_s in self._tried.items()
            if name not in self._refused
        }
        if self._refused >= {target.backend.name for target in snapshot.targets}:
            return _abort(kind)
        if now_s >= self._hold_until_s:
            return _abort(kind, None if self._refused else Refusal.NO_BACKEND)
        free = {name for name, at_s in again_at_s.items() if at_s <= now_s}
        if free:
            again = pick(snapshot, tally, self._ask, tried=tried - free, now_s=now_s)
            if isinstance(again, Choice):
                return self._resume(again)
        return self._wait(choice, again_at_s, now_s)

    def _wait(self, none: NoChoice, again_at_s: dict[str, float], now_s: float) -> Wait:
        instants_s = [at_s for at_s in (none.until_s, *again_at_s.values(), self._hold_until_s) if at_s > now_s]
        return Wait(min(instants_s), none.kind)

    def _resume(self, choice: Choice) -> Resume:
        self._choice = choice
        self._resumes += 1
        return Resume(choice)


def _abort(kind: FailureKind, refusal: Refusal | None = None) -> Abort:
    return Abort(kind, MEANING[kind].status, refusal=refusal)
