"""Ollama's own API under /api: chat, generate, embed, embeddings, and the model named by show.

Implements `contract.Dialect`; called through it. Chat and generate stream unless asked not to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from understudy.core.ask import Ask, DialectName
from understudy.core.snapshot import Model
from understudy.dialects import body as bodies
from understudy.dialects import events, listing
from understudy.dialects.contract import EVENT_BYTES_MAX, Ending, Mark, StreamKind, StreamReader

_STREAMING_PATHS = frozenset(("/api/chat", "/api/generate"))
_TEXT_KEYS = ("response", "thinking", "image")


def read_marks(name: bytes, value: dict[str, Any]) -> tuple[Mark, ...]:  # noqa: ARG001 -- contract
    """Read one line of /api/chat or /api/generate that is no error."""
    message = value.get("message")
    has_content = any(value.get(key) for key in _TEXT_KEYS) or (
        isinstance(message, dict) and any(part and key != "role" for key, part in message.items())
    )
    if value.get("done") is True:
        return events.CONTENT_AND_FINISH if has_content else events.FINISH
    if has_content:
        return events.CONTENT
    return events.OPENING if "done" in value else events.OTHER


@dataclass(frozen=True, slots=True)
class OllamaDialect:
    """See `contract.Dialect`."""

    name: DialectName = DialectName.OLLAMA
    generating_paths: tuple[str, ...] = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")

    def read_ask(self, path: str, body: bytes, session: str) -> Ask | str:
        """See `contract.Dialect.read_ask`. Chat and generate stream unless `stream` is false; /api/show may say `name`."""
        head = bodies.read_head(body)
        is_generating = path in self.generating_paths
        if isinstance(head, str):
            return head if is_generating else Ask(self.name, path, "", False, False, session)
        is_streaming = path in _STREAMING_PATHS and head.stream is not False
        model = head.model if is_generating else head.model or head.name
        return Ask(self.name, path, model, is_generating, is_streaming, session)

    def with_model(self, body: bytes, model: str) -> bytes:
        """See `contract.Dialect.with_model`. A body without a model may name it by `name`, as older clients do for /api/show."""
        return bodies.with_model(body, model, keys=("model", "name"))

    def error_body(self, status: int, code: str, message: str) -> bytes:  # noqa: ARG002 -- contract
        """Write `{"error": "..."}`."""
        return msgspec.json.encode({"error": message})

    def error_event(self, path: str, kind: StreamKind, code: str, message: str) -> bytes:  # noqa: ARG002 -- contract
        """Write an error line, which Ollama's clients raise."""
        data = msgspec.json.encode({"error": message})
        return b"data: " + data + b"\n\n" if kind is StreamKind.SSE else data + b"\n"

    def stream_kind(self, content_type: bytes) -> StreamKind | None:
        """See `contract.Dialect.stream_kind`."""
        return events.stream_kind(content_type)

    def reader(
        self,
        path: str,  # noqa: ARG002 -- contract
        kind: StreamKind,
        event_bytes_max: int = EVENT_BYTES_MAX,
    ) -> StreamReader:
        """See `contract.Dialect.reader`."""
        return events.EventReader(read_marks, kind, event_bytes_max)

    def read_ending(self, path: str, kind: StreamKind, tail: bytes) -> Ending:
        """Want a line with `done: true`: Ollama also ends cleanly after its runner has died."""
        marks = events.tail_marks(tail, kind, read_marks)
        if Mark.ERROR in marks:
            return Ending.ERROR
        is_finished = Mark.FINISH in marks or path not in _STREAMING_PATHS
        return Ending.FINISHED if is_finished else Ending.UNFINISHED

    def has_error(self, path: str, kind: StreamKind, data: bytes) -> bool:  # noqa: ARG002 -- contract
        """See `contract.Dialect.has_error`."""
        return events.has_error(read_marks, kind, data)

    def list_models(self, path: str, models: Sequence[tuple[str, Model]]) -> bytes:
        """Write `{"models": [...]}`: for /api/ps the loaded ones, else all."""
        return listing.ollama_list(models, is_loaded_only=path == "/api/ps")


OLLAMA = OllamaDialect()
