"""Complete an answer that did not come from one backend in one piece: continued, cut to its last events, or put together here.

Called by dataplane.answer, continued, resuming and relayed once nothing of it is missing but what is written here.
"""

from typing import TYPE_CHECKING

from understudy.core.balancer import Choice
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.heads import ResponseHead
from understudy.dialects.token_ids import strip_ids
from understudy.engines.assembly import assemble

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange


def finish_continued(exchange: "RelayedExchange", attempt: RunningAttempt, prompt_tokens: int | None) -> None:
    """A continued answer has its terminator; `prompt_tokens` is what the backend read for it, None where it did not tell."""
    exchange.record.prefilled_tokens += prompt_tokens or 0
    if exchange.resumer is not None and exchange.resumer.is_assembled:
        finish_assembled(exchange, attempt)
    else:
        exchange.outlet.end()
        exchange.on_finished(attempt)


def finish_spent(exchange: "RelayedExchange", attempt: RunningAttempt, missing: bytes) -> None:
    """There was nothing left to generate: the backend was asked no more than that."""
    attempt.end(None)
    exchange.attempt = None
    complete(exchange, missing)
    exchange.relay.on_room(attempt.choice)


def complete(exchange: "RelayedExchange", missing: bytes) -> None:
    """End an answer of which the client has all but `missing`, its last events; no attempt runs."""
    exchange.leave_line()
    exchange.record.not_resumed = None
    if exchange.resumer is not None and exchange.resumer.is_assembled:
        exchange.resumer.received.keep(missing)
        if not _write_assembled(exchange):
            _ask_whole(exchange, None)
            return
    else:
        exchange.outlet.write(missing)
        exchange.outlet.end()
    exchange.finish()


def finish_assembled(exchange: "RelayedExchange", attempt: RunningAttempt) -> None:
    """Every event of an answer has come that the client gets whole."""
    if _write_assembled(exchange):
        exchange.on_finished(attempt)
        return
    stop_collecting(exchange, attempt)


def stop_collecting(exchange: "RelayedExchange", attempt: RunningAttempt) -> None:
    """Let go of an answer that cannot be put together, which is nobody's fault: it is asked for whole."""
    attempt.end(None)
    exchange.attempt = None
    _ask_whole(exchange, attempt.choice)
    exchange.relay.on_room(attempt.choice)


def _write_assembled(exchange: "RelayedExchange") -> bool:
    """Write the answer that was put together, as the first backend would have given it; False when that cannot be done."""
    resumer = exchange.resumer
    if resumer is None:
        return False
    events = resumer.received.all()
    if resumer.takes_ids:
        events = strip_ids(events)
    assembled = assemble(resumer.engine, exchange.ask.path, resumer.asked(), events)
    if assembled is None:
        return False
    body, content_type = assembled
    head = ResponseHead()
    head.status = 200
    exchange.commit_assembled()
    if exchange.relay.shadowing is not None:
        exchange.relay.shadowing.begin(exchange)
    exchange.outlet.open(exchange, head, kind=None, whole=body, lines=b"Content-Type: %b\r\n" % content_type)
    return True


def _ask_whole(exchange: "RelayedExchange", choice: Choice | None) -> None:
    """Ask once more, as the client asked: the engine kept something back that only a whole answer has, or it is very long."""
    relay = exchange.relay
    exchange.is_asked_whole = True
    exchange.resumer = None
    exchange.carry_out(exchange.exchange.again(choice, relay.published.current, relay.tally, exchange.now_s()))
