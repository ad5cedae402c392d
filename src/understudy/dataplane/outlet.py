"""The client's side of one answer: its head is written once, then its body piece by piece, in the framing the head announced.

Made by dataplane.relayed for every exchange; written to by whichever attempt has the word (dataplane.answer or continued). Knows
no event and decides nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from understudy.core.record import ExchangeRecord
from understudy.dataplane.heads import ResponseHead, status_line
from understudy.dialects.contract import StreamKind

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

COPY_BYTES_MAX = 16 * 1024
NO_CACHE = b"Cache-Control: no-cache\r\n"
# A proxy in front of this one must not hold tokens back (nginx, ngx_http_proxy_module, X-Accel-Buffering).
NO_BUFFERING = b"X-Accel-Buffering: no\r\n"
EVENT_STREAM = b"Content-Type: text/event-stream\r\n"
COMMENT = b":\n\n"


def own_fields(exchange: "RelayedExchange") -> bytes:
    """Return the fields that say what was done, as lines with CRLF."""
    record, turn = exchange.record, exchange.turn
    name = record.backend or (record.attempts[-1].backend if record.attempts else "")
    backend = b"X-Understudy-Backend: %b\r\n" % name.encode() if name else b""
    session = turn.fields() if turn is not None else b""
    color = _color_fields(exchange) if record.color else b""
    return b"%bX-Understudy-Attempts: %d\r\n%b%bX-Request-ID: %b\r\n" % (
        backend,
        exchange.exchange.attempts,
        color,
        session,
        exchange.request_id,
    )


def _color_fields(exchange: "RelayedExchange") -> bytes:
    """Return the color as a field line and, where the client is to be kept on it by a cookie, that one."""
    record, colored, coloring = exchange.record, exchange.colored, exchange.relay.coloring
    # Whose answer it will be is not known while the client only waits.
    is_known = bool(record.backend) or record.failure is not None
    line = b"X-Understudy-Color: %b\r\n" % record.color.encode() if is_known and record.attempts else b""
    if colored is None or not colored.wants_cookie or coloring is None or record.failure is not None:
        return line
    return line + coloring.cookie_line(record.color if is_known else str(colored.color), colored)


class Outlet:
    """Where the answer goes.

    `is_open`: the head is written. `kind` is how events are told apart, None where the body is no stream of events;
    `is_mid_event`: the last bytes written are a part of an event, so that nothing of our own may come between.
    """

    # Whether a piece may be written past `write`, in the framing that this announced.
    writes_directly = True
    # A part of an event is held back until the rest has come, up to this size.
    partial_bytes_max = 64 * 1024
    is_open = False
    is_chunked = False
    is_mid_event = False
    kind: StreamKind | None = None

    def __init__(self, record: ExchangeRecord, write_to_client: Callable[[bytes], None]) -> None:
        # Not the exchange: what knows each other waits for the garbage collector, which costs a fifth of a request.
        self._record = record
        self._write_to_client = write_to_client

    def open(
        self,
        exchange: "RelayedExchange",
        head: ResponseHead,
        *,
        kind: StreamKind | None,
        whole: bytes | None = None,
        has_body: bool = True,
        lines: bytes = b"",
    ) -> None:
        """Write the head; `whole` is the body where all of it is here, `lines` stand in for the head's own where given."""
        self.is_open = True
        self.kind = kind
        length = len(whole) if whole is not None else head.content_length if kind is None else -1
        if head.status == 204:
            length, has_body = -1, False  # RFC 9110, 8.6 and 15.3.5
        keeps_alive = exchange.keeps_alive
        framing = b""
        if length >= 0:
            framing = b"Content-Length: %d\r\n" % length
        elif has_body and exchange.is_http10:
            keeps_alive = False
        elif has_body:
            self.is_chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        if kind is not None:
            framing += (b"" if head.has_cache_control else NO_CACHE) + (b"" if head.has_buffering else NO_BUFFERING)
        if not keeps_alive:
            framing += b"Connection: close\r\n"
        elif exchange.is_http10:
            framing += b"Connection: keep-alive\r\n"
        exchange.keeps_alive = keeps_alive
        start = b"%b%b%b%b\r\n" % (status_line(head.status), lines or b"".join(head.lines), own_fields(exchange), framing)
        self._send(start + whole if whole else start, len(whole) if whole else 0)

    def open_early(self, exchange: "RelayedExchange") -> None:
        """Begin an event stream before any backend has: the client waits, and hears from now on that it still does."""
        head = ResponseHead()
        head.status = self._record.status = 200
        self.open(exchange, head, kind=StreamKind.SSE, lines=EVENT_STREAM)

    def _send(self, data: bytes, body_bytes: int) -> None:
        self._record.sent_bytes += body_bytes
        self._write_to_client(data)

    def write(self, data: bytes) -> None:
        """Write the next bytes of the body; none would be its end in chunked framing (RFC 9112, 7.1)."""
        if not data:
            return
        size = len(data)
        if not self.is_chunked:
            self._send(data, size)
        elif size <= COPY_BYTES_MAX:
            self._send(b"%x\r\n%b\r\n" % (size, data), size)
        else:
            self._send(b"%x\r\n" % size, 0)
            self._send(data, size)
            self._send(b"\r\n", 0)

    def end(self) -> None:
        """Write the end of the body."""
        if self.is_chunked:
            self._send(b"0\r\n\r\n", 0)

    def write_comment(self) -> None:
        """Write a comment between two events (WHATWG HTML, 9.2.6); only server-sent events have such a thing."""
        if self.is_open and self.kind is StreamKind.SSE and not self.is_mid_event:
            self.write(COMMENT)

    def write_last(self, event: bytes) -> None:
        """Write one event of our own, after which nothing follows: no last chunk, so that the cut is seen either way."""
        delimiter = b"\n\n" if self.kind is StreamKind.SSE else b"\n"
        self.write(delimiter + event if self.is_mid_event else event)
