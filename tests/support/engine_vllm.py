"""vLLM's dialect, with the means and the traps of continuing a text, around a scripted model.

Written from the source of vLLM 0.32.0 (entrypoints/openai/chat_completion/serving.py, openai/completion/serving.py,
serve/tokenize/serving.py) and from what 0.32.0 was seen to send (tests/golden/vllm). Pure.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from support.answers import compact_sse, sse, whole
from support.anthropic_writing import anthropic_utterance, chat_of
from support.breaks import Utterance
from support.chat_template import Template
from support.faults import ENGINE_DEAD
from support.generation import VLLM, Bounds, Piece, spoken, told_apart
from support.openai_writing import CallWriter, bounds_of, chat_logprobs, text_logprobs
from support.scripted_model import BOS, SPECIALS, ScriptedModel, bytes_of, ids_of
from support.steps import Answer

CREATED = 1790000000
MODEL_LENGTH = 4096
FINGERPRINT = "vllm-0.32.0-63515853"
CONSTRAINTS = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
DONE = sse("[DONE]")


def is_constrained(body: Mapping[str, Any]) -> bool:
    """Whether a grammar of any kind holds the answer."""
    return any(
        value and not (isinstance(value, dict) and value.get("type") == "text")
        for value in (body.get(name) for name in CONSTRAINTS)
    )


def refusal(message: str, status: int = 400, kind: str = "BadRequestError", param: str | None = None) -> Answer:
    """Answer with an error as vLLM writes it."""
    return whole(status, {"error": {"message": message, "type": kind, "param": param, "code": status}})


class VllmDialect:
    """What one vLLM answers to POST requests. `has_tokenizer_paths` False: a front that hides /tokenize and /detokenize."""

    def __init__(self, model: ScriptedModel, template: Template | None = None, *, has_tokenizer_paths: bool = True) -> None:
        self.model = model
        self.template = template or Template()
        self.has_tokenizer_paths = has_tokenizer_paths
        self._numbers = itertools.count(1)

    def answer(self, path: str, body: Mapping[str, Any]) -> Utterance | Answer | None:
        """Answer one request; None for a path that vLLM does not have."""
        paths = {"/v1/chat/completions": self._chat, "/v1/completions": self._completion, "/v1/messages": self._messages}
        if self.has_tokenizer_paths:
            paths |= {"/tokenize": self._tokenize, "/detokenize": self._detokenize}
        write = paths.get(path)
        return write(body) if write else None

    # Prompts.

    def chat_prompt(self, body: Mapping[str, Any]) -> list[int]:
        """Render a chat. Raises ValueError for what vLLM refuses."""
        messages = body["messages"]
        # serve/tokenize/protocol.py and chat_completion/protocol.py, check_generation_prompt.
        if body.get("continue_final_message") and body.get("add_generation_prompt", False):
            raise ValueError("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
        if body.get("continue_final_message"):
            return ids_of(self.template.open(messages, body.get("tools")))
        if not body.get("add_generation_prompt", True):
            return ids_of(self.template.closed(messages, body.get("tools")))
        # Without the flag a trailing assistant message is closed, and a new turn begins (observed: 0 of 7 cuts).
        return ids_of(self.template.asking(messages, body.get("tools")))

    def text_prompt(self, body: Mapping[str, Any]) -> list[int]:
        """Read the prompt of a completion: token ids as they are; a text gets a BOS, whether or not it has one (observed)."""
        prompt = body["prompt"]
        if isinstance(prompt, list):
            return [int(number) for number in prompt]
        return ([SPECIALS[BOS]] if body.get("add_special_tokens", True) else []) + ids_of(prompt)

    def _rest(self, prompt: Sequence[int], body: Mapping[str, Any]) -> tuple[bytes, str]:
        """Return what the model writes, and the text before that belongs to the same answer."""
        data = bytes_of(prompt)
        scene = self.model.scene(data)
        if is_constrained(body) and scene.said and not scene.wrong:
            # The grammar knows nothing of the text so far and begins anew (observed: 0 of 13, "{{").
            return self.model.text(scene.key).encode(), ""
        return self.model.rest(data), scene.said.decode(errors="ignore")

    # Answers.

    def _chat(self, body: Mapping[str, Any]) -> Utterance | Answer:
        if body.get("n", 1) > 1 and body.get("temperature") == 0:
            return refusal("n must be 1 when using greedy sampling, got 2.")
        if any(message.get("tool_calls") for message in body["messages"][-1:]) and body.get("continue_final_message"):
            return refusal("a tool call cannot be continued")
        try:
            prompt = self.chat_prompt(body)
        except ValueError as error:
            return refusal(str(error))
        rest, said = self._rest(prompt, body)
        tools = bool(body.get("tools")) and body.get("tool_choice") != "none"
        pieces = told_apart(spoken(rest, bounds_of(body), VLLM), said=said, has_tools=tools)
        return self._chat_utterance(body, prompt, pieces)

    def _chat_utterance(self, body: Mapping[str, Any], prompt: list[int], pieces: Sequence[Piece]) -> Utterance:
        number = next(self._numbers)
        head = {
            "id": f"chatcmpl-{number:032x}",
            "object": "chat.completion.chunk",
            "created": CREATED + number,
            "model": str(body.get("model", "tiny")),
        }
        with_ids = bool(body.get("return_token_ids"))
        has_role = not body.get("add_generation_prompt", True) and not body.get("continue_final_message")
        # chat_completion/serving.py, get_chat_request_role: without a generation prompt it is the last message's.
        is_last = has_role or body.get("continue_final_message")
        role = str(body["messages"][-1]["role"]) if is_last else "assistant"
        count = int(body.get("n") or 1)
        usage = _Usage(len(prompt), body, {"completion_tokens_details": None})
        opening = []
        for i in range(count):
            choice = {"index": i, "delta": {"role": role, "content": ""}, "logprobs": None, "finish_reason": None}
            more = {
                "prompt_token_ids": prompt if with_ids else None,
                "prompt_text": bytes_of(prompt).decode(errors="replace") if body.get("return_prompt_text") else None,
            }
            opening.append(compact_sse(head | {"choices": [choice]} | usage.continuous(0) | more))
        writers = [CallWriter(f"chatcmpl-tool-{number:08x}") for _ in range(count)]
        events = []
        for piece in pieces:
            for i in range(count):
                choice = {
                    "index": i,
                    "delta": _delta(piece, writers[i]),
                    "logprobs": chat_logprobs(piece) if body.get("logprobs") else None,
                    "finish_reason": "tool_calls" if piece.finish == "stop" and writers[i].has_written else piece.finish,
                }
                choice |= {"stop_reason": piece.stop} if piece.finish else {}
                choice |= {"token_ids": list(piece.ids) if with_ids else None}
                events.append(
                    compact_sse(head | {"choices": [choice]} | usage.continuous(piece.tokens) | usage.fingerprint(piece))
                )
        closing = usage.last(head, pieces[-1].tokens * count)
        whole_answer = self._whole_chat(head, body, prompt, pieces)
        return Utterance(opening, events, [*closing, DONE], [sse(ENGINE_DEAD), DONE], whole_answer)

    def _whole_chat(
        self, head: Mapping[str, Any], body: Mapping[str, Any], prompt: Sequence[int], pieces: Sequence[Piece]
    ) -> dict[str, Any]:
        by_kind = {kind: "".join(p.text for p in pieces if p.kind == kind) for kind in ("text", "reasoning", "tool_call")}
        writer = CallWriter("chatcmpl-tool-1")
        calls = writer.whole(by_kind["tool_call"])
        message: dict[str, Any] = {
            "role": "assistant",
            "content": by_kind["text"] or (None if calls or by_kind["reasoning"] else ""),
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": by_kind["reasoning"] or None,
        }
        message |= {"tool_calls": calls} if calls else {}
        last = pieces[-1]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": "tool_calls" if calls else last.finish,
            "stop_reason": last.stop,
            "token_ids": None,
            "routed_experts": None,
        }
        return {
            **head,
            "object": "chat.completion",
            "choices": [choice],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": _Usage(len(prompt), body).whole(last.tokens),
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "prompt_text": None,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }

    def _completion(self, body: Mapping[str, Any]) -> Utterance | Answer:
        if isinstance(body["prompt"], list) and body["prompt"] and isinstance(body["prompt"][0], (str, list)):
            return refusal("several prompts are not scripted")
        prompt = self.text_prompt(body)
        rest, _ = self._rest(prompt, body)
        pieces = spoken(rest, bounds_of(body, tokens_max=16), VLLM)
        if _ends_inside_character(prompt):
            # Observed on 0.32: the whole prompt's text comes with the first delta.
            text = bytes_of(prompt).decode(errors="replace")
            pieces[0] = Piece(text + pieces[0].text, pieces[0].ids, pieces[0].tokens, pieces[0].finish, pieces[0].stop)
        number = next(self._numbers)
        head = {
            "id": f"cmpl-{number:032x}",
            "object": "text_completion",
            "created": CREATED + number,
            "model": str(body.get("model", "tiny")),
        }
        usage = _Usage(len(prompt), body)
        with_ids = bool(body.get("return_token_ids"))
        events = []
        offset = 0
        for i, piece in enumerate(pieces):
            choice = {
                "index": 0,
                "text": piece.text,
                "logprobs": text_logprobs(piece, offset) if body.get("logprobs") is not None else None,
                "finish_reason": piece.finish,
                "stop_reason": piece.stop,
                "prompt_token_ids": prompt if with_ids and i == 0 else None,
                "token_ids": list(piece.ids) if with_ids else None,
            }
            offset += len(piece.text)
            events.append(compact_sse(head | {"choices": [choice]} | usage.continuous(piece.tokens) | usage.fingerprint(piece)))
        last = pieces[-1]
        whole_choice = {
            "index": 0,
            "text": "".join(piece.text for piece in pieces),
            "logprobs": None,
            "finish_reason": last.finish,
            "stop_reason": last.stop,
            "token_ids": None,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
            "routed_experts": None,
        }
        whole_answer = {
            **head,
            "choices": [whole_choice],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": usage.whole(last.tokens),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": None,
        }
        return Utterance([], events, [*usage.last(head, last.tokens), DONE], [sse(ENGINE_DEAD), DONE], whole_answer)

    def _messages(self, body: Mapping[str, Any]) -> Utterance | Answer:
        # entrypoints/anthropic/serving.py maps nothing to continue_final_message: a trailing assistant message is closed.
        messages = chat_of(body)
        prompt = ids_of(self.template.asking(messages, body.get("tools")))
        rest, said = self._rest(prompt, body)
        bounds = Bounds(body.get("max_tokens"), tuple(body.get("stop_sequences") or ()))
        pieces = told_apart(spoken(rest, bounds, VLLM), said=said, has_tools=bool(body.get("tools")))
        return anthropic_utterance(body, pieces, len(prompt), number=next(self._numbers), engine="vllm")

    def _tokenize(self, body: Mapping[str, Any]) -> Answer:
        try:
            if "messages" in body:
                prompt = self.chat_prompt(body)
            else:
                prompt = ([SPECIALS[BOS]] if body.get("add_special_tokens", True) else []) + ids_of(str(body["prompt"]))
        except ValueError as error:
            return refusal(str(error))
        return whole(200, {"count": len(prompt), "max_model_len": MODEL_LENGTH, "tokens": prompt, "token_strs": None})

    def _detokenize(self, body: Mapping[str, Any]) -> Answer:
        return whole(200, {"prompt": bytes_of(body["tokens"]).decode(errors="replace")})


class _Usage:
    """The counters of one answer, in the places where vLLM writes them."""

    def __init__(self, prompt_tokens: int, body: Mapping[str, Any], details: Mapping[str, Any] | None = None) -> None:
        self._prompt_tokens = prompt_tokens
        self._details = details or {}
        options = body.get("stream_options") or {}
        self._is_wanted = bool(options.get("include_usage"))
        self._is_continuous = self._is_wanted and bool(options.get("continuous_usage_stats"))

    def counters(self, tokens: int) -> dict[str, Any]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "total_tokens": self._prompt_tokens + tokens,
            "completion_tokens": tokens,
        }

    def whole(self, tokens: int) -> dict[str, Any]:
        return {**self.counters(tokens), "prompt_tokens_details": None, "completion_tokens_details": None}

    def continuous(self, tokens: int) -> dict[str, Any]:
        return {"usage": {**self.counters(tokens), **self._details}} if self._is_continuous else {}

    def fingerprint(self, piece: Piece) -> dict[str, Any]:
        """Only on the last chunk, and only where no usage chunk follows."""
        return {"system_fingerprint": FINGERPRINT} if piece.finish and not self._is_wanted else {}

    def last(self, head: Mapping[str, Any], tokens: int) -> list[bytes]:
        if not self._is_wanted:
            return []
        return [compact_sse({**head, "choices": [], "usage": self.counters(tokens), "system_fingerprint": FINGERPRINT})]


def _delta(piece: Piece, writer: CallWriter) -> dict[str, Any]:
    if piece.kind == "reasoning":
        return {"reasoning": piece.text}
    if piece.kind == "tool_call":
        return writer.delta(piece.text)
    return {"content": piece.text}


def _ends_inside_character(prompt: Sequence[int]) -> bool:
    try:
        bytes_of(prompt).decode()
    except UnicodeDecodeError:
        return True
    return False
