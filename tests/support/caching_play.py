"""Exchanges whose answers are kept, for plays of dataplane.caching: real exchanges and clients, and no backend that is asked.

What a backend would say the play writes through the exchange's outlet, as dataplane.answer does. Time is the stage's.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from support.stage import DONE, FINISH, OPENING, Stage, chat, delta
from support.targets import target, targets
from support.transports import MemoryTransport
from understudy import dialects
from understudy.core.answer_cache import AnswerCache
from understudy.core.ask import Ask
from understudy.core.balancer import Choice
from understudy.core.record import AttemptRecord, ExchangeRecord
from understudy.core.snapshot import CacheRules, CacheWhen, Limits
from understudy.dataplane import caching
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.downstream import DownstreamConnection
from understudy.dataplane.heads import RequestHead, ResponseHead, read_request_head
from understudy.dataplane.relayed import RelayedExchange
from understudy.dialects.contract import StreamKind

EVENTS = OPENING + delta("Hel") + delta("lo") + FINISH + DONE
SIZE_BYTES = 1024 * 1024
STREAM = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
WHOLE = {"Content-Type": "application/json", "Content-Length": "2"}


@dataclass
class CachingPlay:
    """A stage whose answers are kept in `answers`; each exchange is that of a client of its own."""

    stage: Stage
    answers: AnswerCache
    clients: list[MemoryTransport] = field(default_factory=list)

    def exchange(self, raw: bytes) -> RelayedExchange:
        """Let a client send a request, and make its exchange."""
        client = self.stage.client()
        self.clients.append(client)
        connection = cast("DownstreamConnection", client.protocol)
        before, end, body = raw.partition(b"\r\n\r\n")
        head = read_request_head(before + end, Limits())
        assert isinstance(head, RequestHead)
        route = dialects.match(head.method, head.path)
        assert route.dialect is not None
        ask = route.dialect.read_ask(route.path, body, "")
        assert isinstance(ask, Ask)
        record = ExchangeRecord(ask, f"id-{len(self.clients)}", "POST", route.path, len(body))
        exchange = RelayedExchange(self.stage.relay, connection, head, body, dialect=route.dialect, record=record)
        connection.running = exchange
        self.stage.relay.running.add(exchange)
        return exchange

    def ask(self, raw: bytes) -> tuple[RelayedExchange, bool]:
        """Let a client send a request; whether it was answered at once."""
        exchange = self.exchange(raw)
        return exchange, caching.send_known(exchange, self.answers)

    def say(
        self,
        exchange: RelayedExchange,
        *pieces: bytes,
        fields: dict[str, str] = STREAM,
        kind: StreamKind | None = StreamKind.SSE,
        **more: Any,
    ) -> RunningAttempt:
        """Let gpu0 answer with these pieces, as dataplane.answer writes them."""
        head = answered_head(fields, more.pop("status", 200))
        attempt = RunningAttempt(exchange, Choice(target(0), "qwen"), AttemptRecord("gpu0"), self.stage.clock.now_s)
        exchange.record.attempts.append(attempt.record)
        if not exchange.outlet.is_open:
            exchange.outlet.open(exchange, head, kind=kind, **more)
        exchange.record.status = head.status
        for piece in pieces:
            exchange.outlet.write(piece)
        return attempt

    def finish(self, exchange: RelayedExchange, attempt: RunningAttempt) -> None:
        """Let the answer be complete."""
        exchange.outlet.end()
        caching.keep(exchange, attempt, self.stage.clock.now_s)
        caching.let_go(exchange)
        exchange.finish()

    def learn(self, raw: bytes, *pieces: bytes, **more: Any) -> None:
        """Let a request be answered by gpu0; what may be kept is kept."""
        exchange, was_answered = self.ask(raw)
        assert not was_answered
        if not pieces and "whole" not in more:
            pieces = (EVENTS,)
        self.finish(exchange, self.say(exchange, *pieces, **more))

    def knows(self, raw: bytes) -> bool:
        """Whether a client that asks this is answered at once."""
        exchange, was_answered = self.ask(raw)
        if not was_answered:
            exchange.on_client_gone()
        return was_answered

    @property
    def head(self) -> dict[str, str]:
        """The fields that the last client got, by lower-case name."""
        lines = self.clients[-1].data.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def answered_head(fields: dict[str, str], status: int) -> ResponseHead:
    """Make an answer's head as dataplane.upstream reads it."""
    head = ResponseHead()
    head.status = status
    for name, value in fields.items():
        head.add(name.encode(), value.encode())
    assert head.settle()
    return head


def body_of(client: MemoryTransport) -> bytes:
    """Return what a client got behind the head, framing included."""
    return client.data.partition(b"\r\n\r\n")[2]


def playing(
    monkeypatch: pytest.MonkeyPatch, *, when: CacheWhen = CacheWhen.ALWAYS, size_bytes: int = SIZE_BYTES, ttl_s: float = 60.0
) -> CachingPlay:
    """Make a play of one backend."""
    return CachingPlay(Stage(monkeypatch, *targets(1)), AnswerCache(CacheRules(size_bytes, ttl_s, when)))


def fixed(*fields: str, **more: Any) -> bytes:
    """Write a request whose answer is fixed."""
    return chat(*fields, temperature=0, **more)
