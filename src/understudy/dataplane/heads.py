"""Read and write the heads of HTTP/1.1 messages as a strict intermediary.

Called by dataplane.downstream (requests), dataplane.upstream (responses) and dataplane.answer (what goes back). llhttp (through
httptools) reads the fields; what it leaves open is checked here: request line, Host, framing, limits. Moves no body bytes and
decides nothing about backends. Source: RFC 9110 (semantics), RFC 9112 (HTTP/1.1).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar

import httptools

from understudy.core.snapshot import Backend, Limits
from understudy.dataplane.fields import NEVER_BY_CONNECTION, REQUEST_FIELDS_DROPPED, RESPONSE_FIELDS_DROPPED

REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
LOOKS_LIKE_HTTP = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^\r\n]* HTTP/\d(\.\d)?\r\n")
ABSOLUTE_FORM = re.compile(rb"(?i)https?://([^/?#]+)([/?][^#]*)?\Z")
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]+)(?::[0-9]{0,5})?\Z")
REQUEST_ID = re.compile(rb"[!-~]{1,128}\Z")
BEARER = re.compile(rb"(?i)bearer +(\S+)\Z")

KEYS = frozenset({b"authorization", b"x-api-key"})
_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})

REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
STATUS_LINES = {code: b"HTTP/1.1 %d %s\r\n" % (code, phrase) for code, phrase in REASONS.items()}


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a request is not accepted: the status and the words for the client; its connection is closed afterwards."""

    status: int
    message: str


class RequestHead:
    """One request head, read and checked.

    `path` is the target without its query, `fields` what goes on to a backend: (lower-case name, whole line with CRLF).
    `content_length` is -1 when absent. `key` tells clients apart, b"" without one: the bearer token, else X-API-Key; it stands
    in no log. `priority` and `color` are X-Understudy-Priority and X-Understudy-Color in lower case, whoever sent them. Values
    are bytes as they came. Defaults stand in the class, so that a head costs only what it holds.
    """

    method = b""
    target = b""
    path = b""
    is_http10 = False
    keeps_alive = True
    content_length = -1
    is_chunked = False
    expects_continue = False
    request_id = b""
    session = b""
    session_mode = b""
    session_on_error = b""
    session_reset = b""
    has_two_sessions = False
    _has_session = False
    key = b""
    priority = b""
    color = b""
    no_resume = False
    forwarded_for = b""
    via = b""
    has_forwarded_proto = False
    _connection = b""
    _hosts: tuple[bytes, ...] = ()
    _transfer_encoding: tuple[bytes, ...] = ()

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field from httptools, which has checked its characters but leaves white space at the value's end."""
        lower = name.lower()
        take = self._TAKERS.get(lower)
        if take is not None:
            take(self, value.rstrip(b" \t"))
        if lower not in REQUEST_FIELDS_DROPPED:
            self.fields.append((lower, b"%b: %b\r\n" % (name, value)))

    def _take_host(self, value: bytes) -> None:
        self._hosts += (value,)

    def _take_content_length(self, value: bytes) -> None:
        self.content_length = int(value) if value.isdigit() else -2

    def _take_transfer_encoding(self, value: bytes) -> None:
        self._transfer_encoding += (value.strip().lower(),)

    def _take_connection(self, value: bytes) -> None:
        self._connection = _joined(self._connection, value)

    def _take_expect(self, value: bytes) -> None:
        self.expects_continue = value.strip().lower() == b"100-continue"

    def _take_request_id(self, value: bytes) -> None:
        self.request_id = value if REQUEST_ID.match(value) else b""

    def _take_session(self, value: bytes) -> None:
        self.has_two_sessions = self.has_two_sessions or (self._has_session and self.session != value)
        self._has_session = True
        self.session = self.session or value

    def _take_session_mode(self, value: bytes) -> None:
        self.session_mode = value

    def _take_session_on_error(self, value: bytes) -> None:
        self.session_on_error = value

    def _take_session_reset(self, value: bytes) -> None:
        self.session_reset = value

    def _take_forwarded_for(self, value: bytes) -> None:
        self.forwarded_for = _joined(self.forwarded_for, value)

    def _take_forwarded_proto(self, _value: bytes) -> None:
        self.has_forwarded_proto = True

    def _take_via(self, value: bytes) -> None:
        self.via = _joined(self.via, value)

    def _take_authorization(self, value: bytes) -> None:
        bearer = BEARER.match(value)
        self.key = bearer[1] if bearer else self.key

    def _take_api_key(self, value: bytes) -> None:
        self.key = self.key or value

    def _take_priority(self, value: bytes) -> None:
        self.priority = value.lower()

    def _take_color(self, value: bytes) -> None:
        self.color = value.lower()

    def _take_no_resume(self, value: bytes) -> None:
        self.no_resume = value == b"1"

    # What a field means to us, besides being passed on or not.
    _TAKERS: ClassVar[Mapping[bytes, Callable[["RequestHead", bytes], None]]] = {
        b"authorization": _take_authorization,
        b"connection": _take_connection,
        b"content-length": _take_content_length,
        b"expect": _take_expect,
        b"host": _take_host,
        b"transfer-encoding": _take_transfer_encoding,
        b"via": _take_via,
        b"x-api-key": _take_api_key,
        b"x-forwarded-for": _take_forwarded_for,
        b"x-forwarded-proto": _take_forwarded_proto,
        b"x-request-id": _take_request_id,
        b"x-session-id": _take_session,
        b"x-session-mode": _take_session_mode,
        b"x-session-on-error": _take_session_on_error,
        b"x-session-reset": _take_session_reset,
        b"x-understudy-color": _take_color,
        b"x-understudy-no-resume": _take_no_resume,
        b"x-understudy-priority": _take_priority,
    }

    def rejection(self, limits: Limits) -> Rejection | None:
        """Check what concerns the whole head, settle framing and connection; return why it is refused, None if it is not."""
        if len(self.fields) > limits.fields_max:
            return Rejection(431, f"more than {limits.fields_max} header fields")
        if len(self._hosts) != 1 and (self._hosts or not self.is_http10):
            return Rejection(400, "a request needs exactly one Host field")
        if self._hosts and self._hosts[0] and not HOST.match(self._hosts[0]):
            return Rejection(400, "the Host field is malformed")
        rejection = self._settle_framing() if self._transfer_encoding or self.content_length < -1 else None
        if self._connection or self.is_http10:
            self._settle_connection()
        return rejection or self._settle_target()

    def _settle_framing(self) -> Rejection | None:
        if not self._transfer_encoding:
            return Rejection(400, "Content-Length is malformed")
        # Only one coding is understood, so a body's end is never a matter of opinion (RFC 9112, 6.1).
        if self._transfer_encoding != (b"chunked",):
            return Rejection(400, "Transfer-Encoding may only be chunked")
        if self.is_http10 or self.content_length != -1:
            return Rejection(400, "Transfer-Encoding is ambiguous here")
        self.is_chunked = True
        return None

    def _settle_connection(self) -> None:
        named = {token.strip().lower() for token in self._connection.split(b",")}
        self.keeps_alive = b"close" not in named and (not self.is_http10 or b"keep-alive" in named)
        named -= NEVER_BY_CONNECTION
        self.has_forwarded_proto = self.has_forwarded_proto and b"x-forwarded-proto" not in named
        if named - {b"close", b"keep-alive"}:
            self.fields = [field for field in self.fields if field[0] not in named]

    def _settle_target(self) -> Rejection | None:
        target = self.target
        if not target.startswith(b"/"):
            absolute = ABSOLUTE_FORM.match(target)
            if not absolute or not HOST.match(absolute[1]):
                return Rejection(400, "the request target must be a path")
            rest = absolute[2] or b"/"
            self.target = target = rest if rest.startswith(b"/") else b"/" + rest
        if b"#" in target:
            return Rejection(400, "the request target has a fragment")
        self.path = target.partition(b"?")[0] if b"?" in target else target
        return None


