"""What the engines' OpenAI dialects have in common: bounds, log probabilities, tool calls as they are streamed. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any

from support.generation import Bounds, Piece, call_of

CALL_HEAD = re.compile(r'\s*\{"name":\s*"([^"]+)",\s*"arguments":\s*')


def bounds_of(body: Mapping[str, Any], *, tokens_max: int | None = None) -> Bounds:
    """Read max_tokens, max_completion_tokens and stop; `tokens_max` holds where the request has none."""
    asked = body.get("max_completion_tokens", body.get("max_tokens"))
    stops = body.get("stop") or ()
    return Bounds(tokens_max if asked is None else int(asked), (stops,) if isinstance(stops, str) else tuple(stops))


def chat_logprobs(piece: Piece) -> dict[str, Any]:
    """Write made-up log probabilities of one piece in the shape of chats."""
    entry = {"token": piece.text, "logprob": -0.5, "bytes": list(piece.text.encode()), "top_logprobs": []}
    return {"content": [entry]}


def text_logprobs(piece: Piece, offset: int) -> dict[str, Any]:
    """Write made-up log probabilities of one piece in the shape of completions."""
    return {"text_offset": [offset], "token_logprobs": [-0.5], "tokens": [piece.text], "top_logprobs": [{piece.text: -0.5}]}


class CallWriter:
    """Turns the text of a tool call, as it grows, into deltas: the name first, then the arguments piece by piece."""

    def __init__(self, call_id: str, *, opens_arguments: bool = False) -> None:
        self.has_written = False
        self._id = call_id
        self._text = ""
        self._sent = 0
        # llama.cpp opens a call with empty arguments, vLLM without any.
        self._opens_arguments = opens_arguments

    def delta(self, text: str) -> dict[str, Any]:
        """Return the delta for the next piece; an empty one while the name is not whole."""
        self._text += text
        head = CALL_HEAD.match(self._text)
        if head is None:
            return {}
        if not self.has_written:
            self.has_written = True
            self._sent = head.end()
            function = {"name": head[1]} | ({"arguments": ""} if self._opens_arguments else {})
            return {"tool_calls": [{"index": 0, "id": self._id, "type": "function", "function": function}]}
        # The last brace closes the call, not its arguments.
        new = self._text.rstrip()[self._sent : -1]
        self._sent += len(new)
        return {"tool_calls": [{"index": 0, "function": {"arguments": new}}]} if new else {}

    def whole(self, text: str) -> list[dict[str, Any]]:
        """Return the calls of a finished answer."""
        if not text:
            return []
        call = call_of(text)
        function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
        return [{"id": self._id, "type": "function", "function": function}]
