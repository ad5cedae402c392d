"""Send a client's request to the backend of an attempt, as that backend is to get it.

Called by dataplane.relayed with a connection. The client's bytes go on as they came but for the model's name, and, where the file
says so, what makes an answer that can be put together here or continued by its token ids.
"""

from typing import TYPE_CHECKING

from understudy.core.balancer import Choice
from understudy.core.snapshot import Resume
from understudy.dataplane.answer import Answer
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.heads import request_bytes
from understudy.dataplane.upstream import UpstreamConnection
from understudy.dialects.assembly import as_streamed
from understudy.engines.continuation import with_ids

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange


def send(attempt: RunningAttempt, connection: UpstreamConnection) -> None:
    """Write the request and bind its answer."""
    exchange, choice = attempt.exchange, attempt.choice
    is_generating = exchange.ask.is_generating
    body = body_for(exchange, choice)
    if is_generating:
        body = _as_asked_upstream(attempt, body)
    request = request_bytes(
        exchange.head,
        body,
        exchange.relay.pool.words(choice.target.backend),
        request_id=exchange.request_id,
        client=exchange.downstream.peer,
        reads_answer=is_generating,
    )
    attempt.connection = connection
    answer = attempt.answer = Answer(exchange, attempt, attempt.sent_at_s)
    connection.send(answer, request, is_head=exchange.is_head)
    if exchange.downstream.is_full:
        connection.pause()


def body_for(exchange: "RelayedExchange", choice: Choice) -> bytes:
    """Return the request's body with the name that the backend has for its model."""
    if choice.model and choice.model != exchange.ask.model and exchange.dialect is not None:
        return exchange.dialect.with_model(exchange.body, choice.model)
    return exchange.body


def _as_asked_upstream(attempt: RunningAttempt, body: bytes) -> bytes:
    exchange = attempt.exchange
    ask, rules = exchange.ask, exchange.relay.published.current.plan.failover
    if rules.assemble and not ask.is_streaming and not exchange.is_asked_whole:
        streamed = as_streamed(attempt.engine, ask.path, body, attempt.choice.target.state.version)
        if streamed is not None:
            attempt.is_assembled = True
            body = streamed
    if rules.resume is Resume.EXACT and (ask.is_streaming or attempt.is_assembled) and not exchange.head.no_resume:
        asking_ids = with_ids(attempt.engine, ask.path, body)
        if asking_ids is not None:
            attempt.takes_ids = True
            body = asking_ids
    return body
