"""Collect a request's body, whichever way it is framed, up to its limit.

Called by dataplane.downstream with the bytes after the head. A body is kept whole because it names the model and may have to be
sent again. Never forwards anything; trailers are dropped (RFC 9110, 6.5.1 allows it).
"""

import httptools

_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

# What framing may cost: a client that sends one-byte chunks spends five bytes of framing on each, trailers and extensions
# come on top; more than this is somebody hiding bytes in chunk extensions.
FRAMING_SHARE_MAX = 8
FRAMING_BYTES_MIN = 16 * 1024


class SizedBody:
    """A body of `length` bytes (RFC 9112, 6.2)."""

    __slots__ = ("_data", "_length", "_received", "is_complete", "is_too_large", "rest")

    def __init__(self, length: int) -> None:
        self._length = length
        self._data = bytearray()
        self._received = 0
        self.is_complete = length == 0
        self.is_too_large = False
        self.rest = b""

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; True while the framing is sound, which it always is. `rest` holds what follows the body."""
        missing = self._length - self._received
        if len(data) > missing:
            data, self.rest = data[:missing], data[missing:]
        self._data += data
        self._received += len(data)
        self.is_complete = self._received == self._length
        return True

    def take(self) -> bytes:
        """Return the whole body."""
        return bytes(self._data)


class ChunkedBody:
    """A body in chunks (RFC 9112, 7.1), checked by llhttp: strict CRLF, hexadecimal sizes, no overflow.

    llhttp does not say where it stopped, so it is fed up to one line end at a time: a body can only end at a line end.
    """

    __slots__ = ("_bytes_max", "_data", "_held", "_parser", "_received", "_wire", "is_complete", "is_too_large", "rest")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._data = bytearray()
        self._received = 0
        self._wire = 0
        self._held = b""
        self.is_complete = False
        self.is_too_large = False
        self.rest = b""
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)

    def on_body(self, data: bytes) -> None:
        """Take decoded bytes from httptools."""
        self._received += len(data)
        if self._received > self._bytes_max:
            self.is_too_large = True
            self._data.clear()
        elif not self.is_too_large:
            self._data += data

    def on_message_complete(self) -> None:
        """Learn from httptools that the last chunk and the trailers have come."""
        self.is_complete = True

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; False when the framing is malformed or wasteful. `rest` holds what follows the body."""
        if self._held:
            data = self._held + data
            self._held = b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        self._wire += len(data)
        try:
            self._feed_lines(data)
        except httptools.HttpParserError:
            return False
        return self._wire <= FRAMING_BYTES_MIN + FRAMING_SHARE_MAX * self._received

    def _feed_lines(self, data: bytes) -> None:
        at = 0
        while not self.is_complete and not self.is_too_large:
            end = data.find(b"\r\n", at)
            if end < 0:
                if at < len(data):
                    self._parser.feed_data(data[at:])
                return
            self._parser.feed_data(data[at : end + 2])
            at = end + 2
        self.rest = data[at:] + self._held
        # What follows the body is the next request's and none of this one's cost.
        self._wire -= len(data) - at

    def take(self) -> bytes:
        """Return the whole body without its framing."""
        return bytes(self._data)
