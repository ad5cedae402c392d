"""Split the bytes of a stream into events: server-sent events and newline-delimited JSON.

Called by dialects.events, and by the data plane for `whole_until`. Knows nothing of what an event says.
"""

import re
from typing import NamedTuple

from understudy.dialects.contract import EVENT_BYTES_MAX, StreamKind

# Two line ends in a row end an event; each is LF, CRLF or CR (WHATWG HTML, 9.2.5). Atomic, so that one CRLF is not read as
# a CR and an LF.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_BOM = b"\xef\xbb\xbf"
# The longest blank line is CRLF CRLF; three bytes of it may have come before the rest.
_BLANK_LINE_CARRY = 3
_COLON = ord(":")


class Event(NamedTuple):
    """One event. `name` is its `event` field, b"" when absent; `data` is None when it has none, as a comment has."""

    name: bytes
    data: bytes | None


def whole_until(data: bytes, kind: StreamKind = StreamKind.SSE) -> int:
    """Return the index after the last complete event in `data`, 0 when none is complete.

    `data` must begin at the start of an event or hold all that came since, because a blank line may be split over chunks.
    """
    if kind is StreamKind.NDJSON:
        return data.rfind(b"\n") + 1
    if data.endswith(b"\n\n"):
        return len(data)
    if b"\r" not in data:
        found = data.rfind(b"\n\n")
        return found + 2 if found >= 0 else 0
    end = 0
    for match in _BLANK_LINE.finditer(data):
        end = match.end()
    return end


def event_ends(data: bytes, kind: StreamKind) -> list[int]:
    """Return the index after each complete event in `data`, which begins at the start of one."""
    ends = re.compile(rb"\n") if kind is StreamKind.NDJSON else _BLANK_LINE
    return [match.end() for match in ends.finditer(data)]


def split(data: bytes, kind: StreamKind) -> list[Event]:
    """Return the events in `data`, whose end counts as the end of an event. Blocks that hold no field are left out."""
    if kind is StreamKind.NDJSON:
        return [Event(b"", line) for line in data.splitlines() if line.strip()]
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return [_read_event(block) for block in data.split(b"\n\n") if block.strip(b"\n")]


def _read_event(block: bytes) -> Event:
    """Read the lines of one event (WHATWG HTML, 9.2.6); `block` has LF line ends and no blank line inside."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return Event(b"", block[6:])
    name = b""
    data: list[bytes] = []
    for line in block.removeprefix(_BOM).split(b"\n"):
        if not line or line[0] == _COLON:
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(name, b"\n".join(data) if data else None)


class Splitter:
    """Splits a stream incrementally. Holds at most `event_bytes_max` bytes of an unfinished event.

    `is_overlong` is set when an event was longer than that; nothing is held or read from then on.
    """

    __slots__ = ("_carry", "_event_bytes_max", "_held", "_held_bytes", "_kind", "is_overlong")

    def __init__(self, kind: StreamKind, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._kind = kind
        self._event_bytes_max = event_bytes_max
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._carry = b""
        self.is_overlong = False

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes. `data` may start or end anywhere, even inside a UTF-8 character."""
        if self.is_overlong or not data:
            return []
        # Only the new bytes are searched, so that an event of many small pieces costs no more than its length.
        seam = self._carry + data
        end = whole_until(seam, self._kind) - len(self._carry)
        if end <= 0:
            self._hold(data)
            return []
        whole = b"".join((*self._held, data[:end]))
        self._held = []
        self._held_bytes = 0
        self._carry = b""
        if rest := data[end:]:
            self._hold(rest)
        return split(whole, self._kind)

    def rest(self) -> bytes:
        """Return what is held of an unfinished event."""
        return b"".join(self._held)

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._kind is StreamKind.SSE:
            self._carry = (self._carry + data[-_BLANK_LINE_CARRY:])[-_BLANK_LINE_CARRY:]
        if self._held_bytes > self._event_bytes_max:
            self.is_overlong = True
            self._held = []
            self._carry = b""
