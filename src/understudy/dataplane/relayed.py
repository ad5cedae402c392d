"""One exchange being relayed: carries out what core.exchange decides and tells it what became of it.

Made by dataplane.relay for every request that needs a backend. Owns the attempt's connection, the deadlines and the record. Decides
nothing: which backend, whether again and what the client is told come as commands.
"""

import asyncio
from typing import TYPE_CHECKING

from understudy.core.ask import Ask
from understudy.core.balancer import Choice
from understudy.core.exchange import Abort, Attempt, Command, Exchange, Wait
from understudy.core.record import AttemptRecord, ExchangeRecord
from understudy.dataplane.answer import Answer
from understudy.dataplane.downstream import DownstreamConnection
from understudy.dataplane.heads import RequestHead, request_bytes, status_line
from understudy.dataplane.upstream import UpstreamConnection
from understudy.dialects.contract import Dialect
from understudy.errors import MEANING, Blame, Failure, FailureKind, Side

if TYPE_CHECKING:
    from understudy.dataplane.relay import Relay

# A backend whose listener refuses connections while a stream on it is silent has been told to stop: vLLM then leaves the stream
# open for ever, llama.cpp for 30 s (engines.md, 0.3). This much silence together with a refused probe is the verdict.
SILENCE_OF_REFUSING_S = 2.0
# How long balances prefer other backends to one that sent a request away without being to blame.
DOUBT_S = 1.0


