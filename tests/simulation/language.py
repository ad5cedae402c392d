"""How simulated clients ask in each dialect, and how they read what comes: stricter than any client, event by event.

A stream that two backends wrote must read as one: one identity, one role, one finish, one terminator, nothing behind it, and
marks of seams that say how much stood before them.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

DONE = b"data: [DONE]\n\n"
SEAM = re.compile(rb": understudy resumed on (\S+) after (\d+) characters")
IDS = ("token_ids", "prompt_token_ids", "prompt_text")
STEADY = ("id", "object", "created", "model")


class MalformedError(AssertionError):
    """A client got something that no reader of this dialect would take."""


@dataclass
class Said:
    """What an answer has said. `calls` holds (name, arguments) by index, `seams` the backends that went on with it.

    `is_finished`: the terminator came; `has_error`: an error event did, with the code `code`. `probable` is the text that log
    probabilities were given for. `others` are the texts of further choices.
    """

    text: str = ""
    reasoning: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    finish: str = ""
    usage: tuple[int, int, int] | None = None
    probable: str = ""
    others: dict[int, str] = field(default_factory=dict)
    seams: list[str] = field(default_factory=list)
    roles: int = 0
    identity: dict[str, Any] = field(default_factory=dict)
    is_finished: bool = False
    has_error: bool = False
    code: str = ""

    @property
    def has_content(self) -> bool:
        """Whether there is anything that a client would show."""
        return bool(self.text or self.reasoning or self.calls or any(self.others.values()))


@dataclass(frozen=True, slots=True)
class Speech:
    """How one generating path is answered. `kind` is "openai", "ollama" or "anthropic"."""

    kind: str
    path: str

    @property
    def delimiter(self) -> bytes:
        """What ends an event."""
        return b"\n" if self.kind == "ollama" else b"\n\n"

    @property
    def is_chat(self) -> bool:
        """Whether the request holds messages."""
        return self.path not in ("/v1/completions", "/api/generate")

    def error_body(self, message: str) -> bytes:
        """Return an engine's error as a whole answer."""
        if self.kind == "ollama":
            return json.dumps({"error": message}).encode()
        if self.kind == "anthropic":
            return json.dumps({"type": "error", "error": {"type": "api_error", "message": message}}).encode()
        return json.dumps({"error": {"message": message, "type": "server_error", "param": "model", "code": 500}}).encode()

    def is_error_body(self, body: bytes) -> bool:
        """Whether `body` is an error in this dialect's shape."""
        try:
            error = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            return False
        if self.kind == "ollama":
            return isinstance(error, str) and bool(error)
        return isinstance(error, dict) and bool(error.get("message")) and "type" in error

    def read_whole(self, body: bytes) -> Said:
        """Read an answer that is no stream."""
        value, said = _json(body), Said(is_finished=True)
        try:
            if self.kind == "openai":
                for choice in value["choices"]:
                    _read_whole_choice(choice, said)
                _read_openai_usage(value.get("usage"), said)
            elif self.kind == "anthropic":
                said.text = "".join(block["text"] for block in value["content"] if block["type"] == "text")
                said.finish = value["stop_reason"]
                _read_anthropic_usage(value["usage"], said)
            else:
                _read_line(value, said)
        except (KeyError, IndexError, TypeError) as exc:
            raise MalformedError(f"no {self.kind} answer: {body[:200]!r}") from exc
        return said

    def read_stream(self, body: bytes) -> Said:
        """Read a stream's body, strictly: whole events only, nothing after the terminator or an error."""
        if body and not body.endswith(self.delimiter):
            raise MalformedError(f"half an event reached the client: {body[-120:]!r}")
        said = Said()
        for event in body.split(self.delimiter)[:-1]:
            self._read_event(event, said)
        return said

    def _read_event(self, event: bytes, said: Said) -> None:
        seam = SEAM.match(event)
        if seam is not None:
            _note_seam(said, seam[1].decode(), int(seam[2]))
        if not event or event.startswith(b":"):
            return
        if said.is_finished or said.has_error:
            raise MalformedError(f"something follows the end of a stream: {event[:200]!r}")
        lines = event.split(b"\n")
        data = event if self.kind == "ollama" else b"".join(line[6:] for line in lines if line.startswith(b"data: "))
        if data == b"[DONE]":
            said.is_finished = True
            return
        value = _json(data)
        if value.get("error"):
            said.has_error = True
            said.code = str(value["error"].get("code", "")) if isinstance(value["error"], dict) else ""
            return
        try:
            READERS[self.kind](value, said)
        except (KeyError, IndexError, TypeError) as exc:
            raise MalformedError(f"no {self.kind} event: {event[:200]!r}") from exc


def _note_seam(said: Said, backend: str, characters: int) -> None:
    if characters != len(said.text) + len(said.reasoning):
        raise MalformedError(f"a seam after {characters} characters stands after {len(said.text) + len(said.reasoning)}")
    said.seams.append(backend)


