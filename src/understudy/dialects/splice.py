"""Write the stream of a continuation as the rest of the stream that broke, so that the client sees one.

Called by dataplane.continued. Reads a continuation in its own shape, piece by piece, and writes the client's; counts so that
usage adds up; holds back what may complete a stop string over the seam. Never chooses a continuation (engines).
"""

from typing import NamedTuple

from understudy.core.transcript import Continuation, Transcript, Wish
from understudy.dialects.contract import StreamKind
from understudy.dialects.endings import writer_of
from understudy.dialects.fold import SEAM_COMMENT
from understudy.dialects.framing import Event, Splitter, split
from understudy.dialects.pieces import BROKEN_FINISHES, Piece, counts_of, read_piece, stream_kind_of
from understudy.dialects.stops import SeamStops
from understudy.dialects.writer import Counts


class Spliced(NamedTuple):
    """What came of some bytes of a continuation.

    `data` is for the client, `kept` for the transcript, which also has the token ids. `is_content`: text, reasoning or a tool
    call came. `is_complete`: the terminator is in `data`; what the backend still says is of no interest. `is_error`: it reported
    a failure or said what cannot be understood; what came before is in `data`.
    """

    data: bytes = b""
    kept: bytes = b""
    is_content: bool = False
    is_complete: bool = False
    is_error: bool = False


class Splice:
    """One continuation of one answer. `prompt_tokens` and `completion_tokens` are as the backend counted them, None until then.

    `transcript` is read once, when this is made; `earlier_s` is the time the answer took before.
    """

    def __init__(self, wish: Wish, transcript: Transcript, continuation: Continuation, *, backend: str, earlier_s: float) -> None:
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self._shape = continuation.shape
        self._kind = stream_kind_of(continuation.shape)
        self._splitter = Splitter(self._kind)
        characters = len(transcript.text) + len(transcript.reasoning)
        seam = {"backend": backend, "after_characters": characters}
        self._writer = writer_of(wish, transcript, seam, earlier_s)
        # In NDJSON there are no comments; the writer puts the seam into its first line.
        comment = b"%b on %b after %d characters\n\n" % (SEAM_COMMENT, backend.encode(), characters)
        self._data_mark = self._kept_mark = b"" if stream_kind_of(wish.shape) is StreamKind.NDJSON else comment
        tokens = transcript.pieces if transcript.tokens is None else transcript.tokens
        self._delivered = tokens if continuation.delivered_tokens is None else continuation.delivered_tokens
        # Where the prompt's tokens are known although the backend has not counted them yet.
        self._prompt_known = len(transcript.prompt_ids) or counts_of(transcript.usage)[0]
        self._is_reasoning = bool(transcript.reasonings) and not transcript.texts
        self._swallow = continuation.swallow
        self._undelivered = continuation.undelivered
        self._stops = SeamStops(wish.stops, transcript.text, continuation.undelivered)
        self._held: list[Piece] = []
        self._pieces = 0
        self._usage: dict[str, object] = {}
        self._has_finish = False
        self._is_complete = self._is_error = self._is_over = False
        # Of the current call.
        self._data: list[bytes] = []
        self._kept: list[bytes] = []
        self._is_content = False

    def feed(self, data: bytes) -> Spliced:
        """Take the next bytes, cut anywhere. What follows a terminator, an error or [DONE] is not read."""
        if not self._is_over:
            self._take_all(self._splitter.feed(data))
            if self._splitter.is_overlong and not self._is_over:
                self._end_in_error()
        return self._spliced()

    def end(self) -> Spliced:
        """Take the end of the stream. Complete when a finish has come, be it without its terminator; a cut event is dropped."""
        if not self._is_over:
            rest = self._splitter.rest()
            events = split(rest, self._kind)
            if events and not self._is_cut(events[-1]):
                self._take_all(events)
            if self._has_finish and not self._is_over:
                self._complete()
            self._is_over = True
        return self._spliced()

    def _is_cut(self, event: Event) -> bool:
        return event.data is None or read_piece(self._shape, event.name, event.data).is_unreadable

    def _take_all(self, events: list[Event]) -> None:
        for name, data in events:
            if data is not None:
                self._take(read_piece(self._shape, name, data))
            elif name == b"error":
                self._end_in_error()
            if self._is_over:
                return

    def _take(self, piece: Piece) -> None:
        is_understood = not (piece.is_unreadable or piece.has_audio or piece.index) and self._writer.can_write(piece)
        if piece.is_error or piece.finish in BROKEN_FINISHES or not is_understood:
            self._end_in_error()
            return
        if piece.usage:
            self._usage.update(piece.usage)
            self.prompt_tokens, self.completion_tokens = counts_of(self._usage)
        if self._swallow:
            self._swallow_from(piece)
        if self._undelivered and (piece.text or piece.finish or piece.tool_calls):
            piece.text = self._undelivered + piece.text
            self._undelivered = ""
        if self._stops.is_open:
            self._look_for_stop(piece)
        else:
            self._write(piece)
        if piece.is_done and not self._is_over:
            self._end_done()

    def _swallow_from(self, piece: Piece) -> None:
        """Drop from the new text what the client has already."""
        text = piece.reasoning if self._is_reasoning else piece.text
        if self._is_reasoning and piece.text:
            self._swallow = ""
        if not text:
            return
        same = 0
        while same < min(len(text), len(self._swallow)) and text[same] == self._swallow[same]:
            same += 1
        self._swallow = self._swallow[same:] if same == len(text) else ""
        if self._is_reasoning:
            piece.reasoning = text[same:]
        else:
            piece.text = text[same:]

    def _look_for_stop(self, piece: Piece) -> None:
        stops = self._stops
        if piece.text:
            stops.add(piece.text)
        if stops.found:
            why = {"stop_reason": stops.found, "stop_sequence": stops.found}
            self._held.clear()
            self._write(Piece(stops.rest, finish="stop", why=why, created_at=piece.created_at))
            self._complete()
            return
        self._held.append(piece)
        if not stops.is_open or piece.finish or piece.tool_calls:
            stops.is_open = False
            for held in self._held:
                self._write(held)
            self._held.clear()

    def _write(self, piece: Piece) -> None:
        if piece.text or piece.reasoning or piece.tool_calls:
            self._is_content = True
            self._pieces += 1
        self._has_finish = self._has_finish or bool(piece.finish)
        data, kept = self._writer.write(piece, self._counts())
        self._put(data, kept)

    def _counts(self) -> Counts:
        """Count the prompt once and the completion over all parts."""
        prompt, completion = self.prompt_tokens, self.completion_tokens
        known = self._prompt_known if prompt is None else max(0, prompt - self._delivered)
        return Counts(known, self._delivered + (self._pieces if completion is None else completion))

    def _end_done(self) -> None:
        """Take the terminator, which alone completes nothing: vLLM and SGLang send it after an error, too."""
        if self._has_finish:
            self._complete()
        self._is_over = True

    def _complete(self) -> None:
        data = self._writer.end(self._counts())
        self._put(data, data)
        self._is_complete = self._is_over = True

    def _end_in_error(self) -> None:
        self._is_error = self._is_over = True

    def _put(self, data: bytes, kept: bytes) -> None:
        if data:
            self._data += (self._data_mark, data)
            self._data_mark = b""
        if kept:
            self._kept += (self._kept_mark, kept)
            self._kept_mark = b""

    def _spliced(self) -> Spliced:
        data, kept = b"".join(self._data), b"".join(self._kept)
        spliced = Spliced(data, data if data == kept else kept, self._is_content, self._is_complete, self._is_error)
        self._data, self._kept, self._is_content = [], [], False
        return spliced
