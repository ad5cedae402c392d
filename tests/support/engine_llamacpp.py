"""llama.cpp's dialects, with the means and the traps of continuing a text, around a scripted model.

Written from llama.cpp b11549 (tools/server/server-context.cpp, server-task.cpp) and its recorded answers (tests/golden/llamacpp).
The real server is in the plays as well (support.llama); this one breaks where it is told to. Pure.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.answers import compact_sse, sse, whole
from support.anthropic_writing import anthropic_utterance, chat_of
from support.breaks import Utterance
from support.chat_template import Message, Template, text_of
from support.generation import LLAMACPP, Bounds, Piece, spoken, told_apart
from support.openai_writing import CallWriter, bounds_of, chat_logprobs
from support.scripted_model import ASSISTANT, BOS, SPECIALS, ScriptedModel, bytes_of, ids_of
from support.steps import Answer

CREATED = 1790000000
BROKEN = {"error": {"code": 500, "message": "the model fell over", "type": "server_error"}}


def refusal(message: str, status: int = 400, kind: str = "invalid_request_error") -> Answer:
    """Answer with an error as llama.cpp writes it."""
    return whole(status, {"error": {"code": status, "message": message, "type": kind}})


@dataclass(frozen=True, slots=True)
class Habits:
    """How this server was started. `prefills` False: --no-prefill-assistant, a last message of the assistant is closed.

    `refuses_thinking_prefill`: builds of August 2025 to spring 2026 answer 400 to a prefill for thinking models.
    """

    prefills: bool = True
    thinks: bool = False
    refuses_thinking_prefill: bool = False


class LlamaCppDialect:
    """What one llama.cpp server answers to POST requests."""

    def __init__(self, model: ScriptedModel, habits: Habits = Habits()) -> None:
        self.model = model
        self.habits = habits
        self._template = Template(has_bos=False)
        self._numbers = itertools.count(1)

    def answer(self, path: str, body: Mapping[str, Any]) -> Utterance | Answer | None:
        """Answer one request; None for a path that is not scripted."""
        paths = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completion,
            "/v1/messages": self._messages,
            "/apply-template": self._apply_template,
            "/tokenize": self._tokenize,
            "/detokenize": self._detokenize,
        }
        write = paths.get(path)
        return write(body) if write else None

    # Prompts.

    def chat_prompt(self, body: Mapping[str, Any]) -> str:
        """Render a chat, without a BOS: the tokenizer adds it. Raises ValueError for what the server refuses."""
        messages: list[Message] = list(body["messages"])
        tools = body.get("tools")
        last = messages[-1]
        is_asked = bool(body.get("continue_final_message")) and not body.get("add_generation_prompt", True)
        if last["role"] != "assistant" or not (self.habits.prefills or is_asked):
            return self._template.asking(messages, tools)
        if last.get("tool_calls"):
            raise ValueError("Cannot continue a message with tool calls.")
        if self.habits.refuses_thinking_prefill and self.habits.thinks:
            raise ValueError("Assistant response prefill is incompatible with enable_thinking.")
        reasoning = str(last.get("reasoning_content") or "")
        if not text_of(last) and not reasoning:
            # An empty prefill gets no assistant header at all (observed).
            return self._template.closed(messages[:-1], tools)
        said = text_of(last)
        if reasoning:
            said = f"<think>{reasoning}" + (f"</think>{said}" if said else "")
        return self._template.closed(messages[:-1], tools) + ASSISTANT + said

    def _prompt_ids(self, prompt: Any) -> list[int]:
        if isinstance(prompt, list):
            return [int(number) for number in prompt]
        return [SPECIALS[BOS], *ids_of(str(prompt))]

    # Answers.

    def _chat(self, body: Mapping[str, Any]) -> Utterance | Answer:
        try:
            prompt = [SPECIALS[BOS], *ids_of(self.chat_prompt(body))]
        except ValueError as error:
            return refusal(str(error))
        data = bytes_of(prompt)
        said = self.model.scene(data).said.decode(errors="ignore")
        rest = self.model.rest(data)
        if body.get("grammar") and said:
            # The user's own grammar begins anew (observed: 0 of 79); a JSON schema's is advanced over the prefill (79 of 79).
            rest, said = self.model.text(self.model.scene(data).key).encode(), ""
        has_tools = bool(body.get("tools")) and body.get("tool_choice") != "none"
        pieces = told_apart(spoken(rest, bounds_of(body), LLAMACPP), said=said, has_tools=has_tools)
        number = next(self._numbers)
        tail = {
            "created": CREATED + number,
            "id": f"chatcmpl-{number:032x}",
            "model": self._model_name(body),
            "system_fingerprint": "b11549-a1b2c3d",
            "object": "chat.completion.chunk",
        }
        count = int(body.get("n") or 1)
        writers = [CallWriter(f"call{number:06d}", opens_arguments=True) for _ in range(count)]
        opening = [_chat_event(tail, i, {"role": "assistant", "content": None}) for i in range(count)]
        events = []
        for piece in pieces:
            for i in range(count):
                finish = "tool_calls" if piece.finish == "stop" and writers[i].has_written else piece.finish
                logprobs = chat_logprobs(piece) if body.get("logprobs") and piece.text else None
                delta = {} if piece.finish else _delta(piece, writers[i])
                events.append(_chat_event(tail, i, delta, finish, logprobs))
        usage = self._usage(len(prompt), pieces[-1].tokens)
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        closing = [compact_sse({"choices": [], **tail, "usage": usage, "timings": _timings(pieces)})] if wants_usage else []
        # Streamed, only what is new comes; unstreamed, the answer contains the prefill again (observed).
        text = said + "".join(piece.text for piece in pieces if piece.kind == "text")
        choice = {
            "finish_reason": pieces[-1].finish,
            "index": 0,
            "message": {"role": "assistant", "content": text},
        }
        whole_answer = {"choices": [choice], **tail, "object": "chat.completion", "usage": usage, "timings": _timings(pieces)}
        return Utterance(opening, events, [*closing, sse("[DONE]")], [compact_sse(BROKEN)], whole_answer)

    def _completion(self, body: Mapping[str, Any]) -> Utterance | Answer:
        prompt = self._prompt_ids(body["prompt"])
        data = bytes_of(prompt)
        scene = self.model.scene(data)
        rest = self.model.rest(data)
        if (body.get("json_schema") or body.get("response_format") or body.get("grammar")) and scene.said:
            rest = self.model.text(scene.key).encode()
        pieces = spoken(rest, bounds_of(body), LLAMACPP)
        number = next(self._numbers)
        head = {"created": CREATED + number, "model": self._model_name(body), "system_fingerprint": "b11549-a1b2c3d"}
        head |= {"object": "text_completion"}
        usage = self._usage(len(prompt), pieces[-1].tokens)
        identity = {"id": f"chatcmpl-{number:032x}"}
        events = []
        for piece in pieces:
            choice = {"text": piece.text, "index": 0, "logprobs": None, "finish_reason": piece.finish}
            # Usage stands in the chunk with the finish, whether it was asked for or not (golden/llamacpp/completions.sse).
            last = {"usage": usage, **identity, "timings": _timings(pieces)} if piece.finish else identity
            events.append(compact_sse({"choices": [choice], **head, **last}))
        text = "".join(piece.text for piece in pieces)
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": pieces[-1].finish}
        whole_answer = {"choices": [choice], **head, "usage": usage, **identity, "timings": _timings(pieces)}
        return Utterance([], events, [sse("[DONE]")], [compact_sse(BROKEN)], whole_answer)

    def _messages(self, body: Mapping[str, Any]) -> Utterance | Answer:
        prompt = [SPECIALS[BOS], *ids_of(self.chat_prompt({"messages": chat_of(body)}))]
        bounds = Bounds(body.get("max_tokens"), tuple(body.get("stop_sequences") or ()))
        pieces = spoken(self.model.rest(bytes_of(prompt)), bounds, LLAMACPP)
        return anthropic_utterance(body, pieces, len(prompt), number=next(self._numbers), engine="llamacpp")

    def _apply_template(self, body: Mapping[str, Any]) -> Answer:
        try:
            return whole(200, {"prompt": self.chat_prompt(body)})
        except ValueError as error:
            return refusal(str(error))

    def _tokenize(self, body: Mapping[str, Any]) -> Answer:
        start = [SPECIALS[BOS]] if body.get("add_special") else []
        return whole(200, {"tokens": start + ids_of(str(body.get("content", "")))})

    def _detokenize(self, body: Mapping[str, Any]) -> Answer:
        return whole(200, {"content": bytes_of(body["tokens"]).decode(errors="replace")})

    def _model_name(self, body: Mapping[str, Any]) -> str:
        return str(body.get("model", "tiny"))

    def _usage(self, prompt: int, completion: int) -> dict[str, Any]:
        counted = {"completion_tokens": completion, "prompt_tokens": prompt, "total_tokens": prompt + completion}
        return counted | {"prompt_tokens_details": {"cached_tokens": 0}}


def _chat_event(
    tail: Mapping[str, Any],
    index: int,
    delta: Mapping[str, Any],
    finish: str | None = None,
    logprobs: Mapping[str, Any] | None = None,
) -> bytes:
    choice = {"finish_reason": finish, "index": index, "delta": delta} | ({"logprobs": logprobs} if logprobs else {})
    return compact_sse({"choices": [choice], **tail})


def _delta(piece: Piece, writer: CallWriter) -> dict[str, Any]:
    if piece.kind == "reasoning":
        return {"reasoning_content": piece.text}
    if piece.kind == "tool_call":
        return writer.delta(piece.text)
    return {"content": piece.text}


def _timings(pieces: Sequence[Piece]) -> dict[str, Any]:
    return {"cache_n": 0, "prompt_n": 3, "prompt_ms": 0.5, "predicted_n": pieces[-1].tokens, "predicted_ms": 0.5}
