"""One backend's answer on its way to the client: hold it back until its first content, then pass every piece on at once.

Bound to an upstream connection for one attempt by dataplane.relayed. Until the commit nothing has reached the client and the
attempt can be replaced; afterwards the bytes go through as they came, whole events at a time, after a cheap search.
Never chooses a backend: what the answer means is told to its exchange.
"""

from collections import deque
from typing import TYPE_CHECKING

from understudy import engines
from understudy.core.balancer import Choice
from understudy.dataplane.heads import ResponseHead, status_line
from understudy.dialects.contract import Ending, Mark, StreamKind
from understudy.dialects.framing import event_ends, whole_until
from understudy.errors import FailureKind

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

# What is kept of an answer before its first content, and of an error's body. An answer that is longer is passed on.
HELD_BYTES_MAX = 256 * 1024
ERROR_BYTES_MAX = 64 * 1024
# A part of an event is held back until the rest has come, up to this size.
PARTIAL_BYTES_MAX = 64 * 1024
# The last pieces, which tell at the end whether the answer was finished.
TAIL_PIECES = 12
TAIL_PIECE_BYTES_MAX = 4 * 1024
# The last event of /v1/responses repeats the whole answer, and only a whole event can be read.
TAIL_PIECE_BYTES_MAX_RESPONSES = 1024 * 1024
COPY_BYTES_MAX = 16 * 1024

# What nearly every whole answer says; looked at first because it is cheap.
JSON = b"application/json"
NO_CACHE = b"Cache-Control: no-cache\r\n"
# A proxy in front of this one must not hold tokens back (nginx, ngx_http_proxy_module, X-Accel-Buffering).
NO_BUFFERING = b"X-Accel-Buffering: no\r\n"


# Stands in until an answer turns out to be a stream of events.
_NO_TAIL: deque[bytes] = deque(maxlen=0)


