"""Everything that a simulated engine may do with one request, as steps in time.

Called by simulation.engine. `Fault.is_blamed` tells which of them may count against a backend, so that a play can hold the
daemon to blaming nobody for anything else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random

from simulation.language import BY_PATH, SPEECHES, Speech, token

# Longer than any deadline of a simulated plan.
FOREVER_S = 100_000.0

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


@dataclass
class Answering:
    """What an answer is made of; `pieces`, how many tokens it has, is filled in by `make_steps`."""

    tag: str
    generation: str
    path: str
    is_streaming: bool
    dice: Random
    pieces_max: int
    gap_s: float
    piece_bytes: int
    pieces: int = 0

    @property
    def speech(self) -> Speech:
        """The dialect of the path."""
        return BY_PATH["/api/chat"] if self.path.startswith("/api/") else BY_PATH.get(self.path, SPEECHES[0])


def make_steps(fault: Fault, answering: Answering) -> list[Step]:
    """Return the steps of one answer."""
    answering.pieces = answering.dice.randint(1, answering.pieces_max)
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


def _texts(answering: Answering) -> list[str]:
    filling = "x" * answering.piece_bytes
    return [filling + token(answering.tag, answering.generation, place) for place in range(answering.pieces)]


def _whole(fault: Fault, answering: Answering) -> list[Step]:
    """An answer in one body. Faults that need a stream become a cut."""
    speech, dice = answering.speech, answering.dice
    body = speech.whole("".join(_texts(answering)))
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


def _stream(fault: Fault, answering: Answering) -> list[Step]:
    """An answer event by event, in chunks or until the close."""
    speech, dice = answering.speech, answering.dice
    if speech.kind == "ollama" and fault in SIGNS_OF_LIFE:
        fault = SIGNS_OF_LIFE[fault]
    is_chunked = fault is not Fault.UNTIL_CLOSE
    gap_s = answering.gap_s * (5.0 if fault is Fault.SLOW else dice.choice((0.0, 0.1, 1.0)))
    closing = b"Connection: close\r\n" if fault in (Fault.UNTIL_CLOSE, Fault.CLOSES_AFTERWARDS) else b""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" if fault is Fault.INTERIM else b""
    steps = [Step(dice.choice((0.0, 0.01, 0.3)), interim + _stream_head(speech, closing, is_chunked=is_chunked))]

    def say(event: bytes) -> None:
        steps.append(Step(gap_s, b"%x\r\n%b\r\n" % (len(event), event) if is_chunked else event))

    if fault is Fault.COMMENTS_FIRST:
        say(speech.comment())
    for event in speech.opening():
        say(event)
    if _breaks_before_content(fault, say, steps, speech):
        return steps
    pieces = [speech.piece(text) for text in _texts(answering)]
    if fault in BREAKING_LATE:
        _break_late(fault, pieces, say, steps, answering)
        return steps
    for event in (*pieces, *speech.finish()):
        say(event)
    if fault is Fault.NO_LAST_CHUNK:
        steps.append(Step(FOREVER_S))
        return steps
    last = b"0\r\n\r\n" if is_chunked else b""
    if fault is Fault.JUNK_AFTERWARDS:
        last += b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    steps.append(Step(0.0, last, is_close=bool(closing)))
    return steps


def _stream_head(speech: Speech, closing: bytes, *, is_chunked: bool) -> bytes:
    framing = b"Transfer-Encoding: chunked\r\n" if is_chunked else b""
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b%b\r\n" % (speech.media_type, framing, closing)


def _breaks_before_content(fault: Fault, say: Say, steps: list[Step], speech: Speech) -> bool:
    if fault is Fault.OPENING_THEN_SILENCE:
        steps.append(Step(FOREVER_S))
    elif fault is Fault.OPENING_THEN_ERROR:
        say(speech.error_event("it broke"))
        steps.append(Step(0.0, b"0\r\n\r\n"))
    elif fault is Fault.OPENING_THEN_END:
        steps.append(Step(0.0, b"0\r\n\r\n"))
    else:
        return False
    return True


def _break_late(fault: Fault, pieces: list[bytes], say: Say, steps: list[Step], answering: Answering) -> None:
    speech, dice = answering.speech, answering.dice
    said = dice.randrange(len(pieces) + 1)
    for event in pieces[:said]:
        say(event)
    if fault is Fault.CUT_IN_AN_EVENT and said < len(pieces):
        event = pieces[said]
        say(event[: dice.randrange(1, len(event) - 1)])
    elif fault in (Fault.ERROR_INSIDE, Fault.ERROR_BEFORE_DONE):
        say(speech.error_event("it broke"))
    if fault is Fault.STALLS:
        steps.append(Step(FOREVER_S))
    elif fault is Fault.COMMENTS_ONLY:
        comment = speech.comment()
        steps += [Step(0.5, b"%x\r\n%b\r\n" % (len(comment), comment)) for _ in range(100)]
        steps.append(Step(FOREVER_S))
    elif fault is Fault.BAD_CHUNK:
        steps.append(Step(0.0, b"zz\r\nno chunk\r\n"))
        steps.append(Step(FOREVER_S))
    elif fault is Fault.ERROR_BEFORE_DONE:
        for event in speech.finish():
            say(event)
        steps.append(Step(0.0, b"0\r\n\r\n"))
    elif fault is Fault.UNFINISHED or (fault is Fault.ERROR_INSIDE and dice.random() < 0.5):
        steps.append(Step(0.0, b"0\r\n\r\n"))
    else:
        steps.append(Step(0.0, is_reset=fault is Fault.RESET, is_close=fault is not Fault.RESET))
