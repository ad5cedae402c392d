"""Turn the events of a stream into marks, whatever the dialect: each dialect brings the function that reads one event.

Called by dialects.openai, ollama and anthropic. Never decides what a mark leads to (core.exchange) and never changes a byte.
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec

from understudy.dialects.contract import EVENT_BYTES_MAX, Mark, StreamKind
from understudy.dialects.framing import Event, Splitter, split

ReadMarks = Callable[[bytes, dict[str, Any]], tuple[Mark, ...]]
"""Reads one event that is no error: (its name, its JSON object) -> its marks."""


class _Anything(msgspec.Struct):
    """Any JSON object; what it holds is passed over, though not unread."""


_DECODE = msgspec.json.Decoder().decode
_SKIM = msgspec.json.Decoder(_Anything).decode
_SSE_TYPES = (b"text/event-stream",)
_NDJSON_TYPES = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl", b"application/x-jsonlines")

ERROR = (Mark.ERROR,)
OTHER = (Mark.OTHER,)
COMMENT = (Mark.COMMENT,)
OPENING = (Mark.OPENING,)
CONTENT = (Mark.CONTENT,)
FINISH = (Mark.FINISH,)
CONTENT_AND_FINISH = (Mark.CONTENT, Mark.FINISH)
DONE = (Mark.DONE,)


def stream_kind(content_type: bytes) -> StreamKind | None:
    """Tell from a Content-Type field whether the answer is a stream of events, and of which framing."""
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type in _SSE_TYPES:
        return StreamKind.SSE
    return StreamKind.NDJSON if media_type in _NDJSON_TYPES else None


def read_json(data: bytes) -> Any:
    """Decode JSON as leniently as engines and clients do (lone surrogates, NaN); None when it is none."""
    try:
        return _DECODE(data)
    except (msgspec.MsgspecError, ValueError):
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return None
    except RecursionError:
        return None


def is_error(name: bytes, value: Any) -> bool:
    """Tell whether an event reports a failure, in any engine's shape.

    `event: error`; `{"error": ...}` of every engine; SGLang's top-level `{"object": "error"}`; `{"type": "error"}` of
    Anthropic and the Responses API. A null or empty error is none. Source: golden/<engine>/*_error*.
    """
    if name == b"error":
        return True
    return isinstance(value, dict) and bool(value.get("error") or value.get("object") == "error" or value.get("type") == "error")


def read_event(event: Event, read_marks: ReadMarks) -> tuple[Mark, ...]:
    """Return the marks of one event. What is not a JSON object is OTHER, a comment COMMENT."""
    name, data = event
    if data is None:
        return ERROR if name == b"error" else COMMENT
    value = read_json(data)
    if is_error(name, value):
        return ERROR
    return read_marks(name, value) if isinstance(value, dict) else OTHER


def tail_marks(tail: bytes, kind: StreamKind, read_marks: ReadMarks, *, done: bytes = b"") -> tuple[Mark, ...]:
    """Return the marks of the last events of a stream. `tail` may start inside an event, which then reads as OTHER."""
    return marks_of(split(tail, kind), read_marks, done=done)


def has_error(read_marks: ReadMarks, kind: StreamKind, data: bytes) -> bool:
    """Tell whether an event in `data` reports a failure; only events in which `"error"` occurs are decoded."""
    return any(
        read_event(event, read_marks) == ERROR
        for event in split(data, kind or StreamKind.SSE)
        if event.name == b"error" or (event.data is not None and b'"error"' in event.data)
    )


def is_sound(data: bytes, kind: StreamKind | None) -> bool:
    """Tell whether every event in `data`, whole events, is what a client can read: JSON, or the `[DONE]` of OpenAI's API.

    For each chunk of a stream that could be continued: half a microsecond for the one event that most of them are.
    """
    if kind is StreamKind.SSE and data.startswith(b"data: {") and data.find(b"\n\n") == len(data) - 2:
        try:
            _SKIM(data[6:-2])
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass  # stricter than clients are: NaN, a lone surrogate
        else:
            return True
    return all(
        not event.data or event.data.startswith(b"[DONE]") or read_json(event.data) is not None
        for event in split(data, kind or StreamKind.SSE)
    )


class EventReader:
    """The `StreamReader` of every dialect. `done` is the data of the event that ends a stream, b"" when it has none."""

    __slots__ = ("_done", "_read_marks", "_splitter", "is_overlong")

    def __init__(
        self, read_marks: ReadMarks, kind: StreamKind, event_bytes_max: int = EVENT_BYTES_MAX, *, done: bytes = b""
    ) -> None:
        self._read_marks = read_marks
        self._done = done
        self._splitter = Splitter(kind, event_bytes_max)
        self.is_overlong = False

    def feed(self, data: bytes) -> tuple[Mark, ...]:
        """See `contract.StreamReader.feed`."""
        if self.is_overlong:
            return ()
        marks = marks_of(self._splitter.feed(data), self._read_marks, done=self._done)
        if self._splitter.is_overlong:
            self.is_overlong = True
            return (*marks, Mark.ERROR)
        return marks


def marks_of(events: list[Event], read_marks: ReadMarks, *, done: bytes = b"") -> tuple[Mark, ...]:
    """Return the marks of `events` in order."""
    marks: list[Mark] = []
    for event in events:
        marks += DONE if done and event.data == done else read_event(event, read_marks)
    return tuple(marks)
