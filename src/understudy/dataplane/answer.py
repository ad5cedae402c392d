"""One backend's answer on its way to the client: hold it back until its first content, then pass every piece on at once.

Bound to an upstream connection for one attempt by dataplane.relayed. Until the commit nothing has reached the client and the
attempt can be replaced; afterwards the bytes go through as they came, whole events at a time, after a cheap search. An answer
that is put together whole (engines.assembly) is kept instead of passed. Never chooses a backend: what the answer means is told
to its exchange.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from understudy import engines
from understudy.core.snapshot import EngineKind
from understudy.dataplane import completing, ending
from understudy.dataplane.attempt import RunningAttempt
from understudy.dataplane.heads import ResponseHead
from understudy.dataplane.outlet import COPY_BYTES_MAX
from understudy.dataplane.received import FOLD_BYTES
from understudy.dialects.contract import Ending, Mark, StreamKind
from understudy.dialects.events import is_sound
from understudy.dialects.framing import event_ends, whole_until
from understudy.dialects.token_ids import strip_ids
from understudy.errors import FailureKind

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

# What is kept of an answer before its first content, and of an error's body. An answer that is longer is passed on.
HELD_BYTES_MAX = 256 * 1024
ERROR_BYTES_MAX = 64 * 1024

# All that Ollama's /v1 lets a client see of its runner's death: an event without a model (golden/ollama/v1_chat_runner_lost.sse).
NO_MODEL = b'"model":""'
NEVER = b"\x00"  # in no JSON text: control characters are escaped there (RFC 8259, 7)

# What nearly every whole answer says; looked at first because it is cheap.
JSON = b"application/json"

# What is being done with the body. Plain numbers: an Enum's member costs 50 ns a look (Python 3.11), and each chunk looks.
AWAITING_HEAD, HOLDING_EVENTS, HOLDING_BODY, HOLDING_ERROR, PASSING_EVENTS, COLLECTING, PASSING_BODY, OVER = range(8)
_OF_EVENTS = (PASSING_EVENTS, COLLECTING)


class Answer:
    """One attempt's answer.

    `progress_at_s` is when it last moved (loop time), `is_begun` whether content has come, `kind` how its events are told apart
    (None: it is no stream of events).
    """

    is_begun = False
    kind: StreamKind | None = None
    _mode = AWAITING_HEAD
    _mode_at_end = OVER
    _head: ResponseHead | None = None
    _bytes = 0
    _kept_bytes = 0
    _reader: object = None
    _delimiter = b""
    _is_chunked = False
    _is_checked = False
    _lost_mark = NEVER
    _partial = b""
    _is_mid_event = False

    def __init__(self, exchange: "RelayedExchange", attempt: RunningAttempt, now_s: float) -> None:
        self.attempt = attempt
        self.progress_at_s = now_s
        self._exchange = exchange
        self._outlet = exchange.outlet
        self._record = exchange.record
        self._now_s = exchange.now_s
        self._write = exchange.write_to_client
        self._held: list[bytes] = []

    # --- from the connection

    def on_interim(self, status: int) -> None:
        """Pass a 1xx on, but for 100, which we have answered ourselves (RFC 9110, 15.2)."""
        if status != 100:
            self._exchange.write_interim(status)

    def on_head(self, head: ResponseHead, *, has_body: bool) -> None:
        """Decide what to do with the body; a request that is not generating is committed at once."""
        self._head = head
        exchange = self._exchange
        if not exchange.ask.is_generating:
            self._commit(has_body=has_body)
            self._mode = PASSING_BODY
        elif not 200 <= head.status < 300:
            self._mode = HOLDING_ERROR
        else:
            dialect = exchange.dialect
            if has_body and dialect is not None and not head.content_encoding and head.content_type != JSON:
                self.kind = dialect.stream_kind(head.content_type)
            if self.kind is not None and dialect is not None:
                self._delimiter = b"\n\n" if self.kind is StreamKind.SSE else b"\n"
                self._reader = dialect.reader(exchange.ask.path, self.kind)
                self._mode = HOLDING_EVENTS
            else:
                self._mode = HOLDING_BODY

    def on_body(self, data: bytes) -> None:
        """Take the next bytes. The hot path: one call a chunk, no await, no event object."""
        if self._mode != PASSING_EVENTS:
            self._take_early(data)
            return
        if self._partial or self._is_mid_event or not data.endswith(self._delimiter):
            data = self._whole_events(data)
            if not data:
                return
        # A comment (a colon first) or an empty line keeps a connection open but is no progress (engines.md, 2.1).
        if (data[0] != 58 or b"\ndata" in data) and (data[0] != 10 or data.strip()):
            self.progress_at_s = self._now_s()
        if b'"error"' in data and self._stops_at_error(data):
            return
        if self._is_checked and (not is_sound(data, self.kind) or self._lost_mark in data):
            self._stop_at_malformed(data)
            return
        self._keep(data)
        size = len(data)
        self._kept_bytes += size
        if self._kept_bytes > FOLD_BYTES:
            self._shrink()
        if self.attempt.takes_ids:
            data = strip_ids(data)
            size = len(data)
        if self._is_chunked and size <= COPY_BYTES_MAX:
            # As `Outlet.write` does it, without its calls: between two chunks everything else runs, so each call is a cold one.
            self._record.sent_bytes += size
            self._write(b"%x\r\n%b\r\n" % (size, data))
        else:
            self._outlet.write(data)

    def on_last(self) -> None:
        """The last byte has come: what the backend sends beyond it is nobody's."""
        self._mode_at_end, self._mode = self._mode, OVER

    def on_end(self, *, is_followed: bool) -> None:
        """The body is complete: whether the answer is, its dialect's terminator tells.

        `is_followed`: two answers to one request; as long as another backend can be asked neither is believed.
        """
        mode = self._mode if self._mode != OVER else self._mode_at_end
        self._mode = self._mode_at_end = OVER
        if is_followed and mode in (HOLDING_EVENTS, HOLDING_BODY, HOLDING_ERROR, COLLECTING):
            self._fail(FailureKind.BODY_MALFORMED)
        elif mode in _OF_EVENTS:
            self._end_events(FailureKind.UNFINISHED, mode)
        elif mode == PASSING_BODY:
            self._finish()
        elif mode == HOLDING_BODY and self._is_error_in_disguise():
            self._fail(FailureKind.ERROR_EVENT)
        elif mode == HOLDING_BODY:
            self._commit_whole()
            self._finish()
        elif mode == HOLDING_ERROR:
            self._end_error()
        elif mode == HOLDING_EVENTS:
            self._fail(FailureKind.UNFINISHED)

    def on_broken(self, kind: FailureKind) -> None:
        """The connection cannot complete the answer."""
        mode, self._mode = self._mode, OVER
        if mode in _OF_EVENTS:
            self._end_events(kind, mode)
        elif mode != OVER:
            self._fail(kind)

    def on_exception(self, error: BaseException) -> None:
        """Our own code raised."""
        self._mode = OVER
        self._exchange.on_exception(error)

    def detach(self) -> None:
        """Take no more bytes: the attempt is over."""
        self._mode = self._mode_at_end = OVER

    # --- before the commit

    def _take_early(self, data: bytes) -> None:
        mode = self._mode
        if mode == PASSING_BODY:
            self.progress_at_s = self._exchange.now_s()
            self._outlet.write(data)
        elif mode == HOLDING_EVENTS:
            self._hold_events(data)
        elif mode == COLLECTING:
            self._collect(data)
        elif mode != OVER:
            self.is_begun = True
            self.progress_at_s = self._exchange.now_s()
            self._held.append(data)
            self._bytes += len(data)
            if mode == HOLDING_ERROR and self._bytes > ERROR_BYTES_MAX:
                self._end_error()
            elif mode == HOLDING_BODY and self._bytes > HELD_BYTES_MAX:
                self._pass_on()

    def _hold_events(self, data: bytes) -> None:
        self._held.append(data)
        self._bytes += len(data)
        for mark in self._reader.feed(data):  # type: ignore[attr-defined]  # a StreamReader while events are held
            if mark is Mark.ERROR:
                self._mode = OVER
                self._fail(FailureKind.ERROR_EVENT)
                return
            if mark is Mark.CONTENT or mark is Mark.FINISH:
                self.attempt.is_wordless = mark is Mark.FINISH
                break
        else:
            if self._bytes <= HELD_BYTES_MAX:
                return
        self._reader = None
        self.is_begun = True
        self.progress_at_s = self._exchange.now_s()
        held = self._take_held()
        received = self._exchange.start_receiving(self.attempt)
        self._keep, self._received = received.keep, received
        # Where nothing depends on it an event that cannot be read passes as it came.
        self._is_checked = self._exchange.may_resume()
        if self.attempt.engine is EngineKind.OLLAMA:
            self._lost_mark = NO_MODEL
        if self.attempt.is_assembled:
            self._mode = COLLECTING
            self._exchange.on_content(self.attempt)
            self._collect(held)
            return
        self._mode = PASSING_EVENTS
        self._commit(has_body=True)
        if self._mode == PASSING_EVENTS and self._exchange.is_running:
            self.on_body(held)

    def _collect(self, data: bytes) -> None:
        """Keep the next events of an answer that the client gets whole."""
        data = self._whole_events(data)
        if data.strip(b"\n") and (data[0] != 58 or b"\ndata" in data):
            self.progress_at_s = self._now_s()
        if not data or (b'"error"' in data and self._stops_at_error(data)):
            return
        if not is_sound(data, self.kind) or self._lost_mark in data:
            self._stop_at_malformed(data)
            return
        self._keep(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > FOLD_BYTES:
            self._kept_bytes = 0
            if self._received.shrink():
                self._mode = OVER
                completing.stop_collecting(self._exchange, self.attempt)

    def _shrink(self) -> None:
        self._kept_bytes = 0
        if self._received.shrink():
            self._exchange.on_outgrown()

    def _take_held(self) -> bytes:
        held, self._held, self._bytes = self._held, [], 0
        return held[0] if len(held) == 1 else b"".join(held)

    def _is_error_in_disguise(self) -> bool:
        """Whether a success is none: its whole body is an error in the dialect's shape."""
        dialect, body = self._exchange.dialect, b"".join(self._held)
        if dialect is None or b'"error"' not in body:
            return False
        # Line breaks in JSON stand between its tokens only, so that the body is one event on a line.
        return dialect.has_error(self._exchange.ask.path, StreamKind.NDJSON, body.replace(b"\n", b" "))

    def _end_error(self) -> None:
        """An answer that is no success: the client's own fault is passed on, the rest is a failure of the attempt.

        Called at the body's end, or when more of it has come than is held back: then the rest follows as it comes.
        """
        head = self._head
        if head is None:
            return
        is_whole, self._mode = self._mode == OVER, OVER
        body = b"".join(self._held)
        retry_after = head.retry_after.decode("latin-1")
        kind = engines.classify(self.attempt.engine, status=head.status, retry_after=retry_after, body=body)
        if kind is not None:
            self._exchange.on_attempt_failed(
                self.attempt,
                kind,
                status=head.status,
                retry_after_s=engines.retry_after_s(retry_after),
                answer=(head.status, head.content_type, body),
            )
        elif is_whole:
            self._commit_whole()
            self._finish()
        else:
            self._pass_on()

    # --- commit and after

    def _commit(self, *, has_body: bool, whole: bytes | None = None) -> None:
        """Write the head, unless the client has one; `whole` is the body where all of it is here."""
        head, exchange = self._head, self._exchange
        if head is None:
            return
        exchange.on_commit(self.attempt, head.status)
        if not self._outlet.is_open:
            self._outlet.open(exchange, head, kind=self.kind, has_body=has_body, whole=whole)
        elif self.kind is None:
            # The client has been told to expect events, and this is none (a fault of its own, say).
            self._mode = OVER
            ending.tell_in_stream(exchange, head.status, whole if whole is not None else b"".join(self._held))
        self._is_chunked = self._outlet.is_chunked and self._outlet.writes_directly

    def _pass_on(self) -> None:
        """Commit to a body that is too long to be held back."""
        self._mode = PASSING_BODY
        self._commit(has_body=True)
        if self._exchange.is_running:
            self._outlet.write(self._take_held())

    def _commit_whole(self) -> None:
        """Write head and body in one piece. A head whose body HEAD or 304 leave out keeps its length."""
        head = self._head
        if head is not None and not self._held and (head.status == 304 or self._exchange.is_head):
            self._commit(has_body=False)
            return
        self._commit(has_body=True, whole=self._take_held() if self._held else b"")

    def _whole_events(self, data: bytes) -> bytes:
        """Return the events that are whole now and keep the rest, so that a break never leaves the client half an event."""
        if self.kind is None:
            return data
        data = self._partial + data
        end = whole_until(data, self.kind)
        self._partial = data[end:]
        if len(self._partial) > self._outlet.partial_bytes_max and self._mode == PASSING_EVENTS:
            self._partial = b""
            self._is_mid_event = self._outlet.is_mid_event = self._received.is_cut = True
            self._is_checked = False
            return data
        if self._is_mid_event and end:
            self._is_mid_event = self._outlet.is_mid_event = False
        return data[:end]

    def _stops_at_error(self, data: bytes) -> bool:
        """Whether a look at the events finds an error: what came before it is passed on, the rest is not."""
        dialect, kind, path = self._exchange.dialect, self.kind, self._exchange.ask.path
        if kind is None or dialect is None or not dialect.has_error(path, kind, data):
            return False
        self._stop_at(FailureKind.ERROR_EVENT, data, lambda event: dialect.has_error(path, kind, event))
        return True

    def _stop_at_malformed(self, data: bytes) -> None:
        """An event cannot be read, or is Ollama's sign of a lost runner: what came before it is passed on, the rest is not."""
        kind, mark = self.kind, self._lost_mark
        self._stop_at(FailureKind.EVENT_MALFORMED, data, lambda event: mark in event or not is_sound(event, kind))

    def _stop_at(self, failure: FailureKind, data: bytes, is_bad: Callable[[bytes], bool]) -> None:
        end = 0
        for following in event_ends(data, self.kind or StreamKind.SSE):
            if is_bad(data[end:following]):
                break
            end = following
        mode, self._mode = self._mode, OVER
        if end:
            self._keep(data[:end])
            if mode == PASSING_EVENTS:
                self._outlet.write(strip_ids(data[:end]) if self.attempt.takes_ids else data[:end])
        self._fail(failure)

    def _end_events(self, otherwise: FailureKind, mode: int) -> None:
        """The connection has nothing more: a finished answer is complete however it ended, any other is broken."""
        if self._partial and otherwise is FailureKind.UNFINISHED:
            partial, self._partial = self._partial, b""
            if b'"error"' in partial and self._stops_at_error(partial):
                return
            # A last event may lack its blank line, but half of one is nobody's.
            if is_sound(partial, self.kind):
                self._keep(partial)
                if mode == PASSING_EVENTS:
                    self._outlet.write(partial)
        ending = self._read_ending()
        if ending is Ending.FINISHED and mode == COLLECTING:
            completing.finish_assembled(self._exchange, self.attempt)
        elif ending is Ending.FINISHED:
            self._finish()
        else:
            self._fail(FailureKind.ERROR_EVENT if ending is Ending.ERROR else otherwise)

    def _read_ending(self) -> Ending:
        dialect, kind = self._exchange.dialect, self.kind
        if dialect is None or kind is None:
            return Ending.UNFINISHED
        return dialect.read_ending(self._exchange.ask.path, kind, self._received.tail())

    def _fail(self, kind: FailureKind) -> None:
        self._exchange.on_attempt_failed(self.attempt, kind)

    def _finish(self) -> None:
        if self._exchange.has(self.attempt):
            self._outlet.end()
            self._exchange.on_finished(self.attempt)
