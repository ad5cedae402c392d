"""Write the pieces of a continuation as events of the stream that broke: OpenAI's and Ollama's shapes.

Used by dialects.splice and dialects.endings. A writer is made of what the first backend wrote (`Transcript.head`, `.choice`) and
takes no other field from the second than what it adds. Never decides what is written or when it ends.
"""

import re
from typing import Any, NamedTuple, Protocol

import msgspec

from understudy.core.transcript import Case, Shape, Transcript, Wish
from understudy.dialects.fold import SEAM_FIELD
from understudy.dialects.pieces import Piece

_ENCODE = msgspec.json.Encoder().encode
# llama.cpp's build number. It puts a completion's usage into the finish's event, wanted or not (golden/llamacpp/completions.sse).
_LLAMACPP_FINGERPRINT = re.compile(r"b\d+-")
_PROMPT_DETAILS = "prompt_tokens_details"
_DURATIONS = ("total_duration", "eval_duration")
_NS = 1_000_000_000


class Counts(NamedTuple):
    """Tokens as the client is told them, None where nobody knows."""

    prompt: int | None = None
    completion: int | None = None


class Writer(Protocol):
    """Writes one shape. Every result is whole events."""

    def can_write(self, piece: Piece) -> bool:
        """Whether the shape has a place for what `piece` adds."""
        ...

    def write(self, piece: Piece, counts: Counts) -> tuple[bytes, bytes]:
        """Write what `piece` adds for the client and for the transcript, b"" for nothing; a finish with its `counts`."""
        ...

    def end(self, counts: Counts) -> bytes:
        """Write what follows the finish: usage where the client gets it, and the terminator."""
        ...


class OpenAIWriter:
    """Writes chunks of /v1/chat/completions and /v1/completions."""

    def __init__(self, wish: Wish, transcript: Transcript) -> None:
        self._is_chat = wish.shape is Shape.OPENAI_CHAT
        self._wants_usage = wish.wants_usage
        self._has_usage_each = wish.wants_usage and transcript.has_usage_each
        self._wants_ids = wish.wants_token_ids
        self._keeps_ids = wish.wants_token_ids or bool(transcript.prompt_ids)
        self._has_logprobs = Case.LOGPROBS in wish.cases
        self._reasoning_keys = transcript.reasoning_keys
        self._head = dict(transcript.head) or {"object": "chat.completion.chunk" if self._is_chat else "text_completion"}
        self._choice = dict(transcript.choice) or {"index": 0}
        # vLLM writes its own field beside each finish, null where no stop string made it; SGLang another.
        self._has_stop_reason = "stop_reason" in self._choice or "token_ids" in self._choice
        self._has_matched_stop = "matched_stop" in self._choice
        if self._keeps_ids:
            self._choice.pop("token_ids", None)
            self._choice.pop("prompt_token_ids", None)
        self._calls = 0
        self._usage: dict[str, Any] = {}
        # A finish that waits for the usage it is written with.
        self._has_usage_in_finish = not self._is_chat and bool(
            _LLAMACPP_FINGERPRINT.match(str(self._head.get("system_fingerprint", "")))
        )
        self._finish: Piece | None = None

    def can_write(self, piece: Piece) -> bool:
        """See `Writer.can_write`: a completion has text only."""
        return self._is_chat or not (piece.reasoning or piece.tool_calls)

    def write(self, piece: Piece, counts: Counts) -> tuple[bytes, bytes]:
        """See `Writer.write`."""
        self._usage.update(piece.usage or {})
        finish = piece.finish
        if finish and self._has_usage_in_finish:
            self._finish = Piece(finish=finish, why=piece.why)
            finish = ""
        is_shown = bool(piece.text or piece.reasoning or piece.tool_calls or finish)
        has_ids = bool(piece.ids) and self._keeps_ids
        if not is_shown and not has_ids:
            return b"", b""
        choice = self._written_choice(piece, finish)
        event = {**self._head, "choices": [choice]}
        if self._has_usage_each and piece.usage is not None:
            event["usage"] = self._written_usage(counts)
        data = _event(event) if is_shown else b""
        if not has_ids:
            return data, data
        choice["token_ids"] = piece.ids
        kept = _event(event)
        return (kept if self._wants_ids else data), kept

    def end(self, counts: Counts) -> bytes:
        """See `Writer.end`."""
        done = b"data: [DONE]\n\n"
        is_counted = None not in counts
        if self._finish is not None:
            event = {**self._head, "choices": [self._written_choice(self._finish, self._finish.finish)]}
            if is_counted:
                event["usage"] = self._written_usage(counts)
            return _event(event) + done
        if self._wants_usage and is_counted and not self._has_usage_in_finish:
            return _event({**self._head, "choices": [], "usage": self._written_usage(counts)}) + done
        return done

    def _written_choice(self, piece: Piece, finish: str) -> dict[str, Any]:
        choice = dict(self._choice)
        if self._is_chat:
            choice["delta"] = self._written_delta(piece)
        else:
            choice["text"] = piece.text
        if piece.logprobs is not None and self._has_logprobs:
            choice["logprobs"] = piece.logprobs
        if finish == "stop" and self._calls:
            finish = "tool_calls"
        choice["finish_reason"] = finish or None
        if finish:
            why = (piece.why or {}).get("stop_reason")
            if self._has_stop_reason:
                choice["stop_reason"] = why
            if self._has_matched_stop:
                choice["matched_stop"] = why
        return choice

    def _written_delta(self, piece: Piece) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        if piece.text:
            delta["content"] = piece.text
        if piece.reasoning:
            for key in self._reasoning_keys or piece.reasoning_keys or ("reasoning",):
                delta[key] = piece.reasoning
        if piece.tool_calls:
            delta["tool_calls"] = [self._written_call(call) for call in piece.tool_calls]
        return delta

    def _written_call(self, call: Any) -> Any:
        """Write Ollama's whole tool call as OpenAI's, which has its arguments as text; one that is OpenAI's stays."""
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("arguments"), dict):
            return call
        index = self._calls
        self._calls += 1
        written = {"name": function.get("name", ""), "arguments": _ENCODE(function["arguments"]).decode()}
        return {"index": index, "id": call.get("id") or f"call_{index}", "type": "function", "function": written}

    def _written_usage(self, counts: Counts) -> dict[str, Any]:
        prompt, completion = counts.prompt or 0, counts.completion or 0
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        # In the order of the backend that counted. Of its details those of the completion are not of all of it.
        written: dict[str, Any] = {key: usage.pop(key) for key in self._usage if key in usage} | usage
        details = self._usage.get(_PROMPT_DETAILS)
        if isinstance(details, dict):
            cached = details.get("cached_tokens")
            written[_PROMPT_DETAILS] = {**details, "cached_tokens": min(cached, prompt)} if isinstance(cached, int) else details
        return written


