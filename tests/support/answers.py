"""Bytes of HTTP answers as engines send them, and whole answers made of these bytes.

Pure. Used by support.personas (good answers), support.faults (bad ones) and by plays that need a byte of their own.
"""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from support.steps import Answer, Step, answer, send

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
LAST_CHUNK = b"0\r\n\r\n"


def head_bytes(status: int, headers: Mapping[str, str] | Iterable[tuple[str, str]] = (), reason: str | None = None) -> bytes:
    """Write an answer's head; fields in the given order, nothing added."""
    try:
        words = HTTPStatus(status).phrase if reason is None else reason
    except ValueError:
        words = ""
    fields = headers.items() if isinstance(headers, Mapping) else headers
    lines = [f"HTTP/1.1 {status} {words}", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Frame `data` as one chunk (RFC 9112, 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def stream_head(content_type: str = SSE, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    """Write the head of a chunked stream."""
    return head_bytes(status, {"Content-Type": content_type, "Transfer-Encoding": "chunked", **(headers or {})})


def sse(event: Any) -> bytes:
    """Write one server-sent event, as bytes of JSON or of the text given."""
    text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


def compact(value: Any) -> bytes:
    """Write JSON without spaces, as engines do in their events."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def compact_sse(event: Any) -> bytes:
    """Write one server-sent event as engines do."""
    return b"data: " + compact(event) + b"\n\n"


def line(value: Any) -> bytes:
    """Write one NDJSON line."""
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def body_bytes(value: Any) -> bytes:
    """Return bytes as they are, text as UTF-8 and anything else as JSON."""
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value, ensure_ascii=False).encode()


def whole(status: int, value: Any = b"", headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with a Content-Length body; `value` as `body_bytes` reads it."""
    body = body_bytes(value)
    kind = {} if isinstance(value, (bytes, str)) else {"Content-Type": "application/json"}
    fields = {**kind, **(headers or {}), "Content-Length": str(len(body))}
    return answer(send(head_bytes(status, fields) + body))


def stream(events: Iterable[bytes], content_type: str = SSE) -> Answer:
    """Answer with a chunked stream, an event a chunk, well ended."""
    return answer(send(stream_head(content_type), *(chunk(event) for event in events), LAST_CHUNK))


def begun_stream(events: Iterable[bytes], *then: Step, content_type: str = SSE) -> Answer:
    """Begin a chunked stream, send `events`, then play `then` instead of ending it."""
    return answer(send(stream_head(content_type), *(chunk(event) for event in events)), *then)
