"""Everything that a simulated engine may do with one request, as steps in time.

Called by simulation.engine. `Fault.is_blamed` tells which of them may count against a backend, so that a play can hold the
daemon to blaming nobody for anything else.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random

from simulation.language import BY_PATH, SPEECHES, Speech
from support.answers import SSE, chunk
from support.breaks import CHARACTER, Utterance

# Longer than any deadline of a simulated plan.
FOREVER_S = 100_000.0
COMMENT = b": still here\n\n"
MALFORMED_LINE = b'{"model": "ti\n'
MALFORMED_EVENT = b'data: {"id": "chatcmpl-1", "choices": [{"ind\n\n'

Say = Callable[[bytes], None]


class Fault(Enum):
    """What goes wrong: a word, and whether the backend is to blame for it."""

    NONE = ("none", False)
    SLOW = ("slow", False)
    CLOSES_AFTERWARDS = ("closes_afterwards", False)
    UNTIL_CLOSE = ("until_close", False)
    COMMENTS_FIRST = ("comments_first", False)
    INTERIM = ("interim", False)
    JUNK_AFTERWARDS = ("junk_afterwards", True)
    BUSY = ("busy", False)
    BUSY_FOR_A_WHILE = ("busy_for_a_while", False)
    LOADING = ("loading", False)
    MODEL_MISSING = ("model_missing", False)
    CLIENTS_FAULT = ("clients_fault", False)
    CLOSES_WITHOUT_A_BYTE = ("closes_without_a_byte", True)
    RESETS_WITHOUT_A_BYTE = ("resets_without_a_byte", True)
    HEAD_CUT = ("head_cut", True)
    HEAD_JUNK = ("head_junk", True)
    HEAD_ENDLESS = ("head_endless", True)
    INTERIM_FLOOD = ("interim_flood", True)
    SERVER_ERROR = ("server_error", True)
    OUT_OF_MEMORY = ("out_of_memory", True)
    UNAVAILABLE = ("unavailable", True)
    ERROR_CUT = ("error_cut", True)
    NO_CONTENT = ("no_content", True)
    OPENING_THEN_SILENCE = ("opening_then_silence", True)
    OPENING_THEN_ERROR = ("opening_then_error", True)
    OPENING_THEN_END = ("opening_then_end", True)
    CUT = ("cut", True)
    CUT_IN_AN_EVENT = ("cut_in_an_event", True)
    CUT_IN_A_CHARACTER = ("cut_in_a_character", True)
    CUT_IN_A_CHUNK = ("cut_in_a_chunk", True)
    LATE_END = ("late_end", True)
    MALFORMED_EVENT = ("malformed_event", True)
    RESET = ("reset", True)
    UNFINISHED = ("unfinished", True)
    ERROR_INSIDE = ("error_inside", True)
    ERROR_BEFORE_DONE = ("error_before_done", True)
    STALLS = ("stalls", True)
    COMMENTS_ONLY = ("comments_only", True)
    BAD_CHUNK = ("bad_chunk", True)
    NO_LAST_CHUNK = ("no_last_chunk", True)

    @property
    def is_blamed(self) -> bool:
        """Whether it may count against the backend."""
        return self.value[1]


BREAKING_LATE = frozenset(
    {
        Fault.CUT,
        Fault.CUT_IN_AN_EVENT,
        Fault.CUT_IN_A_CHARACTER,
        Fault.CUT_IN_A_CHUNK,
        Fault.LATE_END,
        Fault.MALFORMED_EVENT,
        Fault.RESET,
        Fault.UNFINISHED,
        Fault.ERROR_INSIDE,
        Fault.ERROR_BEFORE_DONE,
        Fault.STALLS,
        Fault.COMMENTS_ONLY,
        Fault.BAD_CHUNK,
    }
)


# Ollama's streams have no comments.
SIGNS_OF_LIFE = {Fault.COMMENTS_FIRST: Fault.NONE, Fault.COMMENTS_ONLY: Fault.STALLS}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What an engine did with one call."""

    fault: Fault


