"""What attempts show of the backends: blame, ejection, rest, credit; counted in core.tally and told to the publisher.

Kept by dataplane.relay, told by dataplane.relayed. What a failure means is errors.MEANING's, what follows core.tally's.
"""

from typing import Protocol

from understudy.core.ask import Ask
from understudy.core.balancer import has_alternative
from understudy.core.snapshot import Condition, Published
from understudy.core.tally import Tally
from understudy.dataplane.attempt import RunningAttempt
from understudy.errors import MEANING, Blame, FailureKind, Side

# A backend's successes are told to the publisher no more often than this: one says as much as many.
SUCCESS_TOLD_S = 0.2
# Of many answers a few a second tell how fast prompts are read.
PACE_INTERVAL_S = 0.05
# How long balances prefer other backends to one that sent a request away without being to blame.
DOUBT_S = 1.0


class Hearer(Protocol):
    """Who hears of it; implemented by daemon."""

    def observe(self, name: str, kind: FailureKind | None) -> None:
        """Traffic has shown something of a backend: a failure, or None for a success."""

    def tell(self, event: str, fields: dict[str, object]) -> None:
        """Something an operator must know."""


class Observations:
    """Takes what traffic shows, and lets it have its consequence."""

    def __init__(self, published: Published, tally: Tally, listener: Hearer) -> None:
        self.published = published
        self.tally = tally
        self.listener = listener

    def blame(self, name: str, ask: Ask, kind: FailureKind, now_s: float) -> None:
        """Count a failure against a backend, eject it when it is due, and have it probed soon."""
        snapshot = self.published.current
        rules = next((target.backend.health for target in snapshot.targets if target.backend.name == name), None)
        if rules is None:
            return
        others = has_alternative(snapshot, self.tally, ask, name=name)
        if self.tally.fail(name, rules, now_s, has_alternative=others):
            for_s = self.tally.of(name).ejected_until_s - now_s
            self.listener.tell("backend.was_ejected", {"backend": name, "reason": MEANING[kind].words, "for_s": round(for_s, 3)})
        self.listener.observe(name, kind)

    def credit(self, attempt: RunningAttempt, request_bytes: int, now_s: float) -> None:
        """Count an answer to a request of `request_bytes`.

        One that did not come as a stream, or that continued one, tells nothing of how fast prompts are read.
        """
        name, ttft_s = attempt.name, attempt.content_at_s - attempt.sent_at_s
        tally = self.tally.of(name)
        last_s = tally.last_success_at_s
        if attempt.is_streamed and not attempt.is_resume and now_s >= tally.paced_at_s + PACE_INTERVAL_S:
            tally.paced_at_s = now_s
            tally.pace.add(request_bytes, ttft_s, is_loaded=attempt.is_loaded)
        if self.tally.succeed(name, ttft_s, now_s):
            self.listener.tell("backend.returned", {"backend": name})
        if now_s - last_s > SUCCESS_TOLD_S:
            self.listener.observe(name, None)

    def weigh(self, name: str, ask: Ask, kind: FailureKind, retry_after_s: float, now_s: float) -> None:
        """Let a failed attempt have its consequence for the backend: blame, rest, doubt, or none."""
        meaning = MEANING[kind]
        if meaning.blame is Blame.YES:
            self.blame(name, ask, kind, now_s)
            return
        if kind in (FailureKind.BUSY, FailureKind.LOADING) and retry_after_s:
            self.tally.rest(name, now_s + retry_after_s)
        if kind in (FailureKind.MODEL_MISSING, FailureKind.LOADING):
            self.listener.observe(name, kind)
        if meaning.side is Side.UPSTREAM and kind is not FailureKind.STALE_REUSE:
            # Answering fast without having done the work must not make a backend look attractive.
            self.tally.doubt(name, now_s + DOUBT_S)

    def is_down(self, name: str) -> bool:
        """Whether a backend is down by the verdict of its probes."""
        down = Condition.DOWN
        return any(target.state.condition is down for target in self.published.current.targets if target.backend.name == name)
