"""One send of an exchange to one backend: its connection, its answer and when it began.

Made by dataplane.relayed, one for each attempt; a hedge runs beside another. Gets a connection, hands it to whoever writes the
request, and lets go of it. Decides nothing.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from understudy.core.balancer import Choice
from understudy.core.color import Color
from understudy.core.pace import is_loaded
from understudy.core.record import AttemptRecord
from understudy.core.snapshot import EngineKind
from understudy.dataplane.upstream import UpstreamConnection
from understudy.errors import FailureKind

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

_NO_COLOR = Color.NONE


class Answering(Protocol):
    """What an exchange asks of the answer of its attempt, first or continued."""

    progress_at_s: float
    is_begun: bool

    def detach(self) -> None:
        """Take no more bytes."""


class RunningAttempt:
    """An attempt while it lasts. `sent_at_s` is when its request began to be sent, `content_at_s` when its first content came.

    `name` is the backend's, `color` the one that it answers in. `is_streamed`: its answer came as a stream of events,
    `is_wordless`: which ended before it had said anything.
    `takes_ids`: these carry token ids that the client has not asked for. `is_assembled`: the answer is put together whole.
    `is_resume`: it continues one. `is_fresh`: it goes over new connections only.
    """

    is_streamed = False
    is_wordless = False
    takes_ids = False
    is_assembled = False
    is_resume = False
    is_fresh = False
    content_at_s = 0.0
    connection: UpstreamConnection | None = None
    answer: Answering | None = None
    _connecting: asyncio.Task[None] | None = None

    def __init__(self, exchange: "RelayedExchange", choice: Choice, record: AttemptRecord, now_s: float) -> None:
        self.choice = choice
        self.name = record.backend
        color = choice.target.backend.color
        # A backend of no color answers in the one that the exchange has.
        self.color = record.color = exchange.ask.color if color is _NO_COLOR else str(color)
        if not exchange.record.backend:
            # Until one has begun the answer, whose color it keeps.
            exchange.record.color = self.color
        self.record = record
        self.sent_at_s = now_s
        self.exchange = exchange

    @property
    def is_loaded(self) -> bool:
        """Whether the backend had the model in memory when the attempt began, as far as known."""
        return is_loaded(self.choice.target.state, self.choice.model)

    @property
    def engine(self) -> EngineKind:
        """The software it runs, as far as known."""
        return self.choice.target.state.engine

    @property
    def is_connecting(self) -> bool:
        """Whether there is no connection yet."""
        return self._connecting is not None

    def begin_answer(self, now_s: float, status: int) -> None:
        """This attempt gives the answer, whose first content has come."""
        exchange, record = self.exchange, self.exchange.record
        self.content_at_s = now_s
        record.backend, record.color = self.name, self.color
        shadowing = exchange.relay.shadowing
        if shadowing is not None and status < 300 and not self.is_assembled:
            shadowing.begin(exchange)

    def connect(self, on_connection: Callable[["RunningAttempt", UpstreamConnection], None], *, is_fresh: bool) -> None:
        """Take an idle connection or open one, and hand it over; a failure to is the attempt's."""
        self.is_fresh = is_fresh
        pool, backend = self.exchange.relay.pool, self.choice.target.backend
        connection = None if is_fresh else pool.take(backend)
        if connection is not None:
            on_connection(self, connection)
            return

        def on_connected(outcome: UpstreamConnection | FailureKind) -> None:
            self._connecting = None
            try:
                if isinstance(outcome, FailureKind):
                    self.exchange.on_attempt_failed(self, outcome)
                elif not self.exchange.is_running or not self.exchange.has(self):
                    outcome.close()
                else:
                    self.sent_at_s = self.exchange.now_s()
                    on_connection(self, outcome)
            except Exception as error:  # noqa: BLE001  # our own mistake ends this exchange, not the daemon
                self.exchange.on_exception(error)

        self.sent_at_s = self.exchange.now_s()
        self._connecting = pool.connect(backend, backend.timeouts.connect_s, on_connected)

    def close_record(self, kind: FailureKind | None, now_s: float, status: int = 0) -> None:
        """Note that the attempt is over, and how; `kind` None: it did what was asked of it."""
        relay = self.exchange.relay
        relay.tally.end(self.name, is_trial=self.choice.is_trial)
        if relay.witness is not None:
            relay.witness.on_attempt(self, kind, now_s)
        for gauge in relay.gauges:
            gauge.on_attempt(self, kind, now_s)
        # An attempt and its answer know each other.
        self.answer = None
        record = self.record
        record.failure = kind
        record.status = record.status or status
        record.duration_s = now_s - self.sent_at_s

    def end(self, kind: FailureKind | None, status: int = 0) -> None:
        """End it at once; `kind` None: it did what was asked of it."""
        self.drop()
        self.close_record(kind, self.exchange.now_s(), status)

    def drop(self) -> None:
        """Let go of the connection at once, so that an engine that still generates stops."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self.answer is not None:
            self.answer.detach()
        if self.connection is not None:
            self.connection.close()
            self.connection = None
