"""SGLang's dialect, with the means and the traps of continuing a text, around a scripted model.

Written from SGLang 0.5.23 (srt/entrypoints/openai/serving_chat.py, serving_completions.py); no SGLang was run, see
tests/golden/sglang. Pure.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from support.answers import compact_sse, sse
from support.breaks import Utterance
from support.chat_template import Message, Template, text_of
from support.generation import LLAMACPP, Piece, spoken
from support.openai_writing import bounds_of
from support.scripted_model import BOS, SPECIALS, ScriptedModel, bytes_of, ids_of
from support.steps import Answer

CREATED = 1790000000
ABORTED = {
    "error": {"object": "error", "message": "Abort in scheduling", "type": "InternalServerError", "param": None, "code": 500}
}
DONE = sse("[DONE]")


class SglangDialect:
    """What one SGLang answers to POST requests."""

    def __init__(self, model: ScriptedModel) -> None:
        self.model = model
        self._template = Template()
        self._numbers = itertools.count(1)

    def answer(self, path: str, body: Mapping[str, Any]) -> Utterance | Answer | None:
        """Answer one request; None for a path that is not scripted."""
        if path == "/v1/chat/completions":
            return self._chat(body)
        return self._completion(body) if path == "/v1/completions" else None

    def chat_prompt(self, body: Mapping[str, Any]) -> list[int]:
        """Render a chat; `input_ids` takes the place of all of it."""
        if body.get("input_ids"):
            return [int(number) for number in body["input_ids"]]
        messages: list[Message] = list(body["messages"])
        if messages[-1]["role"] != "assistant":
            return ids_of(self._template.asking(messages, body.get("tools")))
        last = messages.pop()
        if not body.get("continue_final_message"):
            # Without the flag a trailing assistant message becomes the user's.
            return ids_of(self._template.asking([*messages, {"role": "user", "content": text_of(last)}], body.get("tools")))
        # It is rendered with the generation prompt, and the text's own tokens are put behind it.
        return ids_of(self._template.asking(messages, body.get("tools"))) + ids_of(text_of(last))

    def _chat(self, body: Mapping[str, Any]) -> Utterance:
        prompt = self.chat_prompt(body)
        pieces = spoken(self.model.rest(bytes_of(prompt)), bounds_of(body), LLAMACPP)
        number = next(self._numbers)
        head = self._head(f"{number:032x}", "chat.completion.chunk", number, body)

        def event(delta: Mapping[str, Any], piece: Piece | None = None) -> bytes:
            said = {"role": None, "content": None, "reasoning_content": None, "tool_calls": None, **delta}
            finish = piece.finish if piece else None
            matched = (piece.stop or (SPECIALS["<|im_end|>"] if finish == "stop" else None)) if piece else None
            choice = {"index": 0, "delta": said, "logprobs": None, "finish_reason": finish, "matched_stop": matched}
            return compact_sse({**head, "choices": [choice], "usage": None})

        events = [event({} if piece.finish else {"content": piece.text}, piece) for piece in pieces]
        text = "".join(piece.text for piece in pieces)
        message = {"role": "assistant", "content": text, "reasoning_content": None, "tool_calls": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": pieces[-1].finish, "matched_stop": None}
        usage = _usage(len(prompt), pieces)
        return Utterance(
            [event({"role": "assistant", "content": ""})],
            events,
            [*self._last(head, body, usage), DONE],
            [sse(ABORTED), DONE],
            {**head, "object": "chat.completion", "choices": [choice], "usage": usage, "metadata": {"weight_version": "default"}},
        )

    def _completion(self, body: Mapping[str, Any]) -> Utterance:
        given = body["prompt"]
        prompt = [int(number) for number in given] if isinstance(given, list) else [SPECIALS[BOS], *ids_of(str(given))]
        pieces = spoken(self.model.rest(bytes_of(prompt)), bounds_of(body, tokens_max=16), LLAMACPP)
        number = next(self._numbers)
        head = self._head(f"{number:032x}", "text_completion", number, body)
        choices = [
            {"index": 0, "text": piece.text, "logprobs": None, "finish_reason": piece.finish, "matched_stop": piece.stop}
            for piece in pieces
        ]
        usage = _usage(len(prompt), pieces)
        whole = {**head, "choices": [{**choices[-1], "text": "".join(piece.text for piece in pieces)}], "usage": usage}
        events = [compact_sse({**head, "choices": [choice], "usage": None}) for choice in choices]
        return Utterance([], events, [*self._last(head, body, usage), DONE], [sse(ABORTED), DONE], whole)

    def _head(self, identity: str, kind: str, number: int, body: Mapping[str, Any]) -> dict[str, Any]:
        return {"id": identity, "object": kind, "created": CREATED + number, "model": str(body.get("model", "tiny"))}

    def _last(self, head: Mapping[str, Any], body: Mapping[str, Any], usage: Mapping[str, Any]) -> list[bytes]:
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return [compact_sse({**head, "choices": [], "usage": usage})] if wants_usage else []


def _usage(prompt_tokens: int, pieces: Sequence[Piece]) -> dict[str, Any]:
    tokens = pieces[-1].tokens
    counted = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens + tokens, "completion_tokens": tokens}
    return counted | {"prompt_tokens_details": None}