# What is being done with the body. Plain numbers: an Enum's member costs 50 ns a look (Python 3.11), and each chunk looks.
AWAITING_HEAD, HOLDING_EVENTS, HOLDING_BODY, HOLDING_ERROR, PASSING_EVENTS, PASSING_BODY, OVER = range(7)


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
    _reader: object = None
    _delimiter = b""
    _is_chunked = False
    _partial = b""
    _is_mid_event = False
    _tail = _NO_TAIL
    _tail_bytes_max = TAIL_PIECE_BYTES_MAX

    def __init__(self, exchange: "RelayedExchange", choice: Choice, now_s: float) -> None:
        self.choice = choice
        self.progress_at_s = now_s
        self._exchange = exchange
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
                self._tail = deque(maxlen=TAIL_PIECES)
                self._delimiter = b"\n\n" if self.kind is StreamKind.SSE else b"\n"
                if exchange.ask.path == "/v1/responses":
                    self._tail_bytes_max = TAIL_PIECE_BYTES_MAX_RESPONSES
                self._reader = dialect.reader(exchange.ask.path, self.kind)
                self._mode = HOLDING_EVENTS
            else:
                self._mode = HOLDING_BODY

    def on_body(self, data: bytes) -> None:
        """Take the next bytes. The hot path: one call a chunk, no await, no event object."""
        if self._mode != PASSING_EVENTS:
            self._take_early(data)
            return
        if self._partial or not data.endswith(self._delimiter):
            data = self._whole_events(data)
            if not data:
                return
        # A comment (a colon first) keeps a connection open but is no progress (engines.md, 2.1).
        # So does an empty line.
        if (data[0] != 58 or b"\ndata" in data) and (data[0] != 10 or data.strip()):
            self.progress_at_s = self._now_s()
        if b'"error"' in data and self._stops_at_error(data):
            return
        self._tail.append(data[-self._tail_bytes_max :])
        size = len(data)
        if self._is_chunked and size <= COPY_BYTES_MAX:
            # As `_pass` does it, without its calls: between two chunks everything else runs, so that each call is a cold one.
            self._record.sent_bytes += size
            self._write(b"%x\r\n%b\r\n" % (size, data))
        else:
            self._pass(data)

    def on_last(self) -> None:
        """The last byte has come: what the backend sends beyond it is nobody's."""
        self._mode_at_end, self._mode = self._mode, OVER

    def on_end(self, *, is_followed: bool) -> None:
        """The body is complete: whether the answer is, its dialect's terminator tells.

        `is_followed`: two answers to one request. Which of them is meant nobody knows, so as long as another backend can be
        asked neither is believed.
        """
        mode = self._mode if self._mode != OVER else self._mode_at_end
        self._mode = self._mode_at_end = OVER
        exchange = self._exchange
        if is_followed and mode in (HOLDING_EVENTS, HOLDING_BODY, HOLDING_ERROR):
            exchange.on_attempt_failed(FailureKind.BODY_MALFORMED)
        elif mode == PASSING_EVENTS:
            self._end_events(FailureKind.UNFINISHED)
        elif mode == PASSING_BODY:
            self._finish()
        elif mode == HOLDING_BODY and self._is_error_in_disguise():
            exchange.on_attempt_failed(FailureKind.ERROR_EVENT)
        elif mode == HOLDING_BODY:
            self._commit_whole()
            self._finish()
        elif mode == HOLDING_ERROR:
            self._end_error()
        elif mode == HOLDING_EVENTS:
            exchange.on_attempt_failed(FailureKind.UNFINISHED)

    def on_broken(self, kind: FailureKind) -> None:
        """The connection cannot complete the answer."""
        mode, self._mode = self._mode, OVER
        if mode == PASSING_EVENTS:
            self._end_events(kind)
        elif mode != OVER:
            self._exchange.on_attempt_failed(kind)

    def on_exception(self, error: BaseException) -> None:
        """Our own code raised."""
        self._mode = OVER
        self._exchange.on_exception(error)

    def detach(self) -> None:
        """Take no more bytes: the attempt is over."""
        self._mode = self._mode_at_end = OVER

    def pass_last(self, event: bytes) -> None:
        """Write one event of our own, after which nothing follows: no last chunk, so that the cut is seen either way."""
        self._pass(self._delimiter + event if self._is_mid_event else event)

    def is_finished(self) -> bool:
        """Whether the events passed on so far are a whole answer, though its body has not ended."""
        dialect = self._exchange.dialect
        if dialect is None or self.kind is None or not self._tail:
            return False
        return dialect.read_ending(self._exchange.ask.path, self.kind, b"".join(self._tail)) is Ending.FINISHED

    def pass_end(self) -> None:
        """Write the end of the body."""
        if self._is_chunked:
            self._exchange.write(b"0\r\n\r\n", 0)

    def pass_comment(self) -> None:
        """Write a comment between two events (WHATWG HTML, 9.2.6)."""
        if self._mode == PASSING_EVENTS and self.kind is StreamKind.SSE and not self._is_mid_event:
            self._pass(b":\n\n")

    # --- before the commit

    def _take_early(self, data: bytes) -> None:
        mode = self._mode
        if mode == PASSING_BODY:
            self.progress_at_s = self._exchange.now_s()
            self._pass(data)
        elif mode == HOLDING_EVENTS:
            self._hold_events(data)
        elif mode != OVER:
            self.is_begun = True
            self.progress_at_s = self._exchange.now_s()
            self._held.append(data)
            self._bytes += len(data)
            if mode == HOLDING_ERROR and self._bytes > ERROR_BYTES_MAX:
                self._end_error()
            elif mode == HOLDING_BODY and self._bytes > HELD_BYTES_MAX:
                self._mode = PASSING_BODY
                self._commit(has_body=True)
                self._pass(self._take_held())

    def _hold_events(self, data: bytes) -> None:
        self._held.append(data)
        self._bytes += len(data)
        for mark in self._reader.feed(data):  # type: ignore[attr-defined]  # a StreamReader while events are held
            if mark is Mark.ERROR:
                self._mode = OVER
                self._exchange.on_attempt_failed(FailureKind.ERROR_EVENT)
                return
            if mark is Mark.CONTENT or mark is Mark.FINISH:
                break
        else:
            if self._bytes <= HELD_BYTES_MAX:
                return
        self._reader = None
        self._mode = PASSING_EVENTS
        self.is_begun = True
        self.progress_at_s = self._exchange.now_s()
        held = self._take_held()
        self._commit(has_body=True)
        if self._mode == PASSING_EVENTS and self._exchange.is_running:
            self.on_body(held)

    def _take_held(self) -> bytes:
        held = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held = []
        self._bytes = 0
        return held

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
        kind = engines.classify(self.choice.target.state.engine, status=head.status, retry_after=retry_after, body=body)
        if kind is not None:
            self._exchange.on_attempt_failed(
                kind,
                status=head.status,
                retry_after_s=engines.retry_after_s(retry_after),
                answer=(head.status, head.content_type, body),
            )
        elif is_whole:
            self._commit_whole()
            self._finish()
        else:
            self._mode = PASSING_BODY
            self._commit(has_body=True)
            self._pass(self._take_held())

    # --- commit and after

    def _commit(self, *, has_body: bool, whole: bytes | None = None) -> None:
        """Write the head; `whole` is the body where all of it is here."""
        head, exchange = self._head, self._exchange
        if head is None:
            return
        length = len(whole) if whole is not None else head.content_length if self.kind is None else -1
        if head.status == 204:
            length = -1  # RFC 9110, 8.6
        keeps_alive = exchange.keeps_alive
        framing = b""
        if length >= 0:
            framing = b"Content-Length: %d\r\n" % length
        elif has_body and exchange.is_http10:
            keeps_alive = False
        elif has_body:
            self._is_chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        if self.kind is not None:
            framing += (b"" if head.has_cache_control else NO_CACHE) + (b"" if head.has_buffering else NO_BUFFERING)
        if not keeps_alive:
            framing += b"Connection: close\r\n"
        elif exchange.is_http10:
            framing += b"Connection: keep-alive\r\n"
        exchange.on_commit(head.status, keeps_alive=keeps_alive)
        start = b"%b%b%b%b\r\n" % (status_line(head.status), b"".join(head.lines), exchange.own_fields(), framing)
        exchange.write(start + whole if whole else start, len(whole) if whole else 0)

    def _commit_whole(self) -> None:
        """Write head and body in one piece. A head that announced a body which HEAD or 304 leave out keeps its length."""
        head = self._head
        if head is not None and not self._held and (head.status == 304 or self._exchange.is_head):
            self._commit(has_body=False)
        else:
            self._commit(has_body=True, whole=self._take_held() if self._held else b"")

    def _pass(self, data: bytes) -> None:
        size = len(data)
        if not self._is_chunked:
            self._exchange.write(data, size)
        elif size <= COPY_BYTES_MAX:
            self._exchange.write(b"%x\r\n%b\r\n" % (size, data), size)
        else:
            self._exchange.write(b"%x\r\n" % size, 0)
            self._exchange.write(data, size)
            self._exchange.write(b"\r\n", 0)

    def _whole_events(self, data: bytes) -> bytes:
        """Return the events that are whole now and keep the rest, so that a break never leaves the client half an event."""
        if self.kind is None:
            return data
        data = self._partial + data
        end = whole_until(data, self.kind)
        self._partial = data[end:]
        if len(self._partial) > PARTIAL_BYTES_MAX:
            self._partial = b""
            self._is_mid_event = True
            return data
        self._is_mid_event = self._is_mid_event and not end
        return data[:end]

    def _stops_at_error(self, data: bytes) -> bool:
        """Whether a look at the events finds an error: what came before it is passed on, the rest is not."""
        exchange = self._exchange
        dialect, kind, path = exchange.dialect, self.kind, exchange.ask.path
        if kind is None or dialect is None or not dialect.has_error(path, kind, data):
            return False
        end = 0
        for following in event_ends(data, kind):
            if dialect.has_error(path, kind, data[end:following]):
                break
            end = following
        if end:
            self._pass(data[:end])
        self._mode = OVER
        exchange.on_attempt_failed(FailureKind.ERROR_EVENT)
        return True

    def _end_events(self, otherwise: FailureKind) -> None:
        """The connection has nothing more: a finished answer is complete however it ended, any other is broken."""
        exchange = self._exchange
        if self._partial and otherwise is FailureKind.UNFINISHED:
            partial, self._partial = self._partial, b""
            if b'"error"' in partial and self._stops_at_error(partial):
                return
            self._tail.append(partial)
            self._pass(partial)
        ending = Ending.UNFINISHED
        if exchange.dialect is not None and self.kind is not None:
            ending = exchange.dialect.read_ending(exchange.ask.path, self.kind, b"".join(self._tail))
        if ending is Ending.FINISHED:
            self._finish()
        else:
            exchange.on_attempt_failed(FailureKind.ERROR_EVENT if ending is Ending.ERROR else otherwise)

    def _finish(self) -> None:
        self.pass_end()
        self._exchange.on_finished()
