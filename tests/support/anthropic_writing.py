"""The Anthropic dialect of all engines: one message as events, and a request's messages as a chat. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from support.answers import compact
from support.breaks import Utterance
from support.chat_template import Message, text_of
from support.generation import Piece

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}
ERROR = {"type": "error", "error": {"type": "internal_error", "message": "EngineCore encountered an issue."}}


def chat_of(body: Mapping[str, Any]) -> list[Message]:
    """Return the request's messages with the system prompt in front, each with its text as one string."""
    system = body.get("system")
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    messages += [{"role": message["role"], "content": text_of(message)} for message in body["messages"]]
    return messages


def anthropic_utterance(
    body: Mapping[str, Any], pieces: Sequence[Piece], prompt_tokens: int, *, number: int, engine: str
) -> Utterance:
    """Write a message of text; the last piece's finish becomes the stop reason."""
    last = pieces[-1]
    model = str(body.get("model", "tiny"))
    message = {"id": f"{'msg' if engine == 'ollama' else 'chatcmpl'}-{number:x}", "type": "message", "role": "assistant"}
    usage = {"input_tokens": prompt_tokens, "output_tokens": 0}
    # vLLM counts the prompt at the end once more (recorded on 0.32.0), llama.cpp does not (golden/llamacpp/messages.sse).
    counted = ({"input_tokens": prompt_tokens} if engine == "vllm" else {}) | {"output_tokens": last.tokens}
    start: dict[str, Any] = {**message, "content": [], "model": model, "stop_reason": None, "stop_sequence": None, "usage": usage}
    opening = [
        named({"type": "message_start", "message": start}),
        named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    ]
    deltas = [
        named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece.text}})
        for piece in pieces
        if piece.text
    ]
    reason = "stop_sequence" if last.stop else STOP_REASONS[last.finish or "stop"]
    closing = [
        named({"type": "content_block_stop", "index": 0}),
        named(
            {
                "type": "message_delta",
                "delta": {"stop_reason": reason, "stop_sequence": last.stop},
                "usage": counted,
            }
        ),
        named({"type": "message_stop"}),
    ]
    whole = {
        **start,
        "content": [{"type": "text", "text": "".join(piece.text for piece in pieces)}],
        "stop_reason": reason,
        "stop_sequence": last.stop,
        "usage": {"input_tokens": prompt_tokens, "output_tokens": last.tokens},
    }
    return Utterance(opening, deltas, closing, [named(ERROR)], whole)


def named(event: Mapping[str, Any]) -> bytes:
    """Write one event: its name stands before its data."""
    return f"event: {event['type']}\ndata: ".encode() + compact(event) + b"\n\n"
