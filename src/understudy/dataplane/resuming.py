"""Carry an answer on that broke: whether it can be, what the next backend is asked for, and the request that does it.

Made by dataplane.relayed with the first content of an exchange. Which backend is core.exchange's decision; what is sent is
engines.continuation's, whose questions are asked here over the attempt's connection.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING

from understudy.core.snapshot import EngineKind, ResumeRule
from understudy.core.transcript import (
    REPEATS_MAX,
    Continuation,
    Means,
    Refusal,
    Spent,
    Wish,
    cases_of,
    is_carried,
)
from understudy.dataplane import completing
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.continued import ContinuedAnswer
from understudy.dataplane.posts import PostedQuestion, post_bytes
from understudy.dataplane.received import Received
from understudy.dataplane.sending import body_for
from understudy.dataplane.upstream import UpstreamConnection
from understudy.dialects.contract import Ending, StreamKind
from understudy.dialects.endings import closing, cut_short, lacks_usage
from understudy.dialects.pieces import stream_kind_of
from understudy.dialects.splice import Splice
from understudy.dialects.wish import read_wish
from understudy.engines import ProbeAnswer
from understudy.engines.continuation import Abilities, Broken, Question, continuation
from understudy.errors import FailureKind

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

ABILITIES_MAX = 256
# A recipe asks a handful of questions; one that does not end is a mistake of ours.
QUESTIONS_MAX = 16

Recipe = Generator[Question, ProbeAnswer | None, Continuation | Spent | Refusal]


class AbilityMemo:
    """What was learnt of each model of each backend: one `Abilities` each, the oldest forgotten beyond `ABILITIES_MAX`."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Abilities] = {}

    def of(self, attempt: RunningAttempt) -> Abilities:
        """Return what is known of the model that `attempt` asks for; another version or another start begins anew."""
        target = attempt.choice.target
        state = target.state
        key = (target.backend.name, target.backend.address, state.engine, state.version, state.since_at_s, attempt.choice.model)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= ABILITIES_MAX:
                del self._known[next(iter(self._known))]
            known = self._known[key] = Abilities()
        return known


