"""Read one event of a stream of generated text as what it adds to the answer, whatever its shape: a `Piece`.

Called by dialects.fold for what a client has received and by dialects.splice for what continues it. Reads every engine's
variety of a shape; never keeps a state and never changes a byte.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from understudy.core.transcript import OLLAMA_SHAPES, Shape
from understudy.dialects.contract import StreamKind
from understudy.dialects.events import is_error, read_json
from understudy.dialects.reduced import without_empty, without_unknown

DONE = b"[DONE]"
# Finish reasons with which vLLM and SGLang end what they have thrown away: no end of an answer.
BROKEN_FINISHES = frozenset(("abort", "error"))
_TEXT_BLOCKS = ("text", "thinking")
_CALL_BLOCKS = ("tool_use", "server_tool_use")
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class Piece(msgspec.Struct, gc=False):
    """What one event adds.

    `finish` is the finish reason in the shape's own words, `usage` its counts likewise (`counts_of` reads them), `tokens` how
    many tokens the engine has generated so far, where it says so. `why` says what stopped it, under vLLM's `stop_reason` or
    Anthropic's `stop_sequence`. `timed` are the tokens of prompt and answer that llama.cpp's timings tell.
    `block` is Anthropic's content_block where one starts, `block_delta` a delta of one that is neither text nor thinking.
    `is_done`: the terminator. `is_unreadable`: it may have added something that nobody here understands; what is known is here.
    """

    text: str = ""
    reasoning: str = ""
    reasoning_keys: tuple[str, ...] = ()
    finish: str = ""
    index: int = 0
    tool_calls: list[Any] | None = None
    usage: dict[str, Any] | None = None
    tokens: int | None = None
    timed: tuple[int, int] | None = None
    ids: list[int] | None = None
    prompt_ids: list[int] | None = None
    logprobs: Any = None
    why: dict[str, Any] | None = None
    created_at: str = ""
    block: dict[str, Any] | None = None
    block_index: int = 0
    block_delta: dict[str, Any] | None = None
    message: dict[str, Any] | None = None
    is_block_end: bool = False
    has_audio: bool = False
    is_done: bool = False
    is_error: bool = False
    is_unreadable: bool = False


class _Delta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The delta of a chat's choice. A field that is not named here is read the careful way."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None
    function_call: dict[str, Any] | None = None
    refusal: str | None = None
    audio: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Any = None
    stop_reason: Any = None
    matched_stop: Any = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class _Timings(msgspec.Struct, gc=False):
    prompt_n: int | None = None
    cache_n: int = 0
    predicted_n: int | None = None


class _Chunk(msgspec.Struct, gc=False):
    """One event of /v1/chat/completions or /v1/completions."""

    choices: list[_Choice]
    usage: dict[str, Any] | None = None
    timings: _Timings | None = None
    prompt_token_ids: list[int] | None = None
    error: Any = None


class _Message(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: str | None = None
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[Any] | None = None
    images: Any = None


class _Line(msgspec.Struct, gc=False):
    """One line of /api/chat or /api/generate."""

    done: bool
    created_at: str = ""
    message: _Message | None = None
    response: str | None = None
    thinking: str | None = None
    tool_calls: list[Any] | None = None
    image: Any = None
    done_reason: str | None = None
    error: Any = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class _Event(msgspec.Struct, gc=False):
    """One event of /v1/messages."""

    type: str = ""
    index: int = 0
    message: dict[str, Any] | None = None
    content_block: dict[str, Any] | None = None
    delta: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_Wire = TypeVar("_Wire", _Chunk, _Line, _Event)
_COUNTERS = ("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration")
_DECODE_CHUNK = msgspec.json.Decoder(_Chunk).decode
_DECODE_LINE = msgspec.json.Decoder(_Line).decode
_DECODE_EVENT = msgspec.json.Decoder(_Event).decode


def stream_kind_of(shape: Shape) -> StreamKind:
    """Return how the events of a stream of this shape are told apart."""
    return StreamKind.NDJSON if shape in OLLAMA_SHAPES else StreamKind.SSE


def read_piece(shape: Shape, name: bytes, data: bytes) -> Piece:
    """Read the event `name` (b"" where it has none) with `data`. Raises nothing: what cannot be read is `is_unreadable`."""
    if shape is Shape.OPENAI_CHAT or shape is Shape.OPENAI_TEXT:
        return read_chunk(name, data)
    return _read_line(name, data) if shape in OLLAMA_SHAPES else _read_event(name, data)


def read_chunk(name: bytes, data: bytes) -> Piece:
    """Read an event of the OpenAI shapes."""
    if data == DONE:
        return Piece(is_done=True)
    try:
        chunk = _DECODE_CHUNK(data)
    except _UNREADABLE:
        found = _careful(name, data, _Chunk)
        if isinstance(found, Piece):
            return found
        chunk = found
    if chunk.error or name == b"error":
        return Piece(is_error=True)
    choices = chunk.choices
    if not choices:
        return Piece(usage=chunk.usage, prompt_ids=chunk.prompt_token_ids)
    if len(choices) > 1:
        # Belongs to several answers, none of which is continued; only how many there are is of interest.
        return Piece(index=max(1, *(choice.index for choice in choices)))
    return _read_choice(chunk, choices[0])


def _read_choice(chunk: _Chunk, choice: _Choice) -> Piece:
    piece = Piece(
        index=choice.index,
        finish=choice.finish_reason or "",
        usage=chunk.usage,
        ids=choice.token_ids,
        prompt_ids=chunk.prompt_token_ids or choice.prompt_token_ids,
        logprobs=choice.logprobs,
    )
    if chunk.timings is not None:
        _read_timings(piece, chunk.timings)
    elif chunk.usage is not None:
        piece.tokens = counts_of(chunk.usage)[1]
    why = choice.matched_stop if choice.stop_reason is None else choice.stop_reason
    if why is not None:
        piece.why = {"stop_reason": why}
    if choice.delta is None:
        piece.text = choice.text or ""
    else:
        _read_delta(piece, choice.delta)
    return piece


def _read_timings(piece: Piece, timings: _Timings) -> None:
    piece.tokens = timings.predicted_n
    if timings.prompt_n is not None and timings.predicted_n is not None:
        # What it had in its cache is no part of the prompt that it read (recorded: golden/llamacpp/completions.sse).
        piece.timed = (timings.prompt_n + timings.cache_n, timings.predicted_n)


def _read_delta(piece: Piece, delta: _Delta) -> None:
    piece.text = delta.content or ""
    if delta.reasoning_content or delta.reasoning:
        piece.reasoning = delta.reasoning_content or delta.reasoning or ""
        # vLLM wrote both names for some months; a client may read either.
        piece.reasoning_keys = tuple(key for key in ("reasoning_content", "reasoning") if getattr(delta, key))
    if delta.tool_calls:
        piece.tool_calls = delta.tool_calls
    if delta.audio:
        piece.has_audio = True
    if delta.refusal or delta.function_call:
        # Nothing goes on with these, but a client has seen them.
        piece.is_unreadable = True
        piece.text += delta.refusal or ""
        if delta.function_call and not piece.tool_calls:
            piece.tool_calls = [{"index": 0, "function": delta.function_call}]


def _read_line(name: bytes, data: bytes) -> Piece:
    try:
        line = _DECODE_LINE(data)
    except _UNREADABLE:
        found = _careful(name, data, _Line)
        if isinstance(found, Piece):
            return found
        line = found
    if line.error:
        return Piece(is_error=True)
    message = line.message
    if message is None:
        piece = Piece(line.response or "", line.thinking or "", tool_calls=line.tool_calls or None, created_at=line.created_at)
        piece.is_unreadable = bool(line.image)
    else:
        piece = Piece(message.content or "", message.thinking or "", tool_calls=message.tool_calls or None)
        piece.created_at = line.created_at
        piece.is_unreadable = bool(message.images)
    if line.done:
        piece.finish = line.done_reason or "stop"
        piece.usage = {key: value for key in _COUNTERS if (value := getattr(line, key)) is not None}
        piece.is_done = True
    return piece


def _read_event(name: bytes, data: bytes) -> Piece:
    try:
        event = _DECODE_EVENT(data)
    except _UNREADABLE:
        found = _careful(name, data, _Event)
        if isinstance(found, Piece):
            return found
        event = found
    kind = event.type or name.decode("latin-1")
    if event.error or kind == "error" or name == b"error":
        return Piece(is_error=True)
    read = _EVENTS.get(kind)
    if read is not None:
        return read(event)
    is_failure = is_error(name, read_json(data))
    return Piece(is_error=is_failure, is_unreadable=not is_failure and kind != "ping")


def _read_message(event: _Event) -> Piece:
    message = event.message or {}
    usage = message.get("usage")
    return Piece(message=message, usage=usage if isinstance(usage, dict) else None)


def _read_message_delta(event: _Event) -> Piece:
    delta = event.delta or {}
    finish = delta.get("stop_reason")
    why = {"stop_sequence": delta.get("stop_sequence")}
    return Piece(finish=finish if isinstance(finish, str) else "", usage=event.usage, why=why)


def _read_block_delta(event: _Event) -> Piece:
    index, delta = event.index, event.delta or {}
    kind = delta.get("type")
    text, thinking = delta.get("text"), delta.get("thinking")
    if kind == "text_delta" and isinstance(text, str):
        return Piece(text, block_index=index)
    if kind == "thinking_delta" and isinstance(thinking, str):
        return Piece(reasoning=thinking, block_index=index)
    is_known = kind in ("input_json_delta", "signature_delta")
    return Piece(block_index=index, block_delta=delta, is_unreadable=not is_known)


def _read_block(event: _Event) -> Piece:
    index, block = event.index, event.content_block or {}
    kind = block.get("type")
    piece = Piece(block=block, block_index=index)
    if kind in _TEXT_BLOCKS:
        text, thinking = block.get("text") or "", block.get("thinking") or ""
        if isinstance(text, str) and isinstance(thinking, str):
            piece.text, piece.reasoning = text, thinking
            return piece
    elif kind in _CALL_BLOCKS:
        piece.tool_calls = [block]
        return piece
    piece.is_unreadable = True
    return piece


_EVENTS: dict[str, Callable[[_Event], Piece]] = {
    "message_start": _read_message,
    "content_block_start": _read_block,
    "content_block_delta": _read_block_delta,
    "content_block_stop": lambda event: Piece(block_index=event.index, is_block_end=True),
    "message_delta": _read_message_delta,
    "message_stop": lambda _: Piece(is_done=True),
}


def _careful(name: bytes, data: bytes, kind: type[_Wire]) -> _Wire | Piece:
    """Read what the fast decoder refuses: an error, NaN, a field of a delta that is new here but empty."""
    value = read_json(data)
    if is_error(name, value):
        return Piece(is_error=True)
    try:
        found = msgspec.convert(without_empty(value), kind)
        # Half a surrogate pair is no text that a request could hold.
        msgspec.json.encode(found)
    except _UNREADABLE:
        return _known_part(value, kind)
    return found


def _known_part(value: Any, kind: type[_Wire]) -> Piece:
    """Read what is known of an event that says more: nothing can go on with it, but a client has seen its text."""
    fields = _Delta.__struct_fields__ if kind is _Chunk else _Message.__struct_fields__
    known = without_unknown(value, fields)
    piece = Piece()
    if known != value:
        try:
            data = msgspec.json.encode(known)
        except _UNREADABLE:
            pass  # half a surrogate pair in the text itself
        else:
            piece = read_chunk(b"", data) if kind is _Chunk else _read_line(b"", data)
    piece.is_unreadable = True
    return piece


def counts_of(usage: dict[str, Any] | None) -> tuple[int | None, int | None]:
    """Return (prompt, completion) tokens from any shape's usage, None for what it does not say.

    Anthropic's prompt is the sum of what was read anew and what came from or went to the cache.
    """
    if not usage:
        return None, None
    prompt = _whole(usage, "prompt_tokens", "prompt_eval_count")
    if prompt is None:
        parts = [_whole(usage, key) for key in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")]
        known = [part for part in parts if part is not None]
        prompt = sum(known) if known else None
    return prompt, _whole(usage, "completion_tokens", "output_tokens", "eval_count")


def _whole(usage: dict[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = usage.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None
