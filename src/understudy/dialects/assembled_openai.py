"""Put the events of a chat or text completion together into the answer that the engine gives when it is not asked to stream.

Called by engines.assembly. Strings are joined as they stand in the events, escapes and all, and members are copied byte by byte,
so that the engine's own spelling of text and numbers stays.
"""

import re
from dataclasses import dataclass

import msgspec

from understudy.dialects.contract import StreamKind
from understudy.dialects.fold import SEAM_COMMENT
from understudy.dialects.framing import split

_DONE = b"[DONE]"
_NULL = b"null"
_SEAM = re.compile(rb"^" + SEAM_COMMENT, re.MULTILINE)
_NOTHING = frozenset((b"null", b"[]", b'""'))
_TEXTS = ("content", "reasoning_content", "reasoning")


@dataclass(frozen=True, slots=True)
class Style:
    """How an engine writes the whole answers of one path: the members of each object in order.

    `message` is () for text completions. `is_full`: members that have no value stand there as null. `can_withhold`: the stream
    may leave out the last text that the whole answer has (see `_is_withheld`). `end` follows the answer. Which engine writes what
    is told in engines.assembly.
    """

    name: bytes
    members: tuple[str, ...]
    choice: tuple[str, ...]
    message: tuple[str, ...]
    content_type: bytes
    usage: tuple[str, ...] = ()
    is_full: bool = False
    can_withhold: bool = False
    end: bytes = b""


_PROMPT_DETAILS = ("cached_tokens", "created_cache_tokens", "multimodal_tokens")


class _Timings(msgspec.Struct):
    predicted_n: int = -1


class _Chunk(msgspec.Struct):
    choices: list[dict[str, msgspec.Raw]] = []
    timings: _Timings | None = None
    error: msgspec.Raw = msgspec.Raw(_NULL)


_ENCODE = msgspec.json.Encoder().encode
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
        self.ends_with_content = False

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
        has_text = self.ends_with_content = False
        for key, raw in _DECODE_MEMBERS(delta).items():
            value = bytes(raw)
            if key == "role":
                self.role = value
            elif key in _TEXTS:
                has_text |= self._add_text(key, value)
                self.ends_with_content |= key == "content"
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


def assemble(style: Style, data: bytes) -> tuple[bytes, bytes] | None:
    """Return the whole answer and its content type; None for an unfinished stream and for what `style` does not know.

    What the engine itself always sends and this stream has not (a finish, usage) is left out.
    """
    events = [event.data for event in split(data, StreamKind.SSE) if event.data is not None]
    if len(events) < 2 or events[-1] != _DONE:
        return None
    collected = _Collected()
    try:
        for event in events[:-1]:
            collected.add(event)
        if not collected.members or not collected.choice:
            # A small server that poses as one of these engines: it gets as whole an answer as its stream was.
            collected.members |= {key: bytes(value) for key, value in _DECODE_MEMBERS(events[-2]).items()}
            collected.choice.setdefault("finish_reason", _NULL)
        if style.can_withhold and _is_withheld(collected) and not _SEAM.search(data):
            return None
        return _written(style, collected) + style.end, style.content_type
    except (_UnknownError, msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _is_withheld(collected: _Collected) -> bool:
    """Tell whether the stream may lack the end of the text.

    At its token limit llama.cpp keeps back what may become a stop string, the first bytes of a character, or white space before
    JSON, and never sends it in a stream, though it stands in a whole answer (observed, b11549). The counts of tokens tell.
    """
    return collected.choice["finish_reason"] == b'"length"' and collected.sent_n != collected.finished_n


def _written(style: Style, collected: _Collected) -> bytes:
    choice = {**collected.choice, "index": b"0"}
    if style.message:
        choice["message"] = _message(style, collected)
    else:
        choice["text"] = collected.text("text")
        if "logprobs" in style.choice:
            choice["logprobs"] = _NULL
    members = {**collected.members, "object": style.name, "choices": b"[" + _object(style.choice, choice, style) + b"]"}
    if style.usage and "usage" in members:
        members["usage"] = _usage(style, members["usage"])
    return _object(style.members, members, style)


def _message(style: Style, collected: _Collected) -> bytes:
    message = {"role": collected.role, "content": collected.text("content")}
    for key in _TEXTS[1:]:
        if (text := collected.text(key)) != b'""':
            message[key] = text
    # A parser of vLLM's makes null of no content; what has no parser ends with an empty content of its own.
    if style.is_full and message["content"] == b'""' and ("reasoning" in message or not collected.ends_with_content):
        message["content"] = _NULL
    if collected.calls:
        message["tool_calls"] = b"[" + b",".join(collected.calls) + b"]"
    if not message.keys() <= set(style.message):
        raise _UnknownError
    return _object(style.message, message, style)


def _usage(style: Style, usage: bytes) -> bytes:
    """Write the usage with the nulls that its event leaves out."""
    members = {key: bytes(value) for key, value in _DECODE_MEMBERS(usage).items()}
    if (details := members.get("prompt_tokens_details", _NULL)) != _NULL:
        known = {key: bytes(value) for key, value in _DECODE_MEMBERS(details).items()}
        members["prompt_tokens_details"] = _object(_PROMPT_DETAILS, known, style)
    return _object(style.usage, members, style)


def _object(order: tuple[str, ...], members: dict[str, bytes], style: Style) -> bytes:
    """Write an object: the members of `order` that there are, or all where `style` says so; then the others as they came."""
    keys = [key for key in order if style.is_full or key in members] + [key for key in members if key not in order]
    return b"{" + b",".join(b"%b:%b" % (_ENCODE(key), members.get(key, _NULL)) for key in keys) + b"}"
