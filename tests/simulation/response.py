"""Read what a client received, stricter than any client: heads, interim responses, framing, and nothing that nobody asked for.

Used by simulation.client while bytes come in. Told which method each request had, because a HEAD has no body.
"""

import re

from simulation.language import MalformedError

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [^\r\n]*\Z")
FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ?([^\r\n\x00]*)\Z")
CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}\Z")


class Response:
    """One response. `is_whole`: its framing says that all of it came. `lasts_until_close`: only the connection's end tells."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.body = b""
        self.interims: list[int] = []
        self.is_whole = False
        self.lasts_until_close = False
        self.first_content_at_s = 0.0

    def field(self, name: bytes) -> bytes:
        """Return a field's value, b"" when absent."""
        return self.fields.get(name, b"")


class ResponseReader:
    """Reads responses in order. `methods` gets one entry for each request that was sent; `done` holds the responses so far."""

    def __init__(self) -> None:
        self.methods: list[bytes] = []
        self.done: list[Response] = []
        self.current: Response | None = None
        self._held = b""
        self._missing = 0
        self._state = self._read_head

    def feed(self, data: bytes) -> None:
        """Take the next bytes; raises MalformedError."""
        self._held += data
        while self._held and self._state():
            pass

    def end(self, *, is_cut: bool) -> None:
        """The connection is over: a body that lasts until then is whole, unless it was reset or given up."""
        response = self.current
        if response is not None and response.lasts_until_close and not is_cut:
            self._complete(response)

    def _read_head(self) -> bool:
        if self.current is None:
            if len(self.done) >= len(self.methods):
                raise MalformedError(f"bytes that nobody asked for: {self._held[:200]!r}")
            self.current = Response()
        raw, mark, rest = self._held.partition(b"\r\n\r\n")
        if not mark:
            return False
        self._held = rest
        first, *lines = raw.split(b"\r\n")
        status = STATUS_LINE.match(first)
        if status is None:
            raise MalformedError(f"no status line: {first[:200]!r}")
        response = self.current
        response.status = int(status[1])
        response.fields = {}
        for line in lines:
            field = FIELD.match(line)
            if field is None:
                raise MalformedError(f"no field: {line[:200]!r}")
            name = field[1].lower()
            if name in response.fields and name in (b"content-length", b"transfer-encoding", b"content-type", b"x-request-id"):
                raise MalformedError(f"{name!r} twice")
            response.fields[name] = field[2]
        if response.status < 200:
            response.interims.append(response.status)
            return True
        self._frame(response)
        return True

    def _frame(self, response: Response) -> None:
        length, coding = response.fields.get(b"content-length"), response.fields.get(b"transfer-encoding")
        if length is not None and coding is not None:
            raise MalformedError("Content-Length and Transfer-Encoding")
        if self.methods[len(self.done)] == b"HEAD" or response.status in (204, 304):
            self._complete(response)
        elif coding is not None:
            if coding != b"chunked":
                raise MalformedError(f"Transfer-Encoding: {coding!r}")
            self._state = self._read_chunk_size
        elif length is not None:
            if not length.isdigit():
                raise MalformedError(f"Content-Length: {length!r}")
            self._missing = int(length)
            self._state = self._read_sized
            if not self._missing:
                self._complete(response)
        else:
            response.lasts_until_close = True
            self._state = self._read_until_close

    def _read_sized(self) -> bool:
        assert self.current is not None
        piece, self._held = self._held[: self._missing], self._held[self._missing :]
        self.current.body += piece
        self._missing -= len(piece)
        if not self._missing:
            self._complete(self.current)
        return True

    def _read_until_close(self) -> bool:
        assert self.current is not None
        self.current.body += self._held
        self._held = b""
        return False

    def _read_chunk_size(self) -> bool:
        line, mark, rest = self._held.partition(b"\r\n")
        if not mark:
            return False
        if not CHUNK_SIZE.match(line):
            raise MalformedError(f"no chunk size: {line[:50]!r}")
        self._held = rest
        self._missing = int(line, 16)
        self._state = self._read_chunk if self._missing else self._read_last_chunk
        return True

    def _read_chunk(self) -> bool:
        if len(self._held) < self._missing + 2:
            return False
        assert self.current is not None
        self.current.body += self._held[: self._missing]
        if self._held[self._missing : self._missing + 2] != b"\r\n":
            raise MalformedError("a chunk without an end")
        self._held = self._held[self._missing + 2 :]
        self._state = self._read_chunk_size
        return True

    def _read_last_chunk(self) -> bool:
        if len(self._held) < 2:
            return False
        if not self._held.startswith(b"\r\n"):
            raise MalformedError("trailers, or a last chunk without an end")
        self._held = self._held[2:]
        assert self.current is not None
        self._complete(self.current)
        return True

    def _complete(self, response: Response) -> None:
        response.is_whole = True
        self.done.append(response)
        self.current = None
        self._state = self._read_head
