"""One client's connection: read requests strictly, hand each whole one to the relay, write what comes back.

Made by dataplane.listener for every accepted connection. Answers by itself only what never becomes an exchange (malformed,
too large, too slow). Never chooses a backend and never looks into an answer.
"""

import asyncio
import socket
import struct
from typing import Protocol, cast

from understudy.core.snapshot import Limits
from understudy.dataplane.bodies import ChunkedBody, SizedBody
from understudy.dataplane.heads import Refusal, RequestHead, looks_malformed, own_response, read_request_head

# Unsent bytes towards a slow client at which the backend is no longer read (faults: at most 256 KiB a stream).
WRITE_BUFFER_BYTES_MAX = 256 * 1024
# Pipelined bytes kept while an exchange runs; more are left in the kernel.
PIPELINED_BYTES_MAX = 64 * 1024
# Bytes read and thrown away after a refusal, so that the client gets to read it (RFC 9112, 9.6).
LINGER_BYTES_MAX = 1024 * 1024
LINGER_S = 2.0
TCP_STATE_CLOSED = 7
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Running(Protocol):
    """What a connection needs of the exchange that it carries."""

    def on_client_gone(self) -> None:
        """The client has left."""

    def on_downstream_full(self) -> None:
        """Stop reading the backend: the client does not keep up."""

    def on_downstream_ready(self) -> None:
        """Read on."""


class Taker(Protocol):
    """Who takes whole requests: the relay."""

    limits: Limits
    body_bytes_max: int
    is_stopping: bool

    def admit(self, connection: "DownstreamConnection") -> bool:
        """Count a new connection; False when there is no room for it."""

    def take(self, connection: "DownstreamConnection", head: RequestHead, body: bytes) -> None:
        """Answer a request, at once or by and by; sets the connection's `running` while an exchange lasts."""

    def forget(self, connection: "DownstreamConnection") -> None:
        """The connection is closed."""

    def refuse(self, connection: "DownstreamConnection", refusal: Refusal, head: RequestHead | None) -> bytes:
        """Write the answer to a request that cannot be accepted."""

    def now_s(self) -> float:
        """Return the loop's time."""