class Resumer:
    """One exchange's answer from its first content on. `refusal` says why it is not continued, None while it may be.

    `engine`, `is_assembled` and `takes_ids` are those of the first attempt, whose stream all further ones continue.
    """

    def __init__(self, exchange: "RelayedExchange", received: Received, attempt: RunningAttempt) -> None:
        self.received = received
        self.engine = attempt.engine
        self.is_assembled = attempt.is_assembled
        self.takes_ids = attempt.takes_ids
        self.refusal: Refusal | None = None
        self._exchange = exchange
        rule = exchange.relay.published.current.plan.failover.resume
        self._is_exact = rule is ResumeRule.EXACT
        self._wish: Wish | None = None
        self._first = attempt.choice
        self._begun_at_s = exchange.now_s()
        # For the current attempt.
        self._attempt: RunningAttempt | None = None
        self._recipe: Recipe | None = None
        self._questions = 0
        self._failed: frozenset[Means] = frozenset()
        if received.shape is None:
            self.refusal = Refusal.NOT_TEXT
        elif rule is ResumeRule.OFF:
            self.refusal = Refusal.TURNED_OFF
        elif exchange.head.no_resume:
            self.refusal = Refusal.DECLINED

    def asked(self) -> bytes:
        """Return the body that the first backend was given, as far as it says what is wanted."""
        return body_for(self._exchange, self._first)

    # --- whether

    def look(self, kind: FailureKind, engine: EngineKind) -> Refusal | None:
        """Read what has been received after a break, `kind` of an attempt at `engine`; why it cannot be continued, if so."""
        if self.refusal is None:
            self.refusal = self._look(is_stopped=kind is FailureKind.UNFINISHED and engine is EngineKind.OLLAMA)
        return self.refusal

    def _look(self, *, is_stopped: bool) -> Refusal | None:
        transcript = self.received.transcript()
        if transcript is None:
            return Refusal.TOO_LONG if self.received.is_too_long else Refusal.UNREADABLE
        if self._wish is None:
            wish = read_wish(self._exchange.ask.path, self.asked())
            if isinstance(wish, Refusal):
                return wish
            self._wish = wish
        if transcript.is_unreadable:
            return Refusal.UNREADABLE
        if is_stopped and transcript.repeats >= REPEATS_MAX:
            return Refusal.REPEATING
        cases = cases_of(self._wish, transcript)
        return None if any(is_carried(means, cases) for means in Means) else Refusal.CASE

    def closing(self) -> bytes | None:
        """Return the events that complete an answer whose finish has come; b"": so has its terminator. None when it has not."""
        dialect, shape = self._exchange.dialect, self.received.shape
        kind = stream_kind_of(shape) if shape is not None else StreamKind.SSE
        if dialect is not None and dialect.read_ending(self._exchange.ask.path, kind, self.received.tail()) is Ending.FINISHED:
            return b""
        transcript = self.received.transcript()
        if transcript is None or self._wish is None or not transcript.finish:
            return None
        return closing(self._wish, transcript)

    def lacks_usage(self) -> bool:
        """Whether an answer that has its finish lacks only what its client wants to be told of its tokens."""
        transcript = self.received.transcript()
        return transcript is not None and self._wish is not None and lacks_usage(self._wish, transcript)

    # --- how

    def on_connection(self, attempt: RunningAttempt, connection: UpstreamConnection) -> None:
        """Begin to go on at the backend of `attempt`, or go on with its questions."""
        if self._attempt is not attempt:
            self._attempt = attempt
            self._failed = frozenset()
            self._begin_recipe(attempt)
        attempt.connection = connection
        self._advance(None)

    def _begin_recipe(self, attempt: RunningAttempt) -> None:
        exchange = self._exchange
        wish, transcript = self._wish, self.received.transcript()
        if wish is None or transcript is None:
            raise RuntimeError("an answer is continued that nobody has read")
        broken = Broken(
            path=exchange.ask.path,
            body=body_for(exchange, attempt.choice),
            wish=wish,
            transcript=transcript,
            is_exact=self._is_exact,
            failed=self._failed,
            begun_by=self.engine,
        )
        self._questions = 0
        self._recipe = continuation(attempt.engine, broken, exchange.relay.abilities.of(attempt))

    def _advance(self, answer: ProbeAnswer | None) -> None:
        attempt, recipe = self._attempt, self._recipe
        if attempt is None or recipe is None:
            return
        try:
            question = recipe.send(answer)
        except StopIteration as stop:
            self._recipe = None
            self._settle(attempt, stop.value)
            return
        self._questions += 1
        if self._questions > QUESTIONS_MAX:
            raise RuntimeError("a continuation asks without an end")
        self._post(attempt, question.path, question.body, PostedQuestion(self, self._exchange.now_s()))

    def _settle(self, attempt: RunningAttempt, outcome: Continuation | Spent | Refusal) -> None:
        exchange = self._exchange
        transcript = self.received.transcript()
        if isinstance(outcome, Refusal) or transcript is None or self._wish is None:
            exchange.record.not_resumed = outcome if isinstance(outcome, Refusal) else Refusal.UNREADABLE
            exchange.on_attempt_failed(attempt, FailureKind.RESUME_REFUSED)
        elif isinstance(outcome, Spent):
            missing = (
                closing(self._wish, transcript, outcome) if transcript.finish else cut_short(self._wish, transcript, outcome)
            )
            completing.finish_spent(exchange, attempt, missing or b"")
        else:
            earlier_s = exchange.now_s() - self._begun_at_s
            splice = Splice(self._wish, transcript, outcome, backend=attempt.name, earlier_s=earlier_s)
            answer = ContinuedAnswer(exchange, attempt, self, outcome, splice)
            self._post(attempt, outcome.path, outcome.body, answer)
            if exchange.downstream.is_full and attempt.connection is not None:
                attempt.connection.pause()

    def _post(self, attempt: RunningAttempt, path: str, body: bytes, bound: PostedQuestion | ContinuedAnswer) -> None:
        connection = attempt.connection
        if connection is None:
            return
        attempt.answer = bound
        exchange = self._exchange
        words = exchange.relay.pool.words(attempt.choice.target.backend)
        request = post_bytes(exchange.head, words, path, body, exchange.request_id)
        connection.send(bound, request, is_head=False)

    # --- from a question

    def on_answer(self, answer: ProbeAnswer) -> None:
        """Go on with the next question, on the same connection where it can carry one."""
        attempt = self._attempt
        if attempt is None or attempt.connection is None:
            return
        # A fresh attempt stays on fresh connections: the backend may close each of them after its answer without saying so.
        if not attempt.is_fresh and attempt.connection.release():
            self._advance(answer)
            return
        attempt.connection.close()
        attempt.connection = None
        attempt.connect(lambda _attempt, connection: self._go_on(connection, answer), is_fresh=True)

    def _go_on(self, connection: UpstreamConnection, answer: ProbeAnswer) -> None:
        if self._attempt is not None:
            self._attempt.connection = connection
            self._advance(answer)

    def on_failure(self, kind: FailureKind) -> None:
        """A question got no answer: this backend cannot go on now."""
        if self._attempt is not None:
            self._exchange.on_attempt_failed(self._attempt, kind)

    def on_exception(self, error: BaseException) -> None:
        """Our own code raised."""
        self._exchange.on_exception(error)

    # --- from the continued answer

    def on_means_refused(self, attempt: RunningAttempt, means: Means) -> None:
        """The backend does not continue texts this way: ask for the next one, on a new connection."""
        self._failed |= {means}
        if attempt.connection is not None:
            attempt.connection.close()
            attempt.connection = None
        self._begin_recipe(attempt)
        attempt.connect(self.on_connection, is_fresh=True)
