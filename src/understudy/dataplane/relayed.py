"""One exchange being relayed: carries out what core.exchange decides and tells it what became of it.

Made by dataplane.relay for every request that needs a backend. Owns the attempt's connection, its deadlines and the record.
Decides nothing: which backend, whether again and what the client is told come as commands.
"""

import asyncio
from typing import TYPE_CHECKING

from understudy.core.ask import Ask
from understudy.core.balancer import Choice
from understudy.core.deadlines import Standing, is_over, overdue
from understudy.core.exchange import Abort, Attempt, Command, Exchange, Wait
from understudy.core.record import AttemptRecord, ExchangeRecord
from understudy.core.wording import words_for
from understudy.dataplane.answer import Answer
from understudy.dataplane.downstream import DownstreamConnection
from understudy.dataplane.heads import RequestHead, request_bytes, status_line
from understudy.dataplane.upstream import UpstreamConnection
from understudy.dialects.contract import Dialect
from understudy.errors import MEANING, Blame, Failure, FailureKind, Side

if TYPE_CHECKING:
    from understudy.dataplane.relay import Relay


class RelayedExchange:
    """One client request on its way. In `Relay.running` while it lasts; `wake_at_s` matters while it waits in line.

    Defaults stand in the class: an exchange costs only what becomes of it.
    """

    is_running = True
    wake_at_s = 0.0
    _check_at_s = 0.0
    _is_committed = False
    _waiting_since_s = 0.0
    _blamed_later: tuple[str, ...] = ()
    # (status, content type, body) of the last backend whose error may be passed on.
    _last_answer: tuple[int, bytes, bytes] | None = None
    # For the current attempt.
    _choice: Choice | None = None
    _answer: Answer | None = None
    _connection: UpstreamConnection | None = None
    _connecting: asyncio.Task[None] | None = None
    _sent_at_s = 0.0

    def __init__(
        self,
        relay: "Relay",
        downstream: DownstreamConnection,
        head: RequestHead,
        body: bytes,
        *,
        dialect: Dialect | None,
        record: ExchangeRecord,
    ) -> None:
        self.ask: Ask = record.ask
        self.dialect = dialect
        self.record = record
        self.is_head = head.method == b"HEAD"
        self.is_http10 = head.is_http10
        self.keeps_alive = head.keeps_alive
        self.now_s = relay.now_s
        self.write_to_client = downstream.write
        self._relay = relay
        self._downstream = downstream
        self._head = head
        self._body = body
        self._request_id = record.request_id.encode("latin-1")
        self._exchange = Exchange(record.ask, relay.budget)
        self._started_at_s = relay.now_s()

    def start(self) -> None:
        """Ask for the first command and carry it out."""
        self._carry_out(self._exchange.begin(self._relay.published.current, self._relay.tally, self._started_at_s))

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Attempt):
            self._attempt(command)
        elif isinstance(command, Wait):
            self._wait(command)
        else:
            self._abort(command)

    def _attempt(self, command: Attempt) -> None:
        relay, choice, record = self._relay, command.choice, self.record
        backend = choice.target.backend
        self._leave_line()
        relay.tally.begin(backend.name, is_trial=choice.is_trial)
        self._choice = choice
        self._sent_at_s = relay.now_s()
        self._check_at_s = 0.0
        record.attempts.append(AttemptRecord(backend.name))
        if choice.is_last_resort:
            record.is_last_resort = True
        connection = None if command.is_fresh else relay.pool.take(backend)
        if connection is not None:
            self._send(connection, choice)
        else:
            self._connecting = relay.pool.connect(backend, relay.timeouts.connect_s, self._on_connected)

    def _on_connected(self, outcome: UpstreamConnection | FailureKind) -> None:
        self._connecting = None
        try:
            if isinstance(outcome, FailureKind):
                self.on_attempt_failed(outcome)
            elif not self.is_running or self._choice is None:
                outcome.close()
            else:
                self._sent_at_s = self.now_s()
                self._send(outcome, self._choice)
        except Exception as error:  # noqa: BLE001  # our own mistake ends this exchange, not the daemon
            self.on_exception(error)

    def _send(self, connection: UpstreamConnection, choice: Choice) -> None:
        ask, body = self.ask, self._body
        if choice.model != ask.model and choice.model and self.dialect is not None:
            body = self.dialect.with_model(body, choice.model)
        request = request_bytes(
            self._head,
            body,
            self._relay.pool.words(choice.target.backend),
            request_id=self._request_id,
            client=self._downstream.peer,
            reads_answer=ask.is_generating,
        )
        self._connection = connection
        self._answer = Answer(self, choice, self._sent_at_s)
        connection.send(self._answer, request, is_head=self.is_head)
        if self._downstream.is_full:
            connection.pause()

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
            return
        extra = self.own_fields()
        if command.is_passed_on and self._last_answer is not None:
            status, content_type, body = self._last_answer
            record.status = status
            response = relay.whole(self._head, record, body, content_type, extra)
        else:
            record.status = command.status
            if command.retry_after_s:
                extra += b"Retry-After: %d\r\n" % max(1, round(command.retry_after_s + 0.499))
            message = words_for(command.kind, self.ask, self._exchange.failures)
            response = relay.error(self._head, record, self.dialect, command.kind.value, message, extra)
        self._close_record()
        relay.respond(self._downstream, self._head, response)

    def _abort_stream(self, kind: FailureKind) -> None:
        answer = self._answer
        if answer is not None and answer.is_finished():
            self.record.failure = None  # all of it had come but the end of the body
            self._close_record()
            answer.pass_end()
            self._downstream.finish(keeps_alive=self.keeps_alive)
            return
        self._close_record()
        if answer is not None and self.dialect is not None and answer.kind is not None:
            meaning = MEANING[kind]
            who = f"{self.record.backend} " if meaning.side is Side.UPSTREAM else ""
            message = f"the answer broke off: {who}{meaning.words}"
            answer.pass_last(self.dialect.error_event(self.ask.path, answer.kind, "stream_interrupted", message))
            self._downstream.close()
        else:
            self._downstream.abort()

    # --- from the answer

    def write(self, data: bytes, body_bytes: int) -> None:
        """Send bytes to the client; `body_bytes` of them are its answer's body."""
        self.record.sent_bytes += body_bytes
        self.write_to_client(data)

    def write_interim(self, status: int) -> None:
        """Pass on a 1xx response; HTTP/1.0 clients do not know them (RFC 9110, 15.2)."""
        if not self.is_http10 and not self._is_committed and self.is_running:
            self._downstream.write_interim(status_line(status) + b"\r\n")

    def own_fields(self) -> bytes:
        """Return the fields that say what was done, as lines with CRLF."""
        attempts = self.record.attempts
        backend = b"X-Understudy-Backend: %b\r\n" % attempts[-1].backend.encode() if attempts else b""
        return b"%bX-Understudy-Attempts: %d\r\nX-Request-ID: %b\r\n" % (backend, self._exchange.attempts, self._request_id)

    def on_commit(self, status: int, *, keeps_alive: bool) -> None:
        """The first bytes are about to reach the client."""
        record, attempt = self.record, self.record.attempts[-1]
        self._is_committed = True
        if self._exchange.on_commit():
            self._relay.wake_soon()
        self.keeps_alive = keeps_alive
        record.status = attempt.status = status
        record.backend = attempt.backend
        if self.ask.is_generating and status < 300:
            record.ttft_s = self._relay.now_s() - self._started_at_s

    def on_finished(self) -> None:
        """The answer is complete."""
        relay, choice, record = self._relay, self._choice, self.record
        if choice is None:
            return
        backend, now_s = choice.target.backend, relay.now_s()
        connection, self._connection = self._connection, None
        self._end_attempt(choice, None, now_s)
        if self.ask.is_generating and record.status < 300:
            # Waiting and earlier attempts are none of this backend's time.
            ttft_s = record.ttft_s - (self._sent_at_s - self._started_at_s)
            relay.credit(backend.name, ttft_s, now_s)
            for name in self._blamed_later:
                relay.blame(name, self.ask, FailureKind.SERVER_ERROR, now_s)
        if connection is not None:
            relay.pool.put(backend, connection, now_s)
        self._close_record(now_s)
        self._downstream.finish(keeps_alive=self.keeps_alive)
        relay.on_room(choice)

    def on_attempt_failed(
        self, kind: FailureKind, *, status: int = 0, retry_after_s: float = 0.0, answer: tuple[int, bytes, bytes] | None = None
    ) -> None:
        """The running attempt failed; `answer` is (status, content type, body) where the backend gave one worth passing on."""
        choice = self._choice
        if choice is None or not self.is_running:
            return
        relay, now_s = self._relay, self._relay.now_s()
        backend = choice.target.backend
        self._last_answer = answer or self._last_answer
        was_sent = self._answer is not None
        self._drop_connection()
        self._end_attempt(choice, kind, now_s, status)
        if MEANING[kind].blame is Blame.IF_ANSWERED_ELSEWHERE:
            self._blamed_later += (backend.name,)
        relay.weigh(backend.name, self.ask, kind, retry_after_s, now_s)
        failure = Failure(kind, backend.name, was_sent=was_sent, status=status, retry_after_s=retry_after_s)
        command = self._exchange.on_failure(failure, relay.published.current, relay.tally, now_s)
        if kind is FailureKind.STALE_REUSE:
            self.record.attempts.pop()
        if not self._is_committed:
            self._answer = None
        self._carry_out(command)
        relay.on_room(choice)

    def on_exception(self, error: BaseException) -> None:
        """Our own code raised: this exchange gets a 500 in its dialect, the daemon goes on."""
        self._relay.listener.report(error, self.record.request_id)
        if self.is_running:
            self._end_as(FailureKind.INTERNAL)

    def on_client_gone(self) -> None:
        """The client left: nobody is to blame and the engine is to stop at once."""
        self._give_up(FailureKind.CLIENT_GONE)

    def on_half_closed(self) -> None:
        """Write something harmless, which the kernel of a client that left answers with a reset; only SSE has such a thing."""
        self._check_at_s = 0.0
        if self._answer is not None:
            self._answer.pass_comment()

    def on_downstream_full(self) -> None:
        """The client does not keep up: read no more from the backend."""
        self._check_at_s = 0.0
        self._downstream.has_progress()
        self._note_progress()
        if self._connection is not None:
            self._connection.pause()

    def on_downstream_ready(self) -> None:
        """The client has caught up."""
        self._note_progress()
        if self._connection is not None:
            self._connection.resume()

    def on_stop(self) -> None:
        """The time to finish is over: an honest end instead of a silent one."""
        if self.is_running:
            self._end_as(FailureKind.STOPPING)

    def on_wake(self) -> None:
        """Something changed, or the time to wait is over."""
        if self.is_running and self._waiting_since_s:
            self._carry_out(self._exchange.on_wake(self._relay.published.current, self._relay.tally, self.now_s()))

    def check(self, now_s: float) -> None:
        """Compare the clock with the deadlines; called some twenty times a second."""
        if now_s < self._check_at_s:
            return
        relay, choice, answer = self._relay, self._choice, self._answer
        if self._downstream.is_half_closed and self._downstream.has_left():
            self._give_up(FailureKind.CLIENT_GONE)
        elif is_over(self._started_at_s, relay.timeouts, now_s):
            self._end_as(FailureKind.TOTAL_TIMEOUT)
        elif self._downstream.is_full and answer is not None:
            self._check_client(now_s)
        elif choice is not None:
            standing = Standing(
                sent_at_s=self._sent_at_s,
                progress_at_s=answer.progress_at_s if answer is not None else self._sent_at_s,
                is_connecting=self._connecting is not None,
                is_begun=self._is_committed or (answer is not None and answer.is_begun),
                is_refusing=relay.is_refusing(choice.target.backend.name),
            )
            kind = overdue(standing, relay.timeouts, now_s)
            if kind is not None:
                self.on_attempt_failed(kind)
            elif not standing.is_connecting and not self._downstream.is_half_closed:
                self._check_at_s = now_s + relay.check_interval_s

    def forgive(self, late_s: float) -> None:
        """Leave the time out during which the daemon itself did not run."""
        self._started_at_s += late_s
        self._sent_at_s += late_s
        if self._answer is not None:
            self._answer.progress_at_s += late_s

    def _check_client(self, now_s: float) -> None:
        if self._downstream.has_progress():
            self._note_progress()
        elif self._answer is not None and now_s - self._answer.progress_at_s > self._relay.limits.write_idle_s:
            self._give_up(FailureKind.CLIENT_SLOW)

    def _note_progress(self) -> None:
        if self._answer is not None:
            self._answer.progress_at_s = self._relay.now_s()

    def _give_up(self, kind: FailureKind) -> None:
        """End without a word: there is nobody to tell."""
        if not self.is_running:
            return
        self._leave_line()
        choice = self._let_go(kind)
        self.record.failure = kind
        self.record.status = self.record.status or MEANING[kind].status
        self._close_record()
        self._downstream.abort()
        if choice is not None:
            self._relay.on_room(choice)

    def _end_as(self, kind: FailureKind) -> None:
        """End with an error that no other attempt could mend."""
        status, choice = MEANING[kind].status, self._let_go(kind)
        self._abort(Abort(kind, status, 1.0 if status == 503 else 0.0))
        if choice is not None:
            self._relay.on_room(choice)

    def _let_go(self, kind: FailureKind) -> Choice | None:
        choice = self._choice
        self._drop_connection()
        if choice is not None:
            self._end_attempt(choice, kind, self.now_s())
        return choice

    def _drop_connection(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._answer is not None:
            self._answer.detach()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _end_attempt(self, choice: Choice, kind: FailureKind | None, now_s: float, status: int = 0) -> None:
        self._choice = None
        self._relay.tally.end(choice.target.backend.name, is_trial=choice.is_trial)
        attempt = self.record.attempts[-1]
        attempt.failure = kind
        attempt.status = attempt.status or status
        attempt.duration_s = now_s - self._sent_at_s

    def _close_record(self, now_s: float = 0.0) -> None:
        self.is_running = False
        # The exchange and its answer know each other; let go, so that neither waits for the garbage collector.
        self._answer = None
        self.record.duration_s = (now_s or self._relay.now_s()) - self._started_at_s
        self._relay.on_over(self)