@dataclass(frozen=True, slots=True)
class Step:
    """After a while: send `data`, then perhaps close or reset. `is_hanging`: nothing follows and nothing ends either."""

    after_s: float
    data: bytes = b""
    is_close: bool = False
    is_reset: bool = False
    is_hanging: bool = False


@dataclass(frozen=True, slots=True)
class Answering:
    """What an answer is made of. `piece_bytes` more stand in each of its events, where no reader looks."""

    tag: str
    path: str
    is_streaming: bool
    dice: Random
    gap_s: float
    utterance: Utterance
    piece_bytes: int = 0

    @property
    def speech(self) -> Speech:
        """The dialect of the path."""
        return BY_PATH["/api/chat"] if self.path.startswith("/api/") else BY_PATH.get(self.path, SPEECHES[0])

    @property
    def is_ndjson(self) -> bool:
        """Whether an event is a line."""
        return self.utterance.content_type != SSE


def make_told(fault: Fault, data: bytes, answering: Answering) -> list[Step]:
    """Return the steps of an answer to a question of our own, `data` when nothing goes wrong."""
    early = _early(fault, answering)
    if early is not None:
        return early
    after_s = answering.dice.choice((0.0, 0.02))
    if fault in BREAKING_LATE:
        cut = answering.dice.randrange(len(data))
        return [Step(after_s, data[:cut], is_reset=fault is Fault.RESET, is_close=fault is not Fault.RESET)]
    if fault in (Fault.OPENING_THEN_SILENCE, Fault.STALLS):
        return [Step(FOREVER_S)]
    return [Step(after_s, data, is_close=fault is Fault.CLOSES_AFTERWARDS)]


def make_steps(fault: Fault, answering: Answering) -> list[Step]:
    """Return the steps of one answer."""
    early = _early(fault, answering)
    if early is not None:
        return early
    if answering.is_streaming:
        return _stream(fault, answering)
    return _whole(fault, answering)


