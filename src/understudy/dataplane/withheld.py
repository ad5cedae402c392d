"""The client's side of an answer whose conversation is kept: its end is withheld until that is done.

Made by dataplane.turn in place of the plain outlet. A client that has seen the end of an answer may rely on its being kept, so
the last event of a stream, or the whole of an answer that is no stream, waits for the store. All else passes at once.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from understudy.core.record import ExchangeRecord
from understudy.dataplane.heads import ResponseHead
from understudy.dataplane.outlet import Outlet
from understudy.dialects.contract import StreamKind
from understudy.dialects.framing import event_ends

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

# One of these stands in the last event of every finished stream; a text that says so waits until the next event at most.
_LAST_WORDS = (b"[DONE]", b'"done":true', b'"done": true', b"message_stop")
# What is kept of an answer that is no stream, to be read at its end.
WHOLE_BYTES_MAX = 32 * 1024 * 1024


class WithheldOutlet(Outlet):
    """`whole` is the body of an answer that is no stream, b"" of one that is a stream or too long to be read."""

    writes_directly = False

    def __init__(self, record: ExchangeRecord, write_to_client: Callable[[bytes], None]) -> None:
        super().__init__(record, write_to_client)
        self._start: Callable[[], None] | None = None
        self._tail = b""
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._is_ended = False

    @property
    def whole(self) -> bytes:
        """The body so far."""
        self._pieces = [b"".join(self._pieces)]
        return self._pieces[0]

    def open(
        self,
        exchange: "RelayedExchange",
        head: ResponseHead,
        *,
        kind: StreamKind | None,
        whole: bytes | None = None,
        has_body: bool = True,
        lines: bytes = b"",
    ) -> None:
        """Write the head of a stream; that of a whole answer waits, because it says whether the conversation is kept."""
        if whole is None:
            super().open(exchange, head, kind=kind, has_body=has_body, lines=lines)
            return
        self.is_open = True
        self.kind = kind
        self._collect(whole)
        begin = super().open
        self._start = lambda: begin(exchange, head, kind=kind, whole=whole, has_body=has_body, lines=lines)

    def write(self, data: bytes) -> None:
        """Write the next bytes but for what may be the last of them."""
        if not data:
            return
        tail, self._tail = self._tail, b""
        if self.kind is None:
            self._collect(data)
            super().write(tail)
            self._tail = data
            return
        if self.is_mid_event or not any(word in data for word in _LAST_WORDS):
            super().write(tail + data)
            return
        # An event that lacks its end (a blank line) is the last one.
        starts = [0, *event_ends(data, self.kind)]
        last = starts[-1] if starts[-1] < len(data) else starts[-2]
        super().write(tail + data[:last])
        self._tail = data[last:]

    def end(self) -> None:
        """Note that the body is complete; `release` writes its end."""
        self._is_ended = True

    def release(self, comment: bytes = b"") -> None:
        """Write what was withheld; `comment` goes before the last event where there may be one."""
        start, self._start = self._start, None
        if start is not None:
            start()
            return
        tail, self._tail = self._tail, b""
        if self.kind is StreamKind.SSE and not self.is_mid_event:
            tail = comment + tail
        super().write(tail)
        if self._is_ended:
            super().end()

    def write_comment(self) -> None:
        """Write a comment between two events, but for one that would let the end slip out before it."""
        if not self._tail:
            super().write_comment()

    def write_last(self, event: bytes) -> None:
        """Write what was withheld and one event of our own, after which nothing follows."""
        tail, self._tail = self._tail, b""
        super().write(tail)
        delimiter = b"\n\n" if self.kind is StreamKind.SSE else b"\n"
        super().write(delimiter + event if self.is_mid_event else event)

    def _collect(self, data: bytes) -> None:
        self._pieces_bytes += len(data)
        if self._pieces_bytes > WHOLE_BYTES_MAX:
            self._pieces.clear()
        else:
            self._pieces.append(data)
