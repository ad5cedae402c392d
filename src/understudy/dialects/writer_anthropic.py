"""Write the pieces of a continuation as events of the stream of /v1/messages that broke.

Used by dialects.splice and dialects.endings, see dialects.writer for the other shapes. The content block that was open goes on
where what follows is of its type; else it is closed, and the next one has the next index.
"""

from typing import Any

import msgspec

from understudy.core.transcript import Transcript
from understudy.dialects.pieces import Piece
from understudy.dialects.writer import Counts

_ENCODE = msgspec.json.Encoder().encode
# The finish reasons of our own endings, which have OpenAI's words.
_FINISHES = {"length": "max_tokens", "stop": "stop_sequence"}


class AnthropicWriter:
    """Writes events of /v1/messages. See `writer.Writer`."""

    def __init__(self, transcript: Transcript) -> None:
        self._open = transcript.open_block
        # What is said of tokens where nobody counted: this shape cannot do without.
        self._delivered = transcript.pieces if transcript.tokens is None else transcript.tokens
        self._blocks = transcript.blocks
        # The type of the continuation's own open block; "" where it has none.
        self._their_type = ""

    def can_write(self, piece: Piece) -> bool:  # noqa: ARG002  # contract of Writer
        """See `Writer.can_write`: what is read of this shape can be written in it."""
        return True

    def write(self, piece: Piece, counts: Counts) -> tuple[bytes, bytes]:
        """See `Writer.write`."""
        events: list[bytes] = []
        if piece.block is not None:
            self._their_type = str(piece.block.get("type"))
            if piece.tool_calls:
                self._start(events, piece.block)
        if piece.reasoning:
            self._add(events, "thinking", {"type": "thinking_delta", "thinking": piece.reasoning})
        if piece.text:
            self._add(events, "text", {"type": "text_delta", "text": piece.text})
        if piece.block_delta is not None and self._open is not None and self._open[1] == self._their_type:
            events.append(_event("content_block_delta", index=self._open[0], delta=piece.block_delta))
        # A block of theirs that said nothing was never begun here.
        if piece.is_block_end and self._open is not None and self._open[1] == self._their_type:
            self._stop(events)
        if piece.finish:
            self._finish(events, piece, counts)
        data = b"".join(events)
        return data, data

    def end(self, counts: Counts) -> bytes:  # noqa: ARG002  # contract of Writer
        """See `Writer.end`."""
        return _event("message_stop")

    def _add(self, events: list[bytes], kind: str, delta: dict[str, Any]) -> None:
        if self._open is None or self._open[1] != kind:
            self._start(events, {"type": kind, kind: ""})
        if self._open is not None:
            events.append(_event("content_block_delta", index=self._open[0], delta=delta))

    def _start(self, events: list[bytes], block: dict[str, Any]) -> None:
        self._stop(events)
        self._open = (self._blocks, str(block.get("type")))
        events.append(_event("content_block_start", index=self._blocks, content_block=block))
        self._blocks += 1

    def _stop(self, events: list[bytes]) -> None:
        if self._open is not None:
            events.append(_event("content_block_stop", index=self._open[0]))
            self._open = None

    def _finish(self, events: list[bytes], piece: Piece, counts: Counts) -> None:
        self._stop(events)
        delta = {
            "stop_reason": _FINISHES.get(piece.finish, piece.finish),
            "stop_sequence": (piece.why or {}).get("stop_sequence"),
        }
        usage = {"output_tokens": self._delivered if counts.completion is None else counts.completion}
        if "input_tokens" in (piece.usage or {}) and counts.prompt is not None:
            usage = {"input_tokens": counts.prompt} | usage
        events.append(_event("message_delta", delta=delta, usage=usage))


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _ENCODE({"type": kind, **fields}))
