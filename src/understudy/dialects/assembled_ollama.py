"""Put Ollama's lines together into the one object that it answers when it is not asked to stream.

Called by engines.assembly. The last line is the answer; text, thinking and tool calls are those of all lines
(server/routes.go, GenerateHandler and ChatHandler). Strings are joined as they stand in the lines, escapes and all.
"""

import msgspec

from understudy.dialects.contract import StreamKind
from understudy.dialects.fold import SEAM_FIELD
from understudy.dialects.framing import split

_CONTENT_TYPE = b"application/json; charset=utf-8"
_NULL = b"null"
_EMPTY = b'""'

_MESSAGE = ("role", "content", "thinking", "images", "tool_calls")
_MEMBERS = ("model", "remote_model", "remote_host", "created_at", "response", "thinking", "done")

_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_DECODE_LIST = msgspec.json.Decoder(list[msgspec.Raw]).decode


def assemble(data: bytes, *, is_chat: bool, has_tools: bool) -> tuple[bytes, bytes] | None:
    """Return the object and its content type; None for an unfinished stream, an error or logprobs.

    `has_tools`: the request offered tools; without them Ollama keeps the last line's calls only.
    """
    try:
        lines = [_members(event.data) for event in split(data, StreamKind.NDJSON) if event.data is not None]
        if not lines or lines[-1].get("done") != b"true" or any("error" in line or "logprobs" in line for line in lines):
            return None
        body = _chat(lines, has_tools=has_tools) if is_chat else _text(lines)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return body, _CONTENT_TYPE


def _chat(lines: list[dict[str, bytes]], *, has_tools: bool) -> bytes:
    messages = [_members(line.get("message", b"{}")) for line in lines]
    message = dict(messages[-1])
    message["content"] = _joined(messages, "content")
    if (thinking := _joined(messages, "thinking")) != _EMPTY:
        message["thinking"] = thinking
    if has_tools and (calls := [call for each in messages for call in _calls(each)]):
        message["tool_calls"] = b"[" + b",".join(calls) + b"]"
    return _object((), {**lines[-1], "message": _object(_MESSAGE, message)})


def _text(lines: list[dict[str, bytes]]) -> bytes:
    members = {**lines[-1], "response": _joined(lines, "response")}
    if (thinking := _joined(lines, "thinking")) != _EMPTY:
        members["thinking"] = thinking
    return _object(_MEMBERS, members)


def _members(data: bytes) -> dict[str, bytes]:
    return {key: bytes(value) for key, value in _DECODE(data).items() if key != SEAM_FIELD}


def _calls(message: dict[str, bytes]) -> list[bytes]:
    calls = message.get("tool_calls", _NULL)
    return [bytes(call) for call in _DECODE_LIST(calls)] if calls != _NULL else []


def _joined(parts: list[dict[str, bytes]], key: str) -> bytes:
    """Return the JSON string of all strings under `key`; ValueError when one of them is no string."""
    pieces = [part[key] for part in parts if part.get(key, _NULL) != _NULL]
    if not all(piece.startswith(b'"') for piece in pieces):
        raise ValueError(key)
    return b'"' + b"".join(piece[1:-1] for piece in pieces) + b'"'


def _object(order: tuple[str, ...], members: dict[str, bytes]) -> bytes:
    """Write an object: the members of `order` that there are, then the others as they came."""
    keys = [key for key in order if key in members] + [key for key in members if key not in order]
    return b"{" + b",".join(b"%b:%b" % (_ENCODE(key), members[key]) for key in keys) + b"}"
