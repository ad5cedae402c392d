"""Put the events of a chat or text completion together into the answer that the engine gives when it is not asked to stream.

Called by dialects.assembly. Strings are joined as they stand in the events, escapes and all, and members are copied byte by byte,
so that the engine's own spelling of text and numbers stays.
"""

import re
from dataclasses import dataclass

import msgspec

from understudy.dialects.contract import StreamKind
from understudy.dialects.framing import split

_DONE = b"[DONE]"
_NULL = b"null"
_SEAM = re.compile(rb"^: understudy resumed ", re.MULTILINE)
_NOTHING = frozenset((b"null", b"[]", b'""'))
_TEXTS = ("content", "reasoning_content", "reasoning")


@dataclass(frozen=True, slots=True)
class Style:
    """How an engine writes whole answers.

    `members` and `choice` are the members in order, `message` those of the message, and `end` what follows the object.
    `can_withhold`: the engine's stream may leave out the last text that its whole answer has (see `_is_withheld`).
    """

    members: tuple[str, ...]
    choice: tuple[str, ...]
    message: tuple[str, ...]
    content_type: bytes
    end: bytes = b""
    can_withhold: bool = False


# llama.cpp: recorded, b11549; server-task.cpp, to_json_oaicompat_chat. Ollama: openai/openai.go, ChatCompletion and Choice; the
# JSON encoder of Go ends with a line end.
LLAMACPP = Style(
    members=("choices", "created", "model", "system_fingerprint", "object", "usage", "id", "timings"),
    choice=("finish_reason", "text", "index", "message"),
    message=("role", "content", "reasoning_content"),
    content_type=b"application/json; charset=utf-8",
    can_withhold=True,
)
LLAMACPP_TEXT_CHOICE = ("text", "index", "logprobs", "finish_reason")
OLLAMA = Style(
    members=("id", "object", "created", "model", "system_fingerprint", "choices", "usage"),
    choice=("text", "index", "message", "finish_reason"),
    message=("role", "content", "reasoning", "tool_calls"),
    content_type=b"application/json",
    end=b"\n",
)


class _Timings(msgspec.Struct):
    predicted_n: int = -1


class _Chunk(msgspec.Struct):
    choices: list[dict[str, msgspec.Raw]] = []
    timings: _Timings | None = None
    error: msgspec.Raw = msgspec.Raw(_NULL)


_DECODE = msgspec.json.Decoder(_Chunk).decode
_DECODE_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_DECODE_LIST = msgspec.json.Decoder(list[msgspec.Raw]).decode


class _UnknownError(Exception):
    """Something stands in the stream of which nobody knows how the engine would have put it into a whole answer."""


class _Collected:
    """What the events have said so far. `sent_n` is the count of tokens at the last text, `finished_n` that at the end."""

    def __init__(self) -> None:
        self.members: dict[str, bytes] = {}
        self.choice: dict[str, bytes] = {}
        self.role = b'"assistant"'
        self.texts: dict[str, list[bytes]] = {}
        self.calls: list[bytes] = []
        self.sent_n = 0
        self.finished_n = 0

    def add(self, data: bytes) -> None:
        """Read one event."""
        chunk = _DECODE(data)
        if bytes(chunk.error) != _NULL or len(chunk.choices) > 1:
            raise _UnknownError
        has_text = bool(chunk.choices) and self._add_choice(chunk.choices[0])
        if chunk.timings is not None:
            self.finished_n = chunk.timings.predicted_n
            if has_text:
                self.sent_n = self.finished_n
        if "finish_reason" in self.choice or not chunk.choices:
            members = {key: bytes(value) for key, value in _DECODE_MEMBERS(data).items()}
            # Ollama writes zeros as usage of every event, vLLM null.
            if members.get("usage", _NULL) == _NULL:
                members.pop("usage", None)
            self.members.update(members)

    def _add_choice(self, raw: dict[str, msgspec.Raw]) -> bool:
        choice = {key: bytes(value) for key, value in raw.items()}
        if choice.pop("index", b"0") != b"0":
            raise _UnknownError
        has_text = self._add_delta(choice.pop("delta", _NULL))
        if (text := choice.pop("text", None)) is not None:
            has_text |= self._add_text("text", text)
        for key, value in choice.items():
            if value != _NULL:
                if key not in ("finish_reason", "stop_reason"):
                    raise _UnknownError
                self.choice[key] = value
        return has_text

    def _add_delta(self, delta: bytes) -> bool:
        if delta == _NULL:
            return False
        has_text = False
        for key, raw in _DECODE_MEMBERS(delta).items():
            value = bytes(raw)
            if key == "role":
                self.role = value
            elif key in _TEXTS:
                has_text |= self._add_text(key, value)
            elif key == "tool_calls" and value != _NULL:
                self.calls += (bytes(call) for call in _DECODE_LIST(value))
            elif value not in _NOTHING:
                raise _UnknownError
        return has_text

    def _add_text(self, key: str, value: bytes) -> bool:
        if value == _NULL:
            return False
        if not value.startswith(b'"'):
            raise _UnknownError
        self.texts.setdefault(key, []).append(value[1:-1])
        return len(value) > 2

    def text(self, key: str) -> bytes:
        """Return everything that came under `key` as one JSON string."""
        return b'"' + b"".join(self.texts.get(key, ())) + b'"'


