"""How an engine's answer breaks off: every kind, at any piece, with the bytes that the engine itself would leave behind.

`Utterance` is one generated answer as its engine would send it; `played` makes the steps of it, broken where a play says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from support.answers import LAST_CHUNK, SSE, chunk, stream_head, whole
from support.steps import Answer, Step, answer, close, hang, pause, repeat, reset, send


class Kind(StrEnum):
    """What happens to the answer."""

    RESET = "reset"  # SIGKILL with data in flight
    CLOSED = "closed"  # SIGKILL, or Ollama's SIGTERM: FIN, and no last chunk
    CLEAN_END = "clean end without a finish"  # a proxy before a dead engine; Ollama's lost runner behind /v1
    ERROR = "the engine's own error"  # as each engine tells it, in each dialect
    SILENCE = "silence"  # SIGSTOP; vLLM's SIGTERM, which leaves open streams as they are
    COMMENTS = "comments only"  # keep-alive comments of an engine that is stuck
    LATE_END = "a comment, then the end"  # llama.cpp's SIGTERM: silence, a comment, then FIN without the last chunk
    MALFORMED = "a malformed event"
    INSIDE_EVENT = "inside an event"
    INSIDE_CHARACTER = "inside a character"
    INSIDE_CHUNK_HEADER = "inside a chunk header"
    BAD_CHUNK = "a malformed chunk"


# An answer that goes on in silence is only given up by a deadline, so plays of these need a short one.
SILENT = frozenset({Kind.SILENCE, Kind.COMMENTS})
PROMPT = tuple(kind for kind in Kind if kind not in SILENT)
CHARACTER = "\U0001f600".encode()


@dataclass(frozen=True, slots=True)
class Utterance:
    """A generated answer, streamed: what comes before the first piece, an event for each piece, what ends it.

    `errors` are the events of the engine's own failure in mid-stream, after which the stream ends cleanly. `whole` is the same
    answer for a client that asked for no stream.
    """

    opening: Sequence[bytes]
    pieces: Sequence[bytes]
    closing: Sequence[bytes]
    errors: Sequence[bytes]
    whole: Any = None
    content_type: str = SSE
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Break:
    """Break off after `after` pieces; an answer that has fewer breaks after its last one, before what ends the stream."""

    kind: Kind
    after: int


def played(utterance: Utterance, broken: Break | None, *, is_streamed: bool, gap_s: float = 0.0) -> Answer:
    """Make the steps of an answer, broken off or whole; `gap_s` is a rest after each piece."""
    if not is_streamed:
        return _whole(utterance, broken)
    begun = send(stream_head(utterance.content_type, headers=utterance.headers), *map(chunk, utterance.opening))
    if broken is None:
        return answer(begun, *_sent(utterance.pieces, gap_s), send(*map(chunk, utterance.closing), LAST_CHUNK))
    after = min(broken.after, len(utterance.pieces))
    return answer(begun, *_sent(utterance.pieces[:after], gap_s), *_break_steps(broken.kind, utterance, after))


def _sent(events: Sequence[bytes], gap_s: float) -> list[Step]:
    if not gap_s:
        return [send(b"".join(map(chunk, events)))] if events else []
    return [step for event in events for step in (send(chunk(event)), pause(gap_s))]


def _whole(utterance: Utterance, broken: Break | None) -> Answer:
    """Answer unstreamed; such an answer can only be lost as a whole."""
    if broken is None:
        return whole(200, utterance.whole, utterance.headers)
    if broken.kind in SILENT:
        return answer(hang())
    return answer(close() if broken.kind is Kind.CLOSED else reset())


def _break_steps(kind: Kind, utterance: Utterance, after: int) -> tuple[Step, ...]:
    event = [*utterance.pieces, *utterance.closing][after]
    is_ndjson = utterance.content_type != SSE
    if kind is Kind.INSIDE_CHARACTER:
        event = _with_character(event)
        cut = event.index(CHARACTER) + 2
        return send(chunk(event[:cut])), close()
    if kind is Kind.COMMENTS:
        return (hang(),) if is_ndjson else (repeat(chunk(b": keep-alive\n\n"), gap_s=0.05),)
    half = chunk(event)[: len(chunk(event)) // 2]
    malformed = b'{"model": "ti\n' if is_ndjson else b'data: {"id": "chatcmpl-1", "choices": [{"ind\n\n'
    steps: dict[Kind, tuple[Step, ...]] = {
        Kind.RESET: (reset(),),
        Kind.CLOSED: (close(),),
        Kind.CLEAN_END: (send(LAST_CHUNK),),
        Kind.ERROR: (send(*map(chunk, utterance.errors), LAST_CHUNK),),
        Kind.SILENCE: (hang(),),
        Kind.LATE_END: (pause(0.05), send(b"" if is_ndjson else chunk(b":\n\n")), close()),
        Kind.MALFORMED: (send(chunk(malformed)), *(send(chunk(later)) for later in utterance.closing), send(LAST_CHUNK)),
        Kind.INSIDE_EVENT: (send(half), close()),
        Kind.INSIDE_CHUNK_HEADER: (send(b"1"), close()),
        Kind.BAD_CHUNK: (send(b"xyz\r\nnot a size\r\n"), close()),
    }
    return steps[kind]


def _with_character(event: bytes) -> bytes:
    """Put a character of four bytes into the last quoted text of the event; before the word of one that has none."""
    cut = event.rindex(b'"') if b'"' in event else len(b"data: ")
    return event[:cut] + CHARACTER + event[cut:]
