"""What comes back of a shadow: bounded bytes, its first content, and in the end what it says and whether it is an answer.

Fed by controlplane.shadows piece by piece. Up to the first content every event is looked at; after that pieces are only kept, and
read together. Never waits, never tells anybody, and keeps the text only until it is asked for.
"""

from typing import Final

from understudy.core.snapshot import EngineKind
from understudy.core.transcript import Transcript
from understudy.dialects.answered import read_answer
from understudy.dialects.contract import Dialect, Ending, Mark, StreamKind
from understudy.dialects.events import is_sound, read_json
from understudy.dialects.fold import fold
from understudy.dialects.framing import whole_until
from understudy.dialects.wish import shape_of
from understudy.engines import classify
from understudy.errors import FailureKind

# More is read of no answer.
READ_BYTES_MAX: Final = 8 * 1024 * 1024
# Of an error this much tells what it is; a longer whole answer is not looked into, for that would hold up the loop for 2 ms.
ERROR_BYTES_MAX: Final = 64 * 1024
WHOLE_BYTES_MAX: Final = 1024 * 1024
# Events are read this many bytes at a time: some 130 of them, a third of a millisecond.
FOLD_BYTES: Final = 32 * 1024


class ShadowAnswer:
    """One answer as it comes.

    `is_begun` says that content or a finish has come, `has_content` that content of a stream has: of an answer that comes whole
    nobody can tell when. `failure` is why it is none, `is_rejected` that its status says so without a failure of the engine.
    `text` is set by `end`, None where it cannot be compared with another; `characters` counts text and reasoning.
    """

    def __init__(self, dialect: Dialect, path: str, engine: EngineKind) -> None:
        self.status = 0
        self.kind: StreamKind | None = None
        self.is_begun = self.has_content = self.is_too_large = self.is_rejected = False
        self.failure: FailureKind | None = None
        self.text: str | None = None
        self.characters = 0
        self._dialect = dialect
        self._path = path
        self._shape = shape_of(path)
        self._engine = engine
        self._retry_after = ""
        self._bytes = 0
        self._is_enough = False
        self._transcript = Transcript()
        self._reader: object = None
        self._before = b""
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._fold_at_bytes = FOLD_BYTES

    def open(self, status: int, content_type: str, retry_after: str) -> None:
        """Take what the head says."""
        self.status = status
        self._retry_after = retry_after
        if self.is_success:
            self.kind = self._dialect.stream_kind(content_type.encode("latin-1", "replace"))
        if self.kind is not None:
            self._reader = self._dialect.reader(self._path, self.kind)

    @property
    def is_success(self) -> bool:
        """Whether the status says that this is an answer."""
        return 200 <= self.status < 300

    @property
    def is_over(self) -> bool:
        """Whether no more of it is wanted."""
        return self._is_enough or self.is_too_large or self.failure is not None

    def take(self, data: bytes) -> bool:
        """Take the next bytes; True where they are progress, which a comment that only keeps the connection open is not."""
        self._bytes += len(data)
        if self._bytes > READ_BYTES_MAX:
            self.is_too_large = True
            self._pieces.clear()
            return True
        self._pieces.append(data)
        if self.kind is None:
            self.is_begun = True
            self._is_enough = not self.is_success and self._bytes > ERROR_BYTES_MAX
            return True
        self._pieces_bytes += len(data)
        if self._reader is not None:
            self._look_for_content(data)
        elif self._pieces_bytes >= self._fold_at_bytes:
            self._fold()
        return self.is_begun and (data[:1] != b":" or b"\ndata" in data)

    def end(self, broken: FailureKind | None = None) -> None:
        """Read what has come, now that nothing more will; `broken` is why, None where the answer was complete.

        A finished stream is an answer however its connection ended.
        """
        if self.failure is None and not self.is_too_large:
            if not self.is_success:
                self._end_refused(broken)
            elif self.kind is None:
                self._end_whole(broken)
            else:
                self._end_stream(self.kind, broken)
        self._pieces.clear()
        self._before = b""
        self._transcript = Transcript()

    # --- streams

    def _look_for_content(self, data: bytes) -> None:
        for mark in self._reader.feed(data):  # type: ignore[attr-defined]  # a StreamReader until it is None
            if mark is Mark.ERROR:
                self.failure = FailureKind.ERROR_EVENT
                return
            if mark is Mark.CONTENT or mark is Mark.FINISH:
                self.is_begun = True
                self.has_content = mark is Mark.CONTENT
                self._reader = None
                return

    def _fold(self) -> None:
        """Reduce the whole events to what they say; the last of them stay, for they tell how the stream ends."""
        data = b"".join(self._pieces)
        end = whole_until(data, self.kind or StreamKind.SSE)
        whole, rest = data[:end], data[end:]
        self._pieces = [rest] if rest else []
        self._pieces_bytes = len(rest)
        # An event of many pieces is not searched anew with each of them.
        self._fold_at_bytes = max(FOLD_BYTES, 2 * len(rest))
        if whole:
            self._before = whole
            self._read_events(whole)

    def _read_events(self, data: bytes) -> None:
        kind = self.kind or StreamKind.SSE
        if b'"error"' in data and self._dialect.has_error(self._path, kind, data):
            self.failure = FailureKind.ERROR_EVENT
        elif not is_sound(data, kind):
            self.failure = FailureKind.EVENT_MALFORMED
        elif self._shape is not None:
            fold(self._transcript, self._shape, data)

    def _end_stream(self, kind: StreamKind, broken: FailureKind | None) -> None:
        rest = b"".join(self._pieces)
        ending = self._dialect.read_ending(self._path, kind, self._before + rest)
        if ending is Ending.FINISHED or broken is None:
            self._read_events(rest)
        if self.failure is None and ending is not Ending.FINISHED:
            self.failure = FailureKind.ERROR_EVENT if ending is Ending.ERROR else broken or FailureKind.UNFINISHED
        transcript = self._transcript
        self.characters = len(transcript.text) + len(transcript.reasoning)
        is_text = transcript.text or not (transcript.has_tool_call or transcript.has_audio)
        if self._shape is not None and transcript.choices <= 1 and not transcript.has_gap and is_text:
            self.text = transcript.text

    # --- whole answers

    def _end_refused(self, broken: FailureKind | None) -> None:
        body = b"".join(self._pieces)
        if not self.status:
            self.failure = broken
            return
        self.failure = classify(self._engine, status=self.status, retry_after=self._retry_after, body=body)
        self.is_rejected = self.failure is None

    def _end_whole(self, broken: FailureKind | None) -> None:
        if broken is not None:
            self.failure = broken
            return
        if self._bytes > WHOLE_BYTES_MAX:
            return
        body = b"".join(self._pieces)
        # Line breaks in JSON stand between its tokens only, so that the body is one event on a line.
        if b'"error"' in body and self._dialect.has_error(self._path, StreamKind.NDJSON, body.replace(b"\n", b" ")):
            self.failure = FailureKind.ERROR_EVENT
            return
        answered = read_answer(self._path, body)
        if answered is None:
            if not isinstance(read_json(body), (dict, list)):
                self.failure = FailureKind.EVENT_MALFORMED
            elif self._shape is not None:
                self.text = ""
            return
        message = answered.message
        self.characters = len(message.text) + len(message.reasoning)
        if message.text or not message.calls:
            self.text = message.text
