"""OpenAI's API under /v1: chat completions, completions, embeddings, responses, rerank.

Implements `contract.Dialect`; called through it. Reads every engine's variety of the API (reasoning under three names,
errors in four shapes); never fills in what an engine left out.
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

_DONE = b"[DONE]"
_RESPONSES = "/v1/responses"
# Said of a delta without being shown to anyone.
_SILENT_DELTA_KEYS = frozenset(("role", "name", "id", "type", "index"))
_SILENT_RESPONSE_EVENTS = frozenset(
    (
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.content_part.added",
        "response.reasoning_part.added",
        "response.reasoning_summary_part.added",
    )
)
_SILENT_RESPONSE_ITEMS = frozenset(("message", "reasoning"))
_FINISHED_RESPONSE_EVENTS = frozenset(("response.completed", "response.incomplete"))
_FAILED_RESPONSE_EVENTS = frozenset(("response.failed", "response.error"))
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def read_marks(name: bytes, value: dict[str, Any]) -> tuple[Mark, ...]:
    """Read one event of /v1/chat/completions, /v1/completions or /v1/responses that is no plain error."""
    choices = value.get("choices")
    if isinstance(choices, list):
        return _read_choices(choices)
    kind = value.get("type") or name.decode("latin-1")
    if isinstance(kind, str) and kind.startswith("response."):
        return _read_response_event(kind, value)
    return events.OTHER


def _read_choices(choices: list[Any]) -> tuple[Mark, ...]:
    has_content = has_finish = False
    for choice in choices:
        if not isinstance(choice, dict):
            return events.OTHER
        delta = choice.get("delta") or choice.get("message")
        has_content |= bool(choice.get("text")) or (isinstance(delta, dict) and _is_visible(delta))
        has_finish |= bool(choice.get("finish_reason"))
    if has_finish:
        return events.CONTENT_AND_FINISH if has_content else events.FINISH
    return events.CONTENT if has_content else events.OPENING


def _is_visible(delta: dict[str, Any]) -> bool:
    """Tell whether a delta has anything but a role: text, reasoning, tool calls, a refusal, audio, or what engines add next."""
    return any(value and key not in _SILENT_DELTA_KEYS for key, value in delta.items())


def _read_response_event(kind: str, value: dict[str, Any]) -> tuple[Mark, ...]:
    response = value.get("response")
    if kind in _FAILED_RESPONSE_EVENTS or (isinstance(response, dict) and response.get("error")):
        return events.ERROR
    if kind in _FINISHED_RESPONSE_EVENTS:
        return events.FINISH
    item = value.get("item")
    is_silent = (
        kind in _SILENT_RESPONSE_EVENTS
        or (kind.endswith(".delta") and not value.get("delta"))
        or (isinstance(item, dict) and item.get("type") in _SILENT_RESPONSE_ITEMS)
    )
    return events.OPENING if is_silent else events.CONTENT


@dataclass(frozen=True, slots=True)
class OpenAIDialect:
    """See `contract.Dialect`."""

    name: DialectName = DialectName.OPENAI
    generating_paths: tuple[str, ...] = (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        _RESPONSES,
        "/v1/rerank",
    )

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

    def error_body(self, status: int, code: str, message: str) -> bytes:
        """Write `{"error": {"message", "type", "code", "param"}}`."""
        return msgspec.json.encode({"error": _error(status, code, message)})

    def error_event(self, path: str, kind: StreamKind, code: str, message: str) -> bytes:
        """Write an event that the OpenAI clients raise as an error, or, for /v1/responses, its own error event."""
        if path == _RESPONSES:
            data = msgspec.json.encode({"type": "error", "code": code, "message": message, "param": None})
            return b"event: error\ndata: " + data + b"\n\n"
        data = msgspec.json.encode({"error": _error(502, code, message)})
        return data + b"\n" if kind is StreamKind.NDJSON else b"data: " + data + b"\n\n"

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
        return events.EventReader(read_marks, kind, event_bytes_max, done=_DONE)

    def read_ending(self, path: str, kind: StreamKind, tail: bytes) -> Ending:
        """Want [DONE] and no error before it, after which vLLM and SGLang send it, too; responses end without it.

        A finish reason is not asked for: small servers leave it out, and those that lose an answer leave out [DONE] as well
        (docs/failure-model.md, endings).
        """
        marks = events.tail_marks(tail, kind, read_marks, done=_DONE)
        if Mark.ERROR in marks:
            return Ending.ERROR
        if path == _RESPONSES:
            return Ending.FINISHED if Mark.FINISH in marks else Ending.UNFINISHED
        if path not in self.generating_paths:
            return Ending.FINISHED
        return Ending.FINISHED if Mark.DONE in marks else Ending.UNFINISHED

    def has_error(self, path: str, kind: StreamKind, data: bytes) -> bool:  # noqa: ARG002 -- contract
        """See `contract.Dialect.has_error`."""
        return events.has_error(read_marks, kind, data)

    def list_models(self, path: str, models: Sequence[tuple[str, Model]]) -> bytes:  # noqa: ARG002 -- contract
        """Write `{"object": "list", "data": [...]}`."""
        return listing.openai_list(models)


def _error(status: int, code: str, message: str) -> dict[str, str | None]:
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    return {"message": message, "type": kind, "code": code, "param": None}


OPENAI = OpenAIDialect()
