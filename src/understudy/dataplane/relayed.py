"""One exchange being relayed: carries out what core.exchange decides and tells it what became of it.

Made by dataplane.relay for every request that needs a backend. Owns the attempts, the way to the client and the record.
Decides nothing: which backend, whether again, who goes on and what the client is told come as commands.
"""

from typing import TYPE_CHECKING

from understudy.core.ask import Ask
from understudy.core.balancer import Choice
from understudy.core.commands import Abort, Attempt, Command, Resume, Wait
from understudy.core.exchange import Exchange
from understudy.core.priority import BEGUN, NORMAL, priority_of
from understudy.core.record import AttemptRecord, ExchangeRecord
from understudy.core.snapshot import EngineKind
from understudy.core.transcript import Refusal
from understudy.dataplane import caching, completing, ending, vigil
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.downstream import DownstreamConnection
from understudy.dataplane.heads import RequestHead, status_line
from understudy.dataplane.outlet import Outlet
from understudy.dataplane.received import Received
from understudy.dataplane.resuming import Resumer
from understudy.dataplane.sending import send
from understudy.dialects.contract import Dialect
from understudy.dialects.wish import shape_of
from understudy.errors import MEANING, Blame, Failure, FailureKind

if TYPE_CHECKING:
    from understudy.core.shadowing import ShadowRun
    from understudy.dataplane.coloring import Colored
    from understudy.dataplane.relay import Relay
    from understudy.dataplane.turn import Turn


