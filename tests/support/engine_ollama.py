"""Ollama's dialects (its own, /v1 and Anthropic), with the means and the traps of continuing a text, around a scripted model.

Written from Ollama's source (server/routes.go: GenerateHandler, ChatHandler; server/prompt.go; middleware/openai.go) and from
what 0.32.15 was seen to send (tests/golden/ollama). Pure.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.answers import NDJSON, compact, compact_sse, sse, whole
from support.anthropic_writing import anthropic_utterance, chat_of
from support.breaks import Utterance
from support.chat_template import Message, Template
from support.generation import LLAMACPP, Bounds, Piece, call_of, spoken, told_apart
from support.openai_writing import CallWriter
from support.scripted_model import BOS, ScriptedModel, ids_of
from support.steps import Answer

CREATED = 1790000000
# llm/llama_server.go ends a completion after the same token more than 30 times, as if nothing had happened.
REPEATS_MAX = 30
RUNNER_LOST = {"error": "an error was encountered while running the model: unexpected EOF"}
TOO_LONG = {"error": "the prompt is longer than the context length currently available, try a shorter one"}


@dataclass(frozen=True, slots=True)
class Habits:
    """How this Ollama runs its model. `is_native`: llama-server applies the GGUF's own template, which goes on with a message.

    Else it renders a Go template: `has_last_branch` tells whether that leaves the assistant's last message open; one that ranges
    over the messages, as Ollama picks by itself for known templates, does not. `can_render`: it knows _debug_render_only (since
    August 2025). `thinks`: the template has thinking tags. `context_tokens`: more than these are cut from the prompt.
    """

    is_native: bool = False
    has_last_branch: bool = False
    can_render: bool = True
    thinks: bool = False
    context_tokens: int = 4096


class OllamaDialect:
    """What one Ollama answers to POST requests."""

    def __init__(self, model: ScriptedModel, habits: Habits = Habits()) -> None:
        self.model = model
        self.habits = habits
        self._template = Template(has_bos=False)
        self._numbers = itertools.count(1)

    def answer(self, path: str, body: Mapping[str, Any]) -> Utterance | Answer | None:
        """Answer one request; None for a path that Ollama does not have."""
        paths = {
            "/api/chat": self._chat,
            "/api/generate": self._generate,
            "/v1/chat/completions": self._v1_chat,
            "/v1/completions": self._v1_completion,
            "/v1/messages": self._messages,
        }
        write = paths.get(path)
        return write(body) if write else None

    # Prompts.

    def chat_prompt(self, messages: Sequence[Message], tools: Any = None) -> str:
        """Render a chat, without a BOS: llama-server adds that itself."""
        merged = _merged(messages)
        is_open = self.habits.is_native or self.habits.has_last_branch
        if is_open and merged and merged[-1]["role"] == "assistant":
            return self._template.open(merged, tools)
        return self._template.asking(merged, tools)

    def _fitting_prompt(self, messages: Sequence[Message], tools: Any, *, truncate: bool) -> str | None:
        """Drop the oldest messages until the prompt fits (server/prompt.go, chatPrompt); None when that is forbidden."""
        kept = list(messages)
        prompt = self.chat_prompt(kept, tools)
        while len(ids_of(prompt)) > self.habits.context_tokens and len(kept) > 1:
            if not truncate:
                return None
            kept = kept[1:]
            prompt = self.chat_prompt(kept, tools)
        return prompt

    def _spoken(self, prompt: str, bounds: Bounds, *, has_format: bool, has_tools: bool, thinks: bool) -> list[Piece]:
        scene = self.model.scene((BOS + prompt).encode())
        said = scene.said.decode(errors="ignore")
        rest = self.model.rest((BOS + prompt).encode())
        if has_format and said and not scene.wrong and not self.habits.is_native:
            # A rendered or raw prompt begins the grammar anew (observed: 0 of 22); native mode goes on (87 of 87).
            rest, said = self.model.text(scene.key).encode(), ""
        pieces = spoken(rest, bounds, LLAMACPP)
        if thinks or has_tools:
            pieces = told_apart(pieces, said=said if thinks else "", has_tools=has_tools)
        return pieces

    # Its own dialect.

    def _chat(self, body: Mapping[str, Any]) -> Utterance | Answer:
        prompt = self._fitting_prompt(body["messages"], body.get("tools"), truncate=body.get("truncate", True))
        if prompt is None:
            return whole(400, TOO_LONG)
        if body.get("_debug_render_only") and self.habits.can_render:
            return self._rendered(body, prompt, {"message": {"role": "", "content": ""}})
        pieces = self._spoken(
            prompt,
            _bounds(body),
            has_format=bool(body.get("format")),
            has_tools=bool(body.get("tools")),
            thinks=self.habits.thinks and body.get("think", True) is not False,
        )
        return self._lines(body, pieces, prompt, is_chat=True)

    def _generate(self, body: Mapping[str, Any]) -> Utterance | Answer:
        is_raw = bool(body.get("raw"))
        if is_raw and (body.get("template") or body.get("system") or body.get("context")):
            return whole(400, {"error": "raw mode does not support template, system, or context"})
        prompt = str(body.get("prompt", ""))
        if not is_raw:
            system: list[Message] = [{"role": "system", "content": body["system"]}] if body.get("system") else []
            prompt = self.chat_prompt([*system, {"role": "user", "content": prompt}])
        if body.get("_debug_render_only") and self.habits.can_render:
            return self._rendered(body, prompt, {"response": ""})
        thinks = self.habits.thinks and not is_raw and body.get("think", True) is not False
        pieces = self._spoken(prompt, _bounds(body), has_format=bool(body.get("format")), has_tools=False, thinks=thinks)
        return self._lines(body, pieces, prompt, is_chat=False)

    def _rendered(self, body: Mapping[str, Any], prompt: str, said: Mapping[str, Any]) -> Answer:
        info = {"_debug_info": {"rendered_template": prompt}}
        return whole(200, {"model": body["model"], "created_at": self._created_at(0), **said, "done": False, **info})

    def _created_at(self, nth: int) -> str:
        return f"2026-08-21T10:00:{next(self._numbers) % 60:02d}.{nth:06d}Z"

    def _lines(self, body: Mapping[str, Any], pieces: Sequence[Piece], prompt: str, *, is_chat: bool) -> Utterance:
        def one(piece: Piece, nth: int) -> dict[str, Any]:
            head = {"model": body["model"], "created_at": self._created_at(nth)}
            said = _message(piece) if is_chat else {"response": piece.text if piece.kind == "text" else ""}
            more = {"message": said} if is_chat else said
            more |= {"thinking": piece.text} if not is_chat and piece.kind == "reasoning" else {}
            logprobs = [{"token": piece.text, "logprob": -0.5, "bytes": list(piece.text.encode())}]
            return {**head, **more, "done": False} | ({"logprobs": logprobs} if body.get("logprobs") and piece.text else {})

        spoken_pieces, is_cut = _until_repeating(_whole_calls(pieces))
        lines = [one(piece, i) for i, piece in enumerate(spoken_pieces, start=1)]
        counters = {
            "total_duration": 48211000,
            "load_duration": 11000000,
            "prompt_eval_count": len(ids_of(prompt)) + 1,
            "prompt_eval_duration": 1200000,
            "eval_count": pieces[-1].tokens,
            "eval_duration": 900000,
        }
        if not is_cut:
            context = {"context": [1, 2, 3]} if not is_chat and not body.get("raw") else {}
            lines[-1] |= {"done": True, "done_reason": pieces[-1].finish, **context, **counters}
        texts = {kind: "".join(p.text for p in spoken_pieces if p.kind == kind) for kind in ("text", "reasoning", "tool_call")}
        whole_line = dict(lines[-1])
        if is_chat:
            whole_line["message"] = _message(Piece(texts["text"], (), 0))
            whole_line["message"] |= {"thinking": texts["reasoning"]} if texts["reasoning"] else {}
            whole_line["message"] |= {"tool_calls": [_call(texts["tool_call"])]} if texts["tool_call"] else {}
        else:
            whole_line["response"] = texts["text"]
        data = [compact(value) + b"\n" for value in lines]
        return Utterance([], data, [], [compact(RUNNER_LOST) + b"\n"], whole_line, content_type=NDJSON)

    # /v1.

    def _v1_chat(self, body: Mapping[str, Any]) -> Utterance | Answer:
        messages = [part for message in body["messages"] for part in _apart(message)]
        if body.get("_debug_render_only") and self.habits.can_render:
            return self._rendered(body, self.chat_prompt(messages, body.get("tools")), {"choices": []})
        prompt = self._fitting_prompt(messages, body.get("tools"), truncate=True) or ""
        pieces = self._spoken(
            prompt,
            _v1_bounds(body),
            has_format=(body.get("response_format") or {}).get("type", "text") != "text",
            has_tools=bool(body.get("tools")),
            thinks=self.habits.thinks,
        )
        return self._chunks(body, pieces, len(ids_of(prompt)) + 1)

    def _chunks(self, body: Mapping[str, Any], pieces: Sequence[Piece], prompt_tokens: int) -> Utterance:
        number = next(self._numbers)
        head = {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion.chunk",
            "created": CREATED + number,
            "model": body["model"],
            "system_fingerprint": "fp_ollama",
        }
        writer = CallWriter(f"call_{number:08x}")

        def event(piece: Piece, finish: str | None, model: str) -> bytes:
            # Role and text come together, in every chunk; reasoning has an empty content beside it (golden/ollama/v1_chat.sse).
            delta: dict[str, Any] = {"role": "assistant", "content": piece.text if piece.kind == "text" else ""}
            delta |= {"reasoning": piece.text} if piece.kind == "reasoning" else {}
            if piece.kind == "tool_call":
                delta["tool_calls"] = [call | {"index": 0} for call in writer.whole(piece.text)]
            return compact_sse({**head, "model": model, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

        shown, is_cut = _until_repeating(_whole_calls(pieces))
        has_call = any(piece.kind == "tool_call" for piece in shown)
        finish = "tool_calls" if has_call else pieces[-1].finish
        events = [event(piece, finish if piece.finish else None, head["model"]) for piece in shown]
        usage = _usage(prompt_tokens, pieces[-1].tokens)
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        closing = (
            [] if is_cut else [*([compact_sse({**head, "choices": [], "usage": usage})] if wants_usage else []), sse("[DONE]")]
        )
        # The error is swallowed: one more chunk without a model, then a clean end (observed).
        lost = [event(Piece("", (), 0), None, "")]
        text = "".join(piece.text for piece in shown if piece.kind == "text")
        message: dict[str, Any] = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": None if is_cut else finish}
        whole_answer = {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(0, 0) if is_cut else usage}
        return Utterance([], events, closing, lost, whole_answer)

    def _v1_completion(self, body: Mapping[str, Any]) -> Utterance | Answer:
        # It wraps the prompt in the template; there is no raw mode behind /v1 (observed: 0 of 6).
        prompt = self.chat_prompt([{"role": "user", "content": str(body["prompt"])}])
        pieces = self._spoken(prompt, _v1_bounds(body), has_format=False, has_tools=False, thinks=False)
        number = next(self._numbers)
        head = {
            "id": f"cmpl-{number}",
            "object": "text_completion",
            "created": CREATED + number,
            "model": body["model"],
            "system_fingerprint": "fp_ollama",
        }

        def event(piece: Piece, model: str) -> bytes:
            choice = {"text": piece.text, "index": 0, "finish_reason": piece.finish}
            return compact_sse({**head, "model": model, "choices": [choice]})

        events = [event(piece, str(head["model"])) for piece in pieces]
        choice = {"text": "".join(piece.text for piece in pieces), "index": 0, "finish_reason": pieces[-1].finish}
        usage = _usage(len(ids_of(prompt)) + 1, pieces[-1].tokens)
        lost = [event(Piece("", (), 0), "")]
        # middleware/openai.go, CompleteWriter: the same usage event as for a chat.
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        end = [compact_sse({**head, "choices": [], "usage": usage})] if wants_usage else []
        return Utterance([], events, [*end, sse("[DONE]")], lost, {**head, "choices": [choice], "usage": usage})

    def _messages(self, body: Mapping[str, Any]) -> Utterance | Answer:
        prompt = self.chat_prompt(chat_of(body))
        bounds = Bounds(body.get("max_tokens"), tuple(body.get("stop_sequences") or ()))
        pieces = self._spoken(prompt, bounds, has_format=False, has_tools=False, thinks=self.habits.thinks)
        return anthropic_utterance(body, pieces, len(ids_of(prompt)) + 1, number=next(self._numbers), engine="ollama")


def _bounds(body: Mapping[str, Any]) -> Bounds:
    options = body.get("options") or {}
    limit = options.get("num_predict")
    stops = options.get("stop") or ()
    return Bounds(limit if limit is not None and limit >= 0 else None, (stops,) if isinstance(stops, str) else tuple(stops))


def _v1_bounds(body: Mapping[str, Any]) -> Bounds:
    """Read /v1's bounds; max_completion_tokens is ignored (observed)."""
    stops = body.get("stop") or ()
    return Bounds(body.get("max_tokens"), (stops,) if isinstance(stops, str) else tuple(stops))


