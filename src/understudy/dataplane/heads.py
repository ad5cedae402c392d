"""Read and write the heads of HTTP/1.1 messages as a strict intermediary.

Called by dataplane.downstream (requests), dataplane.upstream (responses) and dataplane.answer (what goes back). llhttp (through
httptools) reads the fields; what it leaves open is checked here: request line, Host, framing, limits. Moves no body bytes and
decides nothing about backends. Source: RFC 9110 (semantics), RFC 9112 (HTTP/1.1).
"""

import re
from dataclasses import dataclass
from http import HTTPStatus

import httptools

from understudy.core.snapshot import Backend, Limits

REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
LOOKS_LIKE_HTTP = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^\r\n]* HTTP/\d(\.\d)?\r\n")
ABSOLUTE_FORM = re.compile(rb"(?i)https?://([^/?#]+)([/?][^#]*)?\Z")
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]+)(?::[0-9]{0,5})?\Z")
REQUEST_ID = re.compile(rb"[!-~]{1,128}\Z")

# Fields that belong to one connection (RFC 9110, 7.6.1) or that are written anew. X-Conversation-Id would make llama.cpp go on
# generating for a client that left and hand the answer to whoever guesses the name (llama.cpp server-stream.cpp).
REQUEST_FIELDS_DROPPED = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-conversation-id",
        b"x-forwarded-for",
        b"x-request-id",
        b"via",
    }
)
RESPONSE_FIELDS_DROPPED = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-request-id",
        b"x-understudy-attempts",
        b"x-understudy-backend",
    }
)
# Naming these in Connection must not remove them: it would let a client change what the backend sees of the message itself.
NEVER_BY_CONNECTION = frozenset({b"authorization", b"content-type", b"content-encoding", b"accept-encoding"})
KEYS = frozenset({b"authorization", b"x-api-key"})

REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
STATUS_LINES = {code: b"HTTP/1.1 %d %s\r\n" % (code, phrase) for code, phrase in REASONS.items()}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not accepted: the status and the words for the client; its connection is closed afterwards."""

    status: int
    message: str


class RequestHead:
    """One request head, read and checked.

    `path` is the target without its query, `fields` what goes on to a backend: (lower-case name, whole line with CRLF).
    `content_length` is -1 when absent. Values are bytes as they came.
    """

    __slots__ = (
        "_connection",
        "_hosts",
        "_transfer_encoding",
        "content_length",
        "expects_continue",
        "fields",
        "forwarded_for",
        "has_forwarded_proto",
        "is_chunked",
        "is_http10",
        "keeps_alive",
        "method",
        "path",
        "request_id",
        "session",
        "target",
        "via",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.path = b""
        self.is_http10 = False
        self.keeps_alive = True
        self.content_length = -1
        self.is_chunked = False
        self.expects_continue = False
        self.fields: list[tuple[bytes, bytes]] = []
        self.request_id = b""
        self.session = b""
        self.forwarded_for = b""
        self.via = b""
        self.has_forwarded_proto = False
        self._hosts: list[bytes] = []
        self._connection = b""
        self._transfer_encoding: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field from httptools, which has checked its characters."""
        lower = name.lower()
        if lower not in REQUEST_FIELDS_DROPPED:
            self.fields.append((lower, b"%b: %b\r\n" % (name, value)))
            if lower == b"x-session-id":
                self.session = value
            elif lower == b"x-forwarded-proto":
                self.has_forwarded_proto = True
        elif lower == b"host":
            self._hosts.append(value)
        elif lower == b"content-length":
            self.content_length = int(value) if value.isdigit() else -2
        elif lower == b"transfer-encoding":
            self._transfer_encoding.append(value)
        elif lower == b"connection":
            self._connection = self._connection + b"," + value if self._connection else value
        elif lower == b"expect":
            self.expects_continue = value.strip().lower() == b"100-continue"
        elif lower == b"x-request-id":
            self.request_id = value if REQUEST_ID.match(value) else b""
        elif lower == b"x-forwarded-for":
            self.forwarded_for = self.forwarded_for + b", " + value if self.forwarded_for else value
        elif lower == b"via":
            self.via = self.via + b", " + value if self.via else value

    def refusal(self, limits: Limits) -> Refusal | None:
        """Check what concerns the whole head, settle framing and connection; return why it is refused, None if it is not."""
        if len(self.fields) + len(self._hosts) > limits.fields_max:
            return Refusal(431, f"more than {limits.fields_max} header fields")
        if len(self._hosts) > 1 or (not self._hosts and not self.is_http10):
            return Refusal(400, "a request needs exactly one Host field")
        if self._hosts and self._hosts[0] and not HOST.match(self._hosts[0]):
            return Refusal(400, "the Host field is malformed")
        if self._transfer_encoding:
            # Only one coding is understood, so a body's end is never a matter of opinion (RFC 9112, 6.1).
            if self._transfer_encoding != [b"chunked"] and [t.strip().lower() for t in self._transfer_encoding] != [b"chunked"]:
                return Refusal(400, "Transfer-Encoding may only be chunked")
            if self.is_http10 or self.content_length != -1:
                return Refusal(400, "Transfer-Encoding is ambiguous here")
            self.is_chunked = True
        elif self.content_length < -1:
            return Refusal(400, "Content-Length is malformed")
        if self._connection or self.is_http10:
            self._settle_connection()
        return self._settle_target()

    def _settle_connection(self) -> None:
        named = {token.strip().lower() for token in self._connection.split(b",")}
        self.keeps_alive = b"close" not in named and (not self.is_http10 or b"keep-alive" in named)
        named -= NEVER_BY_CONNECTION
        if named - {b"close", b"keep-alive"}:
            self.fields = [field for field in self.fields if field[0] not in named]

    def _settle_target(self) -> Refusal | None:
        if not self.target.startswith(b"/"):
            absolute = ABSOLUTE_FORM.match(self.target)
            if not absolute or not HOST.match(absolute[1]):
                return Refusal(400, "the request target must be a path")
            rest = absolute[2] or b"/"
            self.target = rest if rest.startswith(b"/") else b"/" + rest
        if b"#" in self.target:
            return Refusal(400, "the request target has a fragment")
        self.path = self.target.partition(b"?")[0]
        return None