class RelayedExchange:
    """One client request on its way. In `Relay.running` while it lasts; `wake_at_s` matters while it waits in line.

    `attempt` runs, `hedge` beside it where it is late. `resumer` holds what has come of the answer, from its first content on;
    `is_asked_whole`: it is not asked for as a stream any more. `turn` is its part in a stored conversation, `own_words` what is
    wrong with that; `colored` its color, `shadow` what also goes to the other one. Defaults stand in the class.
    """

    is_running = True
    is_committed = False
    is_asked_whole = False
    attempt: RunningAttempt | None = None
    hedge: RunningAttempt | None = None
    resumer: Resumer | None = None
    turn: "Turn | None" = None
    colored: "Colored | None" = None
    shadow: "ShadowRun | None" = None
    own_words = ""
    client = b""
    priority = NORMAL
    wake_at_s = 0.0
    check_at_s = 0.0
    comment_at_s = 0.0
    waiting_since_s = 0.0
    # (status, content type, body) of the last backend whose error may be passed on.
    last_answer: tuple[int, bytes, bytes] | None = None
    _blamed_later: tuple[str, ...] = ()

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
        self.head = head
        self.body = body
        self.is_head = head.method == b"HEAD"
        self.is_http10 = head.is_http10
        self.keeps_alive = head.keeps_alive
        self.now_s = relay.now_s
        self.relay = relay
        self.downstream = downstream
        self.write_to_client = downstream.write
        self.outlet = Outlet(record, downstream.write)
        self.exchange = Exchange(record.ask, relay.budget)
        self.started_at_s = relay.now_s()
        self.request_id = record.request_id.encode("latin-1")

    # --- commands

    def start(self) -> None:
        """Ask for the first command and carry it out."""
        now_s = self.started_at_s if self.turn is None else self.now_s()
        self.carry_out(self.exchange.begin(self.relay.published.current, self.relay.tally, now_s))

    def carry_out(self, command: Command) -> None:
        """Do what core.exchange has decided."""
        if isinstance(command, Attempt):
            self.attempt = attempt = self._begin(command.choice)
            attempt.connect(send, is_fresh=command.is_fresh)
        elif isinstance(command, Resume):
            self.attempt = attempt = self._begin(command.choice)
            attempt.is_resume = True
            if self.resumer is not None:
                attempt.connect(self.resumer.on_connection, is_fresh=command.is_fresh)
        elif isinstance(command, Wait):
            self._wait(command)
        else:
            self.leave_line()
            ending.abort(self, command)

    def begin_hedge(self, command: Attempt) -> None:
        """Begin a second attempt beside the one that is late; whichever has content first stays."""
        self.hedge = attempt = self._begin(command.choice)
        attempt.connect(send, is_fresh=command.is_fresh)

    def _begin(self, choice: Choice) -> RunningAttempt:
        relay = self.relay
        name = choice.target.backend.name
        if self.waiting_since_s:
            self.leave_line()
        relay.tally.begin(name, is_trial=choice.is_trial)
        self.check_at_s = 0.0
        record = AttemptRecord(name)
        self.record.attempts.append(record)
        if choice.is_last_resort:
            self.record.is_last_resort = True
        return RunningAttempt(self, choice, record, relay.now_s())

    def _wait(self, command: Wait) -> None:
        relay = self.relay
        if not self.waiting_since_s:
            self.waiting_since_s = relay.now_s()
            self.client = self.head.key or self.downstream.peer
            trusted = relay.published.current.plan.trusted_keys
            self.priority = BEGUN if self.resumer is not None else priority_of(self.head.priority, self.head.key, trusted)
        self.wake_at_s = command.until_s
        relay.stand_in_line(self)

    def leave_line(self) -> None:
        """Wait no longer."""
        if self.waiting_since_s:
            self.record.waited_s += self.relay.now_s() - self.waiting_since_s
            self.waiting_since_s = 0.0
            self.relay.line.remove(self)

    # --- from the answer

    def write_interim(self, status: int) -> None:
        """Pass on a 1xx response; HTTP/1.0 clients do not know them (RFC 9110, 15.2)."""
        if not self.is_http10 and not self.outlet.is_open and self.is_running:
            self.downstream.write_interim(status_line(status) + b"\r\n")

    def on_content(self, attempt: RunningAttempt) -> None:
        """The first content of an answer that is put together here has come."""
        if self.hedge is not None:
            self._drop_rival(attempt)
        attempt.begin_answer(self.now_s(), 200)
        if self.exchange.on_content():
            self.relay.wake_soon()

    def on_commit(self, attempt: RunningAttempt, status: int) -> None:
        """The first bytes of the answer are about to reach the client."""
        record, now_s = self.record, self.now_s()
        if self.hedge is not None:
            self._drop_rival(attempt)
        attempt.begin_answer(now_s, status)
        self.is_committed = True
        if self.exchange.on_commit():
            self.relay.wake_soon()
        record.status = attempt.record.status = status
        if self.ask.is_generating and status < 300:
            record.ttft_s = now_s - self.started_at_s

    def _drop_rival(self, winner: RunningAttempt) -> None:
        loser = self.hedge if winner is self.attempt else self.attempt
        self.attempt, self.hedge = winner, None
        if loser is not None:
            loser.end(FailureKind.HEDGE_LOST)

    def start_receiving(self, attempt: RunningAttempt) -> Received:
        """Return where the pieces of the answer are kept from its first content on."""
        attempt.is_streamed = True
        received = Received(shape_of(self.ask.path), is_collected=attempt.is_assembled)
        self.resumer = Resumer(self, received, attempt)
        return received

    def may_resume(self) -> bool:
        """Whether the answer could be continued as far as the file, the client and the path go."""
        return self.resumer is not None and self.resumer.refusal is None

    def on_outgrown(self) -> None:
        """The answer is longer than what is kept to continue it."""
        self.relay.listener.tell("exchange.outgrew_transcript", {"request_id": self.record.request_id})

    def on_resumed(self, attempt: RunningAttempt) -> None:
        """The continuation has yielded content."""
        attempt.content_at_s = self.now_s()
        self.exchange.on_resumed()
        # Who could not go on before no longer matters.
        self.record.not_resumed = None
        self.record.resumed_on += (attempt.name,)

    def on_finished(self, attempt: RunningAttempt) -> None:
        """The answer is complete."""
        relay, record = self.relay, self.record
        backend, now_s = attempt.choice.target.backend, relay.now_s()
        connection, attempt.connection = attempt.connection, None
        attempt.close_record(None, now_s)
        if self.ask.is_generating and record.status < 300:
            # Waiting and earlier attempts are none of this backend's time.
            relay.observations.credit(attempt, len(self.body), now_s)
            for name in self._blamed_later:
                relay.observations.blame(name, self.ask, FailureKind.SERVER_ERROR, now_s)
        if connection is not None:
            relay.pool.put(backend, connection, now_s)
        self.attempt = None
        if not self.outlet.writes_directly:
            caching.keep(self, attempt, now_s)
        self.finish(now_s)
        relay.on_room(attempt.choice)

    def finish(self, now_s: float = 0.0) -> None:
        """The answer is complete; where it belongs to a stored conversation, its last bytes wait until that is kept."""
        if self.turn is not None:
            self.turn.end(self._end)
            return
        self._end(now_s)

    def _end(self, now_s: float = 0.0) -> None:
        self.close_record(now_s)
        self.downstream.finish(keeps_alive=self.keeps_alive)

    def on_attempt_failed(
        self,
        attempt: RunningAttempt,
        kind: FailureKind,
        *,
        status: int = 0,
        retry_after_s: float = 0.0,
        answer: tuple[int, bytes, bytes] | None = None,
    ) -> None:
        """The attempt failed; `answer` is (status, content type, body) where the backend gave one worth passing on."""
        if not self.is_running or not self.has(attempt):
            return
        relay, now_s = self.relay, self.relay.now_s()
        self.last_answer = answer or self.last_answer
        was_sent = attempt.answer is not None
        has_content = attempt.answer is not None and attempt.answer.is_begun and self.resumer is not None
        attempt.end(kind, status)
        if MEANING[kind].blame is Blame.IF_ANSWERED_ELSEWHERE:
            self._blamed_later += (attempt.name,)
        relay.observations.weigh(attempt.name, self.ask, kind, retry_after_s, now_s)
        failure = Failure(kind, attempt.name, was_sent=was_sent, status=status, retry_after_s=retry_after_s)
        if kind is FailureKind.STALE_REUSE:
            self.record.attempts.remove(attempt.record)
        if self.hedge is not None:
            # The other one goes on.
            left = self.hedge if attempt is self.attempt or self.attempt is None else self.attempt
            self.attempt, self.hedge = left, None
            self.exchange.on_hedge_failed(failure, left.choice, now_s)
        else:
            self.attempt = None
            self._after(failure, attempt.engine, now_s, has_content=has_content)
        relay.on_room(attempt.choice)

    def _after(self, failure: Failure, engine: EngineKind, now_s: float, *, has_content: bool) -> None:
        """Let the next step follow: another attempt, a continuation, or the end of an answer that was whole but for its end."""
        exchange, snapshot, tally, resumer = self.exchange, self.relay.published.current, self.relay.tally, self.resumer
        if not has_content or resumer is None:
            command = exchange.on_failure(failure, snapshot, tally, now_s)
        elif resumer.look(failure.kind, engine) is not None:
            command = exchange.give_up(failure)
        elif resumer.closing() is not None and not resumer.lacks_usage():
            completing.complete(self, resumer.closing() or b"")
            return
        else:
            command = exchange.on_break(failure, snapshot, tally, now_s)
        self._go_on(command, now_s)

    def _go_on(self, command: Command, now_s: float) -> None:
        """Carry out a command; an answer that nobody continues, and of which the client has nothing, may as well begin anew."""
        missing = self.resumer.closing() if self.resumer is not None and not isinstance(command, Resume) else None
        if missing is not None:
            # Nobody can tell its tokens now, and all else has come.
            completing.complete(self, missing)
            return
        is_stuck = isinstance(command, Abort) or (isinstance(command, Wait) and self.exchange.has_refusal)
        if is_stuck and self.resumer is not None and not self.is_committed:
            self.resumer = self.record.not_resumed = None
            command = self.exchange.begin_anew(self.relay.published.current, self.relay.tally, now_s)
        self.carry_out(command)

    # --- ends

    def commit_assembled(self) -> None:
        """The whole of an answer that was put together here is about to reach the client."""
        self.is_committed = True
        self.exchange.on_commit()
        self.record.status = 200
        self.record.ttft_s = self.now_s() - self.started_at_s

    def on_exception(self, error: BaseException) -> None:
        """Our own code raised: this exchange gets a 500 in its dialect, the daemon goes on."""
        self.relay.listener.report(error, self.record.request_id)
        if self.is_running:
            (self.give_up if self.turn is not None and self.turn.is_ended else self.end_as)(FailureKind.INTERNAL)

    def on_client_gone(self) -> None:
        """The client left: nobody is to blame and the engine is to stop at once."""
        self.give_up(FailureKind.CLIENT_GONE)

    def on_half_closed(self) -> None:
        """Write something harmless, which the kernel of a client that left answers with a reset; only SSE has such a thing."""
        self.check_at_s = 0.0
        self.outlet.write_comment()

    def on_downstream_full(self) -> None:
        """The client does not keep up: read no more from the backend."""
        self.check_at_s = 0.0
        self.downstream.has_progress()
        vigil.note_progress(self)
        if self.attempt is not None and self.attempt.connection is not None:
            self.attempt.connection.pause()

    def on_downstream_ready(self) -> None:
        """The client has caught up."""
        vigil.note_progress(self)
        if self.attempt is not None and self.attempt.connection is not None:
            self.attempt.connection.resume()

    def on_stop(self) -> None:
        """The time to finish is over: an honest end instead of a silent one."""
        if self.is_running:
            self.end_as(FailureKind.STOPPING)

    def on_wake(self) -> None:
        """Something changed, or the time to wait is over."""
        if not self.is_running or not self.waiting_since_s:
            return
        try:
            now_s = self.now_s()
            self._go_on(self.exchange.on_wake(self.relay.published.current, self.relay.tally, now_s), now_s)
        except Exception as error:  # noqa: BLE001  # our own mistake ends this exchange, not everybody's waiting
            self.on_exception(error)

    def on_displaced(self) -> None:
        """There is no room in the line for this one."""
        if self.resumer is not None:
            self.record.not_resumed = Refusal.NO_BACKEND
        self.end_as(FailureKind.NO_ROOM)

    def give_up(self, kind: FailureKind) -> None:
        """End without a word: there is nobody to tell."""
        if not self.is_running:
            return
        choices = self.let_go(kind)
        self.record.failure = kind
        self.record.status = self.record.status or MEANING[kind].status
        self.close_record()
        self.downstream.abort()
        self.relay.on_room(*choices)

    def end_as(self, kind: FailureKind) -> None:
        """End with an error that no other attempt could mend; an answer that is complete is let end as it is."""
        if self.turn is not None and self.turn.is_ended:
            return
        choices = self.let_go(kind)
        status = MEANING[kind].status
        again_s = {503: self.relay.retry_after_s(), 409: 1.0}
        ending.abort(self, Abort(kind, status, again_s.get(status, 0.0)))
        self.relay.on_room(*choices)

    def has(self, attempt: RunningAttempt) -> bool:
        """Whether that attempt still runs."""
        return attempt is self.attempt or attempt is self.hedge

    def let_go(self, kind: FailureKind | None) -> list[Choice]:
        """End whatever runs, as `kind`; returns whose place that leaves."""
        self.leave_line()
        running = [attempt for attempt in (self.attempt, self.hedge) if attempt is not None]
        for attempt in running:
            attempt.end(kind)
        self.attempt = self.hedge = None
        return [attempt.choice for attempt in running]

    def close_record(self, now_s: float = 0.0) -> None:
        """The exchange is over: tell of it once."""
        self.is_running = False
        if not self.outlet.writes_directly:
            caching.let_go(self)
        turn, self.turn = self.turn, None
        if turn is not None:
            turn.on_over()
        self.record.duration_s = (now_s or self.now_s()) - self.started_at_s
        self.relay.on_over(self)
        # The exchange and its answer know each other; let go, so that neither waits for the garbage collector.
        self.attempt = self.resumer = None
