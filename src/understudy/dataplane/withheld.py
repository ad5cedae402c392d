"""The client's side of an answer whose conversation is kept: its end is withheld until that is done.

Made by dataplane.turn in place of the plain outlet. A client that has seen the end of an answer may rely on its being kept, so
the terminator of a stream and whatever follows it, or the whole of an answer that is no stream, waits for the store. All else
passes at once.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from understudy.core.record import ExchangeRecord
from understudy.dataplane.heads import ResponseHead
from understudy.dataplane.outlet import Outlet
from understudy.dialects.contract import EVENT_BYTES_MAX, StreamKind
from understudy.dialects.terminator import may_end, terminator_at

if TYPE_CHECKING:
    from understudy.dataplane.relayed import RelayedExchange

# What is kept of an answer that is no stream, to be read at its end.
WHOLE_BYTES_MAX = 32 * 1024 * 1024


class WithheldOutlet(Outlet):
    """`whole` is the body of an answer that is no stream, b"" of one that is a stream or too long to be read.

    `is_released`: nothing is withheld any more.
    """

    writes_directly = False
    # Ollama's last line of /api/generate has a number for each token: nobody waits for it, and only whole it can be told.
    partial_bytes_max = EVENT_BYTES_MAX

    def __init__(self, record: ExchangeRecord, write_to_client: Callable[[bytes], None]) -> None:
        super().__init__(record, write_to_client)
        self._start: Callable[[], None] | None = None
        self._tail: list[bytes] = []
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._is_ended = False
        self.is_released = False

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
        begin = super().open
        if whole is None:
            begin(exchange, head, kind=kind, has_body=has_body, lines=lines)
            return
        self.is_open = True
        self.kind = kind
        self._collect(whole)
        self._start = lambda: begin(exchange, head, kind=kind, whole=whole, has_body=has_body, lines=lines)

    def write(self, data: bytes) -> None:
        """Write the next bytes, up to the terminator; of an answer that is no stream all but the last that have come."""
        if self.is_released:
            super().write(data)
        elif not data:
            return
        elif self.kind is None:
            self._collect(data)
            super().write(b"".join(self._tail))
            self._tail = [data]
        elif self._tail:
            self._tail.append(data)
        elif self.is_mid_event or not may_end(data, self.kind):
            super().write(data)
        else:
            at = terminator_at(data, self.kind)
            super().write(data[:at])
            if at < len(data):
                self._tail.append(data[at:])

    def end(self) -> None:
        """Note that the body is complete; `release` writes its end."""
        self._is_ended = True

    def release(self, comment: bytes = b"") -> None:
        """Write what was withheld; `comment` goes before the terminator where there may be one."""
        self.is_released = True
        start, self._start = self._start, None
        if start is not None:
            start()
            return
        has_comment = self.kind is StreamKind.SSE and not self.is_mid_event
        tail, self._tail = b"".join(self._tail), []
        super().write(comment + tail if has_comment else tail)
        if self._is_ended:
            super().end()

    def write_comment(self) -> None:
        """Write a comment between two events, but none behind the end."""
        if not self._tail:
            super().write_comment()

    def write_last(self, event: bytes) -> None:
        """Write what was withheld and one event of our own, after which nothing follows."""
        self.is_released = True
        tail, self._tail = b"".join(self._tail), []
        super().write(tail)
        super().write_last(event)

    def _collect(self, data: bytes) -> None:
        self._pieces_bytes += len(data)
        if self._pieces_bytes > WHOLE_BYTES_MAX:
            self._pieces.clear()
        else:
            self._pieces.append(data)
