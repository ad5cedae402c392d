"""One client's connection: read requests strictly, hand each whole one to the relay, write what comes back.

Made by dataplane.listener for every accepted connection. Answers by itself only what never becomes an exchange (malformed,
too large, too slow). Never chooses a backend and never looks into an answer.
"""

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from array import array
from typing import cast

from understudy.core.snapshot import Limits
from understudy.dataplane.bodies import ChunkedBody, SizedBody
from understudy.dataplane.contract import Running, Taker
from understudy.dataplane.heads import Rejection, RequestHead, looks_malformed, read_request_head

# Unsent bytes towards a slow client at which the backend is no longer read (faults: at most 256 KiB a stream).
WRITE_BUFFER_BYTES_MAX = 256 * 1024
# Pipelined bytes kept while an exchange runs; more are left in the kernel.
PIPELINED_BYTES_MAX = 64 * 1024
# Bytes read and thrown away after a rejection, so that the client gets to read it (RFC 9112, 9.6).
LINGER_BYTES_MAX = 1024 * 1024
LINGER_S = 2.0
# A body has `limits.body_timeout` for each step of this size: byte by byte is no progress.
BODY_STEP_BYTES = 1024
TCP_STATE_CLOSED = 7
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class DownstreamConnection(asyncio.Protocol):
    """The protocol object of one client connection."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_has_answered",
        "_head",
        "_head_before",
        "_is_lingering",
        "_is_paused",
        "_is_reading",
        "_lingered_bytes",
        "_pending",
        "_raw_before",
        "_taker",
        "_unsent_bytes",
        "deadline_at_s",
        "is_full",
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
        self.is_full = False
        self.deadline_at_s = 0.0
        self._pending = b""
        self._is_paused = False
        self._is_reading = False
        self._is_lingering = False
        self._lingered_bytes = 0
        self._unsent_bytes = 0
        self._raw_before = b""
        self._head_before: RequestHead | None = None
        # For the current request; cleared by finish().
        self._head: RequestHead | None = None
        self._body: SizedBody | ChunkedBody | None = None
        self._body_bytes = 0
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
            self.refuse(Rejection(503, "understudy has no room for another connection"))

    def data_received(self, data: bytes) -> None:
        """Read a request, or keep the bytes of the next one until this one is answered."""
        if self.running is not None:
            self._pending += data
            if len(self._pending) > PIPELINED_BYTES_MAX:
                self._pause()
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
        self.running.on_half_closed()
        if not self._has_answered and self.transport is not None and self._head is not None and not self._head.is_http10:
            # An interim response is ignored by one who still reads and reset by the kernel of one who left.
            self.transport.write(CONTINUE)
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Tell the exchange, if there is one."""
        self.transport = None
        self._taker.forget(self)
        if self.running is not None:
            running, self.running = self.running, None
            running.on_client_gone()

    def pause_writing(self) -> None:
        """The client does not keep up."""
        self.is_full = True
        if self.running is not None:
            self.running.on_downstream_full()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.is_full = False
        if self.running is None:
            self._resume()
            self._read_on()
        else:
            self.running.on_downstream_ready()

    # --- reading

    def _read(self, data: bytes, *, is_first: bool) -> None:
        """Read as many requests as can be answered at once; keep what belongs to a later one.

        `is_first`: the first of `data` is the first that has come of its request, so the head's clock starts now.
        """
        while self.transport is not None and not self._is_lingering:
            if self._head is None:
                rest = self._read_head(data, is_first=is_first)
                if rest is None:
                    return
                data = rest
            head, body = self._head, self._body
            if head is None:
                return
            if body is None:
                # Nearly every request comes whole, in the same bytes as its head.
                length = max(head.content_length, 0)
                whole, self._pending = data[:length], data[length:]
            elif self._feed(body, data) and body.is_complete:
                whole, self._pending = body.take(), body.rest
            else:
                return
            self.deadline_at_s = 0.0
            self._is_reading = True
            self._taker.take(self, head, whole)
            self._is_reading = False
            if self.running is not None or not self._pending:
                return
            if self.is_full:
                # One who reads no answers gets no further ones: resume_writing goes on.
                self._pause()
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
        raw = data[: end + 4]
        if raw == self._raw_before and self._head_before is not None:
            # A client that keeps its connection repeats itself, and a head is not changed once it was read.
            head = self._head_before
        else:
            read = read_request_head(raw, limits)
            if isinstance(read, Rejection):
                self.refuse(read)
                return None
            head = self._head_before = read
            self._raw_before = raw
        self._head = head
        self._has_answered = False
        bytes_max = self._taker.body_bytes_max
        if head.content_length > bytes_max:
            self.refuse(Rejection(413, f"the request body is larger than {bytes_max} bytes"))
            return None
        rest = data[end + 4 :]
        if head.is_chunked:
            self._body = ChunkedBody(bytes_max)
        elif len(rest) < head.content_length:
            self._body = SizedBody(head.content_length)
        if self._body is not None:
            self._body_bytes = 0
            self.deadline_at_s = self._taker.now_s() + limits.body_timeout_s
            if head.expects_continue and not rest and not head.is_http10 and self.transport is not None:
                self.transport.write(CONTINUE)
        return rest

    def _keep_partial_head(self, data: bytes, limits: Limits, *, is_first: bool) -> None:
        if len(data) > limits.head_bytes_max:
            is_target = b"\r\n" not in data[: limits.target_bytes_max]
            self.refuse(Rejection(414 if is_target else 431, f"the request head is longer than {limits.head_bytes_max} bytes"))
        elif data and looks_malformed(data):
            self.refuse(Rejection(400, "the request is not HTTP/1.1"))
        else:
            self._pending = data
            if is_first and data:
                # The head's deadline is absolute: it runs from its first byte, not from the last one.
                self.deadline_at_s = self._taker.now_s() + limits.head_timeout_s

    def _feed(self, body: SizedBody | ChunkedBody, data: bytes) -> bool:
        if not body.feed(data):
            self.refuse(Rejection(400, "the chunked request body is malformed"))
            return False
        if body.is_too_large:
            self.refuse(Rejection(413, f"the request body is larger than {self._taker.body_bytes_max} bytes"))
            return False
        self._body_bytes += len(data)
        if self._body_bytes >= BODY_STEP_BYTES and not body.is_complete:
            self._body_bytes = 0
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
        if not keeps_alive or self._taker.is_stopping or (self.is_half_closed and not self._pending):
            self.close()
            return
        self.deadline_at_s = self._taker.now_s() + self._taker.limits.idle_timeout_s
        if self.is_full:
            self._pause()
            return
        self._resume()
        if self._pending and not self._is_reading:
            asyncio.get_running_loop().call_soon(self._read_on)

    def _pause(self) -> None:
        if self.transport is not None and not self._is_paused:
            self.transport.pause_reading()
            self._is_paused = True

    def _resume(self) -> None:
        if self.transport is not None and self._is_paused and not self.transport.is_closing():
            self.transport.resume_reading()
            self._is_paused = False

    def _read_on(self) -> None:
        """Read a request that was pipelined behind the one just answered."""
        if self._pending and self.running is None:
            data, self._pending = self._pending, b""
            self._read(data, is_first=True)
            if self.is_half_closed and self.running is None:
                # The rest of it will never come.
                self.close()

    def close(self) -> None:
        """Send what is written, then close; the answer is not complete, which the client sees from its framing."""
        self.running = None
        self._pending = b""
        if self.transport is not None:
            # A client that takes nothing must not hold what is unsent for ever.
            self.deadline_at_s = self._taker.now_s() + self._taker.limits.write_idle_s
            self.has_progress()
            self.transport.close()

    def abort(self) -> None:
        """Close at once, with a reset: for answers whose only end is the connection's, so that a cut one is told."""
        self.running = None
        if self.transport is not None:
            sock = self.transport.get_extra_info("socket")
            if sock is not None and sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def refuse(self, rejection: Rejection) -> None:
        """Answer what cannot be accepted and close, after reading a little more so that the answer is not lost to a reset."""
        if self.transport is None:
            return
        head, self._head, self._body, self._pending = self._head, None, None, b""
        self.transport.write(self._taker.refuse(rejection, head))
        if self.transport.can_write_eof() and not self.is_half_closed:
            self.transport.write_eof()
            self._is_lingering = True
            self.deadline_at_s = self._taker.now_s() + LINGER_S
        else:
            self.transport.close()

    def on_deadline(self, now_s: float) -> None:
        """The deadline has passed: a slow head or body gets 408, an idle connection is closed."""
        if self.transport is None or self._is_lingering:
            self.abort()
        elif self.transport.get_write_buffer_size():
            if self.has_progress():
                self.deadline_at_s = now_s + self._taker.limits.write_idle_s
            else:
                self.abort()
        elif self.transport.is_closing():
            self.abort()
        elif self._body is not None or self._pending:
            self.refuse(Rejection(408, "the request did not arrive in time"))
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
        if sys.platform != "linux":
            return False  # Told by the next write that fails.
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return bool(info[0] == TCP_STATE_CLOSED)

    def has_progress(self) -> bool:
        """Whether a client that does not keep up has taken anything since the last call."""
        unsent_bytes = self._count_unsent()
        has_moved = unsent_bytes != self._unsent_bytes
        self._unsent_bytes = unsent_bytes
        return has_moved

    def _count_unsent(self) -> int:
        """Return the bytes that wait here and in the kernel, which takes megabytes before ours move again (tcp(7), SIOCOUTQ)."""
        if self.transport is None:
            return 0
        sock = self.transport.get_extra_info("socket")
        kept = array("i", [0])
        if sock is not None:
            with contextlib.suppress(OSError):
                fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, kept)
        return self.transport.get_write_buffer_size() + kept[0]