def assemble(style: Style, data: bytes, *, is_chat: bool) -> tuple[bytes, bytes] | None:
    """Return the whole answer and its content type; None for an unfinished stream and for what `style` does not know."""
    events = [event.data for event in split(data, StreamKind.SSE) if event.data is not None]
    if not events or events[-1] != _DONE:
        return None
    collected = _Collected()
    try:
        for event in events[:-1]:
            collected.add(event)
        if "finish_reason" not in collected.choice or "usage" not in collected.members:
            return None
        if style.can_withhold and _is_withheld(collected) and not _SEAM.search(data):
            return None
        body = _written(style, collected, is_chat=is_chat)
    except (_UnknownError, msgspec.MsgspecError, ValueError):
        return None
    return body + style.end, style.content_type


def _is_withheld(collected: _Collected) -> bool:
    """Tell whether the stream may lack the end of the text.

    At its token limit llama.cpp keeps back what may become a stop string, the first bytes of a character, or white space before
    JSON, and never sends it in a stream, though it stands in a whole answer (observed, b11549). The counts of tokens tell.
    """
    return collected.choice["finish_reason"] == b'"length"' and collected.sent_n != collected.finished_n


def _written(style: Style, collected: _Collected, *, is_chat: bool) -> bytes:
    members = dict(collected.members)
    members["object"] = b'"chat.completion"' if is_chat else b'"text_completion"'
    choice = {"finish_reason": collected.choice["finish_reason"], "index": b"0"}
    if is_chat:
        choice["message"] = _message(style, collected)
        members["choices"] = b"[" + _object(style.choice, choice) + b"]"
    else:
        choice["text"] = collected.text("text")
        order = style.choice
        if style is LLAMACPP:
            order = LLAMACPP_TEXT_CHOICE
            choice["logprobs"] = _NULL
        members["choices"] = b"[" + _object(order, choice) + b"]"
    return _object(style.members, members)


def _message(style: Style, collected: _Collected) -> bytes:
    message = {"role": collected.role, "content": collected.text("content")}
    for key in _TEXTS[1:]:
        if (text := collected.text(key)) != b'""':
            message[key] = text
    if collected.calls:
        message["tool_calls"] = b"[" + b",".join(collected.calls) + b"]"
    if not message.keys() <= set(style.message):
        raise _UnknownError
    return _object(style.message, message)


def _object(order: tuple[str, ...], members: dict[str, bytes]) -> bytes:
    """Write an object: the members of `order` that there are, then the others as they came."""
    keys = [key for key in order if key in members] + [key for key in members if key not in order]
    return b"{" + b",".join(b'"%b":%b' % (key.encode(), members[key]) for key in keys) + b"}"
