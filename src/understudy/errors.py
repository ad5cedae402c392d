"""What can go wrong, and what each failure means: one table for the data plane, one exception for operators.

On the data plane a failure is a value (`Failure`); `MEANING` says whose side it is on, whether another attempt may follow,
whether the backend is to blame and what the client is told. Read by core.exchange and resume (decide) and dataplane
(acts). Never matched by text. `ConfigError` is for people: where, what was found, what to write instead.
"""

from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """Where a failure arose."""

    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"
    OWN = "own"


class Again(StrEnum):
    """What a failure leaves possible, as long as the client has received nothing."""

    ELSEWHERE = "elsewhere"  # another backend may be tried
    SAME_BACKEND = "same_backend"  # once more on a fresh connection, free of charge
    ONCE_ELSEWHERE = "once_elsewhere"  # one more attempt and no further: the request itself is suspect
    NEVER = "never"


class Blame(StrEnum):
    """Whether a failure counts against the backend."""

    YES = "yes"
    NO = "no"
    IF_ANSWERED_ELSEWHERE = "if_answered_elsewhere"  # a 500 is the backend's only when another backend can do better


class FailureKind(StrEnum):
    """Every way in which an exchange or an attempt can fail; the value is the word in logs, metrics and messages."""

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    CONNECT_TIMEOUT = "connect_timeout"
    NAME_UNRESOLVED = "name_unresolved"
    TLS_FAILED = "tls_failed"
    STALE_REUSE = "stale_reuse"
    LOST_BEFORE_HEAD = "lost_before_head"
    HEAD_MALFORMED = "head_malformed"
    HEAD_TOO_LARGE = "head_too_large"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"  # noqa: S105  # a token of text
    SERVER_ERROR = "server_error"
    UNAVAILABLE = "unavailable"
    BUSY = "busy"
    LOADING = "loading"
    MODEL_MISSING = "model_missing"
    UNSUPPORTED = "unsupported"
    OUT_OF_MEMORY = "out_of_memory"
    ERROR_EVENT = "error_event"
    EVENT_MALFORMED = "event_malformed"
    BODY_CUT = "body_cut"
    BODY_MALFORMED = "body_malformed"
    UNFINISHED = "unfinished"
    STALLED = "stalled"
    RESUME_REFUSED = "resume_refused"
    HEDGE_LOST = "hedge_lost"
    RESTARTING = "restarting"
    TOTAL_TIMEOUT = "total_timeout"
    MODEL_UNKNOWN = "model_unknown"
    DIALECT_UNSPOKEN = "dialect_unspoken"
    NONE_USABLE = "none_usable"
    NO_ROOM = "no_room"
    STOPPING = "stopping"
    CLIENT_GONE = "client_gone"
    CLIENT_SLOW = "client_slow"
    SESSION_HELD = "session_held"
    STORE_UNAVAILABLE = "store_unavailable"
    CONVERSATION_UNREADABLE = "conversation_unreadable"
    CONVERSATION_UNWRITABLE = "conversation_unwritable"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Meaning:
    """One row of `MEANING`. `status` is the HTTP status the client gets when nothing else can be done."""

    side: Side
    again: Again
    blame: Blame
    status: int
    words: str


_UP, _DOWN, _OWN = Side.UPSTREAM, Side.DOWNSTREAM, Side.OWN
_K = FailureKind

