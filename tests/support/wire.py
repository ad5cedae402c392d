"""A client that is nothing but a socket: sends exactly these bytes, reads exactly what came, and never waits without a deadline.

Used by plays that must see the wire itself. Strict about what it reads: bytes that are no HTTP fail the play that read them.
"""

import json
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

DEADLINE_S = 15.0
BODILESS = (204, 304)


class CutShortError(Exception):
    """The peer closed or reset before the message was whole. `body` is what had come of it."""

    def __init__(self, words: str, body: bytes = b"") -> None:
        super().__init__(words)
        self.body = body


@dataclass(frozen=True, slots=True)
class Head:
    """A response head. `fields` as they came, in order; `raw` is all of its bytes."""

    status: int
    fields: tuple[tuple[str, str], ...]
    raw: bytes

    def get(self, name: str) -> str:
        """Return the field's values joined by ", "; "" when absent."""
        return ", ".join(value for key, value in self.fields if key.lower() == name.lower())


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole response. `is_cut` tells that it ended before its framing said so."""

    head: Head
    body: bytes
    is_cut: bool = False
    interim: tuple[Head, ...] = field(default=())

    @property
    def status(self) -> int:
        """The final status."""
        return self.head.status

    @property
    def backend(self) -> str:
        """Who answered."""
        return self.head.get("X-Understudy-Backend")

    @property
    def attempts(self) -> int:
        """How many attempts it took."""
        return int(self.head.get("X-Understudy-Attempts") or 0)

    def json(self) -> Any:
        """Read the body as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """What the body says in whichever dialect, streamed or whole."""
        return said(self.body)


def said(body: bytes) -> str:
    """Gather the words of an answer: chat chunks, completions, NDJSON lines, Anthropic deltas, or one whole object."""
    text = ""
    for raw in body.split(b"\n"):
        payload = raw.removeprefix(b"data:").strip()
        if not payload.startswith(b"{"):
            continue
        event = json.loads(payload)
        for choice in event.get("choices") or ():
            text += (choice.get("delta") or choice.get("message") or {}).get("content") or choice.get("text") or ""
        text += (
            (event.get("message") or {}).get("content") or ""
            if isinstance(event.get("message"), dict) and "done" in event
            else ""
        )
        text += str(event.get("response") or "") if "done" in event else ""
        text += str((event.get("delta") or {}).get("text") or "")
        if event.get("type") == "message":
            text += "".join(block.get("text", "") for block in event["content"])
    return text


