"""Fold the events that a client has received into a `Transcript`.

Called by dataplane.received when an answer breaks or its raw pieces outgrow their bound. A typical chunk costs 1.5 us. Never
decides whether the answer can go on (core.transcript.cases_of) and never writes an event (dialects.splice).
"""

from typing import Any

from understudy.core.transcript import OLLAMA_SHAPES, Shape, Transcript
from understudy.dialects.calls import add_calls, add_to_block, begin_block
from understudy.dialects.contract import StreamKind
from understudy.dialects.events import read_json
from understudy.dialects.framing import split
from understudy.dialects.pieces import Piece, read_chunk, read_piece, stream_kind_of

# How a splice tells where it went on; what token ids came before belong to a text that broke off (dialects.splice).
SEAM_COMMENT = b": understudy resumed"
SEAM_FIELD = "understudy_resumed"

# Fields of a first event that are not the same in all.
_PASSING_CHUNK_FIELDS = ("prompt_token_ids", "prompt_text", "prompt_logprobs", "timings", "prompt_progress", "__verbose")
_EMPTY_CHOICE_FIELDS: dict[str, Any] = {
    "text": "",
    "delta": {},
    "finish_reason": None,
    "stop_reason": None,
    "matched_stop": None,
    "logprobs": None,
    "token_ids": None,
    "prompt_token_ids": None,
}
_PASSING_LINE_FIELDS = ("thinking", "tool_calls", "logprobs", SEAM_FIELD)


def fold(transcript: Transcript, shape: Shape, data: bytes) -> None:
    """Add the whole events in `data`, of which only the last may lack its end, to `transcript`.

    An event that cannot be read or that is an error makes it unreadable; comments and [DONE] add nothing. Raises nothing.
    """
    if shape is Shape.OPENAI_CHAT or shape is Shape.OPENAI_TEXT:
        for block in data.split(b"\n\n"):
            # A block of several lines, or of a stream that ends its lines otherwise, is no JSON behind its first field.
            if block.startswith(b"data: {"):
                event = block[6:]
                piece = read_chunk(b"", event)
                if not piece.is_unreadable:
                    _fold_chunk(transcript, piece, event)
                    continue
            _fold_block(transcript, shape, block)
        return
    for name, line in split(data, stream_kind_of(shape)):
        if line is not None:
            _fold_event(transcript, shape, read_piece(shape, name, line), line)
        elif name == b"error":
            transcript.is_unreadable = True


def _fold_block(transcript: Transcript, shape: Shape, block: bytes) -> None:
    """Fold what stands between two empty lines the careful way."""
    if block.startswith(SEAM_COMMENT):
        _note_seam(transcript)
    for name, data in split(block, StreamKind.SSE):
        if data is not None:
            _fold_event(transcript, shape, read_piece(shape, name, data), data)
        elif name == b"error":
            transcript.is_unreadable = True


def _fold_event(transcript: Transcript, shape: Shape, piece: Piece, data: bytes) -> None:
    if shape is Shape.ANTHROPIC:
        _fold_anthropic(transcript, piece)
    elif shape in OLLAMA_SHAPES:
        _fold_line(transcript, piece, data)
    else:
        _fold_chunk(transcript, piece, data)


def _fold_chunk(transcript: Transcript, piece: Piece, data: bytes) -> None:
    """Fold one event of the OpenAI shapes."""
    if piece.is_done:
        return
    if piece.is_error or piece.is_unreadable:
        _fold_known_part(transcript, piece)
        return
    text = piece.text or piece.reasoning
    if not transcript.has_text_template and (text or not transcript.head):
        _read_templates(transcript, data, has_text=bool(text))
    if piece.index >= transcript.choices:
        transcript.choices = piece.index + 1
    if text:
        _add_text(transcript, piece, text)
        # Where whoever told before tells no more, what is known is not exact any longer.
        transcript.tokens = piece.tokens
    if piece.ids is not None or piece.prompt_ids or transcript.is_after_seam:
        _add_ids(transcript, piece, has_text=bool(text))
    _add_rest(transcript, piece)


def _fold_known_part(transcript: Transcript, piece: Piece) -> None:
    """Fold an event with which nobody goes on: an error, or one that says more than is known here."""
    transcript.is_unreadable = True
    if piece.is_error:
        return
    if piece.index >= transcript.choices:
        transcript.choices = piece.index + 1
    if not (piece.text or piece.reasoning or piece.tool_calls):
        transcript.has_gap = True
    if text := piece.text or piece.reasoning:
        _add_text(transcript, piece, text)
    if piece.tool_calls:
        _add_calls(transcript, piece)


