"""Look after one exchange while time passes: its deadlines, a client that takes nothing, a client that waits in silence, a hedge.

Called by dataplane.relay for every running exchange some twenty times a second. What is late is core.deadlines' to say.
"""

from typing import TYPE_CHECKING

from understudy.core.ask import DialectName
from understudy.core.deadlines import Standing, is_hedge_due, is_over, look
from understudy.dataplane.attempt import RunningAttempt
from understudy.dialects.contract import StreamKind
from understudy.dialects.wish import shape_of
from understudy.errors import FailureKind

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange


def check(exchange: "RelayedExchange", now_s: float) -> None:
    """Compare the clock with the deadlines."""
    if now_s < exchange.check_at_s:
        return
    relay, downstream = exchange.relay, exchange.downstream
    if downstream.is_half_closed and downstream.has_left():
        exchange.give_up(FailureKind.CLIENT_GONE)
    elif is_over(exchange.started_at_s, relay.timeouts, now_s):
        exchange.end_as(FailureKind.TOTAL_TIMEOUT)
    elif downstream.is_full and exchange.attempt is not None and exchange.attempt.answer is not None:
        _check_client(exchange, now_s)
    else:
        running = [attempt for attempt in (exchange.attempt, exchange.hedge) if attempt is not None]
        for attempt in running:
            if exchange.has(attempt):
                _check_attempt(exchange, attempt, now_s)
        if exchange.is_running:
            _keep_alive(exchange, now_s)
            _hedge(exchange, now_s)


def _check_attempt(exchange: "RelayedExchange", attempt: RunningAttempt, now_s: float) -> None:
    relay, answer, target = exchange.relay, attempt.answer, attempt.choice.target
    tally = relay.tally.of(attempt.name)
    is_begun = answer is not None and (answer.is_begun or attempt.content_at_s > 0.0)
    standing = Standing(
        sent_at_s=attempt.sent_at_s,
        progress_at_s=answer.progress_at_s if answer is not None else attempt.sent_at_s,
        is_connecting=attempt.is_connecting,
        is_begun=is_begun,
        is_down=relay.observations.is_down(attempt.name),
        # Only what comes before the first content depends on it.
        is_loaded=is_begun or attempt.is_loaded,
        prompt_bytes=len(exchange.body),
        # What comes whole has taken the time of all its tokens, of which prompts tell nothing.
        pace=tally.pace if exchange.ask.is_streaming or attempt.is_assembled else None,
        evidence=tally.evidence,
    )
    if standing.is_begun:
        tally.evidence.on_moved(standing.progress_at_s)
    seen = look(standing, target.backend.timeouts, now_s)
    if seen.kind is not None:
        exchange.on_attempt_failed(attempt, seen.kind)
        return
    if seen.is_suspect:
        relay.listener.suspect(attempt.name)
    elif not standing.is_connecting and not exchange.downstream.is_half_closed:
        exchange.check_at_s = now_s + relay.check_interval_s


def _keep_alive(exchange: "RelayedExchange", now_s: float) -> None:
    """Write a comment to a client that waits on an event stream; before the first content that begins the stream."""
    keepalive_s = exchange.relay.timeouts.keepalive_s
    ask = exchange.ask
    if exchange.turn is not None and exchange.turn.merging is None:
        # A head says what became of the conversation, or that another request has it (409).
        return
    if not keepalive_s or not ask.is_generating or not ask.is_streaming or not is_streamed(ask.path):
        return
    answer = exchange.attempt.answer if exchange.attempt is not None else None
    wrote_at_s = max(exchange.comment_at_s, exchange.started_at_s)
    if exchange.is_committed and answer is not None:
        wrote_at_s = max(wrote_at_s, answer.progress_at_s)
    if now_s - wrote_at_s < keepalive_s:
        return
    exchange.comment_at_s = now_s
    outlet, dialect = exchange.outlet, exchange.dialect
    if outlet.is_open:
        if outlet.kind is StreamKind.SSE:
            outlet.write_comment()
    elif dialect is not None and dialect.name is not DialectName.OLLAMA and not exchange.is_http10:
        # Ollama's clients read every line as JSON, the empty one, too.
        outlet.open_early(exchange)
        outlet.write_comment()


def is_streamed(path: str) -> bool:
    """Whether an answer of that path may be a stream; `stream: true` in a request for embeddings means nothing."""
    return shape_of(path) is not None or path == "/v1/responses"


def _hedge(exchange: "RelayedExchange", now_s: float) -> None:
    """Begin a second attempt for a short prompt whose first content is later than nearly all of that backend's."""
    attempt, relay = exchange.attempt, exchange.relay
    snapshot = relay.published.current
    if (
        not snapshot.plan.failover.hedge
        or attempt is None
        or exchange.hedge is not None
        # A collected answer that has begun is not committed.
        or exchange.resumer is not None
        or not exchange.ask.is_generating
        or not is_hedge_due(relay.tally.of(attempt.name).pace, len(exchange.body), now_s - attempt.sent_at_s)
    ):
        return
    command = exchange.exchange.on_late(snapshot, relay.tally, now_s)
    if command is not None:
        exchange.begin_hedge(command)


def forgive(exchange: "RelayedExchange", late_s: float, now_s: float) -> None:
    """Leave the time out during which the daemon itself did not run; nothing begins later than now for that."""
    exchange.started_at_s = min(now_s, exchange.started_at_s + late_s)
    for attempt in (exchange.attempt, exchange.hedge):
        if attempt is not None:
            attempt.sent_at_s = min(now_s, attempt.sent_at_s + late_s)
            if attempt.answer is not None:
                attempt.answer.progress_at_s = min(now_s, attempt.answer.progress_at_s + late_s)


def _check_client(exchange: "RelayedExchange", now_s: float) -> None:
    answer = exchange.attempt.answer if exchange.attempt is not None else None
    if exchange.downstream.has_progress():
        note_progress(exchange)
    elif answer is not None and now_s - answer.progress_at_s > exchange.relay.limits.write_idle_s:
        exchange.give_up(FailureKind.CLIENT_SLOW)


def note_progress(exchange: "RelayedExchange") -> None:
    """Let the deadlines run from now: it was the client that kept the answer from moving."""
    if exchange.attempt is not None and exchange.attempt.answer is not None:
        exchange.attempt.answer.progress_at_s = exchange.now_s()
