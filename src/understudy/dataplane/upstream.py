"""One connection towards one backend: send a request, read its answer with llhttp, say how it went.

Made by dataplane.pool; drives whatever answer is bound to it. Reads strictly: what is not HTTP/1.1 is a failure of the backend.
Never decides whether to try again and never looks into a body.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from understudy.dataplane.heads import ResponseHead
from understudy.errors import FailureKind

HEAD_BYTES_MAX = 64 * 1024
INTERIM_MAX = 8
# How long the kernel may keep unacknowledged bytes before it gives the connection up (RFC 5482): a peer behind a one-way
# partition is noticed although nothing is ever reset.
USER_TIMEOUT_MS = 30_000
BODILESS = frozenset({204, 304})


def _drop(_data: bytes) -> None:
    """Take bytes that no answer wants."""


class Bound(Protocol):
    """What an answer learns from its connection, in this order; after `on_end` or `on_broken` nothing more comes."""

    def on_interim(self, status: int) -> None:
        """A 1xx response came."""

    def on_head(self, head: ResponseHead, *, has_body: bool) -> None:
        """The final head is complete and sound."""

    def on_body(self, data: bytes) -> None:
        """The next bytes of the body, without their framing."""

    def on_last(self) -> None:
        """The last byte of the body has come: `on_body` may still be called and must take nothing more, then `on_end`."""

    def on_end(self, *, is_followed: bool) -> None:
        """The body is complete; `is_followed`: more came behind it, which nobody asked for."""

    def on_broken(self, kind: FailureKind) -> None:
        """The answer cannot be completed."""

    def on_exception(self, error: BaseException) -> None:
        """Our own code raised while it took the answer."""


class UpstreamConnection(asyncio.Protocol):
    """The protocol object of one backend connection. `backend` is its name, `is_reused` whether it served before."""

    __slots__ = (
        "_bound",
        "_head",
        "_head_bytes",
        "_interims",
        "_is_answer_to_head",
        "_is_complete",
        "_is_followed",
        "_is_paused",
        "_is_until_close",
        "_parser",
        "_seam",
        "backend",
        "idle_since_s",
        "is_reusable",
        "is_reused",
        "on_body",
        "transport",
    )

    def __init__(self, backend: str) -> None:
        # For the connection.
        self.backend = backend
        self.transport: asyncio.Transport | None = None
        self.is_reused = False
        self.is_reusable = True
        self.idle_since_s = 0.0
        self._is_paused = False
        self.on_body: Callable[[bytes], None] = _drop
        # For the current answer; set by send(), cleared by release().
        self._bound: Bound | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._head = ResponseHead()
        self._head_bytes = 0
        self._interims = 0
        self._seam = b""
        self._is_answer_to_head = False
        self._is_until_close = False
        self._is_complete = False
        self._is_followed = False

    # --- for the answer

    def send(self, bound: Bound, request: bytes, *, is_head: bool) -> None:
        """Send a whole request in one write and bind its answer. `is_head`: the answer has no body whatever it says."""
        self._bound = bound
        self._head = ResponseHead()
        self._head_bytes = 0
        self._interims = 0
        self._seam = b""
        self._is_answer_to_head = is_head
        self._is_until_close = False
        self._is_complete = False
        self._is_followed = False
        # llhttp looks its callbacks up once, so the body goes from the parser to the answer without a stop here.
        self.on_body = _drop if is_head else bound.on_body
        self._parser = httptools.HttpResponseParser(self)
        if self.transport is None:
            self._break(FailureKind.STALE_REUSE if self.is_reused else FailureKind.LOST_BEFORE_HEAD)
        else:
            self.transport.write(request)

    def release(self) -> bool:
        """Let go of the answer; True when the connection can carry another exchange."""
        is_complete = self._is_complete
        self._bound = None
        self._parser = None
        self.on_body = _drop
        self.is_reused = True
        # A slow client's pause must not outlast its exchange.
        self.resume()
        return (
            # In the middle of an answer the rest of it would be taken for the next one's.
            is_complete
            and self.is_reusable
            and not self._is_until_close
            and self.transport is not None
            and not self.transport.is_closing()
            # The answer came before the request was read to its end: the rest is not sent (RFC 9112, 9.3).
            and self.transport.get_write_buffer_size() == 0
        )

    def close(self) -> None:
        """Close at once, so that an engine that still generates stops (engines.md, 6)."""
        self._bound = None
        self._parser = None
        self.on_body = _drop
        self.is_reusable = False
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        """Stop reading: the client does not keep up."""
        if self.transport is not None and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._is_paused and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        self._is_paused = False

    # --- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket up."""
        self.transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if sys.platform == "linux":
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)

    def data_received(self, data: bytes) -> None:
        """Read the next bytes of the answer; bytes that no request asked for end the connection."""
        parser = self._parser
        if parser is None:
            self.close()
            return
        if self._head_bytes >= 0:
            end = data.find(b"\r\n\r\n")
            if self._seam and b"\r\n\r\n" in self._seam + data[:3]:
                end = 0  # The empty line was split over two reads.
            self._head_bytes += end + 4 if end >= 0 else len(data)
            self._seam = data[-3:]
        try:
            parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._raise_to_bound(error)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # We never ask for an upgrade.
            self._on_malformed()
        else:
            # Only now: what follows the answer in the same bytes decides whether the connection may be used again.
            if self._is_complete:
                self._finish()
            elif self._head_bytes > HEAD_BYTES_MAX:
                self._break(FailureKind.HEAD_TOO_LARGE)

    def _on_malformed(self) -> None:
        if self._is_complete:
            self.is_reusable = False
            self._is_followed = True
            self._finish()
        else:
            self._break(FailureKind.HEAD_MALFORMED if self._head_bytes >= 0 else FailureKind.BODY_MALFORMED)

    def eof_received(self) -> bool:
        """The backend closed its side: the end of a body that lasts until then, else a break."""
        self._end_at_close(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        self.transport = None
        self._end_at_close(exc)

    # --- from llhttp

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; trailers come here too and are dropped."""
        if self._head_bytes >= 0:
            self._head.add(name, value)

    def on_headers_complete(self) -> None:
        """The head has come: interim, unsound or final."""
        parser, head, bound = self._parser, self._head, self._bound
        if parser is None or bound is None or self._is_complete:
            return
        head.status = parser.get_status_code()
        if 100 <= head.status < 200 and head.status != 101:
            self._interims += 1
            if self._interims > INTERIM_MAX:
                self._break(FailureKind.HEAD_MALFORMED)
            else:
                bound.on_interim(head.status)
            return
        # llhttp would take HTTP/2.0 and HTTP/0.9, too.
        if not head.settle() or not parser.get_http_version().startswith("1."):
            self._break(FailureKind.HEAD_MALFORMED)
            return
        if self._head_bytes > HEAD_BYTES_MAX:
            self._break(FailureKind.HEAD_TOO_LARGE)
            return
        self._head_bytes = -1
        self.is_reusable = parser.should_keep_alive()
        has_body = not self._is_answer_to_head and head.status not in BODILESS and head.content_length != 0
        self._is_until_close = has_body and not head.is_chunked and head.content_length < 0
        if self._is_answer_to_head and (head.is_chunked or head.content_length != 0):
            # llhttp now waits for a body that will not come, so this parser's work ends here.
            # What may follow is no part of it (RFC 9110, 9.3.2), and told from the next answer by nothing.
            self._parser = None
            self._is_complete = True
            self.is_reusable = False
            bound.on_head(head, has_body=False)
        else:
            bound.on_head(head, has_body=has_body)

    def on_message_begin(self) -> None:
        """A second answer to one request is somebody else's, or junk (RFC 9112, 9.2)."""
        if self._head_bytes < 0:
            self.is_reusable = False
            self._is_followed = True

    def on_message_complete(self) -> None:
        """The answer is complete, unless it was an interim one."""
        if self._is_complete:
            return
        if self._head_bytes < 0:
            self._is_complete = True
            if self._bound is not None:
                self._bound.on_last()
        else:
            self._head = ResponseHead()

    def _finish(self) -> None:
        bound, self._bound = self._bound, None
        if bound is None:
            return
        try:
            bound.on_end(is_followed=self._is_followed)
        except Exception as error:  # noqa: BLE001  # our own mistake ends this exchange, not the daemon
            self.close()
            bound.on_exception(error)

    # --- endings

    def _end_at_close(self, exc: Exception | None) -> None:
        bound = self._bound
        self.is_reusable = False
        if bound is None:
            return
        if self._is_until_close and exc is None and self._head_bytes < 0:
            self._finish()
        elif self._head_bytes < 0:
            self._break(FailureKind.BODY_CUT)
        elif self.is_reused and self._head_bytes == 0:
            self._break(FailureKind.STALE_REUSE)
        else:
            self._break(FailureKind.LOST_BEFORE_HEAD)

    def _break(self, kind: FailureKind) -> None:
        bound, self._bound = self._bound, None
        self.close()
        if bound is None:
            return
        try:
            bound.on_broken(kind)
        except Exception as error:  # noqa: BLE001  # our own mistake ends this exchange, not the daemon
            bound.on_exception(error)

    def _raise_to_bound(self, error: httptools.HttpParserCallbackError) -> None:
        bound, self._bound = self._bound, None
        self.close()
        if bound is not None:
            bound.on_exception(error.__context__ or error)