def _joined(before: bytes, value: bytes) -> bytes:
    return before + b", " + value if before else value


def read_request_head(raw: bytes, limits: Limits) -> RequestHead | Rejection:
    """Read one whole head, `raw` ending in its empty line.

    Returns a Rejection with 400, 414, 431, 501 or 505 for whatever two readers could understand differently; raises nothing.
    """
    line = REQUEST_LINE.match(raw)
    if line is None:
        return _refuse_line(raw)
    head = RequestHead()
    head.method, head.target, minor = line.groups()
    head.is_http10 = minor == b"0"
    if len(head.target) > limits.target_bytes_max or raw.count(b"\r\n") - 2 > limits.fields_max:
        return _refuse_size(head, limits)
    try:
        httptools.HttpRequestParser(head).feed_data(raw)
    except httptools.HttpParserInvalidMethodError:
        return Rejection(501, "the method is not implemented")
    except httptools.HttpParserUpgrade:
        # Upgrade is not forwarded, so the request is answered as if it had not asked (RFC 9110, 7.8).
        return Rejection(501, "this is no forward proxy") if head.method == b"CONNECT" else head.rejection(limits) or head
    except httptools.HttpParserError:
        return Rejection(400, "the header fields are malformed")
    return head.rejection(limits) or head


def _refuse_size(head: RequestHead, limits: Limits) -> Rejection:
    if len(head.target) > limits.target_bytes_max:
        return Rejection(414, f"the request target is longer than {limits.target_bytes_max} bytes")
    return Rejection(431, f"more than {limits.fields_max} header fields")