def _be_steady(said: Said, value: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if name not in value:
            continue
        if said.identity.setdefault(name, value[name]) != value[name]:
            raise MalformedError(f"{name} changes from {said.identity[name]!r} to {value[name]!r}")
    missing = [name for name in said.identity if name in names and name not in value]
    if missing:
        raise MalformedError(f"an event lacks {missing}")


def _finish(said: Said, finish: str) -> None:
    if said.finish:
        raise MalformedError(f"a second finish, {finish!r} after {said.finish!r}")
    said.finish = finish


def _read_chunk(value: dict[str, Any], said: Said) -> None:
    # Ollama tells of a runner that it lost by one more chunk without a model, and nothing else (support.engine_ollama).
    if value.get("model") or not _is_empty_chunk(value):
        _be_steady(said, value, STEADY)
    _read_openai_usage(value.get("usage"), said)
    for choice in value["choices"]:
        leaked = [name for part in (value, choice) for name in IDS if part.get(name)]
        if leaked:
            raise MalformedError(f"nobody asked for {leaked}")
        if choice["index"]:
            part = choice["delta"].get("content") if "delta" in choice else choice["text"]
            said.others[choice["index"]] = said.others.get(choice["index"], "") + (part or "")
            continue
        delta = choice.get("delta", {})
        is_new = bool(delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content") or delta.get("tool_calls"))
        if said.finish and (is_new or choice.get("text")):
            raise MalformedError(f"text after the finish: {choice}")
        said.text += choice["text"] if "text" in choice else delta.get("content") or ""
        said.reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
        # Ollama repeats the role in every chunk.
        if delta.get("role") and value.get("system_fingerprint") != "fp_ollama":
            said.roles += 1
            if said.roles > 1:
                raise MalformedError("a second role")
        for call in delta.get("tool_calls") or ():
            _read_call(call, said)
        _read_logprobs(choice.get("logprobs"), said)
        if choice.get("finish_reason"):
            _finish(said, choice["finish_reason"])


def _is_empty_chunk(value: dict[str, Any]) -> bool:
    return all(not (choice.get("text") or (choice.get("delta") or {}).get("content")) for choice in value["choices"])


def _read_call(call: dict[str, Any], said: Said) -> None:
    function = call["function"]
    if function.get("name"):
        if call["index"] in said.calls:
            raise MalformedError(f"call {call['index']} begins twice")
        said.calls[call["index"]] = [function["name"], ""]
    said.calls[call["index"]][1] += function.get("arguments") or ""


def _read_logprobs(logprobs: Any, said: Said) -> None:
    if isinstance(logprobs, dict):
        said.probable += "".join(one["token"] for one in logprobs.get("content") or ()) + "".join(logprobs.get("tokens") or ())
    elif isinstance(logprobs, list):
        said.probable += "".join(one["token"] for one in logprobs)


def _read_openai_usage(usage: Any, said: Said) -> None:
    if usage:
        said.usage = (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"])


def _read_anthropic_usage(usage: dict[str, int], said: Said) -> None:
    prompt = usage.get("input_tokens", said.usage[0] if said.usage else 0)
    said.usage = (prompt, usage["output_tokens"], prompt + usage["output_tokens"])


def _read_named(value: dict[str, Any], said: Said) -> None:
    kind = value["type"]
    expected = {"message_start": 0, "content_block_start": 1, "content_block_delta": 2, "content_block_stop": 2}
    step = expected.get(kind, 4 if kind == "message_stop" else 3)
    if kind != "ping":
        if said.roles != step:
            raise MalformedError(f"{kind} comes as step {said.roles} of a message")
        said.roles += kind != "content_block_delta"
    if kind == "message_start":
        said.identity = {name: value["message"][name] for name in ("id", "model")}
        _read_anthropic_usage(value["message"]["usage"], said)
    elif kind == "content_block_delta":
        said.text += value["delta"]["text"]
    elif kind == "message_delta":
        _finish(said, value["delta"]["stop_reason"])
        _read_anthropic_usage(value["usage"], said)
    said.is_finished = kind == "message_stop"


def _read_line(value: dict[str, Any], said: Said) -> None:
    seam = value.get("understudy_resumed")
    if seam:
        _note_seam(said, seam["backend"], seam["after_characters"])
    _be_steady(said, value, ("model",))
    message = value.get("message")
    said.text += message["content"] if message is not None else value["response"]
    said.reasoning += (message or value).get("thinking") or ""
    for call in (message or {}).get("tool_calls") or ():
        _read_call({"index": len(said.calls), "function": call["function"] | {"arguments": ""}}, said)
        said.calls[len(said.calls) - 1][1] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    _read_logprobs(value.get("logprobs"), said)
    if value["done"]:
        said.is_finished = True
        said.finish = value.get("done_reason", "")
        # Nobody counted an answer that was cut short at its bound.
        if "eval_count" in value and "prompt_eval_count" in value:
            prompt, completion = value["prompt_eval_count"], value["eval_count"]
            said.usage = (prompt, completion, prompt + completion)


def _read_whole_choice(choice: dict[str, Any], said: Said) -> None:
    message = choice.get("message")
    text = choice["text"] if message is None else message["content"] or ""
    if choice["index"]:
        said.others[choice["index"]] = text
        return
    said.text = text
    said.finish = choice["finish_reason"]
    if message is not None:
        said.reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        for call in message.get("tool_calls") or ():
            _read_call({"index": len(said.calls), **call}, said)


READERS = {"openai": _read_chunk, "anthropic": _read_named, "ollama": _read_line}
SPEECHES = (
    Speech("openai", "/v1/chat/completions"),
    Speech("openai", "/v1/completions"),
    Speech("ollama", "/api/chat"),
    Speech("ollama", "/api/generate"),
    Speech("anthropic", "/v1/messages"),
)
BY_PATH = {speech.path: speech for speech in SPEECHES}


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as exc:
        raise MalformedError(f"this is not JSON: {data[:200]!r}") from exc