class DownstreamConnection(asyncio.Protocol):
    """The protocol object of one client connection."""

    __slots__ = (
        "_body",
        "_has_answered",
        "_head",
        "_is_dirty",
        "_is_lingering",
        "_is_paused",
        "_is_reading",
        "_lingered_bytes",
        "_pending",
        "_taker",
        "_unsent_bytes",
        "deadline_at_s",
        "is_half_closed",
        "peer",
        "running",
        "transport",
    )

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        # For the connection.
        self.transport: asyncio.Transport | None = None
        self.peer = b""
        self.running: Running | None = None
        self.is_half_closed = False
        self.deadline_at_s = 0.0
        self._pending = b""
        self._is_paused = False
        self._is_dirty = False
        self._is_reading = False
        self._is_lingering = False
        self._lingered_bytes = 0
        self._unsent_bytes = 0
        # For the current request; cleared by finish().
        self._head: RequestHead | None = None
        self._body: SizedBody | ChunkedBody | None = None
        self._has_answered = False

    # --- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start reading, unless the daemon is full."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.peer = str(peer[0]).encode()
        self.deadline_at_s = self._taker.now_s() + self._taker.limits.head_timeout_s
        if not self._taker.admit(self):
            self.refuse(Refusal(503, "understudy has no room for another connection"))

    def data_received(self, data: bytes) -> None:
        """Read a request, or keep the bytes of the next one until this one is answered."""
        if self.running is not None:
            self._pending += data
            if len(self._pending) > PIPELINED_BYTES_MAX and self.transport is not None:
                self.transport.pause_reading()
                self._is_paused = True
        elif self._is_lingering:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > LINGER_BYTES_MAX:
                self.abort()
        elif self._pending:
            data, self._pending = self._pending + data, b""
            self._read(data, is_first=False)
        else:
            self._read(data, is_first=True)

    def eof_received(self) -> bool:
        """A client may close its sending side and still read (RFC 9112, 9.5); whether it left, a write must tell."""
        self.is_half_closed = True
        if self.running is None:
            return False
        if self._head is not None and not self._head.is_http10 and not self._has_answered and self.transport is not None:
            # An interim response is ignored by one who still reads and reset by the kernel of one who left.
            self.transport.write(CONTINUE)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the exchange, if there is one."""
        self.transport = None
        self._taker.forget(self)
        if self.running is not None:
            running, self.running = self.running, None
            running.on_client_gone()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self._is_dirty = True
        if self.running is not None:
            self.running.on_downstream_full()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._is_dirty = False
        if self.running is not None:
            self.running.on_downstream_ready()

    # --- reading

    def _read(self, data: bytes, *, is_first: bool) -> None:
        """Read as many requests as can be answered at once; keep what belongs to a later one.

        `is_first`: the first of `data` is the first that has come of its request, so the head's clock starts now.
        """
        while self.transport is not None and not self._is_lingering:
            if self._body is None:
                rest = self._read_head(data, is_first=is_first)
                if rest is None:
                    return
                data = rest
            body = self._body
            if body is None or self._head is None or not self._feed(body, data) or not body.is_complete:
                return
            self.deadline_at_s = 0.0
            self._pending = body.rest
            self._is_reading = True
            self._taker.take(self, self._head, body.take())
            self._is_reading = False
            if self.running is not None or not self._pending:
                return
            data, self._pending, is_first = self._pending, b"", True

    def _read_head(self, data: bytes, *, is_first: bool) -> bytes | None:
        """Read one head from `data`; return what follows it, None when it is incomplete (and kept) or refused."""
        if data.startswith(b"\r\n"):
            data = data[2:]  # RFC 9112, 2.2: an empty line before a request is to be ignored.
        limits = self._taker.limits
        end = data.find(b"\r\n\r\n")
        if end < 0 or end + 4 > limits.head_bytes_max:
            self._keep_partial_head(data, limits, is_first=is_first)
            return None
        head = read_request_head(data[: end + 4], limits)
        if isinstance(head, Refusal):
            self.refuse(head)
            return None
        self._head = head
        self._has_answered = False
        bytes_max = self._taker.body_bytes_max
        if head.content_length > bytes_max:
            self.refuse(Refusal(413, f"the request body is larger than {bytes_max} bytes"))
            return None
        rest = data[end + 4 :]
        self._body = ChunkedBody(bytes_max) if head.is_chunked else SizedBody(max(head.content_length, 0))
        if (
            head.expects_continue
            and not rest
            and not self._body.is_complete
            and not head.is_http10
            and self.transport is not None
        ):
            self.transport.write(CONTINUE)
        if not rest:
            self.deadline_at_s = self._taker.now_s() + limits.body_timeout_s
        return rest

    def _keep_partial_head(self, data: bytes, limits: Limits, *, is_first: bool) -> None:
        if len(data) > limits.head_bytes_max:
            is_target = b"\r\n" not in data[: limits.target_bytes_max]
            self.refuse(Refusal(414 if is_target else 431, f"the request head is longer than {limits.head_bytes_max} bytes"))
        elif data and looks_malformed(data):
            self.refuse(Refusal(400, "the request is not HTTP/1.1"))
        else:
            self._pending = data
            if is_first and data:
                # The head's deadline is absolute: it runs from its first byte, not from the last one.
                self.deadline_at_s = self._taker.now_s() + limits.head_timeout_s

    def _feed(self, body: SizedBody | ChunkedBody, data: bytes) -> bool:
        if not body.feed(data):
            self.refuse(Refusal(400, "the chunked request body is malformed"))
            return False
        if body.is_too_large:
            self.refuse(Refusal(413, f"the request body is larger than {self._taker.body_bytes_max} bytes"))
            return False
        if data and not body.is_complete:
            self.deadline_at_s = self._taker.now_s() + self._taker.limits.body_timeout_s
        return True

    # --- for the relay

    def write(self, data: bytes) -> None:
        """Send bytes of the answer; does nothing after the client has left."""
        if self.transport is not None:
            self._has_answered = True
            self.transport.write(data)

    def write_interim(self, data: bytes) -> None:
        """Send a 1xx response, which is no answer yet."""
        if self.transport is not None:
            self.transport.write(data)

    def finish(self, *, keeps_alive: bool) -> None:
        """The answer is complete: read the next request, or close."""
        self.running = None
        self._head = None
        self._body = None
        if self.transport is None:
            return
        if not keeps_alive or self.is_half_closed or self._taker.is_stopping:
            self.transport.close()
            return
        self.deadline_at_s = self._taker.now_s() + self._taker.limits.idle_timeout_s
        if self._is_paused:
            self.transport.resume_reading()
            self._is_paused = False
        if self._pending and not self._is_reading:
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        """Read a request that was pipelined behind the one just answered."""
        if self._pending and self.running is None:
            data, self._pending = self._pending, b""
            self._read(data, is_first=True)

    def close(self) -> None:
        """Send what is written, then close; the answer is not complete, which the client sees from its framing."""
        self.running = None
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close at once, with a reset: for answers whose only end is the connection's, so that a cut one is told."""
        self.running = None
        if self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            if sock is not None and sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def refuse(self, refusal: Refusal) -> None:
        """Answer what cannot be accepted and close, after reading a little more so that the answer is not lost to a reset."""
        if self.transport is None:
            return
        head, self._head, self._body, self._pending = self._head, None, None, b""
        self.transport.write(self._taker.refuse(self, refusal, head))
        if self.transport.can_write_eof() and not self.is_half_closed:
            self.transport.write_eof()
            self._is_lingering = True
            self.deadline_at_s = self._taker.now_s() + LINGER_S
        else:
            self.transport.close()

    def on_deadline(self, now_s: float) -> None:
        """The deadline has passed: a slow head or body gets 408, an idle connection is closed."""
        del now_s
        if self._is_lingering or self.transport is None:
            self.abort()
        elif self._body is not None or self._pending:
            self.refuse(Refusal(408, "the request did not arrive in time"))
        else:
            self.transport.close()

    def is_idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self.running is None and self._head is None and not self._pending

    def has_left(self) -> bool:
        """After a half-close: whether the client's kernel has answered a write with a reset meanwhile."""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is None or sock.family == socket.AF_UNIX:
            return self.transport is None or self.transport.is_closing()
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return bool(info[0] == TCP_STATE_CLOSED)

    def has_progress(self) -> bool:
        """Whether a client that does not keep up has taken anything since the last call."""
        unsent_bytes = self.transport.get_write_buffer_size() if self.transport is not None else 0
        has_moved = unsent_bytes != self._unsent_bytes or not self._is_dirty
        self._unsent_bytes = unsent_bytes
        return has_moved