class OllamaWriter:
    """Writes lines of /api/chat and /api/generate. `seam`, if any, goes into the first, `earlier_s` into the durations."""

    def __init__(self, wish: Wish, transcript: Transcript, seam: dict[str, Any] | None, earlier_s: float) -> None:
        self._is_chat = wish.shape is Shape.OLLAMA_CHAT
        self._head = dict(transcript.head)
        self._seam = seam
        self._earlier_ns = max(0, round(earlier_s * _NS))

    def can_write(self, piece: Piece) -> bool:  # noqa: ARG002  # contract of Writer
        """See `Writer.can_write`."""
        return True

    def write(self, piece: Piece, counts: Counts) -> tuple[bytes, bytes]:
        """See `Writer.write`."""
        if not (piece.text or piece.reasoning or piece.tool_calls or piece.finish):
            return b"", b""
        line = dict(self._head)
        if piece.created_at:
            line["created_at"] = piece.created_at
        place = line
        if self._is_chat:
            place = line["message"] = {"role": "assistant", "content": piece.text}
        else:
            line["response"] = piece.text
        if piece.reasoning:
            place["thinking"] = piece.reasoning
        if piece.tool_calls:
            place["tool_calls"] = piece.tool_calls
        line["done"] = False
        if piece.finish:
            line.update({"done": True, "done_reason": piece.finish})
            line.update(self._written_counters(piece.usage or {}, counts))
        if self._seam is not None:
            line[SEAM_FIELD] = self._seam
            self._seam = None
        data = _ENCODE(line) + b"\n"
        return data, data

    def end(self, counts: Counts) -> bytes:  # noqa: ARG002  # contract of Writer
        """See `Writer.end`: the line of the finish is the terminator."""
        return b""

    def _written_counters(self, usage: dict[str, Any], counts: Counts) -> dict[str, int]:
        counters = dict(usage)
        for key in _DURATIONS:
            if key in counters:
                counters[key] += self._earlier_ns
        known = {"prompt_eval_count": counts.prompt, "eval_count": counts.completion}
        return counters | {key: count for key, count in known.items() if count is not None}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + _ENCODE(value) + b"\n\n"
