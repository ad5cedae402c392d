"""Anthropic's API: /v1/messages, as vLLM, llama.cpp, SGLang and Ollama speak it.

Implements `contract.Dialect`; called through it.
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

_SILENT_BLOCKS = frozenset(("text", "thinking"))
_MARKS = {
    "message_start": events.OPENING,
    "content_block_stop": events.OPENING,
    "message_stop": events.DONE,
    "ping": events.COMMENT,
}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def read_marks(name: bytes, value: dict[str, Any]) -> tuple[Mark, ...]:
    """Read one event of /v1/messages that is no error."""
    kind = value.get("type") or name.decode("latin-1")
    if kind == "content_block_delta":
        return events.CONTENT if _has_more_than_type(value.get("delta")) else events.OPENING
    if kind == "content_block_start":
        block = value.get("content_block")
        is_silent = isinstance(block, dict) and block.get("type") in _SILENT_BLOCKS and not _has_more_than_type(block)
        return events.OPENING if is_silent else events.CONTENT
    if kind == "message_delta":
        delta = value.get("delta")
        return events.FINISH if isinstance(delta, dict) and delta.get("stop_reason") else events.OPENING
    return _MARKS.get(kind, events.OTHER) if isinstance(kind, str) else events.OTHER


def _has_more_than_type(part: Any) -> bool:
    return isinstance(part, dict) and any(value and key != "type" for key, value in part.items())


@dataclass(frozen=True, slots=True)
class AnthropicDialect:
    """See `contract.Dialect`."""

    name: DialectName = DialectName.ANTHROPIC
    generating_paths: tuple[str, ...] = ("/v1/messages",)

    def read_ask(self, path: str, body: bytes, session: str) -> Ask | str:
        """See `contract.Dialect.read_ask`. Streams when asked to."""
        head = bodies.read_head(body)
        is_generating = path in self.generating_paths
        if isinstance(head, str):
            return head if is_generating else Ask(self.name, path, "", False, False, session)
        return Ask(self.name, path, head.model, is_generating, head.stream is True, session)

    def with_model(self, body: bytes, model: str) -> bytes:
        """See `contract.Dialect.with_model`."""
        return bodies.with_model(body, model)

    def error_body(self, status: int, code: str, message: str) -> bytes:  # noqa: ARG002 -- contract
        """Write `{"type": "error", "error": {"type", "message"}}` with Anthropic's word for `status`."""
        return msgspec.json.encode({"type": "error", "error": {"type": _type(status), "message": message}})

    def error_event(self, path: str, kind: StreamKind, code: str, message: str) -> bytes:  # noqa: ARG002 -- contract
        """Write `event: error` with the error's body."""
        data = self.error_body(502, code, message)
        return data + b"\n" if kind is StreamKind.NDJSON else b"event: error\ndata: " + data + b"\n\n"

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
        """Want `message_stop`."""
        marks = events.tail_marks(tail, kind, read_marks)
        if Mark.ERROR in marks:
            return Ending.ERROR
        is_finished = Mark.DONE in marks or path not in self.generating_paths
        return Ending.FINISHED if is_finished else Ending.UNFINISHED

    def has_error(self, path: str, kind: StreamKind, data: bytes) -> bool:  # noqa: ARG002 -- contract
        """See `contract.Dialect.has_error`."""
        return events.has_error(read_marks, kind, data)

    def list_models(self, path: str, models: Sequence[tuple[str, Model]]) -> bytes:  # noqa: ARG002 -- contract
        """Write the list of /v1/models, which has one shape for all its clients."""
        return listing.openai_list(models)


def _type(status: int) -> str:
    return _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


ANTHROPIC = AnthropicDialect()
