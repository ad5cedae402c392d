"""What a client gets when its exchange ends in an error: a response of its dialect, or an event inside the stream.

Called by dataplane.relayed with what core.exchange decided, and by dataplane.answer where a stream was begun too early. Writes
and closes; decides nothing.
"""

from typing import TYPE_CHECKING

from understudy.core.commands import Abort
from understudy.core.wording import words_for, words_of_break
from understudy.dataplane import caching
from understudy.dataplane.outlet import own_fields
from understudy.dialects.contract import Ending
from understudy.engines.answers import read_error
from understudy.errors import FailureKind

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange


def abort(exchange: "RelayedExchange", command: Abort) -> None:
    """End with an error: as a response while nothing was sent, else inside the stream, and the connection is closed."""
    if not exchange.outlet.writes_directly and caching.send_stale(exchange, command):
        return
    record, relay, head = exchange.record, exchange.relay, exchange.head
    record.failure = command.kind
    record.not_resumed = command.refusal or record.not_resumed
    if exchange.outlet.is_open:
        _abort_stream(exchange, command.kind)
        return
    extra = own_fields(exchange)
    if command.is_passed_on and exchange.last_answer is not None:
        status, content_type, body = exchange.last_answer
        record.status = status
        response = relay.whole(head, record, body, content_type, extra)
    else:
        record.status = command.status
        if command.retry_after_s:
            extra += b"Retry-After: %d\r\n" % max(1, round(command.retry_after_s + 0.499))
        message = exchange.own_words or words_for(command.kind, exchange.ask, exchange.exchange.failures)
        response = relay.error(head, record, exchange.dialect, command.kind.value, message, extra)
    exchange.close_record()
    relay.respond(exchange.downstream, head, response)


def _abort_stream(exchange: "RelayedExchange", kind: FailureKind) -> None:
    record, dialect, outlet = exchange.record, exchange.dialect, exchange.outlet
    resumer, path = exchange.resumer, exchange.ask.path
    if resumer is not None and dialect is not None and outlet.kind is not None:
        if dialect.read_ending(path, outlet.kind, resumer.received.tail()) is Ending.FINISHED:
            record.failure = None  # all of it had come but the end of the body
            outlet.end()
            exchange.finish()
            return
        record.not_resumed = record.not_resumed or resumer.refusal
    exchange.close_record()
    if dialect is None or outlet.kind is None:
        exchange.downstream.abort()
        return
    if exchange.is_committed:
        code, message = "stream_interrupted", words_of_break(kind, exchange.exchange.failures, record.not_resumed)
    else:
        code, message = kind.value, exchange.own_words or words_for(kind, exchange.ask, exchange.exchange.failures)
    outlet.write_last(dialect.error_event(path, outlet.kind, code, message))
    exchange.downstream.close()


def tell_in_stream(exchange: "RelayedExchange", status: int, body: bytes) -> None:
    """Tell in an event what a backend answered that sent no events, and close: the client's stream was begun before."""
    error, outlet, dialect = read_error(body), exchange.outlet, exchange.dialect
    message = f"{exchange.record.backend} answered {status}: {error.message or error.detail or 'no event stream'}"
    exchange.record.status = status
    choices = exchange.let_go(None)
    exchange.close_record()
    if dialect is not None and outlet.kind is not None:
        outlet.write_last(dialect.error_event(exchange.ask.path, outlet.kind, "rejected", message))
    exchange.downstream.close()
    exchange.relay.on_room(*choices)
