"""What has come of one answer: the pieces as they passed, read only when an answer breaks, is put together or grows large.

Kept by dataplane.relayed for its exchange, filled by dataplane.answer and dataplane.continued with whole events. Bounded: large
transcripts are reduced to their meaning (dialects.fold), and beyond `TEXT_CHARACTERS_MAX` given up.
"""

from understudy.core.transcript import Shape, Transcript
from understudy.dialects.fold import fold

# Raw bytes at which the pieces are reduced to what they mean: an answer of some 250 tokens never gets there.
FOLD_BYTES = 64 * 1024
# An answer whose text is longer is not continued: nobody reads a megabyte, and each stream may hold this much.
TEXT_CHARACTERS_MAX = 1024 * 1024
# An answer that is put together whole keeps its raw events, at most this many bytes.
COLLECTED_BYTES_MAX = 32 * 1024 * 1024
# The last pieces, which tell at the end whether the answer was finished. The very last are kept whole, because only a whole event
# can be read: that of /v1/responses repeats the answer, that of Ollama's /api/generate holds every token's number.
TAIL_PIECES = 12
TAIL_PIECES_WHOLE = 3
TAIL_PIECE_BYTES_MAX = 4 * 1024


class Received:
    """The pieces of one answer. `keep` adds one, and whoever adds counts the bytes and calls `shrink` past `FOLD_BYTES`.

    `shape` None: no text that could be continued, so only the tail is kept. `is_cut` is set when half an event has reached the
    client, `is_too_long` when the transcript outgrew its bound: then there is none.
    """

    is_cut = False
    is_too_long = False

    def __init__(self, shape: Shape | None, *, is_collected: bool = False) -> None:
        self.shape = shape
        self.is_collected = is_collected
        self._pieces: list[bytes] = []
        self._before: list[bytes] = []
        self._transcript: Transcript | None = None
        # Of a collected answer, whose pieces stay: how many were read and how many counted, with their bytes.
        self._folded = 0
        self._counted = 0
        self._collected_bytes = 0
        self.keep = self._pieces.append

    def shrink(self) -> bool:
        """Reduce the pieces to their meaning; True when the answer has just outgrown what may be kept of one."""
        if self.is_collected:
            self._collected_bytes += sum(map(len, self._pieces[self._counted :]))
            self._counted = len(self._pieces)
            self.is_too_long = self._collected_bytes > COLLECTED_BYTES_MAX
            return self.is_too_long
        was_too_long = self.is_too_long
        if self.shape is not None and not self.is_cut and not was_too_long:
            self._fold()
        else:
            self._keep_tail()
        return self.is_too_long and not was_too_long

    def transcript(self) -> Transcript | None:
        """Return what the client has received so far; None where that is not known."""
        if self.shape is None or self.is_cut or self.is_too_long:
            return None
        return self._fold()

    def tail(self) -> bytes:
        """Return the last pieces, the earlier ones cut to their ends where they are long."""
        return b"".join(self._last())

    def all(self) -> bytes:
        """Return everything that was collected."""
        return b"".join(self._pieces)

    def _fold(self) -> Transcript | None:
        transcript = self._transcript
        if transcript is None:
            transcript = self._transcript = Transcript()
        if len(self._pieces) > self._folded and self.shape is not None:
            fold(transcript, self.shape, b"".join(self._pieces[self._folded :]))
            if self.is_collected:
                self._folded = len(self._pieces)
            else:
                self._keep_tail()
            if transcript.size_characters > TEXT_CHARACTERS_MAX:
                self.is_too_long = True
                self._transcript = None
        return self._transcript

    def _keep_tail(self) -> None:
        self._before = self._last()
        self._pieces.clear()

    def _last(self) -> list[bytes]:
        last = (self._before + self._pieces)[-TAIL_PIECES:]
        if self.is_cut:
            # Parts of one event that is too large to be held back.
            return last
        return [piece[-TAIL_PIECE_BYTES_MAX:] for piece in last[:-TAIL_PIECES_WHOLE]] + last[-TAIL_PIECES_WHOLE:]