def request_bytes(
    method: str, target: str, body: bytes | Mapping[str, Any] = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """Write a request with a Host and, when there is a body, a Content-Length; `headers` are added or take their place."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Host": "127.0.0.1"}
    if data or method == "POST":
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
    fields |= headers or {}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + data


class Wire:
    """One connection. `deadline_s` bounds everything that is read or sent on it, counted from each call."""

    def __init__(self, port: int, *, deadline_s: float = DEADLINE_S, receive_buffer_bytes: int = 0) -> None:
        self._deadline_s = deadline_s
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._socket.settimeout(deadline_s)
        try:
            self._socket.connect(("127.0.0.1", port))
        except OSError:
            self._socket.close()
            raise
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._kept = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._socket.sendall(data)

    def send_bytewise(self, data: bytes) -> None:
        """Send `data` in packets of one byte."""
        for i in range(len(data)):
            self._socket.sendall(data[i : i + 1])

    def finish_sending(self) -> None:
        """Close our half; the answer can still be read."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Leave in order."""
        self._socket.close()

    def reset(self) -> None:
        """Leave with a reset."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def read_some(self) -> bytes:
        """Read whatever is there, at least one byte; b"" at the end. Raises TimeoutError at the deadline."""
        if self._kept:
            data, self._kept = self._kept, b""
            return data
        return self._receive()

    def read_until(self, mark: bytes) -> bytes:
        """Read up to and with `mark`. Raises CutShortError when the peer ends before it."""
        deadline_s = time.monotonic() + self._deadline_s
        while mark not in self._kept:
            self._fill(deadline_s)
        data, _, self._kept = self._kept.partition(mark)
        return data + mark

    def read_exactly(self, size_bytes: int) -> bytes:
        """Read so many bytes. Raises CutShortError when the peer ends before."""
        deadline_s = time.monotonic() + self._deadline_s
        while len(self._kept) < size_bytes:
            self._fill(deadline_s)
        data, self._kept = self._kept[:size_bytes], self._kept[size_bytes:]
        return data

    def read_to_end(self) -> bytes:
        """Read until the peer closes or resets."""
        data = self._kept
        self._kept = b""
        while True:
            try:
                more = self._receive()
            except ConnectionError:
                return data
            if not more:
                return data
            data += more

    def is_closed_by_peer(self) -> bool:
        """Wait for the peer to close; True then, False when it sends a byte instead or does nothing until the deadline."""
        try:
            return not self.read_some()
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def read_head(self) -> Head:
        """Read one response head, interim ones too."""
        raw = self.read_until(b"\r\n\r\n")
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        version, status, _reason = [*first.split(" ", 2), ""][:3]
        assert version in ("HTTP/1.1", "HTTP/1.0"), f"no HTTP: {first!r}"
        fields = tuple((name, value.strip()) for name, _, value in (text.partition(":") for text in lines))
        return Head(int(status), fields, raw)

    def read_pieces(self, head: Head, method: str = "POST") -> Iterator[bytes]:
        """Yield a body's pieces as they are framed and come. Raises CutShortError when it ends too soon."""
        if method == "HEAD" or head.status in BODILESS or head.status < 200:
            return
        if "chunked" in head.get("Transfer-Encoding").lower():
            assert not head.get("Content-Length"), "both framings in one answer"
            while True:
                size = int(self.read_until(b"\r\n"), 16)
                data = self.read_exactly(size + 2)
                assert data.endswith(b"\r\n"), f"chunk not closed: {data[-20:]!r}"
                if not size:
                    return
                yield data[:-2]
        elif head.get("Content-Length"):
            assert head.get("Content-Length").isdecimal(), f"no length: {head.get('Content-Length')!r}"
            rest = int(head.get("Content-Length"))
            while rest:
                if not self._kept:
                    self._fill(time.monotonic() + self._deadline_s)
                data, self._kept = self._kept[:rest], self._kept[rest:]
                rest -= len(data)
                yield data
        else:
            while data := self.read_some():
                yield data

    def read_reply(self, method: str = "POST") -> Reply:
        """Read one whole response with the interim heads before it, all within the deadline; a cut one is marked, not raised."""
        deadline_s = time.monotonic() + self._deadline_s
        interim: list[Head] = []
        head = self.read_head()
        while 100 <= head.status < 200:
            interim.append(head)
            head = self.read_head()
            _check(deadline_s)
        body = b""
        try:
            for piece in self.read_pieces(head, method):
                body += piece
                _check(deadline_s)
        except (CutShortError, ConnectionError):
            return Reply(head, body, is_cut=True, interim=tuple(interim))
        return Reply(head, body, interim=tuple(interim))

    def _fill(self, deadline_s: float) -> None:
        _check(deadline_s)
        try:
            data = self._receive()
        except ConnectionError as error:
            raise CutShortError("reset by the peer", self._kept) from error
        if not data:
            raise CutShortError("closed by the peer", self._kept)
        self._kept += data

    def _receive(self) -> bytes:
        return self._socket.recv(65536)


def _check(deadline_s: float) -> None:
    if time.monotonic() > deadline_s:
        raise TimeoutError


def ask(
    port: int,
    target: str = "/v1/chat/completions",
    body: bytes | Mapping[str, Any] | None = None,
    *,
    method: str = "",
    headers: Mapping[str, str] | None = None,
    deadline_s: float = DEADLINE_S,
) -> Reply:
    """Send one request on a connection of its own and read the whole response; POST when there is a body, else GET."""
    verb = method or ("GET" if body is None else "POST")
    with Wire(port, deadline_s=deadline_s) as wire:
        wire.send(request_bytes(verb, target, body or b"", headers))
        return wire.read_reply(verb)


def chat(words: str = "who is there?", *, stream: bool = False, model: str = "tiny", **more: Any) -> dict[str, Any]:
    """Make the body of a chat request."""
    messages = [{"role": "user", "content": words}]
    return {"model": model, "messages": messages, "stream": stream, **more}