def read_request_head(raw: bytes, limits: Limits) -> RequestHead | Refusal:
    """Read one whole head, `raw` ending in its empty line.

    Returns a Refusal with 400, 414, 431, 501 or 505 for everything that two readers could understand differently; raises nothing.
    """
    line = REQUEST_LINE.match(raw)
    if line is None:
        if LOOKS_LIKE_HTTP.match(raw) and b" HTTP/1." not in raw.partition(b"\r\n")[0]:
            return Refusal(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        return Refusal(400, "the request line is malformed")
    head = RequestHead()
    head.method, head.target, minor = line.groups()
    if len(head.target) > limits.target_bytes_max:
        return Refusal(414, f"the request target is longer than {limits.target_bytes_max} bytes")
    if head.method == b"CONNECT":
        return Refusal(501, "this is no forward proxy")
    head.is_http10 = minor == b"0"
    if raw.count(b"\r\n") - 2 > limits.fields_max:
        return Refusal(431, f"more than {limits.fields_max} header fields")
    try:
        httptools.HttpRequestParser(head).feed_data(raw)
    except httptools.HttpParserInvalidMethodError:
        return Refusal(501, "the method is not implemented")
    except httptools.HttpParserUpgrade:
        pass  # Upgrade is not forwarded, so the request is answered as if it had not asked (RFC 9110, 7.8).
    except httptools.HttpParserError:
        return Refusal(400, "the header fields are malformed")
    return head.refusal(limits) or head


def looks_malformed(partial: bytes) -> bool:
    """Tell early, before the head's end has come, that it can never become valid: a line ends in a bare LF, or junk leads."""
    return partial.count(b"\n") != partial.count(b"\r\n") or (partial[:1] != b"\r" and not partial[:1].isalpha())


def request_bytes(
    head: RequestHead, body: bytes, backend: Backend, *, request_id: bytes, client: bytes, reads_answer: bool
) -> bytes:
    """Write the request for `backend`: one canonical framing, our own connection fields, the backend's key.

    `client` is the peer's address, b"" for a unix socket. `reads_answer`: we must understand the answer's body, so it may not
    be compressed.
    """
    address = backend.address
    target = address.prefix.encode() + head.target if address.prefix else head.target
    parts = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (head.method, target, address.authority.encode())]
    has_key = bool(backend.api_key)
    for name, line in head.fields:
        if (has_key and name in KEYS) or (reads_answer and name == b"accept-encoding"):
            continue
        parts.append(line)
    if has_key:
        parts.append(b"Authorization: Bearer %b\r\n" % backend.api_key.encode())
    via = b"%b, 1.%d understudy" % (head.via, not head.is_http10) if head.via else b"1.%d understudy" % (not head.is_http10)
    forwarded_for = b", ".join(part for part in (head.forwarded_for, client) if part)
    if forwarded_for:
        parts.append(b"X-Forwarded-For: %b\r\n" % forwarded_for)
    if not head.has_forwarded_proto:
        parts.append(b"X-Forwarded-Proto: http\r\n")
    parts.append(b"X-Request-ID: %b\r\nVia: %b\r\n" % (request_id, via))
    if body or head.method in (b"POST", b"PUT", b"PATCH"):
        parts.append(b"Content-Length: %d\r\n" % len(body))
    parts.append(b"\r\n")
    parts.append(body)
    return b"".join(parts)


