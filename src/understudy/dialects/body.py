"""Read the two facts of a request's body that decisions need, model and stream, and replace the model.

Called by dialects.openai, ollama and anthropic. Never reads the prompt, never judges what an engine would: duplicate keys,
huge numbers, lone surrogates and invalid UTF-8 are the engine's business as long as the model can be read.
"""

import json
import re
from typing import Any

import msgspec

MODEL_CHARS_MAX = 1024
"""The longest model name that is read; it ends up in logs, metrics and routing memos."""

VALUES_MAX = 100_000
"""The most commas and brackets in a body that is read the careful way, which takes up to 2 us for each of them."""


class Head(msgspec.Struct):
    """What is read of a body. `stream` is None when absent or null; `name` is Ollama's older word for the model."""

    model: str = ""
    stream: bool | None = None
    name: str = ""


class _RawHead(msgspec.Struct):
    """The same with any value, as it stands in the body."""

    model: msgspec.Raw = msgspec.Raw(b"null")
    stream: msgspec.Raw = msgspec.Raw(b"null")
    name: msgspec.Raw = msgspec.Raw(b"null")


_DECODE = msgspec.json.Decoder(Head).decode
_DECODE_RAW_HEAD = msgspec.json.Decoder(_RawHead).decode
_DECODE_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_MODEL = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)
_SPACE = re.compile(r"[ \t\r\n]*")
_VALUE = json.JSONDecoder().raw_decode
# What pydantic, which vLLM and SGLang read bodies with, takes for false.
_FALSE = (b"false", b"null", b"0", b'"false"', b'"0"', b'"off"', b'"no"', b'"f"', b'"n"')
_NOT_TEXT = re.compile("[\ud800-\udfff]")


def read_head(body: bytes) -> Head | str:
    """Return what `body` says, or what is wrong with it: no JSON, no object, a model that is not a name. Raises nothing."""
    try:
        head = _DECODE(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        head_or_wrong = _read_carefully(body)
        if isinstance(head_or_wrong, str):
            return head_or_wrong
        head = head_or_wrong
    if len(head.model) > MODEL_CHARS_MAX or len(head.name) > MODEL_CHARS_MAX:
        return f"the model's name is longer than {MODEL_CHARS_MAX} characters"
    return head


def with_model(body: bytes, model: str, *, keys: tuple[str, ...] = ("model",)) -> bytes:
    """Return `body` with the value of the first of `keys` that it has replaced by `model`, every other byte untouched.

    Where a key stands more than once each of its values is replaced, because engines differ in which one counts. A body that
    has none of the keys, or cannot be read, comes back as it is.
    """
    wanted = msgspec.json.encode(model)
    if body.count(b'"model"') == 1 and (match := _MODEL.search(body)):
        changed = b"".join((body[: match.start(1)], wanted, body[match.end(1) :]))
        # The one hit may stand deeper inside; then the top-level model has not changed.
        try:
            if _DECODE(body).model != model == _DECODE(changed).model:
                return changed
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass  # the careful way below reads what this decoder refuses
    try:
        values = _values(body)
    except _TooManyValuesError:
        return _with_model_reencoded(body, wanted, keys)
    except (ValueError, RecursionError):
        return body
    for key in keys:
        spans = [(start, end) for name, start, end in values if name == key and body[start:end] != b"null"]
        if spans:
            return _replaced(body, spans, wanted)
    return body


def _with_model_reencoded(body: bytes, wanted: bytes, keys: tuple[str, ...]) -> bytes:
    """Replace the model in a huge body: every value keeps its bytes, of repeated keys the last stays."""
    try:
        values = _DECODE_RAW(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return body
    for key in keys:
        if bytes(values.get(key, b"null")) != b"null":
            values[key] = msgspec.Raw(wanted)
            return msgspec.json.encode(values)
    return body


def _replaced(body: bytes, spans: list[tuple[int, int]], wanted: bytes) -> bytes:
    pieces: list[bytes] = []
    position = 0
    for start, end in spans:
        pieces += (body[position:start], wanted)
        position = end
    pieces.append(body[position:])
    return b"".join(pieces)


def _read_carefully(body: bytes) -> Head | str:
    """Read what the fast decoder refuses: a stream that is no boolean, NaN, lone surrogates, a null model."""
    if not body.strip():
        return "the body is empty; want a JSON object"
    last_or_wrong = _last_values(body)
    if isinstance(last_or_wrong, str):
        return last_or_wrong
    model = _read_text(last_or_wrong.get("model", b"null"))
    if model is None:
        return "model is not a string"
    stream = last_or_wrong.get("stream", b"null")
    return Head(
        model=model,
        stream=None if stream == b"null" else stream.lower() not in _FALSE,
        name=_read_text(last_or_wrong.get("name", b"null")) or "",
    )


def _last_values(body: bytes) -> dict[str, bytes] | str:
    """Return the values of the body's top-level keys as they stand there, the last of repeated ones; or what is wrong."""
    try:
        raw = _DECODE_RAW_HEAD(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass  # stricter than engines are, and than what follows
    else:
        return {"model": bytes(raw.model), "stream": bytes(raw.stream), "name": bytes(raw.name)}
    try:
        return {name: body[start:end] for name, start, end in _values(body)}
    except _NotAnObjectError:
        return "the body is not a JSON object"
    except _TooManyValuesError:
        return "the body is not strict JSON and has too many values to read it leniently"
    except ValueError:
        return "the body is not JSON"
    except RecursionError:
        return "the body is nested too deeply to read its model"


def _read_text(value: bytes) -> str | None:
    """Return the string that the JSON `value` is, "" for null, None when it is no string or no valid text."""
    try:
        text: Any = json.loads(value.decode())
    except (ValueError, RecursionError):
        return None
    if text is None:
        return ""
    return text if isinstance(text, str) and not _NOT_TEXT.search(text) else None


class _NotAnObjectError(ValueError):
    """The body is JSON, but no object."""


class _TooManyValuesError(ValueError):
    """Reading the body would hold up everyone else."""


def _values(body: bytes) -> list[tuple[str, int, int]]:
    """Return (key, start, end) of every top-level value of the JSON object `body`, in order, repeated keys included.

    Read as latin-1, in which every byte is one character: indexes are those of the bytes, and invalid UTF-8 does no harm. Raises
    ValueError when `body` is not a JSON object, RecursionError when it is nested too deeply.
    """
    if body.count(b",") + body.count(b"[") + body.count(b"{") > VALUES_MAX:
        raise _TooManyValuesError
    text = body.decode("latin-1")
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        _, end = _VALUE(text, at)
        if _skip(text, end) == len(text):
            raise _NotAnObjectError
        raise ValueError
    values: list[tuple[str, int, int]] = []
    at = _skip(text, at + 1)
    closing = text[at : at + 1] == "}"
    while not closing:
        if text[at : at + 1] != '"':
            raise ValueError
        key, at = _VALUE(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise ValueError
        start = _skip(text, at + 1)
        _, end = _VALUE(text, start)
        values.append((key, start, end))
        at = _skip(text, end)
        closing = text[at : at + 1] == "}"
        if not closing:
            if text[at : at + 1] != ",":
                raise ValueError
            at = _skip(text, at + 1)
    if _skip(text, at + 1) != len(text):
        raise ValueError
    return values


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
