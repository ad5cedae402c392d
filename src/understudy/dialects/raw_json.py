"""Take a request's JSON apart so that what is not looked at keeps its bytes, and write it together again.

Called by dialects.given. Reads what strict JSON forbids but engines and clients let pass (NaN, lone surrogates, invalid UTF-8);
what it yields as a value is always text that can be encoded. Knows no dialect.
"""

import json
import re
from typing import Any

import msgspec

VALUES_MAX = 1_000_000
"""The most commas and brackets in a body whose conversation is read: each of them may cost a hundred bytes of memory.

A megabyte of prose has 20,000, one of JSON text 100,000; a million tokens of either stay below.
"""

LENIENT_BYTES_MAX = 4 * 1024 * 1024
"""The longest JSON that is read leniently, which takes up to 40 ms for a megabyte and holds up everyone else meanwhile."""

_DECODE = msgspec.json.Decoder().decode
_DECODE_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_DECODE_ITEMS = msgspec.json.Decoder(list[msgspec.Raw]).decode
_ENCODE = msgspec.json.Encoder().encode
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_REFUSED = (msgspec.MsgspecError, ValueError, RecursionError)


def is_crowded(data: bytes) -> bool:
    """Whether `data` may have more values than are read: 10 ms at 32 MiB, nothing to speak of below a megabyte."""
    if len(data) <= VALUES_MAX:
        return False
    return data.count(b",") + data.count(b"[") + data.count(b"{") > VALUES_MAX


def read_members(data: bytes) -> dict[str, msgspec.Raw] | None:
    """Return the members of a JSON object as they stand in it, of repeated names the last; None when it cannot be read as one."""
    try:
        return _DECODE_MEMBERS(data)
    except msgspec.ValidationError:
        return None  # JSON of another kind, which need not be read whole to know that
    except _REFUSED:
        value = _lenient(data)
    return {str(key): _as_it_was(inner) for key, inner in value.items()} if isinstance(value, dict) else None


def read_items(data: bytes) -> list[msgspec.Raw] | None:
    """Return the items of a JSON list as they stand in it; None when it cannot be read as one."""
    try:
        return _DECODE_ITEMS(data)
    except msgspec.ValidationError:
        return None
    except _REFUSED:
        value = _lenient(data)
    return [_as_it_was(inner) for inner in value] if isinstance(value, list) else None


def read_value(data: bytes) -> Any:
    """Return what `data` says, None when it is no JSON, nested too deeply, or neither strict nor short.

    Lone surrogates and bytes that are no UTF-8 come as U+FFFD, as Go's engines read them, and NaN as null: what is kept of a
    conversation must be text that every store and every engine takes.
    """
    try:
        return _DECODE(data)
    except _REFUSED:
        value = _lenient(data)
    try:
        text = json.dumps(value, ensure_ascii=False)
        return json.loads(_LONE_SURROGATE.sub("\ufffd", text), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None


def json_text(value: Any) -> str:
    """Return the compact JSON text of a value that `read_value` gave. Raises RecursionError when it is nested too deeply."""
    return _ENCODE(value).decode()


def write(value: Any) -> bytes | None:
    """Return the bytes of a value that may hold parts of a body as they stood there; None when it is nested too deeply."""
    try:
        return _ENCODE(value)
    except _REFUSED:
        return None


def _lenient(data: bytes) -> Any:
    """Read what the strict decoder refuses; lone surrogates and NaN are in the value, None when it is no JSON at all."""
    try:
        return None if len(data) > LENIENT_BYTES_MAX else json.loads(bytes(data).decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _as_it_was(value: Any) -> msgspec.Raw:
    """Encode a value as leniently as it was read: escapes keep a lone surrogate what it was, NaN stays NaN."""
    try:
        return msgspec.Raw(json.dumps(value).encode())
    except (ValueError, RecursionError):
        return msgspec.Raw(b"null")