def _apart(message: Message) -> list[Message]:
    """Make each part of an OpenAI message a message of its own (middleware/openai.go)."""
    content = message.get("content")
    if not isinstance(content, list):
        return [message]
    return [{"role": message["role"], "content": part.get("text", "")} for part in content]


def _merged(messages: Sequence[Message]) -> list[Message]:
    """Join neighbours of the same role with an empty line (template/template.go, collate)."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1]["content"] += "\n\n" + (message.get("content") or "")
        else:
            merged.append({"role": message["role"], "content": message.get("content") or ""})
    return list(merged)


def _message(piece: Piece) -> dict[str, Any]:
    if piece.kind == "reasoning":
        return {"role": "assistant", "content": "", "thinking": piece.text}
    if piece.kind == "tool_call":
        return {"role": "assistant", "content": "", "tool_calls": [_call(piece.text)]}
    return {"role": "assistant", "content": piece.text}


def _call(text: str) -> dict[str, Any]:
    call = call_of(text)
    return {"id": "call_1", "function": {"index": 0, "name": call["name"], "arguments": call["arguments"]}}


def _whole_calls(pieces: Sequence[Piece]) -> list[Piece]:
    """Join the pieces of a tool call: Ollama sends it whole."""
    shown: list[Piece] = []
    call = ""
    for piece in pieces:
        if piece.kind == "tool_call":
            call += piece.text
            continue
        if call:
            shown.append(Piece(call, (), piece.tokens, kind="tool_call"))
            call = ""
        shown.append(piece)
    return shown


def _until_repeating(pieces: Sequence[Piece]) -> tuple[list[Piece], bool]:
    """Stop where the same piece has come too often in a row: there the stream ends, without any finish."""
    for i in range(len(pieces)):
        run = pieces[i : i + REPEATS_MAX]
        if len(run) == REPEATS_MAX and run[0].text and all(piece.text == run[0].text for piece in run):
            return list(pieces[: i + REPEATS_MAX]), True
    return list(pieces), False


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