def status_line(status: int) -> bytes:
    """Return the status line; an unregistered status has an empty reason."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class ResponseHead:
    """One response head while httptools reads it, then as it was.

    `fields` is what goes on to the client: lines with CRLF. `content_length` is -1 when absent.
    """

    __slots__ = (
        "_connection",
        "_lines",
        "_transfer_encoding",
        "content_encoding",
        "content_length",
        "content_type",
        "names",
        "retry_after",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.content_length = -1
        self.content_type = b""
        self.content_encoding = b""
        self.retry_after = b""
        self.names: set[bytes] = set()
        self._lines: list[tuple[bytes, bytes]] = []
        self._connection = b""
        self._transfer_encoding = b""

    def add(self, name: bytes, value: bytes) -> None:
        """Take one field from httptools."""
        lower = name.lower()
        if lower not in RESPONSE_FIELDS_DROPPED:
            self._lines.append((lower, b"%b: %b\r\n" % (name, value)))
            if lower == b"content-type":
                self.content_type = value
            elif lower == b"content-encoding":
                self.content_encoding = value
            elif lower == b"retry-after":
                self.retry_after = value
            self.names.add(lower)
        elif lower == b"content-length":
            self.content_length = int(value) if value.isdigit() else -2
        elif lower == b"transfer-encoding":
            self._transfer_encoding += b"," + value if self._transfer_encoding else value
        elif lower == b"connection":
            self._connection += b"," + value

    @property
    def is_chunked(self) -> bool:
        """Whether the body is in chunks."""
        return bool(self._transfer_encoding)

    @property
    def is_sound(self) -> bool:
        """Whether its status and framing mean one thing only; a coding other than chunked is not understood here."""
        return (
            200 <= self.status <= 599
            and self.content_length >= -1
            and self._transfer_encoding.strip().lower() in (b"", b"chunked")
        )

    def lines(self) -> list[bytes]:
        """Return the end-to-end fields, without those that Connection names (RFC 9110, 7.6.1)."""
        if not self._connection:
            return [line for _, line in self._lines]
        named = {token.strip().lower() for token in self._connection.split(b",")} - NEVER_BY_CONNECTION
        return [line for name, line in self._lines if name not in named]


def own_response(
    status: int, body: bytes, content_type: bytes, *, extra: bytes = b"", closes: bool = False, is_head: bool = False
) -> bytes:
    """Write a whole response of our own. `extra` holds further field lines with CRLF; a HEAD request gets the head only."""
    connection = b"Connection: close\r\n" if closes else b""
    head = b"%bContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n" % (
        status_line(status),
        content_type,
        len(body),
        extra,
        connection,
    )
    return head if is_head else head + body