def _add_text(transcript: Transcript, piece: Piece, text: str) -> None:
    if piece.text:
        transcript.texts.append(piece.text)
    if piece.reasoning:
        transcript.reasonings.append(piece.reasoning)
        transcript.reasoning_keys = transcript.reasoning_keys or piece.reasoning_keys
    transcript.pieces += 1
    if text == transcript.piece:
        transcript.repeats += 1
    else:
        transcript.piece = text
        transcript.repeats = 1


def _add_calls(transcript: Transcript, piece: Piece) -> None:
    transcript.has_tool_call = True
    if piece.block is not None:
        begin_block(transcript.calls, piece.block_index, piece.block)
    elif not piece.index:
        add_calls(transcript.calls, piece.tool_calls or [])


def _add_rest(transcript: Transcript, piece: Piece) -> None:
    if piece.finish:
        transcript.finish = piece.finish
        transcript.timed = piece.timed
    if piece.usage is not None:
        transcript.usage = {**(transcript.usage or {}), **piece.usage}
        if piece.text or piece.reasoning:
            transcript.has_usage_each = True
        elif transcript.finish and not piece.finish:
            transcript.is_usage_sent = True
    if piece.tool_calls:
        _add_calls(transcript, piece)
    if piece.has_audio:
        transcript.has_audio = True


def _add_ids(transcript: Transcript, piece: Piece, *, has_text: bool) -> None:
    """Add token ids once the text that they stand for has come: without text they are the beginning of a character."""
    if piece.prompt_ids and not transcript.prompt_ids:
        transcript.prompt_ids = list(piece.prompt_ids)
    if has_text and transcript.is_after_seam:
        transcript.is_after_seam = False
        if not piece.ids:
            # The backend that goes on tells no ids, so that those known no longer are all of them.
            transcript.prompt_ids, transcript.ids = [], []
    if not transcript.prompt_ids:
        return
    transcript.cut_ids += piece.ids or ()
    if has_text:
        transcript.ids += transcript.cut_ids
        transcript.cut_ids = []
        if piece.tokens is None:
            transcript.tokens = len(transcript.ids)


def _note_seam(transcript: Transcript) -> None:
    transcript.cut_ids = []
    transcript.is_after_seam = True


def _read_templates(transcript: Transcript, data: bytes, *, has_text: bool) -> None:
    """Keep what stays the same in all events: `head` with its `choices` empty, `choice` with its delta or text empty.

    An event with text is the better model, because the first event of a chat has fewer fields on vLLM.
    """
    value = read_json(data)
    if not isinstance(value, dict):
        return
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    if not transcript.head:
        head = {**value, "choices": []}
        if head.get("usage"):
            del head["usage"]
        transcript.head = {key: part for key, part in head.items() if key not in _PASSING_CHUNK_FIELDS}
    if isinstance(choice, dict) and choice:
        transcript.choice = _choice_template(choice)
    if has_text:
        transcript.has_text_template = True


def _choice_template(choice: dict[str, Any]) -> dict[str, Any]:
    return {key: _EMPTY_CHOICE_FIELDS.get(key, part) for key, part in choice.items()}


def _fold_line(transcript: Transcript, piece: Piece, data: bytes) -> None:
    """Fold one line of Ollama's own API."""
    if piece.is_error or piece.is_unreadable:
        _fold_known_part(transcript, piece)
        return
    if not transcript.head:
        transcript.head = _line_template(data)
        transcript.choices = 1
    text = piece.text or piece.reasoning
    if text:
        _add_text(transcript, piece, text)
    _add_rest(transcript, piece)


def _line_template(data: bytes) -> dict[str, Any]:
    value = read_json(data)
    if not isinstance(value, dict):
        return {}
    template = {key: part for key, part in value.items() if key not in _PASSING_LINE_FIELDS}
    for key, nothing in (("message", {}), ("response", "")):
        if key in template:
            template[key] = nothing
    return template


def _fold_anthropic(transcript: Transcript, piece: Piece) -> None:
    """Fold one event of /v1/messages."""
    if piece.is_error or piece.is_unreadable:
        _fold_known_part(transcript, piece)
        return
    if piece.message is not None:
        transcript.head = piece.message
        transcript.choices = 1
    elif piece.block is not None:
        transcript.open_block = (piece.block_index, str(piece.block.get("type")))
        transcript.blocks = piece.block_index + 1
    elif piece.is_block_end:
        transcript.open_block = None
    text = piece.text or piece.reasoning
    if text:
        _add_text(transcript, piece, text)
    elif piece.block_delta is not None:
        add_to_block(transcript.calls, piece.block_index, piece.block_delta)
    _add_rest(transcript, piece)