def _refuse_line(raw: bytes) -> Rejection:
    line = raw.partition(b"\r\n")[0]
    if LOOKS_LIKE_HTTP.match(raw) and b" HTTP/1." not in line:
        return Rejection(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    return Rejection(400, "the request line is malformed")


def looks_malformed(partial: bytes) -> bool:
    """Tell early, before the head's end has come, that it can never become valid: a line ends in a bare LF, or junk leads."""
    return partial.count(b"\n") != partial.count(b"\r\n") or (partial[:1] != b"\r" and not partial[:1].isalpha())


class BackendWords:
    """What every request to one backend has in common, written once."""

    __slots__ = ("address", "after_target", "has_key", "key_line", "prefix")

    def __init__(self, backend: Backend) -> None:
        self.address = backend.address
        self.prefix = backend.address.prefix.encode()
        self.after_target = b" HTTP/1.1\r\nHost: %b\r\n" % backend.address.authority.encode()
        self.has_key = bool(backend.api_key)
        self.key_line = b"Authorization: Bearer %b\r\n" % backend.api_key.encode() if backend.api_key else b""


def request_bytes(
    head: RequestHead, body: bytes, words: BackendWords, *, request_id: bytes, client: bytes, reads_answer: bool
) -> bytes:
    """Write the request for a backend: one canonical framing, our own connection fields, the backend's key.

    `client` is the peer's address, b"" for a unix socket. `reads_answer`: we must understand the answer's body, so it may not
    be compressed.
    """
    has_key = words.has_key
    lines = [
        line for name, line in head.fields if not ((has_key and name in KEYS) or (reads_answer and name == b"accept-encoding"))
    ]
    minor = 0 if head.is_http10 else 1
    via = b"%b, 1.%d understudy" % (head.via, minor) if head.via else b"1.%d understudy" % minor
    forwarded_for = head.forwarded_for + b", " + client if head.forwarded_for and client else head.forwarded_for or client
    return b"%b %b%b%b%b%bX-Request-ID: %b\r\nVia: %b\r\n%b%b%b\r\n%b" % (
        head.method,
        words.prefix,
        head.target,
        words.after_target,
        b"".join(lines),
        words.key_line,
        request_id,
        via,
        b"X-Forwarded-For: %b\r\n" % forwarded_for if forwarded_for else b"",
        b"" if head.has_forwarded_proto else b"X-Forwarded-Proto: http\r\n",
        b"Content-Length: %d\r\n" % len(body) if body or head.method in _WITH_BODY else b"",
        body,
    )


def status_line(status: int) -> bytes:
    """Return the status line; an unregistered status has an empty reason."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class ResponseHead:
    """One response head while httptools reads it, then as it was.

    `lines` is what goes on to the client, each with its CRLF. `content_length` is -1 when absent. Defaults stand in the class.
    """

    status = 0
    content_length = -1
    content_type = b""
    content_encoding = b""
    retry_after = b""
    has_cache_control = False
    has_buffering = False
    is_chunked = False
    _connection = b""
    _transfer_encoding = b""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def add(self, name: bytes, value: bytes) -> None:
        """Take one field from httptools."""
        lower = name.lower()
        take = self._TAKERS.get(lower)
        if take is not None:
            take(self, value.rstrip(b" \t"))
        if lower not in RESPONSE_FIELDS_DROPPED:
            self.lines.append(b"%b: %b\r\n" % (name, value))

    def _take_content_length(self, value: bytes) -> None:
        self.content_length = int(value) if value.isdigit() else -2

    def _take_content_type(self, value: bytes) -> None:
        self.content_type = value

    def _take_content_encoding(self, value: bytes) -> None:
        self.content_encoding = value

    def _take_retry_after(self, value: bytes) -> None:
        self.retry_after = value

    def _take_cache_control(self, _value: bytes) -> None:
        self.has_cache_control = True

    def _take_buffering(self, _value: bytes) -> None:
        self.has_buffering = True

    def _take_transfer_encoding(self, value: bytes) -> None:
        self.is_chunked = True
        self._transfer_encoding = _joined(self._transfer_encoding, value.strip().lower())

    def _take_connection(self, value: bytes) -> None:
        self._connection = _joined(self._connection, value)

    # What a field means to us, besides being passed on or not.
    _TAKERS: ClassVar[Mapping[bytes, Callable[["ResponseHead", bytes], None]]] = {
        b"cache-control": _take_cache_control,
        b"connection": _take_connection,
        b"content-encoding": _take_content_encoding,
        b"content-length": _take_content_length,
        b"content-type": _take_content_type,
        b"retry-after": _take_retry_after,
        b"transfer-encoding": _take_transfer_encoding,
        b"x-accel-buffering": _take_buffering,
    }

    def settle(self) -> bool:
        """Drop the fields that Connection names (RFC 9110, 7.6.1); False when status or framing could be read in two ways.

        A coding other than chunked is not understood here.
        """
        if self._connection:
            named = {token.strip().lower() for token in self._connection.split(b",")} - NEVER_BY_CONNECTION
            self.lines = [line for line in self.lines if line.partition(b":")[0].lower() not in named]
        return 200 <= self.status <= 599 and self.content_length >= -1 and self._transfer_encoding in (b"", b"chunked")


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
