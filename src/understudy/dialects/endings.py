"""Write the end of a stream that needs no continuation: one that has its finish already, one that has all its tokens.

Called by dataplane.resuming. Also chooses the writer of a shape, for dialects.splice.
"""

from typing import Any

from understudy.core.transcript import OLLAMA_SHAPES, Shape, Spent, Transcript, Wish
from understudy.dialects.pieces import Piece, counts_of
from understudy.dialects.writer import Counts, OllamaWriter, OpenAIWriter, Writer
from understudy.dialects.writer_anthropic import AnthropicWriter


def writer_of(wish: Wish, transcript: Transcript, seam: dict[str, Any] | None, earlier_s: float) -> Writer:
    """Return the writer of the client's shape. `seam` is what NDJSON tells of it."""
    if wish.shape in OLLAMA_SHAPES:
        return OllamaWriter(wish, transcript, seam, earlier_s)
    return AnthropicWriter(transcript) if wish.shape is Shape.ANTHROPIC else OpenAIWriter(wish, transcript)


def lacks_usage(wish: Wish, transcript: Transcript) -> bool:
    """Whether a stream that has its finish lacks the usage that its client wants, and nobody has told the counts."""
    is_known = transcript.is_usage_sent or None not in counts_of(transcript.usage)
    return wish.wants_usage and bool(transcript.finish) and not is_known


def closing(wish: Wish, transcript: Transcript, spent: Spent | None = None) -> bytes | None:
    """Write what a stream that has its finish lacks to be complete; None when it has no finish or that is not known.

    A usage event that the client wanted and that did not come is written only where both counts are known: from the stream, or
    as `spent` tells them.
    """
    if not transcript.finish or transcript.is_unreadable or transcript.choices > 1:
        return None
    known = Counts(spent.prompt_tokens, spent.completion_tokens) if spent is not None else Counts(*counts_of(transcript.usage))
    counts = Counts() if transcript.is_usage_sent else known
    return writer_of(wish, transcript, None, 0.0).end(counts)


def cut_short(wish: Wish, transcript: Transcript, spent: Spent) -> bytes:
    """Write the end of a stream that has as many tokens as its client allowed: the finish, usage as far as known, terminator."""
    writer = writer_of(wish, transcript, None, 0.0)
    counts = Counts(spent.prompt_tokens, spent.completion_tokens)
    data, _ = writer.write(Piece(finish="length"), counts)
    return data + writer.end(counts)