MEANING: dict[FailureKind, Meaning] = {
    _K.REFUSED: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "refused the connection"),
    _K.UNREACHABLE: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "could not be reached"),
    _K.CONNECT_TIMEOUT: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 504, "did not accept a connection in time"),
    _K.NAME_UNRESOLVED: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "has a name that does not resolve"),
    _K.TLS_FAILED: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "failed the TLS handshake"),
    # A reset on a reused connection says nothing about the backend: it may have closed an idle connection while our
    # bytes were in flight (RFC 9112, 9.5).
    _K.STALE_REUSE: Meaning(_UP, Again.SAME_BACKEND, Blame.NO, 502, "had closed an idle connection"),
    _K.LOST_BEFORE_HEAD: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "closed the connection without an answer"),
    _K.HEAD_MALFORMED: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "sent something that is not HTTP"),
    _K.HEAD_TOO_LARGE: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "sent an answer head that is too large"),
    _K.FIRST_TOKEN_TIMEOUT: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 504, "sent no content in time"),
    _K.SERVER_ERROR: Meaning(_UP, Again.ELSEWHERE, Blame.IF_ANSWERED_ELSEWHERE, 502, "answered with a server error"),
    _K.UNAVAILABLE: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "answered that it is unavailable"),
    _K.BUSY: Meaning(_UP, Again.ELSEWHERE, Blame.NO, 503, "is busy"),
    _K.LOADING: Meaning(_UP, Again.ELSEWHERE, Blame.NO, 503, "is loading its model"),
    _K.MODEL_MISSING: Meaning(_UP, Again.ELSEWHERE, Blame.NO, 404, "does not have the model"),
    _K.UNSUPPORTED: Meaning(_UP, Again.ELSEWHERE, Blame.NO, 501, "does not support the request"),
    # The same request may exhaust the next backend, too.
    _K.OUT_OF_MEMORY: Meaning(_UP, Again.ONCE_ELSEWHERE, Blame.YES, 502, "ran out of memory"),
    _K.ERROR_EVENT: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "reported an error inside its answer"),
    _K.EVENT_MALFORMED: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "sent an event that cannot be read"),
    _K.BODY_CUT: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "broke off in the middle of its answer"),
    _K.BODY_MALFORMED: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "sent a body that is not valid HTTP"),
    _K.UNFINISHED: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 502, "ended its answer without finishing it"),
    _K.STALLED: Meaning(_UP, Again.ELSEWHERE, Blame.YES, 504, "fell silent in the middle of its answer"),
    _K.RESUME_REFUSED: Meaning(_UP, Again.ELSEWHERE, Blame.NO, 502, "cannot continue the answer"),
    _K.HEDGE_LOST: Meaning(_UP, Again.ELSEWHERE, Blame.NO, 502, "was slower than the hedge"),
    _K.RESTARTING: Meaning(_UP, Again.ELSEWHERE, Blame.NO, 502, "is being restarted"),
    _K.TOTAL_TIMEOUT: Meaning(_UP, Again.NEVER, Blame.NO, 504, "did not finish within timeouts.total"),
    _K.MODEL_UNKNOWN: Meaning(_DOWN, Again.NEVER, Blame.NO, 404, "no backend has the model"),
    _K.DIALECT_UNSPOKEN: Meaning(_DOWN, Again.NEVER, Blame.NO, 404, "no backend speaks this API"),
    _K.NONE_USABLE: Meaning(_UP, Again.NEVER, Blame.NO, 503, "no backend is usable"),
    _K.NO_ROOM: Meaning(_UP, Again.NEVER, Blame.NO, 503, "every backend is at its in_flight_max"),
    _K.STOPPING: Meaning(_OWN, Again.NEVER, Blame.NO, 503, "understudy is stopping"),
    _K.CLIENT_GONE: Meaning(_DOWN, Again.NEVER, Blame.NO, 499, "the client left"),
    _K.CLIENT_SLOW: Meaning(_DOWN, Again.NEVER, Blame.NO, 499, "the client did not read its answer"),
    _K.SESSION_HELD: Meaning(_DOWN, Again.NEVER, Blame.NO, 409, "another request of this session has not ended"),
    _K.STORE_UNAVAILABLE: Meaning(_OWN, Again.NEVER, Blame.NO, 503, "the session store cannot be read"),
    _K.CONVERSATION_UNREADABLE: Meaning(_DOWN, Again.NEVER, Blame.NO, 400, "the messages cannot be read"),
    _K.CONVERSATION_UNWRITABLE: Meaning(_DOWN, Again.NEVER, Blame.NO, 409, "the stored conversation does not fit this API"),
    _K.INTERNAL: Meaning(_OWN, Again.NEVER, Blame.NO, 500, "understudy failed"),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure as it happened.

    `status` is what the backend answered (0: it gave no answer), `retry_after_s` what it asked for (0: nothing),
    `was_sent` whether at least one byte of the request had been handed to the connection.
    """

    kind: FailureKind
    backend: str = ""
    was_sent: bool = False
    status: int = 0
    retry_after_s: float = 0.0

    @property
    def meaning(self) -> Meaning:
        """The row of `MEANING` for this kind."""
        return MEANING[self.kind]


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake of an operator in a file: `FILE:LINE:COLUMN: path: found X; want Y`. Lines and columns count from 1."""

    path: str
    found: str
    want: str
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        where = ": ".join(part for part in (place, self.path) if part)
        return f"{where}: found {self.found}; want {self.want}"


class ConfigError(Exception):
    """The file cannot be used. `mistakes` holds every one of them, in the order of the file; never empty."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = mistakes