class RelayedExchange:
    """One client request on its way. In `Relay.running` while it lasts; `wake_at_s` matters while it waits in line."""

    __slots__ = (
        "_answer",
        "_backend_blamed_later",
        "_body",
        "_choice",
        "_connecting",
        "_connection",
        "_downstream",
        "_exchange",
        "_has_answer_status",
        "_head",
        "_is_committed",
        "_is_full",
        "_last_answer",
        "_relay",
        "_sent_at_s",
        "_started_at_s",
        "_waiting_since_s",
        "_was_reused",
        "ask",
        "dialect",
        "is_http10",
        "is_running",
        "keeps_alive",
        "record",
        "wake_at_s",
    )

    def __init__(
        self,
        relay: "Relay",
        downstream: DownstreamConnection,
        head: RequestHead,
        body: bytes,
        dialect: Dialect | None,
        ask: Ask,
        record: ExchangeRecord,
    ) -> None:
        self.ask = ask
        self.dialect = dialect
        self.record = record
        self.is_http10 = head.is_http10
        self.keeps_alive = head.keeps_alive
        self.is_running = True
        self.wake_at_s = 0.0
        self._relay = relay
        self._downstream = downstream
        self._head = head
        self._body = body
        self._exchange = Exchange(ask, relay.budget)
        self._started_at_s = relay.now_s()
        self._is_committed = False
        self._is_full = False
        self._waiting_since_s = 0.0
        self._backend_blamed_later: list[str] = []
        self._last_answer: tuple[int, bytes, bytes] | None = None
        # For the current attempt; cleared by _end_attempt().
        self._choice: Choice | None = None
        self._answer: Answer | None = None
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._sent_at_s = 0.0

    def start(self) -> None:
        """Ask for the first command and carry it out."""
        relay = self._relay
        self._carry_out(self._exchange.begin(relay.published.current, relay.tally, self._started_at_s))

    @property
    def is_head(self) -> bool:
        """Whether the client asked for the head only."""
        return self._head.method == b"HEAD"

    def now_s(self) -> float:
        """Return the loop's time."""
        return self._relay.now_s()

    # --- commands

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Attempt):
            self._attempt(command)
        elif isinstance(command, Wait):
            self._wait(command)
        else:
            self._abort(command)

    def _attempt(self, command: Attempt) -> None:
        relay, choice = self._relay, command.choice
        self._leave_line()
        name = choice.target.backend.name
        relay.tally.begin(name, is_trial=choice.is_trial)
        self._choice = choice
        self._sent_at_s = relay.now_s()
        self.record.attempts.append(AttemptRecord(name))
        self.record.is_last_resort = self.record.is_last_resort or choice.is_last_resort
        connection = None if command.is_fresh else relay.pool.take(choice.target.backend)
        if connection is not None:
            self._send(connection)
        else:
            self._connecting = relay.pool.connect(choice.target.backend, self._on_connected)

    def _on_connected(self, outcome: UpstreamConnection | FailureKind) -> None:
        self._connecting = None
        try:
            if isinstance(outcome, FailureKind):
                self.on_attempt_failed(outcome)
            elif not self.is_running or self._choice is None:
                outcome.close()
            else:
                self._send(outcome)
        except Exception as error:  # noqa: BLE001  # our own mistake ends this exchange, not the daemon
            self.on_exception(error)

    def _send(self, connection: UpstreamConnection) -> None:
        choice = self._choice
        if choice is None:
            return
        relay, ask = self._relay, self.ask
        body = self._body
        if self.dialect is not None and choice.model and choice.model != ask.model:
            body = self.dialect.with_model(body, choice.model)
        request = request_bytes(
            self._head,
            body,
            choice.target.backend,
            request_id=self.record.request_id.encode(),
            client=self._downstream.peer,
            reads_answer=ask.is_generating,
        )
        self._sent_at_s = relay.now_s()
        self._answer = Answer(self, choice, self._sent_at_s)
        self._answer.connection = connection
        self._connection = connection
        connection.send(self._answer, request, is_head=self.is_head)

    def _wait(self, command: Wait) -> None:
        relay = self._relay
        if self not in relay.line and len(relay.line) >= relay.limits.waiting_max:
            self._abort(Abort(FailureKind.NO_ROOM, MEANING[FailureKind.NO_ROOM].status, 1.0))
            return
        if not self._waiting_since_s:
            self._waiting_since_s = relay.now_s()
        self.wake_at_s = command.until_s
        relay.line.add(self)
        relay.watch()

    def _leave_line(self) -> None:
        if self._waiting_since_s:
            self.record.waited_s += self._relay.now_s() - self._waiting_since_s
            self._waiting_since_s = 0.0
            self._relay.line.remove(self)

    def _abort(self, command: Abort) -> None:
        """End with an error: as a response while nothing was sent, else inside the stream, and the connection is closed."""
        self._leave_line()
        record, relay = self.record, self._relay
        record.failure = command.kind
        if self._is_committed:
            self._abort_stream(command.kind)
        elif command.is_passed_on and self._last_answer is not None:
            status, content_type, body = self._last_answer
            record.status = status
            relay.respond(
                self._downstream, self._head, record, status=status, body=body, content_type=content_type, extra=self.own_fields()
            )
        else:
            record.status = command.status
            message = relay.words(self.ask, command, self._exchange.failures)
            relay.respond_error(
                self._downstream,
                self._head,
                record,
                dialect=self.dialect,
                message=message,
                code=command.kind.value,
                retry_after_s=command.retry_after_s,
                extra=self.own_fields(),
            )
        self._close_record()

    def _abort_stream(self, kind: FailureKind) -> None:
        answer = self._answer_committed()
        if answer is not None and self.dialect is not None and answer.kind is not None:
            message = f"the answer broke off: {self.record.backend} {MEANING[kind].words}"
            answer.pass_last(self.dialect.error_event(self.ask.path, answer.kind, "stream_interrupted", message))
            self._downstream.close()
        else:
            self._downstream.abort()

    def _answer_committed(self) -> Answer | None:
        return self._answer if self._is_committed else None

    # --- from the answer

    def write(self, data: bytes, body_bytes: int) -> None:
        """Send bytes to the client; `body_bytes` of them are its answer's body."""
        self.record.sent_bytes += body_bytes
        self._downstream.write(data)

    def write_interim(self, status: int) -> None:
        """Pass on a 1xx response; HTTP/1.0 clients do not know them (RFC 9110, 15.2)."""
        if not self.is_http10 and not self._is_committed and self.is_running:
            self._downstream.write_interim(status_line(status) + b"\r\n")

    def own_fields(self) -> bytes:
        """Return the fields that say what was done, as lines with CRLF."""
        record = self.record
        backend = b"X-Understudy-Backend: %b\r\n" % record.attempts[-1].backend.encode() if record.attempts else b""
        return b"%bX-Understudy-Attempts: %d\r\nX-Request-ID: %b\r\n" % (
            backend,
            self._exchange.attempts,
            record.request_id.encode(),
        )

    def on_commit(self, status: int, *, keeps_alive: bool) -> None:
        """The first bytes are about to reach the client."""
        record, choice = self.record, self._choice
        self._is_committed = True
        self._exchange.on_commit()
        self.keeps_alive = keeps_alive
        record.status = status
        record.attempts[-1].status = status
        if choice is not None:
            record.backend = choice.target.backend.name
        if self.ask.is_generating and status < 300:
            record.ttft_s = self._relay.now_s() - self._started_at_s

    def on_finished(self) -> None:
        """The answer is complete."""
        relay, choice = self._relay, self._choice
        if choice is None:
            return
        name, now_s = choice.target.backend.name, relay.now_s()
        is_success = self.ask.is_generating and self.record.status < 300
        ttft_s = (
            now_s - self._sent_at_s
            if not self._answer_is_stream()
            else self.record.ttft_s - (self._sent_at_s - self._started_at_s)
        )
        connection, self._connection = self._connection, None
        self._end_attempt(None)
        if is_success:
            relay.tally.succeed(name, ttft_s, now_s)
            relay.observe(name, None)
            self._blame_the_others(now_s)
        if connection is not None:
            relay.pool.put(choice.target.backend, connection, now_s)
            relay.watch()
        downstream = self._downstream
        self._close_record()
        downstream.finish(keeps_alive=self.keeps_alive)
        relay.on_room(choice.target.backend)

    def _answer_is_stream(self) -> bool:
        return self._answer is not None and self._answer.kind is not None

    def on_attempt_failed(
        self, kind: FailureKind, *, status: int = 0, retry_after_s: float = 0.0, answer: tuple[int, bytes, bytes] | None = None
    ) -> None:
        """The running attempt failed; `answer` is (status, content type, body) where the backend gave one worth passing on."""
        choice = self._choice
        if choice is None or not self.is_running:
            return
        relay, now_s = self._relay, self._relay.now_s()
        backend = choice.target.backend
        if answer is not None:
            self._last_answer = answer
        was_sent = self._answer is not None
        kept = self._answer
        self._drop_connection()
        self._end_attempt(kind, status)
        self._answer = kept if self._is_committed else None
        self._blame(backend.name, kind, retry_after_s, now_s)
        failure = Failure(kind, backend.name, was_sent=was_sent, status=status, retry_after_s=retry_after_s)
        command = self._exchange.on_failure(failure, relay.published.current, relay.tally, now_s)
        if kind is FailureKind.STALE_REUSE:
            self.record.attempts.pop()
        self._carry_out(command)
        relay.on_room(backend)

    def _blame(self, name: str, kind: FailureKind, retry_after_s: float, now_s: float) -> None:
        relay, blame = self._relay, MEANING[kind].blame
        if blame is Blame.YES:
            relay.blame(name, self.ask, kind, now_s)
        elif blame is Blame.IF_ANSWERED_ELSEWHERE:
            self._backend_blamed_later.append(name)
        elif kind in (FailureKind.BUSY, FailureKind.LOADING) and retry_after_s:
            relay.tally.rest(name, now_s + retry_after_s)
        if blame is not Blame.YES and MEANING[kind].side is Side.UPSTREAM:
            # Answering fast without having done the work must not make a backend look attractive.
            relay.tally.doubt(name, now_s + DOUBT_S)
        if kind in (FailureKind.MODEL_MISSING, FailureKind.LOADING):
            relay.observe(name, kind)

    def _blame_the_others(self, now_s: float) -> None:
        for name in self._backend_blamed_later:
            self._relay.blame(name, self.ask, FailureKind.SERVER_ERROR, now_s)

    def on_exception(self, error: BaseException) -> None:
        """Our own code raised: this exchange gets a 500 in its dialect, the daemon goes on."""
        self._relay.report(error, self.record.request_id)
        if not self.is_running:
            return
        self._drop_connection()
        self._end_attempt(FailureKind.INTERNAL)
        self._abort(Abort(FailureKind.INTERNAL, 500))

    # --- from the client's side

    def on_client_gone(self) -> None:
        """The client left: nobody is to blame and the engine is to stop at once."""
        self._give_up(FailureKind.CLIENT_GONE)

    def on_downstream_full(self) -> None:
        """The client does not keep up: read no more from the backend."""
        self._is_full = True
        self._downstream.has_progress()
        if self._answer is not None:
            self._answer.progress_at_s = self._relay.now_s()
        if self._connection is not None:
            self._connection.pause()

    def on_downstream_ready(self) -> None:
        """The client has caught up."""
        self._is_full = False
        if self._answer is not None:
            self._answer.progress_at_s = self._relay.now_s()
        if self._connection is not None:
            self._connection.resume()

    def on_stop(self) -> None:
        """The time to finish is over: an honest end instead of a silent one."""
        if self.is_running:
            self._end_as(FailureKind.STOPPING)

    def _give_up(self, kind: FailureKind) -> None:
        if not self.is_running:
            return
        backend = self._choice.target.backend if self._choice is not None else None
        self._leave_line()
        self._drop_connection()
        self._end_attempt(kind)
        self.record.failure = kind
        self.record.status = self.record.status or MEANING[kind].status
        self._close_record()
        self._downstream.abort()
        if backend is not None:
            self._relay.on_room(backend)

    # --- waiting and deadlines

    def on_wake(self) -> None:
        """Something changed, or the time to wait is over."""
        relay = self._relay
        if self.is_running and self._waiting_since_s:
            self._carry_out(self._exchange.on_wake(relay.published.current, relay.tally, relay.now_s()))

    def check(self, now_s: float) -> None:
        """Compare the clock with every deadline of the phase that this exchange is in; called some twenty times a second."""
        timeouts = self._relay.timeouts
        if self._downstream.is_half_closed and self._downstream.has_left():
            self._give_up(FailureKind.CLIENT_GONE)
        elif timeouts.total_s and now_s - self._started_at_s > timeouts.total_s:
            self._end_as(FailureKind.TOTAL_TIMEOUT)
        elif self._is_full:
            self._check_client(now_s)
        elif self._connecting is not None:
            if now_s - self._sent_at_s > timeouts.connect_s:
                self.on_attempt_failed(FailureKind.CONNECT_TIMEOUT)
        elif self._answer is not None and self._choice is not None:
            self._check_answer(self._answer, self._choice, now_s)

    def _check_answer(self, answer: Answer, choice: Choice, now_s: float) -> None:
        timeouts = self._relay.timeouts
        silent_s = now_s - answer.progress_at_s
        if not answer.is_begun and not self._is_committed:
            if silent_s > timeouts.first_token_s:
                self.on_attempt_failed(FailureKind.FIRST_TOKEN_TIMEOUT)
                return
        elif silent_s > timeouts.stall_s:
            self.on_attempt_failed(FailureKind.STALLED)
            return
        if silent_s > SILENCE_OF_REFUSING_S and self._relay.is_refusing(choice.target.backend.name):
            self.on_attempt_failed(FailureKind.STALLED)

    def _check_client(self, now_s: float) -> None:
        answer = self._answer
        if self._downstream.has_progress():
            if answer is not None:
                answer.progress_at_s = now_s
        elif answer is not None and now_s - answer.progress_at_s > self._relay.limits.write_idle_s:
            self._give_up(FailureKind.CLIENT_SLOW)

    def _end_as(self, kind: FailureKind) -> None:
        status = MEANING[kind].status
        self._drop_connection()
        self._end_attempt(kind)
        self._abort(Abort(kind, status, 1.0 if status == 503 else 0.0))

    # --- endings

    def _drop_connection(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._answer is not None:
            self._answer.detach()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _end_attempt(self, kind: FailureKind | None, status: int = 0) -> None:
        choice = self._choice
        if choice is None:
            return
        self._choice = None
        self._relay.tally.end(choice.target.backend.name, is_trial=choice.is_trial)
        attempt = self.record.attempts[-1]
        attempt.failure = kind
        attempt.status = attempt.status or status
        attempt.duration_s = self._relay.now_s() - self._sent_at_s

    def _close_record(self) -> None:
        self.is_running = False
        self.record.duration_s = self._relay.now_s() - self._started_at_s
        self._relay.on_over(self)
