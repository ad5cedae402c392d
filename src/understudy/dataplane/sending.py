"""Send a client's request to the backend of an attempt, as that backend is to get it.

Called by dataplane.relayed with a connection. The client's bytes go on as they came but for the model's name, and, where the file
says so, what makes an answer that can be put together here or continued by its token ids.
"""

from typing import TYPE_CHECKING

from understudy.core.balancer import Choice
from understudy.core.snapshot import ResumeRule
from understudy.dataplane.answer import Answer
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.heads import request_bytes
from understudy.dataplane.upstream import UpstreamConnection
from understudy.engines.assembly import ASSEMBLED, as_streamed
from understudy.engines.continuation import with_ids

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange


def send(attempt: RunningAttempt, connection: UpstreamConnection) -> None:
    """Write the request and bind its answer."""
    exchange, choice = attempt.exchange, attempt.choice
    ask, target = exchange.ask, choice.target
    rules = exchange.relay.rules
    body = exchange.body
    if choice.model != ask.model or exchange.relay.prompts.is_on:
        body = body_for(exchange, choice)
    if ask.is_generating:
        # Looked at here, since most requests need neither.
        if rules.assemble and not ask.is_streaming and target.state.engine in ASSEMBLED:
            body = _as_streamed(attempt, body)
        if rules.resume is ResumeRule.EXACT:
            body = _asking_ids(attempt, body)
    request = request_bytes(
        exchange.head,
        body,
        exchange.relay.pool.words(target.backend),
        request_id=exchange.request_id,
        client=exchange.downstream.peer,
        reads_answer=ask.is_generating,
    )
    attempt.connection = connection
    answer = attempt.answer = Answer(exchange, attempt, attempt.sent_at_s)
    connection.send(answer, request, is_head=exchange.is_head)
    if exchange.downstream.is_full:
        connection.pause()


def body_for(exchange: "RelayedExchange", choice: Choice) -> bytes:
    """Return the request's body with the name that the backend has for its model, and with what backend and color add to it."""
    body, ask, prompts = exchange.body, exchange.ask, exchange.relay.prompts
    if choice.model and choice.model != ask.model and exchange.dialect is not None:
        body = exchange.dialect.with_model(body, choice.model)
    if prompts.is_on and ask.is_generating:
        body = prompts.added(ask.path, body, choice.target.backend, ask.color)
    return body


def _as_streamed(attempt: RunningAttempt, body: bytes) -> bytes:
    """Ask for a stream where the whole that comes of it is known to equal the engine's own."""
    exchange, state = attempt.exchange, attempt.choice.target.state
    if exchange.is_asked_whole:
        return body
    streamed = as_streamed(state.engine, exchange.ask.path, body, state.version)
    attempt.is_assembled = streamed is not None
    return streamed or body


def _asking_ids(attempt: RunningAttempt, body: bytes) -> bytes:
    """Ask for token ids where the engine has them and the answer may be continued."""
    exchange = attempt.exchange
    if exchange.head.no_resume or not (exchange.ask.is_streaming or attempt.is_assembled):
        return body
    asking = with_ids(attempt.engine, exchange.ask.path, body)
    attempt.takes_ids = asking is not None
    return asking or body
