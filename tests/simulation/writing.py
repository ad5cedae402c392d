"""What simulated engines write: one right text for each question, whatever engine writes it and wherever it begins.

The engines are the scripted ones (support.engine_*), with their own dialects, tokens, templates, means and traps of continuing.
A question holds all that its text depends on, so that whoever reads an answer knows every character that it may have.
"""

import json
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from typing import Any

from support.breaks import Utterance
from support.engine_llamacpp import LlamaCppDialect
from support.engine_ollama import Habits as OllamaHabits
from support.engine_ollama import OllamaDialect
from support.engine_sglang import SglangDialect
from support.engine_vllm import VllmDialect
from support.scripted_model import ASSISTANT, ScriptedModel, words_of
from support.steps import Answer
from support.writing_engine import Dialect
from understudy.core.ask import DialectName
from understudy.core.snapshot import EngineKind

QUESTION = re.compile(r"\[([a-z]+\d+) ([a-z]+) (\d+)\]")
QUESTION_PATHS = ("/tokenize", "/detokenize", "/apply-template")


class Matter(StrEnum):
    """What a question is about."""

    PLAIN = "plain"
    THOUGHT = "thought"  # the model thinks first
    CALL = "call"  # some words, then a tool call
    JSON = "json"  # a JSON object, held by the engine's grammar


class Make(StrEnum):
    """Which engine, and how it was started."""

    VLLM = "vllm"
    VLLM_BARE = "vllm that hides its tokenizer"
    LLAMACPP = "llamacpp"
    SGLANG = "sglang"
    OLLAMA = "ollama"
    OLLAMA_NATIVE = "native ollama"
    OLLAMA_OLD = "ollama that cannot render"


_OPENAI = (DialectName.OPENAI, DialectName.ANTHROPIC)
KINDS: Mapping[Make, EngineKind] = {
    Make.VLLM: EngineKind.VLLM,
    Make.VLLM_BARE: EngineKind.VLLM,
    Make.LLAMACPP: EngineKind.LLAMACPP,
    Make.SGLANG: EngineKind.SGLANG,
    Make.OLLAMA: EngineKind.OLLAMA,
    Make.OLLAMA_NATIVE: EngineKind.OLLAMA,
    Make.OLLAMA_OLD: EngineKind.OLLAMA,
}
SPOKEN: Mapping[EngineKind, tuple[DialectName, ...]] = {
    EngineKind.VLLM: _OPENAI,
    EngineKind.LLAMACPP: _OPENAI,
    EngineKind.SGLANG: (DialectName.OPENAI,),
    EngineKind.OLLAMA: tuple(DialectName),
}
VERSIONS: Mapping[EngineKind, str] = {
    EngineKind.VLLM: "0.32.0",
    EngineKind.LLAMACPP: "b11549",
    EngineKind.SGLANG: "0.5.23",
    EngineKind.OLLAMA: "0.32.15",
}
# Which of them go on with a plain text, by the path that it was asked for at (docs/failure-model.md, resume).
_OLLAMAS = frozenset({Make.OLLAMA, Make.OLLAMA_NATIVE})
GOES_ON: Mapping[str, frozenset[Make]] = {
    "/v1/chat/completions": _OLLAMAS | {Make.VLLM, Make.LLAMACPP, Make.SGLANG},
    "/v1/completions": _OLLAMAS | {Make.VLLM, Make.VLLM_BARE, Make.LLAMACPP, Make.SGLANG},
    "/api/chat": _OLLAMAS,
    "/api/generate": _OLLAMAS,
    "/v1/messages": frozenset({Make.LLAMACPP, Make.OLLAMA_NATIVE}),
}
_DIALECTS: Mapping[Make, Callable[[ScriptedModel], Dialect]] = {
    Make.VLLM: VllmDialect,
    Make.VLLM_BARE: lambda model: VllmDialect(model, has_tokenizer_paths=False),
    Make.LLAMACPP: LlamaCppDialect,
    Make.SGLANG: SglangDialect,
    Make.OLLAMA: lambda model: OllamaDialect(model, OllamaHabits(thinks=True)),
    Make.OLLAMA_NATIVE: lambda model: OllamaDialect(model, OllamaHabits(is_native=True, thinks=True)),
    Make.OLLAMA_OLD: lambda model: OllamaDialect(model, OllamaHabits(is_native=True, can_render=False, thinks=True)),
}


def question(tag: str, matter: Matter, words: int) -> str:
    """Return the user's words."""
    return f"[{tag} {matter} {words}]"


@cache
def text_for(tag: str, matter: str, words: int) -> str:
    """Return what a model writes to a question, with the tags that engines read reasoning and calls by."""
    told = f"{tag} " + words_of(f"{tag} {matter}".encode(), words)
    if matter == Matter.THOUGHT:
        return f"<think>{words_of(tag.encode(), max(2, words // 2))}</think>{told}"
    inside = told.replace("\n", " ")
    if matter == Matter.CALL:
        call = json.dumps({"name": "look", "arguments": {"at": inside}}, ensure_ascii=False)
        return f"Let me see.<tool_call>{call}</tool_call>"
    return json.dumps({"said": inside}, ensure_ascii=False) if matter == Matter.JSON else told


def _write(prompt: str) -> str:
    found = QUESTION.search(prompt)
    return text_for(found[1], found[2], int(found[3])) if found else "Hello there."


def dialect_of(make: Make) -> Dialect:
    """Return a newly started engine's dialect."""
    return _DIALECTS[make](ScriptedModel(write=_write))


def asks_nothing(path: str, body: Mapping[str, Any]) -> bool:
    """Whether a request is one of our own questions: it generates nothing."""
    return path in QUESTION_PATHS or bool(body.get("_debug_render_only"))


def goes_on(body: Mapping[str, Any]) -> bool:
    """Whether a request is to go on with an answer: something stands behind the user's words."""
    messages, prompt = body.get("messages"), body.get("prompt")
    if messages:
        return bool(messages[-1].get("role") == "assistant")
    if isinstance(prompt, str):
        return not prompt.endswith("]") and not prompt.endswith(ASSISTANT)
    return prompt is not None


class _Noted:
    """Stands in for a connection: notes what an answer sends."""

    def __init__(self) -> None:
        self.data = b""

    async def send(self, data: bytes) -> None:
        self.data += data

    async def wait_gone(self) -> None:
        """Nobody goes."""

    def close(self) -> None:
        """Nothing to close."""

    def reset(self) -> None:
        """Nothing to reset."""


def bytes_of(answer: Answer) -> bytes:
    """Return all that an answer without pauses sends."""
    noted = _Noted()
    for step in answer.steps:
        sending = step(noted)
        try:
            sending.__await__().__next__()
        except StopIteration:
            continue
    return noted.data


@cache
def right_utterance(make: Make, path: str, body: bytes) -> Utterance | None:
    """Return what an engine answers that nothing happens to; None where it refuses."""
    answer = dialect_of(make).answer(path, json.loads(body))
    return answer if isinstance(answer, Utterance) else None
