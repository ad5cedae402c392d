"""What simulated engines say and how a reader checks it: every token names its request, its generation and its place.

A token `r3:gpu0.7:12;` is the thirteenth of the seventh generation at gpu0, made for request r3. So whoever reads an answer
can tell whether a token was lost, doubled, or belongs to somebody else.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

TOKEN = re.compile(r"([a-z]+\d+):([a-z0-9]+\.\d+):(\d+);")
DONE = b"data: [DONE]\n\n"


class MalformedError(AssertionError):
    """A client got something that no reader of this dialect would take."""


@dataclass(frozen=True, slots=True)
class Speech:
    """How one generating path is asked and answered. `kind` is "openai", "ollama" or "anthropic"."""

    kind: str
    path: str

    @property
    def media_type(self) -> bytes:
        """The Content-Type of a stream."""
        return b"application/x-ndjson" if self.kind == "ollama" else b"text/event-stream; charset=utf-8"

    @property
    def delimiter(self) -> bytes:
        """What ends an event."""
        return b"\n" if self.kind == "ollama" else b"\n\n"

    def question(self, model: str, tag: str, *, is_streaming: bool) -> bytes:
        """Return a request's body."""
        body = {"model": model, "messages": [{"role": "user", "content": tag}], "stream": is_streaming, "max_tokens": 9}
        return json.dumps(body).encode()

    def opening(self) -> list[bytes]:
        """Return the events that come before there is content."""
        if self.kind == "openai":
            return [_sse({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})]
        if self.kind == "anthropic":
            start = _named("message_start", {"message": {"id": "m", "role": "assistant", "content": []}})
            return [start, _named("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}})]
        return []

    def piece(self, text: str) -> bytes:
        """Return the event that carries `text`."""
        if self.kind == "openai":
            return _sse({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
        if self.kind == "anthropic":
            return _named("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": text}})
        return _line({"model": "m", "message": {"role": "assistant", "content": text}, "done": False})

    def finish(self) -> list[bytes]:
        """Return the events that say why the answer ends, the terminator last."""
        if self.kind == "openai":
            return [_sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), DONE]
        if self.kind == "anthropic":
            end = _named("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}})
            return [_named("content_block_stop", {"index": 0}), end, _named("message_stop", {})]
        return [_line({"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"})]

    def comment(self) -> bytes:
        """Return a sign of life that says nothing."""
        return b": still here\n\n"

    def error_event(self, message: str) -> bytes:
        """Return an engine's error inside a stream."""
        if self.kind == "openai":
            return _sse({"error": {"message": message, "type": "server_error", "code": 500}})
        if self.kind == "anthropic":
            return _named("error", {"error": {"type": "api_error", "message": message}})
        return _line({"error": message})

    def error_body(self, message: str) -> bytes:
        """Return an engine's error as a whole answer."""
        if self.kind == "ollama":
            return json.dumps({"error": message}).encode()
        if self.kind == "anthropic":
            return json.dumps({"type": "error", "error": {"type": "api_error", "message": message}}).encode()
        return json.dumps({"error": {"message": message, "type": "server_error", "param": "model", "code": 500}}).encode()

    def whole(self, text: str) -> bytes:
        """Return an answer that is no stream."""
        if self.kind == "openai":
            return json.dumps(
                {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
            ).encode()
        if self.kind == "anthropic":
            return json.dumps({"type": "message", "content": [{"type": "text", "text": text}]}).encode()
        return json.dumps({"model": "m", "message": {"role": "assistant", "content": text}, "done": True}).encode()

    def read_whole(self, body: bytes) -> str:
        """Return the text of an answer that is no stream."""
        value = _json(body)
        try:
            if self.kind == "openai":
                return str(value["choices"][0]["message"]["content"])
            if self.kind == "anthropic":
                return str(value["content"][0]["text"])
            return str(value["message"]["content"])
        except (KeyError, IndexError, TypeError) as exc:
            raise MalformedError(f"no {self.kind} answer: {body[:200]!r}") from exc

    def is_error_body(self, body: bytes) -> bool:
        """Whether `body` is an error in this dialect's shape."""
        try:
            error = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            return False
        if self.kind == "ollama":
            return isinstance(error, str) and bool(error)
        return isinstance(error, dict) and bool(error.get("message")) and "type" in error

    def read_stream(self, body: bytes) -> "Said":
        """Read a stream's body, strictly: whole events only, nothing after the terminator or an error."""
        if body and not body.endswith(self.delimiter):
            raise MalformedError(f"half an event reached the client: {body[-120:]!r}")
        said = Said()
        for event in body.split(self.delimiter)[:-1]:
            self._read_event(event, said)
        return said

    def _read_event(self, event: bytes, said: "Said") -> None:
        if not event or event.startswith(b":"):
            return
        if said.is_finished or said.has_error:
            raise MalformedError(f"something follows the end of a stream: {event[:200]!r}")
        if self.kind == "ollama":
            data = event
        else:
            data = b"".join(line[6:] for line in event.split(b"\n") if line.startswith(b"data: "))
            if data == b"[DONE]":
                said.is_finished = True
                return
        value = _json(data)
        if value.get("error"):
            said.has_error = True
            return
        try:
            if self.kind == "openai":
                said.text += value["choices"][0]["delta"].get("content") or ""
            elif self.kind == "anthropic":
                said.text += value["delta"]["text"] if value["type"] == "content_block_delta" else ""
                said.is_finished = value["type"] == "message_stop"
            else:
                said.text += value["message"]["content"]
                said.is_finished = value["done"]
        except (KeyError, IndexError, TypeError) as exc:
            raise MalformedError(f"no {self.kind} event: {event[:200]!r}") from exc


class Said:
    """What a stream has said. `is_finished`: the terminator came; `has_error`: an error event did."""

    def __init__(self) -> None:
        self.text = ""
        self.is_finished = False
        self.has_error = False


SPEECHES = (
    Speech("openai", "/v1/chat/completions"),
    Speech("ollama", "/api/chat"),
    Speech("anthropic", "/v1/messages"),
)
BY_PATH = {speech.path: speech for speech in SPEECHES}


def token(tag: str, generation: str, place: int) -> str:
    """Return one token."""
    return f"{tag}:{generation}:{place};"


def tokens_of(text: str) -> list[tuple[str, str, int]]:
    """Return (request, generation, place) of every token; raises when there is anything else in `text`."""
    text = text.replace("x", "")  # Filling; no name has one.
    found = [(one[1], one[2], int(one[3])) for one in TOKEN.finditer(text)]
    if "".join(token(*one) for one in found) != text:
        raise MalformedError(f"these are not tokens: {text[:200]!r}")
    return found


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as exc:
        raise MalformedError(f"this is not JSON: {data[:200]!r}") from exc


def _sse(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _named(name: str, value: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + json.dumps({"type": name, **value}).encode() + b"\n\n"


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