def _early(fault: Fault, answering: Answering) -> list[Step] | None:
    """Return the steps of a fault that comes before any answer, None for the others."""
    after_s = answering.dice.choice((0.0, 0.01, 0.2))
    if fault is Fault.HEAD_JUNK:
        junk = answering.dice.choice((b"\x00\x01\x02junk\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"<html>"))
        return [Step(after_s, junk, is_close=answering.dice.random() < 0.5)]
    field = b"X-More: " + b"y" * 4000 + b"\r\n"
    early = {
        Fault.CLOSES_WITHOUT_A_BYTE: [Step(after_s, is_close=True)],
        Fault.RESETS_WITHOUT_A_BYTE: [Step(after_s, is_reset=True)],
        Fault.HEAD_CUT: [Step(after_s, b"HTTP/1.1 200 OK\r\nContent-Ty", is_close=True)],
        Fault.HEAD_ENDLESS: [
            Step(after_s, b"HTTP/1.1 200 OK\r\n"),
            *(Step(0.001, field) for _ in range(20)),
            Step(FOREVER_S),
        ],
        Fault.INTERIM_FLOOD: [Step(after_s, b"HTTP/1.1 102 Processing\r\n\r\n" * 20), Step(FOREVER_S)],
        Fault.NO_CONTENT: [Step(after_s, is_hanging=True)],
        Fault.ERROR_CUT: [Step(after_s, b'HTTP/1.1 503 No\r\nContent-Length: 500\r\n\r\n{"err', is_close=True)],
    }
    return early.get(fault) or _told(fault, answering, after_s)


def _told(fault: Fault, answering: Answering, after_s: float) -> list[Step] | None:
    """Return the one step of an honest error, None for any other fault."""
    speech, message = answering.speech, f"for {answering.tag}"
    told = {
        Fault.SERVER_ERROR: (500, b"", speech.error_body(f"{message} broke")),
        Fault.OUT_OF_MEMORY: (500, b"", speech.error_body("CUDA out of memory")),
        Fault.UNAVAILABLE: (answering.dice.choice((502, 503, 504)), b"", b"<html>bad gateway</html>"),
        Fault.BUSY: (429, b"", speech.error_body(f"{message} too many")),
        Fault.BUSY_FOR_A_WHILE: (429, b"Retry-After: 1\r\n", speech.error_body(f"{message} too many")),
        Fault.LOADING: (503, b"", speech.error_body("Loading model")),
        Fault.MODEL_MISSING: (404, b"", speech.error_body(f"{message} model not found")),
        Fault.CLIENTS_FAULT: (answering.dice.choice((400, 413, 422)), b"", speech.error_body(f"{message} is wrong")),
    }.get(fault)
    if told is None:
        return None
    status, extra, body = told
    head = b"HTTP/1.1 %d Told\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n" % (status, extra, len(body))
    return [Step(after_s, head + body)]


def _whole(fault: Fault, answering: Answering) -> list[Step]:
    """An answer in one body. Faults that need a stream become a cut."""
    dice = answering.dice
    body = _padded(json.dumps(answering.utterance.whole, ensure_ascii=False).encode(), answering.piece_bytes)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    after_s = dice.choice((0.0, 0.05, 0.5))
    if fault in (Fault.NONE, Fault.SLOW, Fault.COMMENTS_FIRST, Fault.INTERIM):
        return [Step(after_s, head), Step(after_s, body)]
    if fault is Fault.CLOSES_AFTERWARDS:
        return [Step(after_s, head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + body, is_close=True)]
    if fault is Fault.UNTIL_CLOSE:
        return [
            Step(after_s, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + body, is_close=True)
        ]
    if fault is Fault.JUNK_AFTERWARDS:
        return [Step(after_s, head + body + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")]
    if fault in (Fault.STALLS, Fault.OPENING_THEN_SILENCE, Fault.COMMENTS_ONLY, Fault.NO_LAST_CHUNK):
        return [Step(after_s, head), Step(FOREVER_S)]
    cut = dice.randrange(len(body))
    return [Step(after_s, head), Step(after_s, body[:cut], is_close=fault is not Fault.RESET, is_reset=fault is Fault.RESET)]


def _padded(event: bytes, size: int) -> bytes:
    """Make an event longer by what no reader looks at."""
    return event.replace(b"{", b'{"pad":"%b",' % (b"x" * size), 1) if size else event


def _stream(fault: Fault, answering: Answering) -> list[Step]:
    """An answer event by event, in chunks or until the close."""
    said, dice = answering.utterance, answering.dice
    if answering.is_ndjson and fault in SIGNS_OF_LIFE:
        fault = SIGNS_OF_LIFE[fault]
    is_chunked = fault is not Fault.UNTIL_CLOSE
    gap_s = answering.gap_s * (5.0 if fault is Fault.SLOW else dice.choice((0.0, 0.1, 1.0)))
    closing = b"Connection: close\r\n" if fault in (Fault.UNTIL_CLOSE, Fault.CLOSES_AFTERWARDS) else b""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" if fault is Fault.INTERIM else b""
    head = interim + _stream_head(said.content_type.encode(), closing, is_chunked=is_chunked)
    steps = [Step(dice.choice((0.0, 0.01, 0.3)), head)]

    def say(event: bytes) -> None:
        steps.append(Step(gap_s, chunk(event) if is_chunked else event))

    if fault is Fault.COMMENTS_FIRST:
        say(COMMENT)
    for event in said.opening:
        say(event)
    if _breaks_before_content(fault, say, steps, said):
        return steps
    pieces = [_padded(event, answering.piece_bytes) for event in said.pieces]
    if fault in BREAKING_LATE:
        _break_late(fault, pieces, say, steps, answering)
        return steps
    for event in (*pieces, *said.closing):
        say(event)
    if fault is Fault.NO_LAST_CHUNK:
        steps.append(Step(FOREVER_S))
        return steps
    last = b"0\r\n\r\n" if is_chunked else b""
    if fault is Fault.JUNK_AFTERWARDS:
        last += b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    steps.append(Step(0.0, last, is_close=bool(closing)))
    return steps


def _stream_head(media_type: bytes, closing: bytes, *, is_chunked: bool) -> bytes:
    framing = b"Transfer-Encoding: chunked\r\n" if is_chunked else b""
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b%b\r\n" % (media_type, framing, closing)


def _breaks_before_content(fault: Fault, say: Say, steps: list[Step], said: Utterance) -> bool:
    if fault is Fault.OPENING_THEN_SILENCE:
        steps.append(Step(FOREVER_S))
    elif fault is Fault.OPENING_THEN_ERROR:
        for event in said.errors:
            say(event)
        steps.append(Step(0.0, b"0\r\n\r\n"))
    elif fault is Fault.OPENING_THEN_END:
        steps.append(Step(0.0, b"0\r\n\r\n"))
    else:
        return False
    return True


def _break_late(fault: Fault, pieces: list[bytes], say: Say, steps: list[Step], answering: Answering) -> None:
    """Say some of it, then break: with bytes of the next event, with events of the engine's own, or with none."""
    said, dice = answering.utterance, answering.dice
    after = dice.randrange(len(pieces) + 1)
    for event in pieces[:after]:
        say(event)
    following = [*pieces, *said.closing, COMMENT][after]
    if fault is Fault.CUT_IN_AN_EVENT:
        say(following[: dice.randrange(1, len(following) - 1)])
    elif fault is Fault.CUT_IN_A_CHARACTER:
        # Of a character of four bytes, which stands in the last quoted text of the event.
        cut = following.rindex(b'"') if b'"' in following else len(following) - 2
        say(following[:cut] + CHARACTER[: dice.randint(1, 3)])
    elif fault is Fault.CUT_IN_A_CHUNK:
        whole = chunk(following)
        steps.append(Step(0.0, whole[: dice.randrange(1, len(whole) - 1)]))
    elif fault in (Fault.ERROR_INSIDE, Fault.ERROR_BEFORE_DONE):
        for event in said.errors:
            say(event)
    elif fault is Fault.MALFORMED_EVENT:
        say(MALFORMED_LINE if answering.is_ndjson else MALFORMED_EVENT)
    steps += _last_steps(fault, answering)


def _last_steps(fault: Fault, answering: Answering) -> list[Step]:
    end = Step(0.0, b"0\r\n\r\n")
    # Ollama swallows its errors in /v1 and ends without [DONE].
    is_told = b'"error"' in b"".join(answering.utterance.errors)
    comment = [] if answering.is_ndjson else [Step(0.0, chunk(b":\n\n"))]
    by_fault = {
        Fault.STALLS: [Step(FOREVER_S)],
        Fault.COMMENTS_ONLY: [*(Step(0.5, chunk(COMMENT)) for _ in range(100)), Step(FOREVER_S)],
        Fault.BAD_CHUNK: [Step(0.0, b"zz\r\nno chunk\r\n"), Step(FOREVER_S)],
        Fault.ERROR_BEFORE_DONE: [*(Step(0.0, chunk(event)) for event in answering.utterance.closing if is_told), end],
        Fault.LATE_END: [Step(0.3), *comment, Step(0.0, is_close=True)],
        Fault.UNFINISHED: [end],
        Fault.MALFORMED_EVENT: [end],
        Fault.ERROR_INSIDE: [end if answering.dice.random() < 0.5 else Step(0.0, is_close=True)],
        Fault.RESET: [Step(0.0, is_reset=True)],
    }
    return by_fault.get(fault, [Step(0.0, is_close=True)])
