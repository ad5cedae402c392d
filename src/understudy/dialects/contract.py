"""What a dialect is: the words and shapes that the data plane uses to talk about bytes without knowing an API.

Implemented by dialects.openai, ollama and anthropic, used by dataplane.relay. Everything here is pure: bytes in, facts or
bytes out; nothing keeps a clock, a connection or the prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from understudy.core.ask import Ask, DialectName
from understudy.core.snapshot import Model

EVENT_BYTES_MAX = 16 * 1024 * 1024
"""The longest event a reader holds. Other tools broke on 64 to 128 KiB (docs/failure-model.md, server-sent events)."""


class Mark(StrEnum):
    """What one event of a stream means for committing to it and for its end."""

    OPENING = "opening"  # well formed, but nothing a client would miss: role, empty delta, usage, message_start
    CONTENT = "content"  # something the client can see: text, reasoning, a tool call, a refusal, audio
    FINISH = "finish"  # the engine says why it stopped
    DONE = "done"  # the terminator that follows the finish: [DONE], message_stop
    ERROR = "error"  # the engine reports a failure, or the event is longer than the reader's bound
    COMMENT = "comment"  # a sign of life that is no progress
    OTHER = "other"  # not readable, or nothing this dialect knows


class Ending(StrEnum):
    """How a stream that is over has ended."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    ERROR = "error"


class StreamKind(StrEnum):
    """How events are told apart on the wire."""

    SSE = "sse"
    NDJSON = "ndjson"


class RouteKind(StrEnum):
    """What the daemon does with a request, told by method and path alone."""

    GENERATING = "generating"  # only generates: may be repeated and resumed
    PLAIN = "plain"  # relayed as it came; repeated only if not one byte was sent
    LISTING = "listing"  # answered from the snapshot
    HEALTHZ = "healthz"
    MANAGEMENT = "management"  # refused unless access.allow_admin_paths


class StreamReader(Protocol):
    """Reads a stream until the commit. `is_overlong` is set once an event was longer than the bound."""

    is_overlong: bool

    def feed(self, data: bytes) -> tuple[Mark, ...]:
        """Return the marks of the events that `data` completes, in order; an event may have two (content and finish).

        `data` may start or end anywhere. What belongs to an unfinished event is kept, at most the reader's
        `event_bytes_max`; a longer one yields one `Mark.ERROR`, sets `is_overlong` and ends the reading. Raises nothing.
        """
        ...


class Dialect(Protocol):
    """One API as spoken on the wire. `path` is always the one of the `Route`."""

    @property
    def name(self) -> DialectName:
        """The word for it in asks, settings, logs and metrics."""
        ...

    def read_ask(self, path: str, body: bytes, session: str) -> Ask | str:
        """Read the request's body into an `Ask`, or say in words what is wrong with it (for a 400).

        Wrong is, on a generating path, a body that is not JSON, not an object, or whose model is not a name. A missing or
        null model is "". On any other path nothing is wrong: what cannot be read has model "". Raises nothing.
        """
        ...

    def with_model(self, body: bytes, model: str) -> bytes:
        """Return `body` with the value of its model replaced and every other byte as it was; unchanged when it names none."""
        ...

    def error_body(self, status: int, code: str, message: str) -> bytes:
        """Write the JSON body of one of our own errors; `status` is the HTTP status it goes with."""
        ...

    def error_event(self, path: str, kind: StreamKind, code: str, message: str) -> bytes:
        """Write one complete event that tells a client in mid-stream that the answer ends in an error."""
        ...

    def stream_kind(self, content_type: bytes) -> StreamKind | None:
        """Tell from a Content-Type field, in any case and with parameters, whether the answer is a stream of events."""
        ...

    def reader(self, path: str, kind: StreamKind, event_bytes_max: int = EVENT_BYTES_MAX) -> StreamReader:
        """Return a new reader for one stream."""
        ...

    def read_ending(self, path: str, kind: StreamKind, tail: bytes) -> Ending:
        """Tell how a stream that closed cleanly has ended, from its last events.

        `tail` may start in the middle of an event. Its end counts as the end of an event, so that a last line without a
        line break is read too: the caller passes such a remainder on. A path that has no terminator of its own is FINISHED
        unless an error is seen.
        """
        ...

    def has_error(self, path: str, kind: StreamKind, data: bytes) -> bool:
        """Tell whether an event in `data` reports a failure. For data in which a search has found `"error"`."""
        ...

    def list_models(self, path: str, models: Sequence[tuple[str, Model]]) -> bytes:
        """Write the merged list for GET `path` from (the client's name, the model as its backend lists it), the first wins."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """What a request's method and path tell. `dialect` is None where the path tells none; `path` is as it came, as latin-1."""

    kind: RouteKind
    dialect: Dialect | None
    path: str
